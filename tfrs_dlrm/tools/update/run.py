"""An update: prepares a day's log, scores the current model on it, trains a new one, and keeps the better of the two.

The steps are those of the journal, which is written before each of them. So the same command after a kill continues,
and ends in the state that an undisturbed update would have left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.data.preparing.job import file_stamp
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw.frames import Frame, expand_inputs
from tfrs_dlrm.data.raw.raw_files import absolute
from tfrs_dlrm.distribute.strategies import Distribution, distribution_of
from tfrs_dlrm.serving.bundle.model_names import model_name
from tfrs_dlrm.serving.bundle.versions import next_version
from tfrs_dlrm.stores import Progress, local_copy
from tfrs_dlrm.stores.files import check_writable_place, disk_full, local_path
from tfrs_dlrm.stores.lock import InUseError, directory_lock
from tfrs_dlrm.tools.update import journal as steps
from tfrs_dlrm.tools.update.candidate import candidate_config, finish_candidate
from tfrs_dlrm.tools.update.decision import decide
from tfrs_dlrm.tools.update.journal import Journal
from tfrs_dlrm.tools.update.options import UpdateOptions
from tfrs_dlrm.tools.update.places import numbers_of_updates, remove_all_but, remove_leftovers
from tfrs_dlrm.tools.update.publishing import export_once, next_options
from tfrs_dlrm.tools.update.records import REJECTED, UpdateRecord, read_updates, write_update
from tfrs_dlrm.tools.update.replay import days_to_replay, mix
from tfrs_dlrm.tools.update.scoring import joined, score_run, value_shares
from tfrs_dlrm.training.asynchronous import server_lost
from tfrs_dlrm.training.evaluation import NonFiniteError
from tfrs_dlrm.training.free_models import free_models
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.run_files import REPORT_FILES, RUN_FILES, move_files, move_run
from tfrs_dlrm.training.workdir import Workdir

_AGAIN = "run the same command again, which continues the update"
_PLAIN = UpdateOptions()


@dataclasses.dataclass(frozen=True)
class Updated:
    """The end of an update.

    Attributes:
      record: its line in `updates.jsonl`.
      earlier: whether an earlier call has done it, so that this one had nothing to do.
    """

    record: UpdateRecord
    earlier: bool


def update(
    workdir: str,
    inputs: str | Sequence[str],
    options: UpdateOptions = _PLAIN,
    strategy: tf.distribute.Strategy | None = None,
    prepare_progress: Progress | None = None,
    show_progress: bool = False,
) -> Updated:
    """Updates the model of a run with a new log; continues an update of the same log that was interrupted.

    The log is prepared on the data of the current model. The current model is scored on all new rows; a new model
    begins with its weights and is trained on the new training rows; and both are compared on the held-out rows. If the
    new one is not worse than `options.tolerance` allows, it is exported and becomes the run in `workdir`. Otherwise
    run and exported versions stay as they are. A log that an update has used already is not used again. A rejected log
    can be, with other options or on another model.

    Args:
      workdir: the directory of the run, on a disk.
      inputs: the log: paths, directories and glob patterns.
      options: the choices.
      strategy: where to compute; by default the strategy in scope. Not one of several processes.
      prepare_progress: see `train_and_evaluate`.
      show_progress: draws a progress bar of the training on standard error.

    Raises:
      FileNotFoundError: there is no run, no such log, or the data of the run are missing.
      ValueError: the log cannot be used (see `prepare`), is too small, or another update is unfinished; or another
        process writes the run (`InUseError`). The run is as it was.
      Interrupted: after SIGTERM or Ctrl-C while the new model is trained; the same call continues.
      OSError: the disk is full; the same call continues. A `StoreError` where an object store cannot be reached or
        refuses.
    """
    options.check()
    # Absolute, so that the same command in another directory, or a later update there, finds everything again.
    workdir, distribution = os.path.abspath(local_path(workdir)), distribution_of(strategy)
    if options.export:
        options = dataclasses.replace(options, export=absolute(options.export))
    if distribution.several_processes:
        raise ValueError(
            f"an update runs in one process, not under {distribution.name}; give --strategy=one_device, mirrored,"
            " parameter_server or tpu"
        )
    if options.export:
        model_name(options.export)
        check_writable_place(options.export)
    given = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    if Journal.load(workdir) is None:
        home = Workdir(workdir)
        home.config()  # raises if there is no run, before a lock makes the directory
        if options.export:
            next_options(options.export, home.schema())  # raises now rather than after the training
    with disk_full(workdir, _AGAIN), directory_lock(workdir, "updates the run in it") as lock:
        lock.acquire()
        remove_leftovers(workdir)
        unfinished = Journal.load(workdir)
        if unfinished and unfinished.is_moving:  # whatever has become of the log
            _Update(workdir, unfinished, UpdateOptions(**unfinished.record.options), distribution).finish()
            if unfinished.record.inputs == given:
                return Updated(unfinished.record, False)
        prepared = unfinished and unfinished.step != steps.PREPARE and unfinished.record.inputs == given
        files = unfinished.record.files if unfinished and prepared else _files(given)
        found, earlier = _begun(workdir, given, files, options)
        if earlier:
            return Updated(found.record, True)
        _Update(workdir, found, options, distribution, prepare_progress, show_progress).finish()
        return Updated(found.record, False)


def _files(inputs: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    """Returns the stamps of the files of a log."""
    files = []
    for file in expand_inputs(list(inputs), "inputs"):
        if isinstance(file, Frame):
            raise ValueError("inputs: an update takes files, which it can know again after a kill; write the table")
        files.append(file_stamp(file))
    return tuple(files)


def _begun(
    workdir: str, inputs: tuple[str, ...], files: tuple[dict[str, Any], ...], options: UpdateOptions
) -> tuple[Journal, bool]:
    """Returns the journal of an update that is to do; or of one that an earlier call has done, and true."""
    if unfinished := Journal.load(workdir):
        unfinished.check_same(workdir, inputs, files, options)
        return unfinished, False
    records = read_updates(workdir)
    if done := _done(records, files, options):
        return Journal(steps.TIDY, done), True
    # Not that of an earlier update whose record was lost: the run may be on its data.
    number = 1 + max([0, *(record.update for record in records), *numbers_of_updates(workdir)])
    day = options.day or os.path.basename(files[0]["path"])
    new = Journal(steps.PREPARE, UpdateRecord(number, day, inputs, files, options.plain()))
    new.save(workdir)
    return new, False


def _done(
    records: Sequence[UpdateRecord], files: tuple[dict[str, Any], ...], options: UpdateOptions
) -> UpdateRecord | None:
    """Finds the update that used a log, or that rejected it with the same options on the current model."""
    on_current: list[UpdateRecord] = []
    for record in records:
        if record.accepted and record.is_of(files):
            return record
        on_current = [] if record.accepted else [*on_current, record]
    return next((r for r in on_current if r.is_of(files) and r.options == options.plain()), None)


class _Update:
    """The steps of an update. Each is done once, or again after a kill, and returns the next."""

    def __init__(
        self,
        workdir: str,
        journal: Journal,
        options: UpdateOptions,
        distribution: Distribution,
        prepare_progress: Progress | None = None,
        show_progress: bool = False,
    ):
        self._workdir, self._journal, self._options = workdir, journal, options
        self._places, self._record = journal.places(workdir), journal.record
        self._distribution = distribution
        self._prepare_progress, self._show_progress = prepare_progress, show_progress

    def finish(self) -> None:
        """Does all steps that are left."""
        work = {
            steps.PREPARE: self._prepare,
            steps.SCORE: self._score,
            steps.TRAIN: self._train,
            steps.COMPARE: self._compare,
            steps.EXPORT: self._export,
            steps.LEAVE: self._leave,
            steps.ENTER: self._enter,
            steps.RECORD: self._write,
        }
        while self._journal.step != steps.TIDY:
            self._journal.step = work[self._journal.step]()
            self._journal.save(self._workdir)
        self._tidy()

    def _prepare(self) -> str:
        options, record = self._options, self._record
        config = self._config()
        try:
            self._check_base(config)
            manifest = prepare(
                None,
                [file["path"] for file in record.files],
                self._places.data,
                base=config.data.path,
                half_life=options.half_life or None,
                day=options.day or None,
                eval_fraction=options.eval_fraction,
                seed=config.train.seed,
                bad_rows=options.bad_rows,
                progress=self._prepare_progress,
            )
            self._check_rows(manifest, config)
        except InUseError:
            raise
        except (ValueError, FileNotFoundError):
            # The log, or the base, cannot be used: leave no trace, so that another log can be.
            self._journal.remove(self._workdir)
            self._places.clear()
            raise
        record.rows = {"train": manifest.rows("train"), "eval": manifest.rows("eval"), "bad": manifest.bad_rows}
        return steps.SCORE

    def _check_base(self, config: RunConfig) -> None:
        if config.data.source:
            raise ValueError(
                f"{self._workdir}: this run follows the stream {config.data.source}; tfrs-dlrm train continues it"
            )
        try:
            Workdir(self._workdir).check_data(local_copy(config.data.path))
        except FileNotFoundError as e:
            raise FileNotFoundError(
                f"base: {config.data.path}, the data of {self._workdir}, are missing: {e}; put them back, or train a"
                " new run"
            ) from e

    def _check_rows(self, manifest: PreparedManifest, config: RunConfig) -> None:
        rows, batch = manifest.rows("train"), config.train.batch_size
        if rows < batch:
            raise ValueError(
                f"{', '.join(self._record.inputs)}: {rows:,} training rows are fewer than a batch of {batch:,}; wait"
                " for more rows, and give both logs to one update (--input may be repeated)"
            )
        if not manifest.rows("eval"):
            raise ValueError(
                f"eval_fraction={self._options.eval_fraction} leaves no row to compare the models on; give a larger"
                " --eval_fraction"
            )

    def _score(self) -> str:
        data, record = self._places.data, self._record
        rows = Workdir(self._workdir).model_rows(data)
        with self._computing():
            parts = score_run(self._workdir, data, rows, ("train", "eval"))
        free_models()
        record.before, record.current = joined(parts).metrics(), parts[1].metrics()
        record.new_values, record.unseen_values = value_shares(data, rows)
        return steps.TRAIN

    def _train(self) -> str:
        home, run = Workdir(self._workdir), self._places.run
        data = self._training_data(home.config().train.seed)
        config = candidate_config(home.config(), home.schema(), data, self._workdir, self._options)
        try:
            with self._computing():
                train_and_evaluate(config, run, show_progress=self._show_progress).unless_interrupted()
        except NonFiniteError as e:
            self._record.decision = REJECTED
            self._record.reason = f"its training diverged: {e}; a lower --learning_rate may help"
            return steps.RECORD
        finally:
            free_models()
        finish_candidate(run, self._places.data, self._workdir)
        return steps.COMPARE

    def _training_data(self, seed: int) -> str:
        """Returns the prepared log, or a directory that has rows of earlier days as well."""
        options, data, mixed = self._options, self._places.data, self._places.mixed
        if not options.replay:
            return data
        links = days_to_replay(data, options.replay_days)
        self._record.rows["replayed"] = mix(data, links, options.replay, seed, mixed)
        return mixed

    def _compare(self) -> str:
        record, options = self._record, self._options
        run, data = self._places.run, self._places.data
        rows = Workdir(run).model_rows(data)
        with self._computing():
            (scores,) = score_run(run, data, rows, ("eval",))
        free_models()
        record.candidate = scores.metrics()
        record.decision, record.reason = decide(record.current, record.candidate, options.tolerance)
        if not record.accepted:
            return steps.RECORD
        if not options.export:
            return steps.LEAVE
        record.version = next_version(options.export)
        return steps.EXPORT

    def _export(self) -> str:
        options = self._options
        record = self._record
        record.version = export_once(self._places.run, options.export, record.version, options.keep_versions)
        free_models()
        return steps.LEAVE

    def _leave(self) -> str:
        # The reports too: they would not be true of the next model.
        os.makedirs(self._places.before, exist_ok=True)
        move_files([*RUN_FILES, *REPORT_FILES], self._workdir, self._places.before)
        return steps.ENTER

    def _enter(self) -> str:
        move_run(self._places.run, self._workdir)
        return steps.RECORD

    def _write(self) -> str:
        write_update(self._workdir, self._record)
        return steps.TIDY

    def _tidy(self) -> None:
        data, options = self._config().data.path, self._options
        # The next update may replay this day and those before.
        days = days_to_replay(local_copy(data), options.replay_days - 1) if options.replay else []
        remove_all_but(self._workdir, [data, *(link.name for link in days)])
        self._journal.remove(self._workdir)

    def _config(self) -> RunConfig:
        return Workdir(self._workdir).config()

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        with self._distribution.strategy.scope(), server_lost():
            yield
