"""Runs along a stream that are stopped, and what they record whatever their speed."""

import json
from pathlib import Path

import pytest

from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.streaming.loop import train_on_stream
from tfrs_dlrm.training.run import RunRecords

_TIMED = ("lag", "rows_per_s", "retries")


def records(workdir, name="metrics.jsonl"):
    """The lines of a file of a run, without what depends on time."""
    lines = [json.loads(line) for line in Path(workdir, name).read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in _TIMED} for line in lines]


def stopped_after(config: RunConfig, workdir, windows: int):
    """Trains until so many windows were done, then stops as if it had been killed."""
    append, left = RunRecords.append, windows

    def append_and_interrupt(self, record):
        nonlocal left
        append(self, record)
        left -= "step" in record
        if not left:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunRecords, "append", append_and_interrupt)
        train_on_stream(config, str(workdir))
