"""What updating is worth: plays days through with a model that stays, one that is updated, and one that is retrained.

Each day is scored before any model was trained on its rows. Everything is in one directory: `frozen` is the run of the
first day, `updated` the run that goes on from it, `scratch` a run for each day, trained anew on all days before.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

from tfrs_dlrm.config import RunConfig, up_to_date
from tfrs_dlrm.data.preparing.job import file_stamp
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.raw.frames import Frame, expand_inputs
from tfrs_dlrm.messages.aligned import aligned
from tfrs_dlrm.metrics.names import title
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.stores.files import local_path, put, read_json, write_json
from tfrs_dlrm.tools.update.options import UpdateOptions
from tfrs_dlrm.tools.update.run import update
from tfrs_dlrm.tools.update.scoring import joined, score_run
from tfrs_dlrm.training.free_models import free_models
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.run import RunRecords
from tfrs_dlrm.training.workdir import Workdir

FROZEN, UPDATED, SCRATCH = "frozen", "updated", "scratch"
BACKTEST_FILE, _PLAN_FILE = "backtest.jsonl", "backtest.json"
_ANY = 1e9  # a tolerance that takes every new model: the question is what updates do


@dataclasses.dataclass(frozen=True)
class DayResult:
    """The scores of a day.

    Attributes:
      number: of the day; the first, on which all models begin, has 1 and no result.
      day: the name of its log.
      metrics: by way (`frozen`, `updated`, `scratch`), on all rows of the day, before training on them.
      seconds: by way, the time to make the model of this day; of an update with its scores.
    """

    number: int
    day: str
    metrics: dict[str, dict[str, float]]
    seconds: dict[str, float]


class Backtest:
    """Days that are played through.

    Args:
      config: the recipe of the first day, and of each training from scratch.
      schema: of the logs.
      days: the log of each day in their order, at least two.
      output: the directory to write. The same call in it continues what was interrupted.
      options: of the updates; their tolerance is not used, and nothing is exported.
      scratch: whether to train from scratch each day, which takes longest.

    Raises:
      ValueError: there are fewer than two days, or the half-life is one of dates.
    """

    def __init__(
        self,
        config: RunConfig,
        schema: Schema,
        days: Sequence[str],
        output: str,
        options: UpdateOptions,
        scratch: bool = True,
    ):
        if len(days) < 2:
            raise ValueError(f"{len(days)} days: at least two are needed, a log (file or directory) for each")
        options.check()
        if options.half_life.endswith("d"):
            raise ValueError(f"half_life={options.half_life}: the logs have no dates here; give a number of days, as 7")
        self._config, self._schema, self._days, self._scratch = config, schema, days, scratch
        self._home, self._options = local_path(output), dataclasses.replace(options, tolerance=_ANY, export="")

    def run(self, say: Callable[[str], None] = lambda line: None) -> list[DayResult]:
        """Plays all days through; returns their results.

        Raises:
          ValueError: the directory has a backtest of other days, or with another recipe or options.
        """
        self._begin()
        self._train(self._days[:1], self._path(FROZEN))
        if not os.path.isdir(self._path(UPDATED)):
            shutil.rmtree(copy := self._path("copy"), ignore_errors=True)
            shutil.copytree(self._path(FROZEN), copy)
            put(copy, self._path(UPDATED))
        records = RunRecords(self._path(BACKTEST_FILE), "number")
        found = [DayResult(**record) for record in records]
        for number in range(len(found) + 2, len(self._days) + 1):
            result = self._play(number)
            records.append(dataclasses.asdict(result))
            found.append(result)
            say(_line(result))
        return found

    def _begin(self) -> None:
        """Writes down what is compared, or makes sure that it is the same; days may have been added."""
        path = self._path(_PLAN_FILE)
        files = [file for day in self._days for file in expand_inputs([day], "days")]
        plan: dict[str, Any] = {
            "config": dataclasses.replace(self._config, data=self._config.data.of_prepared("")).to_dict(),
            "schema": json.loads(self._schema.to_json()),
            "days": [file_stamp(file) for file in files if not isinstance(file, Frame)],
            "options": self._options.plain(),
            "scratch": self._scratch,
        }
        if os.path.isfile(path):
            found: Any = read_json(path, "choose another --output")
            found["config"] = up_to_date(found.get("config"))
            same = plan | {"days": plan["days"][: len(found.get("days", []))]}
            if changed := [name for name in plan if found.get(name) != same[name]]:
                raise ValueError(
                    f"{self._home}: holds a backtest with other {', '.join(changed)}; choose another --output"
                )
        os.makedirs(self._home, exist_ok=True)
        write_json(path, plan)

    def _play(self, number: int) -> DayResult:
        day = self._days[number - 1]
        metrics: dict[str, dict[str, float]] = {}
        seconds: dict[str, float] = {}
        if self._scratch:
            run, data = self._path(SCRATCH, str(number)), self._path(SCRATCH, f"{number}-day")
            begin = time.monotonic()
            self._train(self._days[: number - 1], run)
            seconds[SCRATCH] = time.monotonic() - begin
            prepare(None, [day], data, base=Workdir(run).config().data.path)
            metrics[SCRATCH] = _score(run, data, eval_rows=False)
        begin = time.monotonic()
        found = update(self._path(UPDATED), [day], self._options)
        record = found.record
        if not found.earlier:  # else a call before this one has taken the time
            seconds[UPDATED] = time.monotonic() - begin
        if not record.accepted:
            raise ValueError(f"{day}: the update failed: {record.reason}")
        metrics[UPDATED] = record.before
        metrics[FROZEN] = _score(self._path(FROZEN), Workdir(self._path(UPDATED)).config().data.path)
        if self._scratch:
            shutil.rmtree(self._path(SCRATCH), ignore_errors=True)
        ways = {way: metrics[way] for way in (FROZEN, UPDATED, SCRATCH) if way in metrics}
        return DayResult(number, os.path.basename(os.path.normpath(day)), ways, seconds)

    def _train(self, days: Sequence[str], run: str) -> None:
        data = f"{run}-data"
        prepare(self._schema, list(days), data, eval_fraction=self._options.eval_fraction, seed=self._config.train.seed)
        train_and_evaluate(
            dataclasses.replace(self._config, data=self._config.data.of_prepared(data)), run
        ).unless_interrupted()
        free_models()

    def _path(self, *names: str) -> str:
        return os.path.join(self._home, *names)


def _score(run: str, data: str, eval_rows: bool = True) -> dict[str, float]:
    rows = Workdir(run).model_rows(data)
    parts = score_run(run, data, rows, ("train", "eval") if eval_rows else ("train",))
    free_models()
    return joined(parts).metrics()


def _line(result: DayResult) -> str:
    """Says how good each way was on a day. AUC is undefined on a day of one class."""
    shown = next(m for m in ("auc", "rmse", "log_loss") if m in result.metrics[FROZEN])
    values = ", ".join(f"{way} {_cell(m.get(shown))}" for way, m in result.metrics.items())
    return f"{result.day}, {title(shown)}: {values}"


def backtest_table(results: Sequence[DayResult]) -> str:
    """Lines up metrics of each way by day, and their means; then the mean times. No newline at the end."""
    ways = list(results[0].metrics)
    shown = [m for m in ("auc", "normalized_entropy", "rmse") if any(m in r.metrics[ways[0]] for r in results)]
    rows: list[list[str]] = [["day", *(f"{title(m)}, {way}" for m in shown for way in ways)]]
    for result in results:
        rows.append([result.day, *(_cell(result.metrics[way].get(m)) for m in shown for way in ways)])
    rows.append(["mean", *(_cell(mean(results, way, m)) for m in shown for way in ways)])
    lines = aligned(rows)
    for way in (UPDATED, SCRATCH):
        times = [r.seconds[way] for r in results if way in r.seconds]
        if times:
            lines.append(f"{way}: {sum(times) / len(times):.1f} s a day in the mean")
    return "\n".join(lines)


def mean(results: Sequence[DayResult], way: str, metric: str) -> float | None:
    """Returns the mean of a metric over the days that have it; None if none has."""
    values = [r.metrics[way][metric] for r in results if metric in r.metrics[way]]
    return sum(values) / len(values) if values else None


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.5f}"
