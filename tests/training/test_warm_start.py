"""Yesterday's log and today's share most values, in other rows; the model of the one begins the model of the other."""

import dataclasses
import shutil

import click_log
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras
from cases import matrix

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.encoding.vocabulary import vocabulary_file
from tfrs_dlrm.embeddings.optimizers import ROW_OPTIMIZERS
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table, with_shared_rows

SCHEMA = Schema(
    Label("clicked"),
    dense=(DenseFeature("price", transform="log1p"),),
    categorical=(
        CategoricalFeature("site"),
        CategoricalFeature("user", encoding="hash"),
        CategoricalFeature("slot", encoding="ids", dtype="int64"),
        CategoricalFeature("tags", separator="|"),
    ),
    tables=(
        Table("site", 4),
        Table("user", 4, vocabulary_size=20),
        Table("slot", 4, vocabulary_size=7),
        Table("tags", 4),
    ),
)


def write(path: str, sites: list[str], rows: int = 600, click: str = "") -> None:
    """Clicks are certain on the site `click`, otherwise they follow the first letter of the site."""
    rng = np.random.default_rng(len(sites))
    with open(path, "w", encoding="utf-8") as f:
        f.write("clicked,price,site,user,slot,tags\n")
        for _ in range(rows):
            site = sites[rng.integers(len(sites))]
            label = int(site == click or site[0] == "a")
            f.write(f"{label},{rng.exponential(3):.2f},{site},u{rng.integers(40)},{rng.integers(6)},x|y\n")


def config(data: str, **train) -> RunConfig:
    return RunConfig(
        DataConfig(path=data),
        DLRMConfig(embedding_dim=4, bottom_mlp=(4,), top_mlp=(8, 1)),
        OptimizerConfig(learning_rate=0.01, embedding_learning_rate=0.1),
        TrainConfig(batch_size=50, epochs=4, tensorboard=False, **train),
    )


def compiled(data: str, schema: Schema | None = None, **kwargs) -> td.DLRM:
    model = td.DLRM(schema or Schema.load(f"{data}/schema.json"), (4,), (8, 1), seed=9)
    model.compile(keras.optimizers.Adam(0.01), kwargs.get("optimizer", td.RowWiseAdagrad(0.1)), metrics=[])
    return model


OLD_SITES, NEW_SITES = ["a1", "a2", "b1", "b2", "gone"], ["new", "b2", "a2", "b1"]


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """The prepared logs of two days, and the run on the first."""
    root = tmp_path_factory.mktemp("days")
    write(str(root / "old.csv"), OLD_SITES)
    write(str(root / "new.csv"), NEW_SITES, click="new")
    for day in ("old", "new"):
        td.prepare(SCHEMA, [str(root / f"{day}.csv")], str(root / day), eval_fraction=0.2)
    td.train_and_evaluate(config(str(root / "old")), str(root / "run"))
    return root


def rows_of(directory, table: str = "site") -> dict[str, int]:
    with open(vocabulary_file(str(directory), table), encoding="utf-8") as f:
        return {value: row for row, value in enumerate(f.read().splitlines(), 1)}


def batch(directory, sites: list[str]) -> dict:
    rows, tags = rows_of(directory), rows_of(directory, "tags")
    n = len(sites)
    return {
        "dense": tf.linspace([0.0], [3.0], n),
        "ids": tf.constant([[rows.get(s, 0), i % 20, i % 6] for i, s in enumerate(sites)]),
        "tags": tf.RaggedTensor.from_row_lengths([tags["x"], tags["y"]] * n, [2] * n),
    }


def load(directory) -> td.DLRM:
    from tfrs_dlrm.training.factory import load_run

    return load_run(str(directory))[0]


def test_unchanged_ids_keep_their_scores_rows_and_slots(days):
    old, new = load(days / "run"), compiled(str(days / "new"))
    initial = new.embeddings.tables["site"].numpy()
    report = td.warm_start(new, str(days / "new"), str(days / "run"))
    sites = ["a2", "b1", "b2", "unknown"]
    assert rows_of(days / "old") != {s: rows_of(days / "new").get(s) for s in rows_of(days / "old")}
    np.testing.assert_allclose(new(batch(days / "new", sites)), old(batch(days / "old", sites)), atol=1e-6)
    row = rows_of(days / "new")["new"]
    np.testing.assert_array_equal(new.embeddings.tables["site"][row], initial[row])

    reader = tf.train.load_checkpoint(f"{report.checkpoint}/rows")
    old_slots, new_slots = (
        reader.get_tensor("slots/site/accumulator"),
        new.embedding_optimizer.slots["site"]["accumulator"].numpy(),
    )
    for site in ("a2", "b1", "b2"):
        assert new_slots[rows_of(days / "new")[site]] == old_slots[rows_of(days / "old")[site]] > 0
    assert new_slots[row] == 0
    assert dataclasses.astuple(report.tables["site"]) == (4, 1, 2)  # row 0 and three sites; new; a1 and gone
    assert dataclasses.astuple(report.tables["slot"]) == (7, 0, 0)
    assert new.optimizer.iterations == new.embedding_optimizer.iterations == 0
    np.testing.assert_allclose(new.optimizer.learning_rate, 0.01)
    moments = [v for v in new.optimizer.variables if v.shape.rank == 2]
    assert moments and all(np.any(v) for v in moments)
    assert "kept" in report.lines()[0] and report.checkpoint in report.lines()[0]


def test_a_run_learns_the_new_ids_and_starts_warm_only_once(days, tmp_path):
    result = td.train_and_evaluate(config(str(days / "new"), warm_start=str(days / "run")), str(tmp_path / "run"))
    model = load(tmp_path / "run")
    scores = model.logits(batch(days / "new", ["new", "a2", "b1"])).numpy()
    assert scores[0] > 1 and scores[1] > 1 and scores[2] < -1
    assert result.best["auc"] > 0.999
    again = td.train_and_evaluate(config(str(days / "new"), warm_start="nowhere"), str(tmp_path / "run"))
    assert again.step == result.step  # it goes on with its own checkpoint, which is the end


OTHERS = [optimizer for optimizer in ROW_OPTIMIZERS.values() if optimizer is not td.RowWiseAdagrad]


@pytest.mark.parametrize("optimizer", matrix(OTHERS, fast=[td.FTRL]))
def test_slots_of_other_optimizers_begin_anew(days, optimizer):
    """Even where they have the same names: FTRL would take the rows to 0 with the accumulators of Adagrad."""
    model = compiled(str(days / "new"), optimizer=optimizer(0.01))
    report = td.warm_start(model, str(days / "new"), str(days / "run"))
    assert "table 'site' has another optimizer than before, whose slots start again" in report.notes
    assert not any(np.any(v) for v in model.embedding_optimizer.slots["site"].values())
    old, new = (load(days / "run").embeddings.tables["site"].numpy(), model.embeddings.tables["site"].numpy())
    np.testing.assert_array_equal(new[rows_of(days / "new")["a2"]], old[rows_of(days / "old")["a2"]])


@pytest.mark.parametrize(
    ("optimizer", "kept"),
    [
        (lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 10)), True),
        (lambda: keras.optimizers.Adam(0.5, amsgrad=True), False),
        (lambda: keras.optimizers.SGD(0.5), False),
        (lambda: keras.optimizers.legacy.Adam(0.5), False),
    ],
)
def test_the_optimizer_of_the_mlps_may_change(days, optimizer, kept):
    model = compiled(str(days / "new"))
    model.compile(optimizer(), td.RowWiseAdagrad(0.1), metrics=[])
    report = td.warm_start(model, str(days / "new"), str(days / "run"))
    assert ("the MLPs have another optimizer than before, whose slots start again" in report.notes) == (not kept)
    assert int(model.optimizer.iterations) == 0
    if kept:
        assert all(np.any(v) for v in model.optimizer.variables if v.shape.rank == 2)
    else:
        np.testing.assert_allclose(model.optimizer.learning_rate, 0.5)


def test_ids_tables_may_grow(days, tmp_path):
    schema = SCHEMA.with_vocabulary_sizes({"slot": 9})
    td.prepare(schema, [str(days / "new.csv")], str(tmp_path / "d"))
    model = compiled(str(tmp_path / "d"))
    report = td.warm_start(model, str(tmp_path / "d"), str(days / "run"))
    assert dataclasses.astuple(report.tables["slot"]) == (7, 2, 0)
    old = load(days / "run").embeddings.tables["slot"].numpy()
    np.testing.assert_array_equal(model.embeddings.tables["slot"][:7], old)


def test_statistics_that_moved_are_named(tmp_path):
    first = click_log.make(str(tmp_path / "a"), 300)
    second = click_log.make(str(tmp_path / "b"), 300, seed=1)
    run = RunConfig(
        DataConfig(path=first),
        DLRMConfig(embedding_dim=4, bottom_mlp=(4,), top_mlp=(1,)),
        train=TrainConfig(batch_size=50, steps=4, tensorboard=False),
    )
    td.train_and_evaluate(run, str(tmp_path / "run"))
    model = td.DLRM(Schema.load(f"{second}/schema.json").with_dim(4), (4,), (1,))
    model.compile()
    report = td.warm_start(model, second, str(tmp_path / "run"))
    assert any("feature 'age': mean" in note and "scores shift" in note for note in report.notes)


def test_refuses(days, tmp_path):
    new = str(days / "new")
    with pytest.raises(FileNotFoundError, match="holds no run"):
        td.warm_start(compiled(new), new, str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match=r"holds \(6, 4\) for tables/site, and the new model's is \(5, 2\)"):
        mixed = Schema.load(f"{new}/schema.json")
        mixed = dataclasses.replace(
            mixed, tables=tuple(dataclasses.replace(t, dim=2) if t.name == "site" else t for t in mixed.tables)
        )
        model = td.DLRM(mixed, (4,), (8, 1))
        model.compile(keras.optimizers.Adam(0.01))
        before = model.get_weights()
        try:
            td.warm_start(model, new, str(days / "run"))
        finally:
            for a, b in zip(before, model.get_weights(), strict=True):
                np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="the model is not of the data in"):
        td.warm_start(compiled(str(days / "old")), new, str(days / "run"))
    with pytest.raises(ValueError, match="the model is not compiled"):
        td.warm_start(td.DLRM(Schema.load(f"{new}/schema.json"), (4,), (8, 1)), new, str(days / "run"))
    shutil.copytree(days / "run", tmp_path / "run")
    fewer = dataclasses.replace(SCHEMA, categorical=SCHEMA.categorical[:-1], tables=SCHEMA.tables[:-1])
    td.prepare(fewer, [str(days / "new.csv")], str(tmp_path / "fewer"))
    with pytest.raises(ValueError, match="the same features and tables; they differ in: categorical 'tags'"):
        td.warm_start(compiled(str(tmp_path / "fewer")), str(tmp_path / "fewer"), str(days / "run"))
    for file in (tmp_path / "run" / "best").glob("step*/*"):
        file.write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"manifest.json: not valid JSON: .*; remove the checkpoint"):
        td.warm_start(compiled(new), new, str(tmp_path / "run"))


def test_compressed_tables_of_a_vocabulary_that_changed_are_refused(days, tmp_path):
    tables = (Table("site", 4, remainders=4), *SCHEMA.tables[1:])
    schema = dataclasses.replace(SCHEMA, tables=tables)
    for day in ("old", "new"):
        td.prepare(schema, [str(days / f"{day}.csv")], str(tmp_path / day), eval_fraction=0.2)
    td.train_and_evaluate(config(str(tmp_path / "old")), str(tmp_path / "run"))
    same = compiled(str(tmp_path / "old"))
    td.warm_start(same, str(tmp_path / "old"), str(tmp_path / "run"))
    sites = ["a1", "b2", "unknown"]
    expected = load(tmp_path / "run")(batch(tmp_path / "old", sites))
    np.testing.assert_allclose(same(batch(tmp_path / "old", sites)), expected, atol=1e-6)
    # With 5 remainders there are 2 quotients too, but row 4 is made of others.
    other = Schema.load(str(tmp_path / "old" / "schema.json"))
    other = dataclasses.replace(other, tables=(dataclasses.replace(other.tables[0], remainders=5), *other.tables[1:]))
    with pytest.raises(ValueError, match=r"holds 4 rows of tables/site__remainder, and .* is 5; store table 'site' as"):
        td.warm_start(compiled(str(tmp_path / "old"), other), str(tmp_path / "old"), str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"table 'site': its vocabulary changed.*use encoding 'hash'"):
        td.warm_start(compiled(str(tmp_path / "new")), str(tmp_path / "new"), str(tmp_path / "run"))


def test_tables_that_share_rows_are_taken_over_in_the_same_home(days, tmp_path):
    old = str(days / "old")
    shared = dataclasses.replace(config(old).model, shared_rows=8, compress_above=5)
    run = dataclasses.replace(config(old, steps=8), model=shared)
    td.train_and_evaluate(run, str(tmp_path / "run"))
    first = load(tmp_path / "run")
    model = compiled(old, first.schema)
    td.warm_start(model, old, str(tmp_path / "run"))
    given = batch(days / "old", ["a1", "b2", "unknown"])
    np.testing.assert_allclose(model(given), first(given), atol=1e-6)
    data = Schema.load(f"{old}/schema.json")
    for other, message in (
        (with_shared_rows(data, 16, 5), "stored in 'shared_rows', which has 16 rows now and had 8"),
        (data, "table 'site' was stored in 'shared_rows' and is stored by itself now"),
    ):
        with pytest.raises(ValueError, match=message):
            td.warm_start(compiled(old, other), old, str(tmp_path / "run"))
