"""Searches: tries the candidates of a recipe within its budget, and trains the best of them.

A trial is an ordinary run in `WORKDIR/trials/LABEL`, stopped after `search.trial_rows` rows. The best one is moved to
`WORKDIR` and trained on from there, so no step is done twice and the result is the directory of an ordinary run.
"""

from __future__ import annotations

import copy
import math
import os
import shutil
import time
from collections.abc import Callable

import tensorflow as tf

from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.data.preparing.manifest import PreparedManifest
from tfrs_dlrm.data.preparing.on_demand import ensure_prepared
from tfrs_dlrm.distribute.strategies import Distribution, distribution_of
from tfrs_dlrm.models.tasks import Task, task_of
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import Progress, local_copy
from tfrs_dlrm.stores.files import local_path
from tfrs_dlrm.stores.lock import LOCK_FILE, directory_lock
from tfrs_dlrm.tools.comparison.contestants import Contestant, contestants
from tfrs_dlrm.tools.search.trials import TRIALS_FILE, Trial, Trials, table, trial_line
from tfrs_dlrm.training.evaluation import NonFiniteError
from tfrs_dlrm.training.factory import make_model, make_optimizers, tables_for
from tfrs_dlrm.training.fitted import fitted_to_data
from tfrs_dlrm.training.inputs import epoch_steps
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.memory_check import check_memory
from tfrs_dlrm.training.run import TIME_IS_UP, Result
from tfrs_dlrm.training.state import quality
from tfrs_dlrm.training.workdir import CONFIG_FILE

_TRIALS_DIR = "trials"
# The share of the budget that trials leave to the training of the best, at most, if trials are shorter than it.
_FOR_THE_BEST = 0.5


def search_and_train(
    config: RunConfig,
    workdir: str,
    strategy: tf.distribute.Strategy | None = None,
    say: Callable[[str], None] = lambda line: None,
    prepare_progress: Progress | None = None,
    show_progress: bool = False,
) -> Result:
    """Trains the best of `config.search.candidates` in `workdir`; resumes the search, or the run, that `workdir` holds.

    Candidates are judged by `train.monitor` on the evaluation set. Trials that have finished are not repeated, and one
    that was interrupted resumes. If the budget ends during the first trial, or while the best is trained, the model is
    what was reached by then, and a second call with a larger budget continues.

    Args:
      config: the recipe, with candidates.
      workdir: the directory of the run, on a disk; `trials.json` in it has the trials.
      strategy: where to compute; by default the strategy in scope. Not a cluster.
      say: called with a line of text now and then.
      prepare_progress: see `train_and_evaluate`.
      show_progress: draws a progress bar on standard error while the best is trained.

    Raises:
      ValueError: there are no candidates, the data have no evaluation set, `workdir` holds another run, or no candidate
        can be trained on the data; and as `train_and_evaluate`, as all other errors.
    """
    config.check()
    distribution, workdir = distribution_of(strategy), local_path(workdir)
    if distribution.several_processes or distribution.asynchronous:
        raise ValueError(
            "config.search.candidates: the processes of a cluster do not share a clock; search on one machine with"
            " --strategy=one_device or mirrored, and train the recipe that wins on the cluster"
        )
    ensure_prepared(config.data, config.train.seed, prepare_progress)
    with distribution.strategy.scope():
        search = _Search(config, workdir, distribution, say)
        # As the lock of a run: nothing else trains in the directory.
        with directory_lock(workdir, "trains the run in it") as lock:
            lock.acquire()
            chosen = search.choose()
        return search.train(chosen, show_progress)


class _Search:
    """A search in a directory.

    Args:
      config: the recipe, checked.
      workdir: the directory of the run.
      distribution: where to compute.
      say: called with a line of text now and then.
    """

    def __init__(self, config: RunConfig, workdir: str, distribution: Distribution, say: Callable[[str], None]):
        data = config.data.path
        if not PreparedManifest.load(local_copy(data)).rows("eval"):
            raise ValueError(f"{data} has no evaluation set to choose by; prepare with --eval_fraction or --eval_input")
        self._workdir, self._distribution, self._say = workdir, distribution, say
        self._schema = Schema.load(os.path.join(local_copy(data), SCHEMA_FILE))
        self._task: Task = task_of(self._schema.label)
        self._budget, self._rows = config.search.seconds, config.search.trial_rows
        found = contestants(config, config.search.candidates)
        self._candidates = [Contestant(c.label, fitted_to_data(c.config, data)[0]) for c in found]
        monitors = {c.config.train.monitor for c in self._candidates}
        if len(monitors) > 1:
            raise ValueError(f"config.search.candidates: one train.monitor must judge all of them; found {monitors}")
        has_run, has_trials = (os.path.isfile(os.path.join(workdir, name)) for name in (CONFIG_FILE, TRIALS_FILE))
        if has_run and not has_trials:
            raise ValueError(f"{workdir}: holds a run without trials; choose another --workdir, or remove this one")
        self._trials = Trials.load(workdir)
        self._trials.monitor = monitors.pop()
        self._begin = time.monotonic() - self._trials.seconds

    def choose(self) -> Contestant:
        """Tries the candidates, and moves the run of the best into the directory."""
        trials = self._trials
        if not trials.chosen:
            self._try_all(self._fitting())
            best = trials.best
            if best is None or best.quality is None:
                raise ValueError("all trials diverged; lower the learning rates, or look for extreme dense values")
            trials.chosen = best.label
            self._save()
        for line in table(trials, self._task.shown[:2]):
            self._say(line)
        found = next((c for c in self._candidates if c.label == trials.chosen), None)
        if found is None:
            raise ValueError(f"{self._workdir}: holds the run of {trials.chosen!r}, which is no candidate now")
        trials.begin(found.label, found.config.to_dict(), self._workdir)
        _adopt(os.path.join(self._workdir, _TRIALS_DIR, found.directory), self._workdir)
        shutil.rmtree(os.path.join(self._workdir, _TRIALS_DIR), ignore_errors=True)
        return found

    def train(self, chosen: Contestant, show_progress: bool) -> Result:
        """Trains the best to its end, as far as the budget reaches."""
        try:
            left = max(0.0, self._budget - self._elapsed)
            result = train_and_evaluate(chosen.config, self._workdir, show_progress=show_progress, seconds=left)
        finally:
            self._save()
        if result.reason == TIME_IS_UP:
            self._say(
                f"the budget of {self._budget:.0f}s ended the run at step {result.step} of at most"
                f" {self._steps(chosen.config)}; the same command with a larger budget continues it"
            )
        return result

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._begin

    def _save(self) -> None:
        self._trials.seconds = self._elapsed
        self._trials.save(self._workdir)

    def _fitting(self) -> list[Contestant]:
        """The candidates whose models take the data and fit into memory."""
        found, wrong = [], None
        for candidate in self._candidates:
            config = candidate.config
            try:
                check_memory(config, self._schema, self._distribution, make_optimizers(config.optimizer)[1])
                make_model(config.model, self._schema, config.train.seed, tables_for(config))
                found.append(candidate)
            except ValueError as e:
                self._say(f"{candidate.label}: left out: {e}")
                wrong = e
        if wrong and not found:
            raise wrong
        return found

    def _try_all(self, candidates: list[Contestant]) -> None:
        trials, count = self._trials, len(candidates)
        self._say(f"{count} candidates, {self._budget:.0f}s for all of it; trials and their results:")
        for number, candidate in enumerate(candidates, 1):
            trials.begin(candidate.label, candidate.config.to_dict(), self._workdir)
            if trials.of(candidate.label):
                continue
            longest = max((trial.seconds for trial in trials.trials), default=0.0)
            left = max(0.0, self._budget - self._elapsed)
            untried = ", ".join(c.label for c in candidates if not trials.of(c.label))
            if trials.trials and left - self._for_the_best(candidate, longest) < longest:
                self._say(f"{left:.0f}s are left of the budget, too few to try: {untried}")
                return
            self._say(f"[{number}/{count}] {candidate.label} ({left:.0f}s left)")
            trial = self._try(candidate, left)
            best = trials.best
            better = best is None or trial.rank > best.rank
            trials.trials = (*trials.trials, trial)
            self._save()
            self._keep_only(trials.best, candidates)
            self._say(f"    {trial_line(trial, self._task.shown[:2])}{' (the best so far)' if better else ''}")
            if trial.reason == TIME_IS_UP:
                self._say(f"the budget of {self._budget:.0f}s ended this trial; a larger one trains it longer")

    def _try(self, candidate: Contestant, seconds: float) -> Trial:
        config, begin = copy.deepcopy(candidate.config), time.monotonic()
        config.train.steps = min(self._steps(config), self._trial_steps(config))
        monitor, label = config.train.monitor, candidate.label
        try:
            result = train_and_evaluate(config, self._directory(candidate), seconds=seconds)
        except NonFiniteError:
            return Trial(label, None, {}, 0, 0, time.monotonic() - begin, "diverged")
        finally:
            tf.keras.backend.clear_session()
            self._save()
        found = quality(monitor, self._task, result.best) if result.best else -math.inf
        return Trial(
            label,
            found if math.isfinite(found) else None,
            result.best,
            result.best_step,
            result.step,
            time.monotonic() - begin,
            result.reason,
        )

    def _directory(self, candidate: Contestant) -> str:
        return os.path.join(self._workdir, _TRIALS_DIR, candidate.directory)

    def _keep_only(self, best: Trial | None, candidates: list[Contestant]) -> None:
        """Removes the runs of trials that have lost, whose tables may be large."""
        for candidate in candidates:
            if best and candidate.label != best.label and self._trials.of(candidate.label):
                shutil.rmtree(self._directory(candidate), ignore_errors=True)

    def _steps(self, config: RunConfig) -> int:
        """The length of a whole run."""
        train = config.train
        return train.steps or max(1, round(train.epochs * epoch_steps(config.data.path, train.batch_size)))

    def _trial_steps(self, config: RunConfig) -> int:
        return -(-self._rows // config.train.batch_size)

    def _for_the_best(self, candidate: Contestant, longest: float) -> float:
        """The time to leave for the training of the best after the trials, by that of the longest trial."""
        config = candidate.config
        rest = max(0.0, self._steps(config) / self._trial_steps(config) - 1)
        return min(self._budget * _FOR_THE_BEST, rest * longest)


def _adopt(trial: str, workdir: str) -> None:
    """Moves the content of a trial's directory; a second call finishes what an interrupted one began."""
    for name in sorted(os.listdir(trial)) if os.path.isdir(trial) else ():
        if name != LOCK_FILE:
            os.replace(os.path.join(trial, name), os.path.join(workdir, name))
