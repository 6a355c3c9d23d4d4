"""The report on machine, packages and strategies, as text and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tfrs_dlrm.distribute.tf_config import tf_config_problems
from tfrs_dlrm.messages.aligned import aligned
from tfrs_dlrm.tools.doctor.machine import GPU_FILES, TPU_FILES, Machine, examine_machine, logical_devices
from tfrs_dlrm.tools.doctor.packages import SHOWN, TENSORFLOWS, Packages, examine_packages
from tfrs_dlrm.tools.doctor.tpu_check import remedies
from tfrs_dlrm.tools.doctor.verdicts import Verdict, verdicts, warnings


@dataclasses.dataclass(frozen=True)
class MachineReport:
    """The findings on this machine.

    Attributes:
      packages: the installed packages.
      machine: the hardware and environment.
      devices: TensorFlow's names of the devices; empty if it was not loaded.
      crash: how loading TensorFlow failed; empty if it did not.
      verdicts: one per strategy.
      warnings: problems that keep no strategy from running.
    """

    packages: Packages
    machine: Machine
    devices: list[str]
    crash: str
    verdicts: list[Verdict]
    warnings: list[str]

    @property
    def healthy(self) -> bool:
        """Whether one_device can run."""
        return any(v.strategy == "one_device" and not v.problems for v in self.verdicts)

    def text(self) -> str:
        """Returns tables for a terminal, without a newline at the end."""
        tables = [_package_rows(self.packages), _machine_rows(self), _verdict_rows(self.verdicts)]
        return "\n\n".join(
            [*("\n".join(aligned(rows, left=(0, 1))) for rows in tables), *(f"Beware: {w}" for w in self.warnings)]
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as JSON values."""
        packages = self.packages
        return {
            "python": packages.python,
            "packages": {name: packages.versions.get(name) for name in SHOWN},
            "demands": {e: {n: str(s) for n, s in d.items()} for e, d in packages.demands.items()},
            "tensorflow_files": packages.owner or None,
            "machine": dataclasses.asdict(self.machine),
            "logical_devices": self.devices,
            "crash": self.crash or None,
            "warnings": self.warnings,
            "strategies": {
                v.strategy: {
                    "runs": not v.problems,
                    "on": v.on,
                    "problems": [p.what for p in v.problems],
                    "remedies": remedies(v.problems),
                }
                for v in self.verdicts
            },
        }


def examine(tpu: str = "local", load: bool = True) -> MachineReport:
    """Examines machine, packages and strategies.

    Args:
      tpu: the TPU to look for; see `check_tpu`.
      load: whether to load TensorFlow too, in another process; takes seconds.
    """
    machine, packages = examine_machine(), examine_packages()
    devices, crash = [], ""
    if load:
        try:
            devices = logical_devices(machine)
        except RuntimeError as e:
            crash = str(e)
    judged = verdicts(machine, packages, tpu, crash, devices)
    return MachineReport(packages, machine, devices, crash, judged, warnings(machine, packages, devices))


def _package_rows(packages: Packages) -> list[Sequence[str]]:
    python = packages.python_demand.contains(packages.python, prereleases=True)
    rows: list[Sequence[str]] = [
        ("package", "found", "needed", "for TPUs", "for tensorflow-io", "fits"),
        ("Python", packages.python, str(packages.python_demand), "", "", "yes" if python else "no"),
    ]
    for name in SHOWN:
        demands = {extra: str(packages.demand(name, extra)) for extra in ("", "tpu", "io")}
        rows.append((name, packages.versions.get(name, "-"), *demands.values(), _fits(packages, name)))
    return rows


def _fits(packages: Packages, name: str) -> str:
    """Says whether the installed version of a distribution fits, or for what it does not."""
    if name not in packages.versions:
        return "missing" if packages.demand(name) and name not in TENSORFLOWS else ""
    if packages.misfit(name):
        return "no"
    others = [title for extra, title in (("tpu", "TPUs"), ("io", "tensorflow-io")) if packages.misfit(name, extra)]
    return f"not for {' or '.join(others)}" if others else "yes"


def _machine_rows(report: MachineReport) -> list[Sequence[str]]:
    machine, packages = report.machine, report.packages
    owner = f"{packages.owner} {packages.tensorflow}" if packages.owner else "none, or a mixture"
    cluster = machine.environment.get("TF_CONFIG")
    rows = [
        ("files of the package `tensorflow`", owner),
        ("TPUs", _devices(machine.tpus, TPU_FILES)),
        ("GPUs", _devices(machine.gpus, GPU_FILES)),
        ("cores", str(machine.cores)),
        ("available memory", f"{machine.memory / 2**30:.1f} GiB" if machine.memory is not None else "unknown"),
        ("TF_CONFIG", "; ".join(tf_config_problems(cluster)) or "well-formed" if cluster else "not set"),
    ]
    rows += [(name, value) for name, value in machine.environment.items() if name != "TF_CONFIG"]
    if report.devices or report.crash:
        rows.append(("TensorFlow's devices", report.crash or ", ".join(report.devices)))
    return [("machine", ""), *rows]


def _devices(found: Sequence[str], patterns: Sequence[str]) -> str:
    return ", ".join(found) or f"none ({', '.join('/' + pattern for pattern in patterns)})"


def _verdict_rows(verdicts: Sequence[Verdict]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("strategy", "runs here?")]
    for v in verdicts:
        lines = [f"no: {p.what}" for p in v.problems] or [f"yes, on {v.on}"]
        lines += [f"  -> {remedy}" for remedy in remedies(v.problems)]
        rows += [(v.strategy if i == 0 else "", line) for i, line in enumerate(lines)]
    return rows
