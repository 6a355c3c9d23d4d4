"""Searches: tries the candidates of a recipe within its budget, and trains the best of them.

A trial is an ordinary run in `WORKDIR/trials/LABEL`, stopped after `search.trial_rows` rows. The best one is moved to
`WORKDIR` and trained on from there, so no step is done twice and the result is the directory of an ordinary run.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.config.fitted import FEW_FOR_AUC
from tfrs_dlrm.distribute.strategies import Distribution, distribution_of
from tfrs_dlrm.models.tasks import Task, task_of
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import Progress, local_copy
from tfrs_dlrm.stores.files import local_path
from tfrs_dlrm.stores.lock import directory_lock
from tfrs_dlrm.tools.comparison import trees
from tfrs_dlrm.tools.comparison.contestants import Contestant, contestant_name, contestants
from tfrs_dlrm.tools.comparison.fitted_contestants import fitted_contestants
from tfrs_dlrm.tools.search.trial_runs import TrialRuns
from tfrs_dlrm.tools.search.trials import Trial, Trials, table, trial_line
from tfrs_dlrm.training.evaluation import NonFiniteError
from tfrs_dlrm.training.factory import make_model, make_optimizers, tables_for
from tfrs_dlrm.training.fitted import data_facts
from tfrs_dlrm.training.free_models import free_models
from tfrs_dlrm.training.inputs import epoch_steps
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.memory_check import check_memory
from tfrs_dlrm.training.run import TIME_IS_UP, Result
from tfrs_dlrm.training.state import quality, shown_metrics, total_steps

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

    Candidates are judged by `train.monitor` on the evaluation set. If fewer than `FEW_FOR_AUC` of its rows have the
    rarer class, it tells no models apart, and the only candidate is the model of the recipe. Trials that have finished
    are not repeated, and one that was interrupted resumes. If the budget ends during the first trial, or while the best
    is trained, the model is what was reached by then, and a second call with a larger budget continues.

    Args:
      config: the recipe, with candidates.
      workdir: the directory of the run, on a disk; `trials.json` in it has the trials.
      strategy: where to compute; by default the strategy in scope. Not a cluster.
      say: called with a line of text now and then.
      prepare_progress: see `train_and_evaluate`.
      show_progress: draws a progress bar on standard error while the best is trained.

    Raises:
      ValueError: there are no candidates, the data have no evaluation set, `workdir` holds another run, or no candidate
        can be trained on the data. Other errors: those of `train_and_evaluate`.
    """
    config.check()
    distribution, workdir = distribution_of(strategy), local_path(workdir)
    if distribution.several_processes or distribution.asynchronous:
        raise ValueError(
            "config.search.candidates: the processes of a cluster do not share a clock; search on one machine with"
            " --strategy=one_device or mirrored, and train the recipe that wins on the cluster"
        )
    for candidate in config.search.candidates:  # before anything asks whether LightGBM is installed
        if contestant_name(candidate) == trees.NAME:
            raise ValueError(
                f"search.candidates: {candidate!r} is not a model that a run trains; compare it by"
                f" tfrs-dlrm compare --models={candidate}"
            )
    found = contestants(config, config.search.candidates)
    candidates = fitted_contestants(found, config.data, config.train.seed, prepare_progress)
    rarer, begun = data_facts(config.data.path).rarer, set(Trials.load(workdir).recipes) - {config.model.name}
    if len(found) > 1 and not begun and rarer is not None and rarer < FEW_FOR_AUC:
        say(
            f"{rarer:,} evaluation rows of the rarer class are too few to choose among models by, so only"
            f" {config.model.name} is trained; from {FEW_FOR_AUC} on (prepare more rows, or with a larger"
            " --eval_fraction) the candidates are tried"
        )
        candidates = fitted_contestants(contestants(config, [config.model.name]), config.data, config.train.seed)
    # As the lock of a run: nothing else trains in the directory.
    with directory_lock(workdir, "trains the run in it") as lock:
        lock.acquire()
        search = _Search(config, candidates, workdir, distribution, say)
        chosen = search.choose()
    return search.train(chosen, show_progress)


class _Search:
    """A search in a directory that this process has locked.

    Args:
      config: the recipe, checked.
      candidates: its candidates, with a value in every field.
      workdir: the directory of the run.
      distribution: where to compute.
      say: called with a line of text now and then.
    """

    def __init__(
        self,
        config: RunConfig,
        candidates: Sequence[Contestant],
        workdir: str,
        distribution: Distribution,
        say: Callable[[str], None],
    ):
        self._workdir, self._distribution, self._say = workdir, distribution, say
        self._schema = Schema.load(os.path.join(local_copy(config.data.path), SCHEMA_FILE))
        self._task: Task = task_of(self._schema.label)
        self._budget, self._rows = config.search.seconds, config.search.trial_rows
        self._candidates = {candidate.label: candidate for candidate in candidates}
        monitors = {c.config.train.monitor or self._task.best for c in self._candidates.values()}
        if len(monitors) > 1:
            found = ", ".join(sorted(monitors))
            raise ValueError(f"config.search.candidates: one train.monitor must judge all of them; found {found}")
        self._shown = shown_metrics(next(iter(monitors)), self._task)[:2]
        self._trials, self._runs = Trials.load(workdir), TrialRuns(workdir)
        recipes = {label: c.config.to_dict() for label, c in self._candidates.items()}
        self._trials.check(recipes, self._rows, workdir)
        self._runs.check(self._candidates.get(self._trials.chosen))
        self._begin = time.monotonic() - self._trials.seconds

    def choose(self) -> Contestant:
        """Tries the candidates, and moves the run of the best into the directory."""
        trials = self._trials
        if not trials.chosen:
            self._try_all()
            best = trials.best(self._candidates)
            if best is None or best.quality is None:
                raise ValueError(
                    f"{self._workdir}: all trials diverged, or no evaluation defines the metric to choose by; lower the"
                    " learning rates, or look for extreme dense values, and choose another --workdir"
                )
            trials.chosen = best.label
            self._save()
        for line in table(trials, self._shown):
            self._say(line)
        chosen = self._candidates[trials.chosen]
        self._runs.adopt(chosen)
        return chosen

    def train(self, chosen: Contestant, show_progress: bool) -> Result:
        """Trains the best to its end, as far as the budget reaches."""
        try:
            result = self._train(chosen.config, self._workdir, self._left, show_progress)
        finally:
            self._save()
        if result.reason == TIME_IS_UP:
            self._say(
                f"the budget of {self._budget:.0f}s ended the run at step {result.step} of at most"
                f" {self._steps(chosen.config)}; the same command with a larger budget continues it"
            )
        return result

    def _train(self, config: RunConfig, workdir: str, seconds: float, show_progress: bool = False) -> Result:
        strategy = self._distribution.strategy
        return train_and_evaluate(config, workdir, strategy, show_progress=show_progress, seconds=seconds)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._begin

    @property
    def _left(self) -> float:
        return max(0.0, self._budget - self._elapsed)

    def _save(self) -> None:
        self._trials.seconds = self._elapsed
        self._trials.save(self._workdir)

    def _check(self, candidate: Contestant) -> None:
        """Raises ValueError if the model of a candidate does not take the data, or does not fit into memory."""
        config = candidate.config
        try:
            with self._distribution.strategy.scope():
                check_memory(config, self._schema, self._distribution, make_optimizers(config.optimizer)[1])
                make_model(config.model, self._schema, config.train.seed, tables_for(config))
        finally:
            free_models()

    def _try_all(self) -> None:
        candidates, trials, wrong = list(self._candidates.values()), self._trials, None
        self._say(f"{len(candidates)} candidates, {self._budget:.0f}s for all of it; trials and their results:")
        for number, candidate in enumerate(candidates):
            if trials.of(candidate.label):
                continue
            try:
                self._check(candidate)
            except ValueError as e:
                self._say(f"{candidate.label}: left out: {e}")
                wrong = e
                continue
            longest = max((t.seconds for t in trials.trials if t.label in self._candidates), default=0.0)
            left, reserve = self._left, self._for_the_best(candidate, longest)
            if trials.best(self._candidates) and left - reserve < longest:
                untried = ", ".join(c.label for c in candidates[number:] if not trials.of(c.label))
                self._say(
                    f"{left:.0f}s are left of the budget, too few to try: {untried}; a larger budget in another"
                    " --workdir tries them"
                )
                return
            self._say(f"[{number + 1}/{len(candidates)}] {candidate.label} ({left:.0f}s left)")
            self._add(self._try(candidate, left - reserve))
        if wrong and not trials.best(self._candidates):
            raise wrong

    def _try(self, candidate: Contestant, seconds: float) -> Trial:
        config, label = copy.deepcopy(candidate.config), candidate.label
        config.train.steps = min(self._steps(config), self._trial_steps(config))
        self._trials.recipes[label], self._trials.trial_rows = candidate.config.to_dict(), self._rows
        self._save()
        try:
            result = self._train(config, self._runs.path(candidate), seconds).unless_interrupted()
        except NonFiniteError:
            return Trial(label, None, {}, 0, 0, self._seconds_of_trial, "diverged")
        finally:
            free_models()
            self._save()
        found = quality(config.train.monitor, self._task, result.best) if result.best else -math.inf
        good = found if math.isfinite(found) else None
        return Trial(label, good, result.best, result.best_step, result.step, self._seconds_of_trial, result.reason)

    @property
    def _seconds_of_trial(self) -> float:
        """The duration of a trial that ends now, with the sessions that were interrupted in it."""
        return self._elapsed - sum(trial.seconds for trial in self._trials.trials)

    def _add(self, trial: Trial) -> None:
        """Notes a trial that has finished, and keeps the run of the best only."""
        trials, best = self._trials, self._trials.best(self._candidates)
        better = trial.quality is not None and (best is None or trial.rank > best.rank)
        trials.trials = (*trials.trials, trial)
        self._save()
        best = trials.best(self._candidates)
        self._runs.remove(c for c in self._candidates.values() if trials.of(c.label) not in (None, best))
        self._say(f"    {trial_line(trial, self._shown)}{' (the best so far)' if better else ''}")
        if trial.reason == TIME_IS_UP:
            what = ", to leave time for the best" if len(trials.trials) > 1 else "; a larger one trains it longer"
            self._say(f"the budget of {self._budget:.0f}s ended this trial{what}")

    def _steps(self, config: RunConfig) -> int:
        """The length of a whole run."""
        with self._distribution.strategy.scope():
            return total_steps(config, epoch_steps(config.data.path, config.train.batch_size))

    def _trial_steps(self, config: RunConfig) -> int:
        return -(-self._rows // config.train.batch_size)

    def _for_the_best(self, candidate: Contestant, longest: float) -> float:
        """The time to leave for the training of the best after the trials, by that of the longest trial."""
        config = candidate.config
        rest = max(0.0, self._steps(config) / self._trial_steps(config) - 1)
        return min(self._budget * _FOR_THE_BEST, rest * longest)
