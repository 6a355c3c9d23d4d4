"""A run along a stream: each window of rows is evaluated, then trained on; its end is part of the checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from typing import Any

import tensorflow as tf
from absl import logging

from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.on_demand import ensure_prepared
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import Progress
from tfrs_dlrm.stores.files import disk_full, write_json
from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.bundles import Bundles
from tfrs_dlrm.streaming.learner import Learner
from tfrs_dlrm.streaming.messages import Decoded, Decoder
from tfrs_dlrm.streaming.progress import StreamProgress
from tfrs_dlrm.streaming.quarantine import Quarantine, check_dead_letter, reasons
from tfrs_dlrm.streaming.reader import Message, Range, Reader, StreamError, Unavailable
from tfrs_dlrm.streaming.readers import open_reader
from tfrs_dlrm.streaming.retention import check_there
from tfrs_dlrm.streaming.retries import Retries, Stopped
from tfrs_dlrm.streaming.state import StreamState
from tfrs_dlrm.streaming.waiting import Waiting
from tfrs_dlrm.streaming.windows import Journal, Window
from tfrs_dlrm.training.callbacks import Interrupted, StepCounter, StopOnSignal
from tfrs_dlrm.training.evaluation import NonFiniteError
from tfrs_dlrm.training.factory import make_model, make_optimizers, precision
from tfrs_dlrm.training.finite import not_finite
from tfrs_dlrm.training.loop import RESULT_FILE, Result
from tfrs_dlrm.training.records import Records
from tfrs_dlrm.training.warm_start import warm_start
from tfrs_dlrm.training.workdir import METRICS_FILE, Workdir

WINDOWS_FILE = "windows.jsonl"
QUARANTINE_FILE = "quarantine.jsonl"
# In seconds, that a broker may take to answer for the first time.
_FIRST_ANSWER = 20.0


def train_on_stream(
    config: RunConfig,
    workdir: str,
    strategy: tf.distribute.Strategy | None = None,
    prepare_progress: Progress | None = None,
    show_progress: bool = False,
) -> Result:
    """Trains along `config.data.source`, in `workdir`; goes on where a run in there ended.

    Whatever kills it, the weights of its last checkpoint have seen each row before the offsets in there once, and none
    behind them. `metrics.jsonl` has a line for each window, `quarantine.jsonl` for each malformed message,
    `windows.jsonl` the offsets of each window.

    Args:
      config: the run.
      workdir: see `tfrs_dlrm.training.workdir`; what it calls best is the latest.
      strategy: of one device; by default the strategy in scope.
      prepare_progress: is told how far the preparation of raw data is, where there is any.
      show_progress: draws a progress line on standard error.

    Raises:
      ValueError: the configuration, the stream or the run in `workdir` do not fit together. As a StreamError: the
        broker does not answer, or the topic may not be read; or rows are gone that the checkpoint has not seen; or the
        stream is of another schema; or confluent-kafka is missing.
      NonFiniteError: the loss or a score became NaN or infinite; the last good checkpoint is as it was.
      Interrupted: after SIGTERM, with a checkpoint written.
      OSError: the disk is full.
    """
    config.check()
    address = StreamAddress.parse(config.data.source)
    strategy = strategy or tf.distribute.get_strategy()
    if not distribution_of(strategy).only_one_device:
        raise ValueError(
            f"config.data.source={config.data.source!r}: streams are trained on with one device, without --strategy"
        )
    home = Workdir(workdir)
    _check_topic(home, address)
    reader = open_reader(address)
    again = "run the same command again once there is room, and it goes on from the last checkpoint"
    try:
        first = Retries(_FIRST_ANSWER, logging.warning)
        first(reader.bounds)
        first(lambda: check_dead_letter(address))
        with precision(config.train.precision), strategy.scope(), disk_full(f"{workdir}: {again}"):
            data_dir = ensure_prepared(config.data, config.train.seed, prepare_progress)
            schema = Schema.load(os.path.join(data_dir, SCHEMA_FILE))
            model = make_model(config.model, schema, config.train.seed)
            model.compile(*make_optimizers(config.optimizer))
            decoder = Decoder(Encoder.load(data_dir), address)
            try:
                home.begin(config, data_dir)
                return _Run(config, data_dir, address, home, model, decoder, schema, reader, show_progress).run()
            finally:
                home.end()
    finally:
        reader.close()


def _check_topic(home: Workdir, address: StreamAddress) -> None:
    """Refuses the directory of a run on something else."""
    try:
        home.checkpoint("latest")
        source = home.config().data.source
    except FileNotFoundError:
        return
    topic = StreamAddress.parse(source).topic if source else ""
    if topic != address.topic:
        holds = f"on the topic {topic!r}" if topic else "on files; config.train.warm_start takes its weights over"
        raise ValueError(f"{home.name}: holds a run {holds}; choose another --workdir for the topic {address.topic!r}")


class _Run:
    """One call of `train_on_stream`, once there is a model."""

    def __init__(
        self,
        config: RunConfig,
        data_dir: str,
        address: StreamAddress,
        home: Workdir,
        model: RankingModel,
        decoder: Decoder,
        schema: Schema,
        reader: Reader,
        show_progress: bool,
    ):
        self._config, self._stream, self._address, self._home = config, config.stream, address, home
        self._data_dir = data_dir
        self._model, self._decoder, self._reader, self._show = model, decoder, reader, show_progress
        train = config.train
        self._learner = Learner(model, schema, train.batch_size, train.eval_batch_size, train.seed)
        self._state = StreamState()
        beside = {"stream": self._state}
        self._checkpoints = home.checkpoints(model, train.keep_checkpoints, beside, train.async_checkpoints)
        self._records = Records(home.file(METRICS_FILE), "window")
        self._quarantine = Quarantine(home.file(QUARANTINE_FILE), address)
        self._bundles = Bundles(self._stream, home.encoder_dir)
        self._checkpoint, self._saved = "", -1
        self._reason = ""
        self._seen: dict[int, Range] = {}  # the last bounds

    def run(self) -> Result:
        """Trains until it is told to end."""
        restored = self._checkpoints.restore()
        state, train = self._state, self._config.train
        self._counter = StepCounter(int(state.step.numpy()))
        board = self._home.file("tensorboard") if train.tensorboard else ""
        self._progress = StreamProgress(int(state.rows.numpy()), self._show, board, self._counter)
        listener = StopOnSignal(self._counter, lambda: True, self._save)
        self._stopping = lambda: listener.received
        self._retries = Retries(self._stream.retry_seconds, self._progress.warn, self._stopping)
        try:
            with listener, self._checkpoints:
                self._go_on(restored) if restored else self._begin()
                self._waiting = Waiting(self._stream, self._bounds, self._stopping, self._progress.lag)
                self._windows()
                self._end(listener)
        finally:
            self._progress.close()
        result = Result(self._counter.step, self._reason, 0, {})
        write_json(self._home.file(RESULT_FILE), dataclasses.asdict(result))
        self._home.push()
        return result

    def _begin(self) -> None:
        """Starts anew, and writes down where: the earliest and the latest row may be others tomorrow."""
        for name in (WINDOWS_FILE, QUARANTINE_FILE, METRICS_FILE):
            if os.path.exists(self._home.file(name)):
                os.remove(self._home.file(name))
        self._journal = Journal(self._home.file(WINDOWS_FILE))
        if self._config.train.warm_start:
            found = warm_start(self._model, self._data_dir, self._config.train.warm_start)
            for line in found.lines():
                self._progress.say(line)
        bounds = self._retries(self._reader.bounds)
        latest = self._address.start == "latest"
        self._state.set_offsets({p: end if latest else begin for p, (begin, end) in bounds.items()})
        self._save()

    def _go_on(self, checkpoint: str) -> None:
        """Goes on from a checkpoint, and forgets what came after it."""
        window = int(self._state.window.numpy())
        self._checkpoint, self._saved = checkpoint, window
        self._progress.say(f"going on from {checkpoint}, after window {window}")
        self._journal = Journal(self._home.file(WINDOWS_FILE))
        self._records.forget_after(window)
        self._quarantine.records.forget_after(window)
        self._export()

    def _windows(self) -> None:
        """Window after window; says in `_reason` why there are no more."""
        try:
            while not self._stopping():
                window = self._next()
                if window is None:
                    return
                self._do(window)
        except Stopped:
            return
        except NonFiniteError as e:
            raise NonFiniteError(f"{e}. The last good checkpoint is {self._checkpoint}") from e

    def _next(self) -> Window | None:
        """The next window, once there is one."""
        number, begins = int(self._state.window.numpy()) + 1, self._state.next_offsets()
        recorded = self._journal.window(number, begins)
        if recorded:
            return recorded
        ranges = self._waiting.ranges(begins)
        if not ranges:
            self._reason = self._waiting.reason
            return None
        window = Window(number, ranges)
        self._journal.write(window)
        return window

    def _do(self, window: Window) -> None:
        """Evaluates a window, trains on it, and takes note of that."""
        begun, state = time.monotonic(), self._state
        decoded = self._decoder(self._retries(lambda: self._read(window)))
        self._check_malformed(window, decoded)
        # First, since it can fail: then nothing of the window is done.
        self._retries(lambda: self._quarantine.add(window.number, decoded.malformed))
        record: dict[str, Any] = {"window": window.number, "rows": len(decoded), "eval": {}, "train": {}}
        if decoded.columns is not None:
            record["eval"] = self._learner.evaluate(decoded.columns)
            steps, record["train"] = self._learner.train(decoded.columns, window.number)
            state.step.assign_add(steps)
        self._counter.step = int(state.step.numpy())
        self._advance(window, decoded)
        offsets = state.next_offsets()
        with contextlib.suppress(Unavailable):  # the next window waits for the broker; this one is done
            self._seen = self._reader.bounds()
        record |= {
            "step": self._counter.step,
            "malformed": int(state.malformed.numpy()),
            "out_of_range": {name: n for name, n in decoded.out_of_range.items() if n},
            "lag": sum(end - offsets.get(p, begin) for p, (begin, end) in self._seen.items()),
            "rows_per_s": len(decoded) / (time.monotonic() - begun),
            "retries": self._retries.count,
        }
        self._records.append(record)
        self._progress.window(record)
        if window.number % self._stream.checkpoint_every_windows == 0:
            self._save()
            self._export()

    def _advance(self, window: Window, decoded: Decoded) -> None:
        state, bad = self._state, len(decoded.malformed)
        state.window.assign(window.number)
        state.rows.assign_add(len(decoded))
        state.malformed.assign_add(bad)
        in_a_row = 0 if len(decoded) else int(state.malformed_in_a_row.numpy()) + bad
        state.malformed_in_a_row.assign(in_a_row)
        offsets = state.next_offsets()
        for partition in range(max(window.ranges, default=-1) + 1):  # a new one begins where it begins
            offsets.setdefault(partition, window.ranges.get(partition, (0, 0))[0])
        state.set_offsets(offsets | {p: end for p, (_, end) in window.ranges.items()})

    def _read(self, window: Window) -> list[Message]:
        check_there(self._address, {p: begin for p, (begin, _) in window.ranges.items()}, self._reader.bounds())
        return self._reader.read(window.ranges)

    def _bounds(self) -> dict[int, Range]:
        """Those of the topic, once it is sure that the next rows are there."""
        self._seen = self._retries(self._reader.bounds)
        check_there(self._address, self._state.next_offsets(), self._seen)
        return self._seen

    def _check_malformed(self, window: Window, decoded: Decoded) -> None:
        bad, stream = decoded.malformed, self._stream
        if bad and self._config.data.bad_rows == "error":
            raise StreamError(
                f"{self._address}: {bad[0]}. Mend what writes them, or set such messages aside with"
                " --config.data.bad_rows=quarantine"
            )
        in_a_row = int(self._state.malformed_in_a_row.numpy()) + len(bad)
        if bad and not len(decoded) and stream.malformed_in_a_row and in_a_row >= stream.malformed_in_a_row:
            raise StreamError(
                f"{self._address}: all {len(bad):,} messages of window {window.number} are malformed, {in_a_row:,} in a"
                f" row; is the stream of another schema, or another format than {self._address.format}? {reasons(bad)}."
                " None of this window was set aside; to have that done, raise config.stream.malformed_in_a_row, or set"
                " it to 0"
            )

    def _save(self) -> str:
        """Writes a checkpoint, if none is of the last window."""
        window = int(self._state.window.numpy())
        if self._saved != window:
            what = not_finite(self._model)
            if what:
                raise NonFiniteError(f"{what} after window {window}; nothing is saved")
            self._checkpoint, self._saved = self._checkpoints.save(self._counter.step, best=True), window
        return self._checkpoint

    def _export(self) -> None:
        window = int(self._state.window.numpy())
        if self._stream.export_every_windows:
            self._checkpoints.wait()
            path = self._bundles.export(self._model, self._checkpoint, window)
            if path:
                self._progress.say(f"exported {path} after window {window}")

    def _end(self, listener: StopOnSignal) -> None:
        path = self._save()
        if listener.received:
            self._checkpoints.wait()
            raise Interrupted(self._counter.step, path)
