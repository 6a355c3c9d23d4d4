"""Lag and rows/s of a stream: on the terminal, and in TensorBoard."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import tqdm
from absl import logging

from tfrs_dlrm.training.callbacks import StepCounter
from tfrs_dlrm.training.progress import TensorBoard

# The metrics of a window, before it was trained on, that a line shows.
_SHOWN = ("auc", "log_loss", "rmse")


class StreamProgress:
    """Shows a run along a stream.

    Args:
      rows: how many were trained on before.
      show: draws a line on standard error; else lines go to the log.
      tensorboard: the directory of event files; empty for none.
      counter: the step.
    """

    def __init__(self, rows: int, show: bool, tensorboard: str, counter: StepCounter):
        self._bar: tqdm.tqdm | None = None
        if show:
            self._bar = tqdm.tqdm(
                initial=rows, desc="stream", unit=" rows", unit_scale=True, dynamic_ncols=True, mininterval=0.5
            )
        self._board = TensorBoard(tensorboard, counter) if tensorboard else None

    def window(self, record: Mapping[str, Any]) -> None:
        """Shows a window by its line in metrics.jsonl."""
        found = {f"eval {k}": f"{record['eval'][k]:.4f}" for k in _SHOWN if k in record["eval"]}
        found |= _new_values(record.get("new_values", {}))
        if self._bar is not None:
            self._bar.set_postfix({"window": record["window"], "lag": f"{record['lag']:,}", **found}, refresh=False)
            self._bar.update(record["rows"])
        else:
            shown = "  ".join(f"{k} {v}" for k, v in found.items())
            line = f"window {record['window']}  {record['rows']:,} rows  {record['rows_per_s']:,.0f} rows/s"
            logging.info("%s  lag %s  %s", line, f"{record['lag']:,}", shown)
        if self._board:
            names = ("lag", "rows_per_s", "rows", "malformed", "retries")
            self._board.write("stream", {name: record[name] for name in names})
            self._board.write("eval", record["eval"])
            self._board.write("train", record["train"])
            for name, by_table in record.get("new_values", {}).items():
                self._board.write(f"new_values/{name}", by_table)

    def lag(self, lag: int) -> None:
        """Shows how many rows wait while they are too few for a window."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"lag {lag:,}, waiting for rows")

    def say(self, line: str) -> None:
        """Prints a line above the bar, or logs it."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            logging.info("%s", line)

    def warn(self, line: str) -> None:
        """Prints a warning above the bar, or logs it."""
        if self._bar is not None:
            self._bar.write(f"warning: {line}", file=sys.stderr)
        else:
            logging.warning("%s", line)

    def close(self) -> None:
        """Leaves the bar as it is, and writes the last events."""
        if self._bar is not None:
            self._bar.close()
        if self._board:
            self._board.close()


def _new_values(record: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Returns what a line shows of new values: sums over the tables, and the largest share of values without a row."""
    if not record:
        return {}
    found = {name: f"{sum(record[name].values()):,}" for name in ("admitted", "evicted")}
    return found | {"unseen": f"{max(record['unseen'].values(), default=0.0):.1%}"}
