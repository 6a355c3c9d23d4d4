"""Writes a click log in raw Criteo format, drawn from a planted model, so that the best possible AUC is known."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from tfrs_dlrm.data.synthetic.planted import PlantedModel, PlantedRows, generator, sigmoid
from tfrs_dlrm.metrics import exact_auc, log_loss
from tfrs_dlrm.schema import SCHEMA_FILE, CategoricalFeature, DenseFeature, Label, Schema, Table, TextFormat
from tfrs_dlrm.stores import is_store_url, publish
from tfrs_dlrm.stores.files import disk_full, read_json, remove_unfinished, well_formed, whole_file, write_json
from tfrs_dlrm.stores.lock import directory_lock

TRAIN_FILE, EVAL_FILE, PLANTED_FILE = "train.tsv", "eval.tsv", "planted.json"
_CHUNK = 65_536
_TRAIN, _EVAL = 1, 2  # streams of random numbers; 0 makes the planted model


@dataclasses.dataclass(frozen=True)
class PlantedMetrics:
    """Metrics of the planted model's probabilities on the evaluation rows.

    Attributes:
      rows: the number of evaluation rows.
      label_mean: the click rate.
      auc: the best AUC that a model can expect.
      log_loss: the best log loss that a model can expect.
    """

    rows: int
    label_mean: float
    auc: float
    log_loss: float


def criteo_schema(min_count: int = 1, max_size: int | None = None, dim: int = 16) -> Schema:
    """Makes the schema of the Criteo logs: a label, integers I1 to I13 and hexadecimal ids C1 to C26, without a header.

    Args:
      min_count: rarer ids share one row.
      max_size: the maximal number of ids with rows, per feature.
      dim: the embedding dimension of all tables.
    """
    integers, ids = [f"I{i}" for i in range(1, 14)], [f"C{i}" for i in range(1, 27)]
    return Schema(
        label=Label("label"),
        dense=tuple(DenseFeature(name, transform="log1p") for name in integers),
        categorical=tuple(CategoricalFeature(name, min_count=min_count, max_size=max_size) for name in ids),
        tables=tuple(Table(name, dim) for name in ids),
        text=TextFormat(columns=("label", *integers, *ids)),
    )


def generate(
    output: str,
    train_rows: int,
    eval_rows: int,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    again: bool = True,
) -> PlantedMetrics:
    """Writes OUTPUT/train.tsv, eval.tsv, schema.json and, last, planted.json. Equal arguments give equal bytes.

    Args:
      output: a directory, or a URL in an object store under which nothing is published yet.
      train_rows: rows of train.tsv.
      eval_rows: rows of eval.tsv; only the planted model shares random numbers with train.tsv.
      seed: of the planted model and of the rows.
      progress: called with the number of rows written so far, of both files.
      again: whether to draw a log again that is complete already.

    Raises:
      ValueError: fewer than 1 row, or a seed outside [0, 2**63); or another process draws another log in `output`
        (`InUseError`). One that draws the same log is waited for.
      OSError: the disk is full; a `StoreError` if an object store cannot be reached or refuses.
    """
    if train_rows < 1 or eval_rows < 1:
        raise ValueError(f"train_rows={train_rows} and eval_rows={eval_rows}: give at least 1 of each")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed} is out of range; give 0 to {2**63 - 1}")
    if is_store_url(output):
        with tempfile.TemporaryDirectory() as home:
            planted = generate(home, train_rows, eval_rows, seed, progress)
            publish(home, output, last=(PLANTED_FILE,))
        return planted
    key = f"{train_rows} {eval_rows} {seed}"
    with directory_lock(output, "draws a log in it", key) as lock, disk_full(output):
        waited = lock.acquire(wait=lambda owner: owner.key == key)
        path = os.path.join(output, PLANTED_FILE)
        if (waited or not again) and os.path.exists(path):
            then = "remove the file, and the log is drawn again"
            planted = read_json(path, then)
            with well_formed(path, then):
                if [planted[name] for name in ("train_rows", "rows", "seed")] == [train_rows, eval_rows, seed]:
                    return PlantedMetrics(**{f.name: planted[f.name] for f in dataclasses.fields(PlantedMetrics)})
        return _generate(output, train_rows, eval_rows, seed, progress or (lambda rows: None))


def _generate(output: str, train_rows: int, eval_rows: int, seed: int, report: Callable[[int], None]) -> PlantedMetrics:
    # The file of an earlier log would say that the other files are complete and belong together.
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(output, PLANTED_FILE))
    remove_unfinished(output)
    model = PlantedModel(seed)
    _write_rows(os.path.join(output, TRAIN_FILE), model, seed, _TRAIN, train_rows, report)
    labels, logits = _write_rows(
        os.path.join(output, EVAL_FILE), model, seed, _EVAL, eval_rows, lambda rows: report(train_rows + rows)
    )
    # So few rows do not teach a model the effects of rarer ids.
    criteo_schema(min_count=100).save(os.path.join(output, SCHEMA_FILE))
    planted = PlantedMetrics(eval_rows, float(labels.mean()), exact_auc(labels, logits), log_loss(labels, logits))
    write_json(
        os.path.join(output, PLANTED_FILE), {**dataclasses.asdict(planted), "train_rows": train_rows, "seed": seed}
    )
    return planted


def draw_chunk(
    model: PlantedModel, seed: int, stream: int, chunk: int, rows: int
) -> tuple[PlantedRows, np.ndarray, np.ndarray]:
    """Draws a chunk of rows, their labels int [B], and the logits float32 [B] of the labels."""
    rng = generator(seed, stream, chunk)
    drawn = model.draw(rng, rows)
    logits = model.logits(drawn)
    return drawn, (rng.random(rows) < sigmoid(logits)).astype(np.int8), logits


def _write_rows(
    path: str, model: PlantedModel, seed: int, stream: int, rows: int, progress: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Writes a TSV file; returns labels and logits of all rows."""
    texts = [_hex_ids(f, len(p)) for f, p in enumerate(model.probabilities)]
    labels, logits = [], []
    options = pa_csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    with whole_file(path, "wb") as file:
        for chunk in range(-(-rows // _CHUNK)):
            size = min(_CHUNK, rows - chunk * _CHUNK)
            drawn, label, logit = draw_chunk(model, seed, stream, chunk, size)
            columns = [pa.array(label), *(pa.array(i, mask=i < 0) for i in drawn.integers)]
            columns += [text.take(pa.array(ids)) for text, ids in zip(texts, drawn.ids, strict=True)]
            pa_csv.write_csv(pa.table(columns, names=[str(i) for i in range(40)]), file, options)
            labels.append(label)
            logits.append(logit)
            progress(chunk * _CHUNK + size)
    return np.concatenate(labels), np.concatenate(logits)


def _hex_ids(field: int, size: int) -> pa.Array:
    """The texts of the ids of a field in the log: eight hexadecimal digits, all different; id 0 is empty."""
    # An odd factor and an offset permute the 32-bit numbers.
    numbers = (np.arange(size, dtype=np.uint64) * 2_654_435_761 + (field + 1) * 40_503_929) % 2**32
    return pa.array(["", *(f"{n:08x}" for n in numbers[1:].tolist())], pa.string())
