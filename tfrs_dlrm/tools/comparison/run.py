"""Runs a comparison: tunes, trains, scores and measures, and resumes an interrupted comparison."""

from __future__ import annotations

import copy
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from tfrs_dlrm.config import RunConfig, up_to_date
from tfrs_dlrm.stores import Progress
from tfrs_dlrm.stores.files import local_path, read_json, write_json
from tfrs_dlrm.stores.lock import directory_lock
from tfrs_dlrm.tools.comparison.contestants import Contestant
from tfrs_dlrm.tools.comparison.cost import Cost, measure
from tfrs_dlrm.tools.comparison.fitted_contestants import fitted_contestants
from tfrs_dlrm.tools.comparison.outcome import Outcome, halves
from tfrs_dlrm.tools.comparison.trees import Recipe, TreesConfig
from tfrs_dlrm.tools.comparison.trees import fit as fit_trees
from tfrs_dlrm.tools.comparison.tuning import applied, tune
from tfrs_dlrm.training.evaluation import Scores, score_split
from tfrs_dlrm.training.factory import load_run
from tfrs_dlrm.training.free_models import free_models
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.run import RunRecords
from tfrs_dlrm.training.state import shown_metrics
from tfrs_dlrm.training.workdir import METRICS_FILE, Workdir

_CONFIG_FILE, _CHOSEN_FILE = "comparison.json", "chosen.json"


@dataclasses.dataclass(frozen=True)
class ComparisonOptions:
    """The options of a comparison.

    Attributes:
      seeds: the number of runs per model, from the recipe's seed upward.
      budget: the number of tuning trials per model; 0 keeps the recipe's learning rates and regularization.
      trial_share: the length of a trial as a share of a run's.
      measure: whether to time train steps and the exported model.
    """

    seeds: int = 5
    budget: int = 0
    trial_share: float = 1.0
    measure: bool = True

    def check(self) -> None:
        """Raises ValueError if a number is out of range."""
        if self.seeds < 1 or self.budget < 0 or not 0 < self.trial_share <= 1:
            raise ValueError(f"{self}: seeds from 1, a budget from 0 and a trial_share in (0, 1] are needed")


def compare(
    contestants: Sequence[Contestant[Any]],
    output: str,
    options: ComparisonOptions,
    say: Callable[[str], None] = lambda line: None,
    prepare_progress: Progress | None = None,
    show_progress: bool = False,
) -> tuple[list[Outcome], dict[str, Cost]]:
    """Trains each contestant with each seed, and skips runs that `output` has already.

    The evaluation set is halved: tuning sees the even rows, and the returned metrics are those of the odd rows, for the
    last checkpoint of each run. So no choice depends on the reported rows. If the schema has a group, whole groups are
    halved. With `train.monitor` ndcg, contestants are tuned and compared by it.

    Args:
      contestants: what to compare, on the same data.
      output: the directory of all runs.
      options: seeds, tuning and measurements.
      say: called with a line per finished run or trial.
      prepare_progress: called with the progress of the preparation, if raw data must be prepared.
      show_progress: draws a progress bar on standard error.

    Returns:
      The outcomes in the order of contestants and seeds, and the cost of each contestant, by label.

    Raises:
      ValueError: the data have no evaluation set, or `output` holds another comparison, or another process compares in
        it (`InUseError`).
      Interrupted: after SIGTERM or Ctrl-C; the same call resumes.
      OSError: the disk is full, or `output` cannot be written.
    """
    options.check()
    with directory_lock(local_path(output), "compares models in it") as lock:
        lock.acquire()
        return _compare(contestants, output, options, say, prepare_progress, show_progress)


def _compare(
    contestants: Sequence[Contestant[Any]],
    output: str,
    options: ComparisonOptions,
    say: Callable[[str], None],
    prepare_progress: Progress | None,
    show_progress: bool,
) -> tuple[list[Outcome], dict[str, Cost]]:
    base = contestants[0].config
    contestants = fitted_contestants(contestants, base.data, base.train.seed, prepare_progress)
    _begin(contestants, output, options)
    outcomes, costs = [], {}
    clock = _Clock(say, len(contestants) * (options.budget * options.trial_share + options.seeds))
    for number, contestant in enumerate(contestants, 1):
        home = os.path.join(output, contestant.directory)
        where = f"[{number}/{len(contestants)}] {contestant.label}"
        chosen = _chosen(contestant, home, options, clock, where)
        config = applied(contestant.config, chosen)
        for i in range(options.seeds):
            workdir = os.path.join(home, f"seed-{config.train.seed + i}")
            outcome = Outcome.load(workdir)
            if outcome is None:
                outcome = _run(contestant.label, _seeded(config, i), workdir, chosen, show_progress)
                clock.done(1, f"{where}: seed {i + 1} of {options.seeds}: {_shown(outcome)}")
            else:
                clock.skip(1)
            outcomes.append(outcome)
        if options.measure and isinstance(config, RunConfig):
            costs[contestant.label] = measure(os.path.join(home, f"seed-{config.train.seed}"), home)
    return outcomes, costs


class _Clock:
    """Reports finished runs, and estimates the remaining time.

    Args:
      say: called with a line.
      runs: the number of runs to do; a shorter run counts as a part of one.
    """

    def __init__(self, say: Callable[[str], None], runs: float) -> None:
        self._say, self._left, self._done, self._begin = say, runs, 0.0, time.monotonic()

    def skip(self, runs: float) -> None:
        """Removes runs that were finished before."""
        self._left -= runs

    def done(self, runs: float, line: str) -> None:
        """Counts runs that finished now, and reports them."""
        self._left, self._done = self._left - runs, self._done + runs
        left = (time.monotonic() - self._begin) / self._done * self._left
        self._say(f"{line} ({left / 60:.0f} min left)")


def _shown(outcome: Outcome) -> str:
    return "; ".join(
        [", ".join(f"{name} {outcome.metrics[name]:.5f}" for name in outcome.shown[:2]), *outcome.left_out]
    )


def _begin(contestants: Sequence[Contestant[Any]], output: str, options: ComparisonOptions) -> None:
    """Makes the directory, or checks that its contents are from the same recipes."""
    path = os.path.join(local_path(output), _CONFIG_FILE)
    then = "remove it, if all runs in the directory are of these recipes"
    found = read_json(path, then) if os.path.isfile(path) else {}
    if not isinstance(found, dict):
        raise ValueError(f"{path}: damaged: a JSON object is expected; {then}")
    os.makedirs(output, exist_ok=True)
    for c in contestants:
        recipe = {"config": c.config.to_dict(), "budget": options.budget, "trial_share": options.trial_share}
        begun = found.setdefault(c.label, recipe)
        if isinstance(begun, dict) and "config" in begun and isinstance(c.config, RunConfig):
            begun["config"] = up_to_date(begun["config"])
        if begun != recipe:
            raise ValueError(f"{output}: holds {c.label} of another recipe or budget; choose another --output")
    write_json(path, found)


def _chosen(
    contestant: Contestant[Any], home: str, options: ComparisonOptions, clock: _Clock, where: str
) -> dict[str, Any]:
    path = os.path.join(home, _CHOSEN_FILE)
    if os.path.isfile(path):
        clock.skip(options.budget * options.trial_share)
        then = "remove it; the same command then chooses again among the finished trials"
        chosen = read_json(path, then)
        if not isinstance(chosen, dict) or any(type(value) not in (int, float) for value in chosen.values()):
            raise ValueError(f"{path}: damaged: an object of numbers by field is expected; {then}")
        return chosen

    new = 0

    def done(trials: int, best: float) -> None:
        nonlocal new
        new += 1
        clock.done(options.trial_share, f"{where}: trial {trials} of {options.budget}: best {best:.5f}")

    chosen = tune(contestant, os.path.join(home, "tuning"), options.budget, options.trial_share, _loss, done)
    clock.skip((options.budget - new) * options.trial_share)
    os.makedirs(home, exist_ok=True)
    write_json(path, chosen)
    return chosen


def _seeded(config: Recipe, i: int) -> Recipe:
    config = copy.deepcopy(config)
    config.train.seed += i
    return config


def _loss(config: RunConfig | TreesConfig, workdir: str) -> float:
    """Trains a run and returns the tuned metric on the rows for choices; infinite if the run diverges."""
    try:
        scores = halves(_trained(config, workdir)[0])[0]
    except FloatingPointError:
        return float("inf")
    metrics = scores.metrics()
    return 1 - metrics["ndcg"] if config.train.monitor == "ndcg" else metrics[scores.task.tuned]


def _trained(
    config: RunConfig | TreesConfig, workdir: str, show_progress: bool = False
) -> tuple[Scores, tuple[dict[str, Any], ...]]:
    """Trains a run, and returns the scores of all evaluation rows, and the metrics of each evaluation by step."""
    if isinstance(config, TreesConfig):
        scores, count = fit_trees(config, workdir)
        return scores, ({"step": count, **scores.metrics()},)
    train_and_evaluate(config, workdir, show_progress=show_progress).unless_interrupted()
    records = RunRecords(Workdir(workdir).file(METRICS_FILE), "step")
    model, loaded, _ = load_run(workdir, "latest")
    scores = score_split(model, loaded.data.path, loaded.train.eval_batch_size)
    return scores, tuple({"step": r["step"], **r["eval"]} for r in records if "eval" in r)


def _run(
    label: str, config: RunConfig | TreesConfig, workdir: str, chosen: dict[str, Any], show_progress: bool
) -> Outcome:
    all_rows, curve = _trained(config, workdir, show_progress)
    scores = halves(all_rows)[1]
    metrics = scores.metrics()
    names = dict.fromkeys((*shown_metrics(config.train.monitor, scores.task), "ndcg"))
    shown = tuple(name for name in names if name in metrics)
    outcome = Outcome(label, config.train.seed, shown, metrics, curve, chosen, tuple(scores.left_out()))
    outcome.save(workdir)
    free_models()
    return outcome
