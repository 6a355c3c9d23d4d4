"""Every recipe under `--strategy=tpu`, as it is: all that happens before the first step, and the steps traced."""

import csv
import itertools
import re
from pathlib import Path

import click_log
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cases import matrix
from fake_tpu import KINDS, fake_tpu

from tfrs_dlrm.config import RunConfig, SearchConfig, load_recipe
from tfrs_dlrm.config.recipes import recipe_names
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.distribute import placement
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.tools.planner import parse_topology, plan
from tfrs_dlrm.training import loop
from tfrs_dlrm.training.inputs import distributed_dataset
from tfrs_dlrm.training.run import Result

ROOT = Path(__file__).parents[2]
RECIPES = recipe_names()
ROWS = 1500
# Tables of more rows are on the embedding hardware, as tables of over a megabyte are in earnest.
LARGE = 20


def recipe(name: str) -> RunConfig:
    config = load_recipe(name)
    config.search = SearchConfig()  # the recipe itself, and not its candidates
    return config


def prepared(config: RunConfig, folder: Path) -> str:
    """Prepares random rows of the recipe's schema, or of another one if it has none."""
    if not config.data.schema:
        return click_log.make(str(folder), 400)
    schema = Schema.load(ROOT / config.data.schema)
    schema = schema.with_vocabulary_sizes(
        {t.name: min(t.vocabulary_size, 99) for t in schema.tables if t.vocabulary_size}
    )
    rng, columns, lengths = np.random.default_rng(0), {}, {}
    for f in schema.dense:
        columns[f.column] = rng.uniform(0, 9, ROWS).round(2)
    for i, f in enumerate(schema.categorical):
        counts = rng.integers(0, 3, ROWS) if f.multi_valued else np.ones(ROWS, int)
        lengths[f.name] = counts = lengths.get(f.parallel_to, counts)
        distinct = 6 if f.separator or i % 2 else 60
        values = [rng.integers(0, min(distinct, schema.table_of(f).vocabulary_size or 60), n) for n in counts]
        if f.separator:
            columns[f.column] = [f.separator.join(f"v{v}" for v in row) for row in values]
        elif f.dtype == "string":
            columns[f.column] = [f"v{row[0]}" for row in values]
        else:
            columns[f.column] = [row.tolist() if f.multi_valued else int(row[0]) for row in values]
        if f.weights:
            columns[f.weights] = [[0.5] * n for n in counts]
    y, label = np.arange(ROWS) % 2, schema.label
    if label.positive:
        columns[label.column] = [(label.negative, label.positive)[v][0] for v in y]
    else:
        columns[label.column] = y * (label.threshold or 1)
    columns |= {more.column: y * (np.arange(ROWS) % 3 == 0) for more in schema.more_labels}
    if schema.text.columns:
        path = folder / "log.csv"
        with open(path, "w", newline="") as file:
            writer = csv.writer(file, delimiter=schema.text.delimiter or ",")
            writer.writerows(zip(*(columns[name] for name in schema.text.columns), strict=True))
    else:
        pq.write_table(pa.table(columns), path := folder / "log.parquet")
    prepare(schema, [str(path)], str(folder / "prepared"), eval_fraction=0.3)
    return str(folder / "prepared")


# Each recipe for one kind of chip in turn, and the quickstart, whose tables are like those of most, for all.
CASES = {*zip(RECIPES, itertools.cycle(KINDS), strict=False), *itertools.product(["quickstart"], KINDS)}
FAST = [("quickstart", "V1"), ("anime", "SparseCore")]


@pytest.mark.parametrize(("name", "kind"), matrix(sorted({*CASES, *FAST}), FAST))
def test_a_recipe_is_traced_without_a_flag(name, kind, tmp_path, monkeypatch):
    config = recipe(name)
    config.data.path, config.data.synthetic_rows = prepared(config, tmp_path), 0
    config.train.batch_size, config.train.eval_batch_size = 16, 32
    monkeypatch.setitem(placement.REPLICATE_BELOW, "tpu", LARGE * 4 * config.model.embedding_dim)
    said = []

    def traced(run, show_progress, begins_with):
        tables = run.model.embeddings
        assert bool(tables.on_hardware) == bool(kind) and len(tables.on_hardware) < len(tables.placement.tables)
        batches = iter(distributed_dataset(run.data_dir, 16, tables=tables))
        for make in (run.model.make_train_function, run.model.make_test_function):
            graph = make().get_concrete_function(batches).graph
            assert [o for o in graph.get_operations() if o.type == "TPUReplicateMetadata"]
        said.append(begins_with)
        return Result(0, "traced", 0, {})

    monkeypatch.setattr(loop.TrainingRun, "train", traced)
    with fake_tpu(kind) as strategy:
        loop.train_and_evaluate(config, str(tmp_path / "run"), strategy)
    given = config.optimizer.embedding
    hardware = " (auto: TPU embedding hardware has no rowwise_adagrad)"
    expected = given if given != "auto" else f"adagrad{hardware}" if kind else "rowwise_adagrad (auto)"
    assert [lines[-1] for lines in said] == [f"row optimizers: {expected}"]  # after what it chose for the data
    # What the run has written down, which evaluation, export and report read.
    assert RunConfig.from_dict(loop.Workdir(str(tmp_path / "run")).config().to_dict()).optimizer.embedding != "auto"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_planned_without_a_flag(name):
    config = recipe(name)
    schema = Schema.load(ROOT / (config.data.schema or "docs/plans/criteo_terabyte.json"))
    sizes = {t.name: t.vocabulary_size or 1_000_000 for t in schema.tables}
    for chips in ("v4-8", "v6e-8"):
        found = plan(schema.with_vocabulary_sizes(sizes), config, parse_topology("tpu", chips))
        assert any(t.placed.kind == "tpu_embedding" for t in found.tables)
        assert {t.optimizer for t in found.tables} == {
            found.optimizer.embedding
        } and "rowwise" not in found.optimizer.embedding
        needed = [note for note in found.notes if re.search(r"must|needs? --config", note)]
        # Here even genres, of which there are few, have a large table.
        assert len(needed) == (name in ("anime", "anime_ratings")), needed
