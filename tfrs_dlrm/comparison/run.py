"""The comparison itself: tunes, trains, scores and measures, and goes on where it was interrupted."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.comparison.contestants import Contestant
from tfrs_dlrm.comparison.outcome import Cost, Outcome, halves
from tfrs_dlrm.comparison.tuning import applied, tune
from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.data.dataset import dataset
from tfrs_dlrm.data.manifest import Manifest
from tfrs_dlrm.data.prepare import Progress
from tfrs_dlrm.data.ready import ready
from tfrs_dlrm.embeddings.quantized import stored_bytes
from tfrs_dlrm.files import read_json, write_json
from tfrs_dlrm.serving.bundle import export_model
from tfrs_dlrm.serving.verification.verify import verify
from tfrs_dlrm.training.evaluation import Scores, score
from tfrs_dlrm.training.factory import load_model, make_optimizers
from tfrs_dlrm.training.inputs import evaluation_dataset
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.workdir import METRICS_FILE, Workdir

_STEPS, _WARM_STEPS = 60, 10
_CONFIG_FILE, _COST_FILE, _CHOSEN_FILE = "comparison.json", "cost.json", "chosen.json"


@dataclasses.dataclass(frozen=True)
class Options:
    """How models are compared.

    Attributes:
      seeds: how many runs of each, from the recipe's seed upward.
      budget: trials of learning rates and regularization for each model; 0 takes the recipe's.
      trial_share: the length of a trial as a share of a run's.
      measure: whether to time train steps and the exported model.
    """

    seeds: int = 5
    budget: int = 0
    trial_share: float = 0.3
    measure: bool = True

    def check(self) -> None:
        """Raises ValueError where a number is out of range."""
        if self.seeds < 1 or self.budget < 0 or not 0 < self.trial_share <= 1:
            raise ValueError(f"{self}: seeds from 1, a budget from 0 and a trial_share in (0, 1] are needed")


def compare(
    contestants: Sequence[Contestant],
    output: str,
    options: Options,
    say: Callable[[str], None] = lambda line: None,
    prepare_progress: Progress | None = None,
    show_progress: bool = False,
) -> tuple[list[Outcome], dict[str, Cost]]:
    """Trains each contestant with each seed; what is done already in `output` is not done again.

    The evaluation set is halved: tuning looks at its even rows, and what is returned was measured on its odd rows, of
    the last checkpoint of each run. So nothing that is reported was used for a choice.

    Args:
      contestants: what to compare, on the same data.
      output: the directory of all runs.
      options: how.
      say: is told what is being done.
      prepare_progress: is told how far the preparation of raw data is, where there is any.
      show_progress: draws a progress bar on standard error.

    Returns:
      The outcomes in the order of contestants and seeds, and what each contestant takes, by label.

    Raises:
      ValueError: the data have no evaluation set, or `output` holds another comparison.
      OSError: the disk is full.
    """
    options.check()
    base = contestants[0].config
    ready(base.data, base.train.seed, prepare_progress)
    if not Manifest.load(base.data.path).rows("eval"):
        raise ValueError(f"{base.data.path} has no evaluation set to compare on; prepare with --eval_fraction")
    _begin(contestants, output, options)
    outcomes, costs = [], {}
    for number, contestant in enumerate(contestants, 1):
        home = os.path.join(output, contestant.directory)
        where = f"[{number}/{len(contestants)}] {contestant.label}"
        trials = functools.partial(_say_trials, say, where, options.budget)
        chosen = _chosen(contestant, home, options, trials)
        config = applied(contestant.config, chosen)
        for i in range(options.seeds):
            workdir = os.path.join(home, f"seed-{config.train.seed + i}")
            outcome = Outcome.load(workdir)
            if outcome is None:
                say(f"{where}: seed {i + 1} of {options.seeds}")
                outcome = _run(contestant.label, _seeded(config, i), workdir, chosen, show_progress)
            outcomes.append(outcome)
        if options.measure:
            costs[contestant.label] = _cost(os.path.join(home, f"seed-{config.train.seed}"), home)
    return outcomes, costs


def _say_trials(say: Callable[[str], None], where: str, budget: int, done: int) -> None:
    say(f"{where}: {done} of {budget} trials")


def _begin(contestants: Sequence[Contestant], output: str, options: Options) -> None:
    """Makes the directory, or makes sure that what is in there is of the same recipes."""
    path = os.path.join(output, _CONFIG_FILE)
    found = read_json(path) if os.path.isfile(path) else {}
    os.makedirs(output, exist_ok=True)
    for c in contestants:
        recipe = {"config": c.config.to_dict(), "budget": options.budget, "trial_share": options.trial_share}
        there = found.setdefault(c.label, recipe)
        if there != recipe:
            raise ValueError(f"{output}: holds {c.label} of another recipe or budget; choose another --output")
    write_json(path, found)


def _chosen(contestant: Contestant, home: str, options: Options, done: Callable[[int], None]) -> dict[str, Any]:
    path = os.path.join(home, _CHOSEN_FILE)
    if os.path.isfile(path):
        return dict(read_json(path))
    directory = os.path.join(home, "tuning")
    chosen = tune(contestant, directory, options.budget, options.trial_share, _loss, done)
    os.makedirs(home, exist_ok=True)
    write_json(path, chosen)
    return chosen


def _seeded(config: RunConfig, i: int) -> RunConfig:
    config = copy.deepcopy(config)
    config.train.seed += i
    return config


def _loss(config: RunConfig, workdir: str) -> float:
    """What is to be small of a run, on the rows that choices are made by; infinite where it diverges."""
    try:
        train_and_evaluate(config, workdir)
    except FloatingPointError:
        return float("inf")
    scores = halves(_scores(workdir))[0]
    return scores.metrics()[scores.task.tuned]


def _scores(workdir: str) -> Scores:
    model, config, _ = load_model(workdir, "latest")
    return score(model, evaluation_dataset(config.data.path, config.train.eval_batch_size, "eval"))


def _run(label: str, config: RunConfig, workdir: str, chosen: dict[str, Any], show_progress: bool) -> Outcome:
    train_and_evaluate(config, workdir, show_progress=show_progress)
    scores = halves(_scores(workdir))[1]
    with open(Workdir(workdir).file(METRICS_FILE), encoding="utf-8") as f:
        records = [json.loads(line) for line in f]
    curve = [{"step": r["step"], **r["eval"]} for r in records]
    outcome = Outcome(label, config.train.seed, list(scores.task.shown), scores.metrics(), curve, chosen)
    outcome.save(workdir)
    tf.keras.backend.clear_session()
    return outcome


def _cost(workdir: str, home: str) -> Cost:
    path = os.path.join(home, _COST_FILE)
    if os.path.isfile(path):
        return Cost(**read_json(path))
    model, config, _ = load_model(workdir, "latest")
    exported = os.path.join(home, "exported")
    shutil.rmtree(exported, ignore_errors=True)
    export_model(model, config.data.path, exported)
    report = verify(exported)
    if not report.passed:
        raise ValueError(f"{report}")
    latency = {str(x.size): x.p50 for x in report.latency if x.signature == "serving_default"}
    tables = list(model.embeddings.tables.values())
    dense = model.dense_variables
    cost = Cost(
        parameters=int(sum(np.prod(v.shape) for v in [*tables, *dense])),
        bytes=int(sum(map(stored_bytes, tables)) + sum(4 * np.prod(v.shape) for v in dense)),
        examples_per_second=_speed(model, config),
        latency_ms=latency,
    )
    write_json(path, dataclasses.asdict(cost))
    shutil.rmtree(exported, ignore_errors=True)
    return cost


def _speed(model: Any, config: RunConfig) -> float:
    """Examples/s of train steps on a batch that is in memory, the median of single steps."""
    model.compile(*make_optimizers(config.optimizer))
    batch = next(iter(dataset(config.data.path, config.train.batch_size, sort_ids=True)))
    step = model.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    seconds = []
    for _ in range(_WARM_STEPS + _STEPS):
        begin = time.perf_counter()
        step(batches)
        seconds.append(time.perf_counter() - begin)
    return float(config.train.batch_size / np.median(seconds[_WARM_STEPS:]))
