"""The findings of a bundle's checks: a table for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any, Literal

Status = Literal["ok", "failed", "skipped"]
_WIDTH = 120


class Failed(Exception):
    """A check failed; the message says what is wrong and what to do."""


@dataclasses.dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
      name: one word or two.
      status: `skipped` if a check that it needs did not pass.
      message: the finding; if it failed, what is wrong and what to do.
    """

    name: str
    status: Status
    message: str


@dataclasses.dataclass(frozen=True)
class Latency:
    """The latency of one kind of request in milliseconds, one request after the other.

    Attributes:
      signature: of the requests.
      size: rows, or candidates of one context.
      calls: the number of requests.
    """

    signature: str
    size: int
    calls: int
    p50: float
    p95: float
    p99: float


@dataclasses.dataclass
class VerificationReport:
    """All findings about a bundle.

    Attributes:
      path: of its version.
      checks: in order.
      load_seconds: the time of loading; None if it failed.
      memory: resident bytes of this process before and after loading; None if the system does not tell.
      peak_memory: of this process, at the end; None if the system does not tell.
      latency: empty if it was not measured.
    """

    path: str
    checks: list[Check] = dataclasses.field(default_factory=list)
    load_seconds: float | None = None
    memory: tuple[int, int] | None = None
    peak_memory: int | None = None
    latency: list[Latency] = dataclasses.field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Returns whether no check failed."""
        return all(check.status != "failed" for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object."""
        return {"passed": self.passed, **dataclasses.asdict(self)}

    def __str__(self) -> str:
        blocks = [self.path, self._checks_text(), self._measured_text()]
        failed = [check.name for check in self.checks if check.status == "failed"]
        blocks.append(f"FAILED: {', '.join(failed)}. Do not serve it." if failed else "Passed.")
        return "\n\n".join(block for block in blocks if block)

    def _checks_text(self) -> str:
        width = max((len(check.name) for check in self.checks), default=0)
        lines = []
        for check in self.checks:
            head = f"{check.name:{width}}  {check.status:7}  "
            message = " ".join(check.message.split())  # TensorFlow's may have several lines
            wrapped = textwrap.wrap(message, max(40, _WIDTH - len(head)), break_on_hyphens=False) or [""]
            lines += [head + wrapped[0], *(" " * len(head) + line for line in wrapped[1:])]
        return "\n".join(lines)

    def _measured_text(self) -> str:
        lines = []
        if self.load_seconds is not None:
            lines.append(f"loaded in {self.load_seconds:.2f} s")
        if self.memory:
            before, after = (n / 2**20 for n in self.memory)
            lines.append(f"memory {before:,.0f} MiB before, {after:,.0f} MiB after loading")
        if self.peak_memory:
            lines.append(f"at most {self.peak_memory / 2**20:,.0f} MiB in the end")
        text = "; ".join(lines)
        if self.latency:
            width = max(len(row.signature) for row in self.latency)
            head = f"{'signature':{width}}  {'size':>5}  {'calls':>5}  {'p50 ms':>8}  {'p95 ms':>8}  {'p99 ms':>8}"
            rows = [
                f"{r.signature:{width}}  {r.size:5}  {r.calls:5}  {r.p50:8.3f}  {r.p95:8.3f}  {r.p99:8.3f}"
                for r in self.latency
            ]
            text += "\n\n" + "\n".join([head, *rows])
        return text
