"""Progress on the terminal for programs; the library itself only calls what it is given."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType

import tqdm

# The stages that are told `done` and `total` in rows; the others in bytes.
_COUNTS_ROWS = ("generate", "ordered", "records", "evaluate", "importance", "interactions", "gates", "tables")


class PrepareBar:
    """A bar per pass of `prepare`: bytes read, rows/s, time left. Give it as `progress`, and close it by `with`."""

    def __init__(self) -> None:
        self._bar: tqdm.tqdm | None = None
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int, rows: int) -> None:
        """Moves the bar; the arguments are those of `tfrs_dlrm.stores.Progress`."""
        if stage != self._stage:
            self.close()
            unit = "rows" if stage in _COUNTS_ROWS else "B"
            self._bar = tqdm.tqdm(total=total, desc=stage, unit=unit, unit_scale=True, dynamic_ncols=True)
            self._stage = stage
        if self._bar is None:
            return
        self._bar.update(done - self._bar.n)
        elapsed = self._bar.format_dict["elapsed"]
        if stage not in _COUNTS_ROWS and elapsed > 0:
            self._bar.set_postfix_str(f"{rows:,} rows, {rows / elapsed:,.0f} rows/s")
        if done >= total:
            self.close()

    def close(self) -> None:
        """Leaves the last bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> PrepareBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def examples_bar(title: str) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with the number of examples of each batch; the bar appears with the first."""
    bars: list[tqdm.tqdm] = []

    def advance(examples: int) -> None:
        if not bars:
            bars.append(tqdm.tqdm(desc=title, unit=" examples", unit_scale=True, dynamic_ncols=True))
        bars[0].update(examples)

    try:
        yield advance
    finally:
        for bar in bars:
            bar.close()
