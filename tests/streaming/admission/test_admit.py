"""A run that admits values along its stream: exactly once, bit for bit, and in what it exports."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from run_weights import weights
from stream_runs import records, stopped_after

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, StreamConfig, TrainConfig
from tfrs_dlrm.config.admitting_tables import admitting_tables, with_room
from tfrs_dlrm.data.encoding.encoder import Encoder, free_vocabularies
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema
from tfrs_dlrm.serving.exporting.comparison import PythonRuntime
from tfrs_dlrm.serving.exporting.export import export
from tfrs_dlrm.serving.runtime.saved_model import RunError
from tfrs_dlrm.streaming.admission import new_values
from tfrs_dlrm.streaming.loop import train_on_stream
from tfrs_dlrm.tools.report.findings import ReportOptions, examine
from tfrs_dlrm.training.evaluation import evaluate_run
from tfrs_dlrm.training.factory import load_run, make_model, make_optimizers
from tfrs_dlrm.training.warm_start import warm_start
from tfrs_dlrm.training.workdir import Workdir

LOG, STREAM, ROOM = 1500, 4000, 25


def planted(rows, first, rng):
    """Rows in which one of 12 sites clicks by its own rate; every 150 rows a new site comes, and the oldest goes."""
    sites = (first + np.arange(rows)) // 150 + rng.integers(0, 12, rows)
    rates = np.random.default_rng(7).uniform(-3, 3, 1000)[sites]
    prices = rng.normal(size=rows).round(3)
    clicks = rng.random(rows) < 1 / (1 + np.exp(-rates - prices))
    tags = [f"t{s % 3}|g{s // 10}" for s in sites]
    columns = zip(clicks.tolist(), prices.tolist(), sites.tolist(), tags, strict=True)
    return [{"clicked": int(c), "price": p, "site": f"s{s}", "tags": t} for c, p, s, t in columns]


def write_log(path, rows):
    with open(path, "w") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(1)
    log = planted(LOG, 0, rng)
    write_log(directory / "log.csv", log)
    site = CategoricalFeature("site", max_size=ROOM)
    tags = CategoricalFeature("tags", multi_valued=True, separator="|", max_size=9)
    schema = Schema(Label("clicked"), (DenseFeature("price"),), (site, tags))
    prepare(schema, [str(directory / "log.csv")], str(directory / "prepared"), eval_fraction=0.1)
    return str(directory / "prepared"), planted(STREAM, LOG, rng)


def config_of(data, kafka, **stream):
    kept = {"window_rows": 200, "checkpoint_every_windows": 3, "stop_at_end": True}
    kept |= {"new_values": "admit", "admit_after": 3, "admit_within": 600}
    return RunConfig(
        DataConfig(path=data, source=f"kafka://{kafka.servers}/clicks"),
        DLRMConfig(embedding_dim=4, bottom_mlp=(4,), top_mlp=(16, 1)),
        OptimizerConfig("adam", 0.01, "adagrad", 0.3, embedding_accumulator=0.01),
        TrainConfig(batch_size=20, tensorboard=False),
        StreamConfig(**(kept | stream)),
    )


@pytest.mark.slow
def test_admits_exactly_once(kafka, data, tmp_path):
    path, messages = data
    kafka.send("clicks", messages)
    config = config_of(path, kafka)
    exports = {"export_to": str(tmp_path / "live"), "export_every_windows": 18}
    train_on_stream(config_of(path, kafka, **exports), str(tmp_path / "whole"))
    for _ in range(3):  # after windows 7, 13, and 19: resumes from the checkpoint before
        stopped_after(config, tmp_path / "cut", 7)
    train_on_stream(config, str(tmp_path / "cut"))

    whole = records(tmp_path / "whole")
    assert whole == records(tmp_path / "cut")
    assert sum(r["rows"] for r in whole) == STREAM
    admitted = sum(r["new_values"]["admitted"]["site"] for r in whole)
    evicted = sum(r["new_values"]["evicted"]["site"] for r in whole)
    assert evicted > 15 and whole[-1]["new_values"]["values"]["site"] == ROOM
    left, right = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)

    # The vocabulary of the run, of its bundle, and what evaluation sees.
    home = Workdir(str(tmp_path / "whole"))
    encoder_dir = home.encoder_of(home.checkpoint("best"))
    sites = Path(encoder_dir, "vocabulary", "site.txt").read_text().split()
    first = Path(path, "vocabulary", "site.txt").read_text().split()
    assert len(sites) == len(set(sites)) == ROOM and admitted - evicted == ROOM - len(first)
    assert len(set(first) - set(sites)) > 10
    kept = [home.encoder_of(str(checkpoint)) for checkpoint in Path(home.path, "checkpoints").iterdir()]
    of_each = [Path(directory, "vocabulary", "site.txt").read_text().split() for directory in kept]
    assert sites in of_each and any(values != sites for values in of_each)
    with pytest.raises(FileNotFoundError, match="its vocabularies are missing; if the run has written a newer"):
        home.encoder_of(home.file("checkpoints/step-1"))
    newest = {row["site"] for row in messages[-300:]}
    assert len(newest - set(sites)) < 0.2 * len(newest)
    encoder = Encoder.load(encoder_dir)
    ids = encoder.rows(encoder.schema.categorical[0], tf.constant([sites[0], sites[-1], "never"]))[0]
    assert ids.numpy().tolist() == [1, ROOM, 0]
    exported = export(str(tmp_path / "whole"), str(tmp_path / "exports"))  # compares answers with the model's
    (served,) = Path(exported.path, "assets").glob("site*")
    assert served.read_text().split() == sites
    check_freed(tmp_path / "live", encoder_dir)
    check_scores_by_value(path, messages[-600:], str(tmp_path / "whole"), tmp_path)
    with pytest.raises(ValueError, match=r"the vocabularies of .* have changed along its stream"):
        home.check_data(path)
    with pytest.raises(ValueError, match=r"the vocabularies of .* have changed along its stream"):
        examine(str(tmp_path / "whole"), ReportOptions(), lambda *done: pytest.fail("the model is scored first"))
    with pytest.raises(ValueError, match=r"stream\.new_values=admit, now it is off"):
        train_on_stream(config_of(path, kafka, new_values="off"), str(tmp_path / "whole"))

    # In the last 10 windows no value is of the first vocabulary.
    assert not {row["site"] for row in messages[-2000:]} & set(first)
    train_on_stream(config_of(path, kafka, new_values="off"), str(tmp_path / "off"))
    admit, off = (np.mean([r["eval"]["auc"] for r in rs[-10:]]) for rs in (whole, records(tmp_path / "off")))
    assert admit > off + 0.02, (admit, off)
    check_warm_starts(path, tmp_path / "off", tmp_path / "whole", set(first) & set(sites))

    Path(encoder_dir, "vocabulary", "site.txt").write_text("s1\n")
    with pytest.raises(ValueError, match=r"vocabulary/site\.txt: .*; take another checkpoint of the run"):
        load_run(str(tmp_path / "whole"))


def check_freed(live, encoder_dir):
    """Nothing of a vocabulary that has changed stays in memory after an export."""
    runtime = PythonRuntime(str(live / "1"))
    request = {"price": np.float32([1]), "site": np.array([b"s1"], object), "tags": np.array([b"t1"], object)}
    assert runtime.run("serving_default", request)
    runtime.free()
    with pytest.raises(RunError, match="does not exist"):
        runtime.run("serving_default", request)
    encoder, again = Encoder.load(encoder_dir), Encoder.load(encoder_dir)
    free_vocabularies(encoder_dir)
    with pytest.raises(tf.errors.OpError, match=r"not found|does not exist"):
        again.rows(encoder.schema.categorical[0], tf.constant(["s1"]))
    assert Encoder.load(encoder_dir).rows(encoder.schema.categorical[0], tf.constant(["never"]))[0].numpy() == [0]


def check_scores_by_value(path, rows, run, tmp_path):
    """Data that extend those of the run are scored by their values, of which most have other rows there."""
    write_log(tmp_path / "later.csv", rows)
    later = str(tmp_path / "later")
    prepare(None, [str(tmp_path / "later.csv")], later, base=path, eval_fraction=0.5)
    model, _, checkpoint = load_run(run)
    encoder_dir = Workdir(run).encoder_of(checkpoint)
    for data in (path, later):
        found = evaluate_run(run, data)
        of_data, of_model = (
            {table: Path(where, f"vocabulary/{table}.txt").read_text().split() for table in ("site", "tags")}
            for where in (data, encoder_dir)
        )
        gone = sum(len(set(of_data[table]) - set(of_model[table])) for table in of_data)
        assert found.note.startswith(f"{gone} values of {data} have no row any more along the stream")
    common = set(of_data["site"]) & set(of_model["site"])
    assert any(of_data["site"].index(v) != of_model["site"].index(v) for v in common) and len(common) >= 5
    # The same rows by the encoder of the checkpoint, but for values without a row in the data; sorted, since `prepare`
    # draws the evaluation rows.
    encoder = Encoder.load(encoder_dir)
    sites = [row["site"] if row["site"] in of_data["site"] else "never" for row in rows]
    tags = ["|".join(t if t in of_data["tags"] else "never" for t in row["tags"].split("|")) for row in rows]
    raw = {"price": [row["price"] for row in rows], "site": sites, "tags": tags}
    raw = {name: tf.constant(column) for name, column in raw.items()}
    logits = np.concatenate([evaluate_run(run, later, split).scores.logits for split in ("train", "eval")])
    expected = model(encoder(raw), training=False)
    np.testing.assert_allclose(np.sort(1 / (1 + np.exp(-logits))), np.sort(np.ravel(expected)), atol=1e-6)


def check_warm_starts(path, off, admitted, common):
    """A table with room takes the rows of one without, by position; and a table without takes those of values."""
    schema, config = Schema.load(Path(path, "schema.json")), Workdir(str(off)).config()
    roomy = with_room(schema, {"site": ROOM, "tags": 9})
    model = make_model(config.model, roomy, 3)
    model.compile(*make_optimizers(config.optimizer))
    before = model.embeddings.tables["site"].numpy()
    values = schema.table("site").vocabulary_size
    assert warm_start(model, path, str(off)).tables["site"].kept == values
    saved, after = weights(off)["tables/site"], model.embeddings.tables["site"].numpy()
    np.testing.assert_array_equal(after[:values], saved)
    np.testing.assert_array_equal(after[values:], before[values:])

    plain = make_model(config.model, schema, 3)
    plain.compile(*make_optimizers(config.optimizer))
    assert warm_start(plain, path, str(admitted)).tables["site"].kept == len(common) + 1


def test_rows_begin_anew(kafka, data, tmp_path, monkeypatch):
    """A row that changed hands has its first values and slots before it is trained on."""
    path, messages = data
    kafka.send("clicks", messages[:3000])
    begin, checked = new_values.begin_anew, []

    def arrays(model, table):
        stored = model.embeddings.logical_tables(model.embedding_optimizer)
        return [stored[f"{kind}/{table}{end}"].shards[0].copies[0].numpy() for kind, end in (("tables", ""), *slots)]

    slots, firsts = [("slots", "/accumulator")], {}

    def begin_and_compare(model, table, rows):
        before = arrays(model, table)
        begin(model, table, rows)
        after = arrays(model, table)
        if table not in firsts:
            firsts[table] = type(model.embeddings)(model.embeddings.schema, seed=model.embeddings.seed)
        others = np.setdiff1d(np.arange(len(before[0])), rows)
        for b, a in zip(before, after, strict=True):
            np.testing.assert_array_equal(b[others], a[others])
        np.testing.assert_array_equal(after[0][rows], firsts[table].tables[table].numpy()[rows])
        np.testing.assert_array_equal(after[1][rows], np.full_like(after[1][rows], 0.01))
        checked.append(len(rows) and (before[0][rows] != after[0][rows]).any())

    monkeypatch.setattr(new_values, "begin_anew", begin_and_compare)
    train_on_stream(config_of(path, kafka), str(tmp_path / "run"))
    assert sum(map(bool, checked)) >= 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"site": {"max_size": None}, "tags": {"max_size": None}},
            "no vocabulary of .* that the model reads has a max_size",
        ),
        ({"site": {"out_of_range": "hash"}}, "feature 'site' has max_size=25 and out_of_range='hash'"),
        ({"site": {"out_of_range": "error"}}, "rows with an unknown value are malformed"),
        ({"site": {"training_only": True, "serving_value": "s1"}}, "serving_value='s1', which could lose its row"),
    ],
)
def test_refuses(data, changes, said):
    schema = Schema.load(Path(data[0], "schema.json"))
    features = [dataclasses.replace(f, **changes.get(f.name, {})) for f in schema.categorical]
    config = RunConfig(DataConfig(path="data"), DLRMConfig(), stream=StreamConfig(new_values="admit"))
    with pytest.raises(ValueError, match=said):
        admitting_tables(config, dataclasses.replace(schema, categorical=tuple(features)))


@pytest.mark.parametrize(
    ("table", "model", "said"),
    [
        ({"remainders": 8}, {}, "table 'site' is compressed"),
        ({}, {"remainders": 8, "compress_above": 20}, "table 'site' is compressed"),
        ({}, {"shared_rows": 10, "compress_above": 20}, "table 'site' is compressed"),
        ({"trainable": False}, {}, "table 'site' is not trained"),
    ],
)
def test_refuses_tables(data, table, model, said):
    schema = Schema.load(Path(data[0], "schema.json"))
    tables = [dataclasses.replace(t, **table if t.name == "site" else {}) for t in schema.tables]
    config = RunConfig(DataConfig(path="data"), DLRMConfig(**model), stream=StreamConfig(new_values="admit"))
    with pytest.raises(ValueError, match=said):
        admitting_tables(config, dataclasses.replace(schema, tables=tuple(tables)))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"new_values": "grow"}, "config.stream.new_values='grow': choose one of off, admit"),
        ({"new_values": "admit", "admit_after": 0}, "config.stream.admit_after=0: at least 1"),
        ({"new_values": "admit", "admit_after": 5, "admit_within": 4}, "config.stream.admit_within=4: at least"),
        ({"new_values": "admit"}, "config.stream.new_values='admit': it needs data.source"),
    ],
)
def test_refuses_configurations(fields, said):
    with pytest.raises(ValueError, match=said):
        RunConfig(DataConfig(path="data"), stream=StreamConfig(**fields)).check()
