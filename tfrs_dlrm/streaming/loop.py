"""A run along a stream: each window of rows is evaluated, then trained on; its end is part of the checkpoint."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.config.admitting_tables import admitting_tables, with_room
from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.on_demand import ensure_prepared
from tfrs_dlrm.data.reading.columns import Columns
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import Progress
from tfrs_dlrm.stores.files import disk_full
from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.admission.new_values import NewValues
from tfrs_dlrm.streaming.ahead import ReadAhead, WindowRows
from tfrs_dlrm.streaming.bundles import Bundles
from tfrs_dlrm.streaming.learner import Learner
from tfrs_dlrm.streaming.messages import Decoded, Decoder, ReadMessages
from tfrs_dlrm.streaming.progress import StreamProgress
from tfrs_dlrm.streaming.quarantine import Quarantine, check_dead_letter
from tfrs_dlrm.streaming.reader import Retries, Stopped, StreamReader
from tfrs_dlrm.streaming.readers import open_reader
from tfrs_dlrm.streaming.waiting import RetainedTopic, Waiting
from tfrs_dlrm.streaming.windows import StreamState, StreamWindow, WindowJournal
from tfrs_dlrm.training.callbacks import StopOnSignal
from tfrs_dlrm.training.evaluation import NonFiniteError
from tfrs_dlrm.training.factory import make_model, make_optimizers, precision, with_row_optimizers
from tfrs_dlrm.training.memory_check import check_memory
from tfrs_dlrm.training.run import RUN_AGAIN, Result, Run
from tfrs_dlrm.training.workdir import METRICS_FILE, Workdir

WINDOWS_FILE = "windows.jsonl"
QUARANTINE_FILE = "quarantine.jsonl"
# In seconds, how long a broker may take to answer for the first time.
_FIRST_ANSWER = 20.0


def train_on_stream(
    config: RunConfig,
    workdir: str,
    strategy: tf.distribute.Strategy | None = None,
    prepare_progress: Progress | None = None,
    show_progress: bool = False,
) -> Result:
    """Trains along `config.data.source`, in `workdir`; resumes the run that `workdir` holds.

    Even if the run is killed, the weights of its last checkpoint have seen each row before its offsets once, and no
    later row. `metrics.jsonl` has a line for each window, `quarantine.jsonl` for each malformed message,
    `windows.jsonl` the offsets of each window.

    Args:
      config: the run.
      workdir: see `tfrs_dlrm.training.workdir`; its best checkpoint is the latest.
      strategy: of one device; by default the strategy in scope.
      prepare_progress: is told how far the preparation of raw data is, if the data have to be prepared.
      show_progress: draws a progress line on standard error.

    Raises:
      ValueError: the configuration, the stream or the run in `workdir` do not fit together. As a StreamError: the
        broker does not answer, the topic may not be read, rows are gone that the checkpoint has not seen, the stream
        is of another schema, or confluent-kafka is missing.
      NonFiniteError: the loss or a score became NaN or infinite; the last good checkpoint is unchanged.
      Interrupted: after SIGTERM or Ctrl-C, with a checkpoint written.
      OSError: the disk is full.
    """
    config.check()
    address = StreamAddress.parse(config.data.source)
    distribution = distribution_of(strategy)
    if not distribution.only_one_device:
        raise ValueError(
            f"config.data.source={config.data.source!r}: streams are trained on with one device, without --strategy"
        )
    home = Workdir(workdir)
    _check_topic(home, address)
    reader = open_reader(address)
    try:
        home.claim()
        first = Retries(_FIRST_ANSWER, logging.warning)
        first(reader.bounds)
        first(lambda: check_dead_letter(address))
        with precision(config.train.precision), distribution.strategy.scope(), disk_full(workdir, RUN_AGAIN):
            data_dir = ensure_prepared(config.data, config.train.seed, prepare_progress)
            schema = Schema.load(os.path.join(data_dir, SCHEMA_FILE))
            _check_all_rows(schema, config.data.path)
            admitting = admitting_tables(config, schema)
            schema = with_room(schema, admitting)
            check_memory(config, schema, distribution, make_optimizers(config.optimizer)[1])
            model = make_model(config.model, schema, config.train.seed)
            config, optimizers = with_row_optimizers(config, model.embeddings, home.begun())
            model.compile(*make_optimizers(config.optimizer))
            home.begin(config, data_dir)
            run = StreamRun(config, data_dir, address, home, model, schema, reader, admitting)
            return run.train(show_progress, optimizers)
    finally:
        home.end()
        reader.close()


def _check_topic(home: Workdir, address: StreamAddress) -> None:
    """Refuses the directory of a run on another topic, or on files."""
    try:
        home.checkpoint("latest")
        source = home.config().data.source
    except FileNotFoundError:
        return
    topic = StreamAddress.parse(source).topic if source else ""
    if topic != address.topic:
        holds = f"on the topic {topic!r}" if topic else "on files; config.train.warm_start takes its weights over"
        raise ValueError(f"{home.name}: holds a run {holds}; choose another --workdir for the topic {address.topic!r}")


def _check_all_rows(schema: Schema, data: str) -> None:
    """Refuses data of which negatives were dropped: a stream has them all, and probabilities would be too small."""
    if schema.label.keep_negatives != 1:
        raise ValueError(
            f"{data}: prepared with keep_negatives={schema.label.keep_negatives}, but a stream trains on every row;"
            " prepare the data without it, into another directory"
        )


class StreamRun(Run):
    """A run along a stream; see `Run`."""

    def __init__(
        self,
        config: RunConfig,
        data_dir: str,
        address: StreamAddress,
        home: Workdir,
        model: RankingModel,
        schema: Schema,
        reader: StreamReader,
        admitting: Mapping[str, int],
    ):
        self._state, self._stream, self._address, self._reader = StreamState(), config.stream, address, reader
        encoder = Encoder.load(data_dir)
        self._new_values = NewValues(config.stream, admitting, home.encoder_dir, encoder, model)
        saved = {"stream": self._state, **self._new_values.saved}
        super().__init__(config, data_dir, home, model, self._state, saved, "window", self._new_values.write_files)
        self._decoder = Decoder(encoder, address)
        self._learner = Learner(model, schema, config.train)
        self._quarantine = Quarantine(home.file(QUARANTINE_FILE), address, config)
        self._bundles = Bundles(self._stream, home)
        self._saved = -1  # the window of the last checkpoint

    @property
    def position(self) -> str:
        """See `Run.position`."""
        return f"after window {self._state.windows}"

    def train(self, show_progress: bool, begins_with: str) -> Result:
        """Trains until the stream is to end, or a signal comes; says `begins_with` first."""
        resumed, state = self.restore(), self._state
        self._progress = StreamProgress(int(state.rows.numpy()), show_progress, self.tensorboard, self.counter)
        self._progress.say(begins_with)
        listener = StopOnSignal(self.counter, lambda: True, self._save)
        closing = threading.Event()
        stopping, reason = lambda: listener.received or closing.is_set(), ""
        self._retries = Retries(self._stream.retry_seconds, self._progress.warn, stopping)
        self._topic = RetainedTopic(self._address, self._reader, self._retries, {})
        try:
            with listener, self.checkpoints:
                self._resume(resumed) if resumed else self._begin()
                self._topic.begins = state.next_offsets()
                self._waiting = Waiting(self._stream, self._topic.bounds, stopping, self._say_lag)
                self._ahead = ReadAhead(state.windows, state.next_offsets(), self._find, self._read, closing)
                with self._ahead as ahead, contextlib.suppress(Stopped):
                    asked = time.monotonic()
                    while not listener.received and (found := ahead.next()):
                        self._do(found, max(asked, found.arrived))
                        asked = time.monotonic()
                    reason = self._waiting.reason
                path = self._save()
                if listener.received:
                    self.checkpoints.wait()
                    raise listener.interrupted(path)
        finally:
            self._progress.close()
        return self.finish(reason)

    def _begin(self) -> None:
        """Starts a new run, and records where: the earliest and the latest row may differ tomorrow."""
        for name in (WINDOWS_FILE, QUARANTINE_FILE, METRICS_FILE):
            if os.path.exists(self.home.file(name)):
                os.remove(self.home.file(name))
        self._journal = WindowJournal(self.home.file(WINDOWS_FILE))
        self._new_values.begin(self.data_dir)
        for line in (*self._new_values.lines(), *self.first_rows()):
            self._progress.say(line)
        bounds = self._retries(self._reader.bounds)
        latest = self._address.start == "latest"
        self._state.set_offsets({p: end if latest else begin for p, (begin, end) in bounds.items()})
        self._save()

    def _resume(self, checkpoint: str) -> None:
        """Drops the records of windows after a checkpoint."""
        self._new_values.unpack()
        self._saved = window = self._state.windows
        self._progress.say(f"resuming from {checkpoint}, after window {window}")
        self._journal = WindowJournal(self.home.file(WINDOWS_FILE))
        self.records.forget_after(window)
        self._quarantine.records.forget_after(window)
        self._export()

    def _say_lag(self, lag: int) -> None:
        if self._ahead.asked:  # else the run has a window to train on
            self._progress.lag(lag)

    def _find(self, number: int, begins: Mapping[int, int]) -> StreamWindow | None:
        """Finds a window, ahead of its turn."""
        self._topic.begins = begins
        return self._journal.find(number, begins, self._waiting.ranges)

    def _read(self, window: StreamWindow) -> ReadMessages | Decoded:
        """Reads a window, ahead of its turn; encodes it if its turn brings no other vocabulary."""
        read = self._decoder.read(self._topic.read(window))
        return read if self._new_values else self._decoder.encode(read)

    def _do(self, found: WindowRows[ReadMessages | Decoded], begun: float) -> None:
        """Evaluates a window, trains on it, and records that.

        Args:
          found: the window.
          begun: when its rows had arrived and the window before it was done.
        """
        window, read = found.window, found.rows
        self._journal.write(window)
        decoded = read if isinstance(read, Decoded) else self._decoder.encode(read)
        self._quarantine.check(window.number, decoded, int(self._state.malformed_in_a_row.numpy()))
        # First, since it can fail: then nothing of the window is done.
        self._retries(lambda: self._quarantine.add(window.number, decoded.malformed))
        record: dict[str, Any] = {"window": window.number, "rows": len(decoded), "eval": {}, "train": {}}
        try:
            if decoded.columns is not None:
                record["eval"] = self._learner.evaluate(decoded.columns)
                columns = self._admit(decoded, decoded.columns, record)
                steps, record["train"] = self._learner.train(columns, window.number)
                self.counter.step += steps
        except NonFiniteError as e:
            raise self.non_finite(str(e)) from e
        self._state.advance(window, self.counter.step, len(decoded), len(decoded.malformed))
        record |= self._measured(decoded, begun)
        self.records.append(record)
        self._progress.window(record)
        if window.number % self._stream.checkpoint_every_windows == 0:
            self._save()
            self._export()

    def _admit(self, decoded: Decoded, columns: Columns, record: dict[str, Any]) -> Columns:
        """Gives rows to values that were seen often enough, records that, and returns the rows to train on."""
        if not self._new_values or decoded.rows is None:
            return columns
        changed, record["new_values"] = self._new_values.see(decoded.rows, int(self._state.rows.numpy()))
        return self._decoder.again(decoded) if changed else columns

    def _measured(self, decoded: Decoded, begun: float) -> dict[str, Any]:
        """Returns the state of the run for the line of a window, see `_do`."""
        return {
            "step": self.counter.step,
            "malformed": int(self._state.malformed.numpy()),
            "out_of_range": {name: n for name, n in decoded.out_of_range.items() if n},
            "lag": self._topic.lag(self._state.next_offsets()),
            "rows_per_s": len(decoded) / (time.monotonic() - begun),
            "retries": self._retries.count,
        }

    def _save(self) -> str:
        """Writes a checkpoint, if the latest is not of the last window."""
        if self._saved != self._state.windows:
            self.check_finite()
            self._new_values.pack()
            self.save(best=True)
            self._saved = self._state.windows
        return self.last_checkpoint

    def _export(self) -> None:
        if self._stream.export_every_windows:
            self.checkpoints.wait()
            if path := self._bundles.export(self.model, self.last_checkpoint, self._state.windows):
                self._progress.say(f"exported {path} {self.position}")
