"""Writes the days of a log that moves, one CSV file a day, with the best AUC of each day."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from tfrs_dlrm.data.synthetic.moving import FIELDS, Floats, MovingDay, MovingRows, day_stream, moving_days
from tfrs_dlrm.data.synthetic.planted import generator, sigmoid
from tfrs_dlrm.data.synthetic.synthetic import PLANTED_FILE
from tfrs_dlrm.messages.arguments import checked
from tfrs_dlrm.metrics import exact_auc, log_loss
from tfrs_dlrm.schema import SCHEMA_FILE, CategoricalFeature, DenseFeature, Label, Schema
from tfrs_dlrm.stores.files import disk_full, read_json, remove_unfinished, well_formed, whole_file, write_json
from tfrs_dlrm.stores.lock import directory_lock

# The true weights of the first day then lose about 0.04 AUC in the mean of six days, those of yesterday 0.006.
DRIFT, NEW_VALUES = 0.07, 0.1
FIRST_DAY = datetime.date(2026, 11, 1)
_CHUNK = 65_536


@dataclasses.dataclass(frozen=True)
class PlantedDay:
    """One day of the log, and the metrics of the planted model's probabilities on its rows.

    Attributes:
      day: the date, such as `2026-11-01`.
      file: the name of the file.
      rows: the number of rows.
      label_mean: the click rate.
      auc: the best AUC that a model can expect.
      log_loss: the best log loss that a model can expect.
      new_values: by field that gets new values, the share of rows whose value appears on this day.
    """

    day: str
    file: str
    rows: int
    label_mean: float
    auc: float
    log_loss: float
    new_values: dict[str, float]


def moving_schema() -> Schema:
    """Makes the schema of the log. The column `time` is no feature: it tells the days apart."""
    return Schema(
        Label("click"),
        dense=(DenseFeature("price", transform=("log1p", "standardize")), DenseFeature("age", transform="standardize")),
        categorical=tuple(CategoricalFeature(name, min_count=5) for name in FIELDS),
    )


@checked
def generate_days(
    output: str,
    days: int,
    rows: int,
    seed: int = 0,
    new_values: float = NEW_VALUES,
    drift: float = DRIFT,
    progress: Callable[[int], None] | None = None,
) -> list[PlantedDay]:
    """Writes OUTPUT/2026-11-01.csv and the following days, schema.json and, last, planted.json.

    Equal arguments give equal bytes, and more days begin with the same ones.

    Args:
      output: a directory.
      days: how many.
      rows: of each day.
      seed: of the planted model and of the rows.
      new_values: of the rows of a day after the first, the share with an item that appears on this day; and the same of
        campaigns. So many items and campaigns go.
      drift: how much popularity and weights turn in a day, as a share of a right angle: after `1 / drift` days nothing
        is left of the first ones.
      progress: called with the number of rows written so far.

    Raises:
      ValueError: an argument is out of range; `output` holds a day after the last; or another process draws another
        log in it (`InUseError`). One that draws the same log is waited for.
      OSError: the disk is full.
    """
    if days < 1 or rows < 1:
        raise ValueError(f"days={days} and rows={rows}: give at least 1 of each")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed} is out of range; give 0 to {2**63 - 1}")
    for name, value in (("new_values", new_values), ("drift", drift)):
        if not 0 <= value < 1:
            raise ValueError(f"{name}={value} is no share; give 0 or more, and less than 1")
    after = _file_of(days)
    if os.path.exists(os.path.join(output, after)):
        raise ValueError(
            f"{output} holds {after}, of a log of more than {days} days; remove its files, or choose another output"
        )
    arguments = {"rows": rows, "seed": seed, "new_values": new_values, "drift": drift}
    key = f"{days} {arguments}"
    with directory_lock(output, "draws a log in it", key) as lock, disk_full(output):
        if lock.acquire(wait=lambda owner: owner.key == key) and (drawn := _complete(output, days, arguments)):
            return drawn
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(output, PLANTED_FILE))  # it says that the other files are complete
        remove_unfinished(output)
        moving_schema().save(os.path.join(output, SCHEMA_FILE))
        found = []
        for number, day in enumerate(moving_days(seed, days, new_values, drift)):
            report = None if progress is None else _from(progress, number * rows)
            found.append(_write_day(output, day, number, seed, rows, report))
        write_json(
            os.path.join(output, PLANTED_FILE),
            {**arguments, "days": [dataclasses.asdict(planted) for planted in found]},
        )
    return found


def _complete(output: str, days: int, arguments: dict[str, Any]) -> list[PlantedDay]:
    """Returns the days of a log that is complete; empty if there is none, or another one."""
    path, then = os.path.join(output, PLANTED_FILE), "remove the file, and the log is drawn again"
    if not os.path.exists(path):
        return []
    planted = read_json(path, then)
    with well_formed(path, then):
        same = len(planted["days"]) == days and {name: planted[name] for name in arguments} == arguments
        return [PlantedDay(**day) for day in planted["days"]] if same else []


def draw_block(day: MovingDay, seed: int, number: int, chunk: int, rows: int) -> tuple[MovingRows, np.ndarray, Floats]:
    """Draws a chunk of the `rows` rows of a day: the raw rows, their labels int8 [B], and the labels' logits [B]."""
    first = chunk * _CHUNK
    size = min(_CHUNK, rows - first)
    rng = generator(seed, day_stream(number), chunk)
    drawn = day.draw(rng, size, first / rows, (first + size) / rows)
    logits = day.logits(drawn)
    return drawn, (rng.random(size) < sigmoid(logits)).astype(np.int8), logits


def _file_of(number: int) -> str:
    return f"{FIRST_DAY + datetime.timedelta(days=number)}.csv"


def _write_day(
    output: str, day: MovingDay, number: int, seed: int, rows: int, report: Callable[[int], None] | None
) -> PlantedDay:
    date = FIRST_DAY + datetime.timedelta(days=number)
    labels, logits = [], []
    moving = [name for name, (_, _, moves) in FIELDS.items() if moves]
    new = dict.fromkeys(moving, 0)
    name = _file_of(number)
    with whole_file(os.path.join(output, name), "wb") as file:
        for chunk in range(-(-rows // _CHUNK)):
            drawn, label, logit = draw_block(day, seed, number, chunk, rows)
            options = pa_csv.WriteOptions(include_header=chunk == 0, quoting_style="none")
            pa_csv.write_csv(_table(day, drawn, label, date), file, options)
            labels.append(label)
            logits.append(logit)
            for field in moving:
                new[field] += int(day.fields[field].new[drawn.places[field]].sum())
            if report:
                report(min(rows, (chunk + 1) * _CHUNK))
    label, logit = np.concatenate(labels), np.concatenate(logits)
    metrics = float(label.mean()), exact_auc(label, logit), log_loss(label, logit)
    return PlantedDay(str(date), name, rows, *metrics, {field: count / rows for field, count in new.items()})


def _table(day: MovingDay, rows: MovingRows, label: np.ndarray, date: datetime.date) -> pa.Table:
    moments = np.datetime64(date, "s") + np.floor(rows.seconds).astype("timedelta64[s]")
    columns: dict[str, Any] = {"click": pa.array(label), "time": np.datetime_as_string(moments)}
    for name, places in rows.places.items():
        field = day.fields[name]
        texts = pa.array([f"{name[0]}{number:06d}" for number in field.ids.tolist()])
        columns[name] = texts.take(pa.array(places))
    return pa.table(columns | {name: pa.array(numbers) for name, numbers in rows.numbers.items()})


def _from(progress: Callable[[int], None], before: int) -> Callable[[int], None]:
    return lambda rows: progress(before + rows)
