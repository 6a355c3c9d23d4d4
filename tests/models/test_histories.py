"""Histories along the whole path: a log, its encoding, tables, a train step, and a served model."""

import dataclasses
import json
from pathlib import Path

import mock_kafka
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tf_keras as keras
from numpy_models import numpy_mlp, numpy_transformer
from sklearn.metrics import log_loss

import tfrs_dlrm as td
from tfrs_dlrm.config import (
    BSTConfig,
    DataConfig,
    DCNConfig,
    DINConfig,
    OptimizerConfig,
    RunConfig,
    StreamConfig,
    TrainConfig,
)
from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.encoding.vocabulary import vocabulary_file
from tfrs_dlrm.data.preparing.profiling.column_profile import Profile
from tfrs_dlrm.data.raw.parsing import BadRowError
from tfrs_dlrm.data.reading.dataset import dataset
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table
from tfrs_dlrm.serving.exporting.export import ExportOptions, export
from tfrs_dlrm.serving.verification.verify import verify
from tfrs_dlrm.streaming.loop import train_on_stream
from tfrs_dlrm.tools.explain.explain_run import Questions, explain_run
from tfrs_dlrm.training.loop import train_and_evaluate

LENGTH = 3
ITEMS, CATEGORIES = list("abcdefgh"), [10, 20, 30]


def schema(separator="|"):
    return Schema(
        Label("y"),
        (DenseFeature("price"),),
        (
            CategoricalFeature("item"),
            CategoricalFeature("category", dtype="int64", out_of_range="hash"),
            CategoricalFeature("clicked", separator=separator, sequence_length=LENGTH, history_of="item"),
            CategoricalFeature(
                "clicked_categories", separator=separator, history_of="category", parallel_to="clicked", pooling="sum"
            ),
        ),
        (Table("item", 4), Table("category", 4)),
    )


def log(rows=400, seed=0):
    """Lists of no event, of more than count, with values that are missing in one list or both."""
    rng = np.random.default_rng(seed)
    events = [list(rng.choice(ITEMS, n)) for n in rng.integers(0, 6, rows)]
    kinds = [list(map(int, rng.choice(CATEGORIES, len(e)))) for e in events]
    events[:5] = [["a", None, "b", "c"], ["a", "b"], [], ["unseen"], ["a", "b", "c", "d", None]]
    kinds[:5] = [[10, 20, None, 30], [10, None], [], [10], [10, 20, 30, 10, 20]]
    target = rng.choice(ITEMS, rows)
    y = (rng.random(rows) < 0.3 + 0.4 * np.array([t in e[-LENGTH:] for t, e in zip(target, events, strict=True)])) * 1
    return pd.DataFrame(
        {
            "y": y,
            "price": rng.normal(size=rows).round(2),
            "item": target,
            "category": rng.choice(CATEGORIES, rows),
            "clicked": events,
            "clicked_categories": kinds,
        }
    )


def written(frame):
    """The lists as texts."""
    joined = {
        name: ["|".join("" if v is None else str(v) for v in values) for values in frame[name]]
        for name in ("clicked", "clicked_categories")
    }
    return frame.assign(**joined)


def by_hand(frame, data):
    """The rows of the events that count: each has a value in the first list, and the last ones count."""
    rows = {
        name: {str(v): i for i, v in enumerate(Path(vocabulary_file(data, name)).read_text().splitlines())}
        for name in ("item", "category")
    }
    lists = []
    for items, kinds in zip(frame["clicked"], frame["clicked_categories"], strict=True):
        pairs = [(i, k) for i, k in zip(items, kinds, strict=True) if i is not None][-LENGTH:]
        texts = ["<missing>" if k is None else str(k) for _, k in pairs]  # has a row, as in other columns
        lists.append(([rows["item"].get(i, -1) + 1 for i, _ in pairs], [rows["category"][text] + 1 for text in texts]))
    return [a for a, _ in lists], [b for _, b in lists]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("histories"))
    frame = log()
    written(frame).to_csv(f"{path}/log.csv", index=False)
    written(log(200, 1)).to_csv(f"{path}/eval.csv", index=False)
    td.prepare(schema(), [f"{path}/log.csv"], f"{path}/data", eval_inputs=[f"{path}/eval.csv"])
    return f"{path}/data", frame


def test_encoded_as_by_hand_from_text_lists_and_frames(prepared):
    data, frame = prepared
    items, categories = by_hand(frame, data)
    assert [len(x) for x in items[:5]] == [3, 2, 0, 1, 3]
    batch = next(iter(dataset(data, 400, shuffle=False)))[0]
    assert batch["clicked"].to_list() == items
    assert batch["clicked_categories"].to_list() == categories
    for column, lists in zip(Profile.load(data).columns[-2:], (items, categories), strict=True):
        assert (column.top.among, column.distinct) == (sum(map(len, lists)), len({x for row in lists for x in row}))

    encoder = Encoder.load(data)
    of_frame = encoder(written(frame))
    assert of_frame["clicked"].to_list() == items and of_frame["clicked_categories"].to_list() == categories
    never = written(frame[3:4].assign(clicked=[["never"]]))  # an event all the same
    assert encoder(never)["clicked"].to_list() == [[0]]
    lists = td.fit_encoder(schema(separator=None), frame)
    of_lists = lists(frame)  # pads each list column by itself, as requests do
    assert of_lists["clicked"].to_list() == items and of_lists["clicked_categories"].to_list() == categories
    with pytest.raises(tf.errors.InvalidArgumentError, match="not as many values as 'clicked'"):
        raw = {name: value[:1] for name, value in encoder.raw_inputs(written(frame)).items()}
        encoder.call(raw | {"clicked": tf.constant(["a|b"]), "clicked_categories": tf.constant(["10"])})
    short = frame.assign(clicked=[["a", "b"]] * 400, clicked_categories=[[10]] * 400)
    for given, separator in ((written(short), "|"), (short, None)):
        with pytest.raises(BadRowError, match="'clicked_categories': 1 values for the 2 of column 'clicked'"):
            td.fit_encoder(schema(separator), given)


def twins(data, kind, **units):
    """A model of histories, and one of ordinary bags with the same weights and pooling."""
    histories = Schema.load(f"{data}/schema.json").with_dim(4)
    bags = dataclasses.replace(
        histories,
        categorical=tuple(
            dataclasses.replace(f, history_of="", parallel_to="", pooling="mean", sequence_length=None, table=f.name)
            for f in histories.categorical
        ),
        tables=(
            *histories.tables,
            dataclasses.replace(histories.table("item"), name="clicked"),
            dataclasses.replace(histories.table("category"), name="clicked_categories", combiner="sum"),
        ),
    )
    models = [kind(s, top_mlp=(8, 1), seed=3, **units) for s in (histories, bags)]
    for model in models:
        model.compile(keras.optimizers.SGD(0.1), td.SGD(500.0), metrics=[], run_eagerly=True)
    ours, bag = (m.embeddings.tables for m in models)
    for name in ours:
        bag[name].assign(ours[name])
    bag["clicked"].assign(ours["item"])
    bag["clicked_categories"].assign(ours["category"])
    return models


@pytest.mark.parametrize("kind, units", [(td.DLRM, {"bottom_mlp": (8, 4)}), (td.DeepFM, {})])
def test_pooled_as_bags_of_the_last_events(prepared, kind, units):
    data, _ = prepared
    ours, bags = twins(data, kind, **units)
    features, y = next(iter(dataset(data, 400, shuffle=False)))
    expected = bags(features).numpy()
    np.testing.assert_allclose(ours(features), expected, rtol=1e-5)
    for i in (2, 4):  # without events, and with more than count
        np.testing.assert_allclose(ours({k: v[i : i + 1] for k, v in features.items()}), expected[i : i + 1], rtol=1e-5)
    before = {name: v.numpy() for name, v in ours.embeddings.tables.items()}
    for model in (ours, bags):
        model.train_on_batch(features, y)
    # One table gets the steps of two.
    moved = {name: v.numpy() - before[name] for name, v in ours.embeddings.tables.items()}
    for name, other in (("item", "clicked"), ("category", "clicked_categories")):
        both = sum(bags.embeddings.tables[n].numpy() - before[name] for n in (name, other))
        assert np.abs(both).max() > 1e-3
        np.testing.assert_allclose(moved[name], both, atol=1e-3 * np.abs(both).max())


def test_padding_and_older_events_count_nothing(prepared):
    data, _ = prepared
    model, _ = twins(data, td.DLRM, bottom_mlp=(8, 4))
    features, _ = next(iter(dataset(data, 400, shuffle=False)))
    expected = model.logits(features).numpy()
    names = ("clicked", "clicked_categories")
    for width in (LENGTH, LENGTH + 4):
        padded = {name: features[name].to_tensor(-1, shape=[None, width]) for name in names}
        np.testing.assert_allclose(model.logits(features | padded), expected, atol=1e-6)
    sparse = {name: features[name].to_sparse() for name in names}
    np.testing.assert_allclose(model.logits(features | sparse), expected, atol=1e-6)
    full = features["clicked"].row_lengths() == LENGTH
    older = {name: tf.concat([tf.ones([400, 2], tf.int32), features[name]], axis=1) for name in names}
    changed = model.logits(features | older).numpy()
    np.testing.assert_allclose(changed[full], expected[full], atol=1e-6)
    assert np.abs(changed - expected)[~full].max() > 1e-4
    with pytest.raises(tf.errors.InvalidArgumentError, match="clicked_categories: not as many values as clicked"):
        model.logits(features | {"clicked": older["clicked"][:, :1]})


@pytest.fixture(scope="module")
def attended(prepared, tmp_path_factory):
    """The same data, whose histories are pooled by target attention."""
    logs, path = Path(prepared[0]).parent, str(tmp_path_factory.mktemp("attended"))
    made = schema()
    *others, clicked, categories = made.categorical
    clicked = dataclasses.replace(clicked, pooling="target_attention")
    made = dataclasses.replace(made, categorical=(*others, clicked, dataclasses.replace(categories, pooling="mean")))
    assert made.categorical[-1].pooling == "target_attention"  # as the history to which it is parallel
    td.prepare(made, [f"{logs}/log.csv"], f"{path}/data", eval_inputs=[f"{logs}/eval.csv"])
    return f"{path}/data"


def by_attention(model, features):
    """The rows of all features, those of histories added up by the weights of the paper's formula."""
    item, category = (model.embeddings.tables[name].numpy() for name in ("item", "category"))
    layer, vectors = model.history_attention["clicked"], [[] for _ in range(4)]
    first, kernels = layer.target.bias.numpy(), [x.kernel.numpy() for x in (layer.event, layer.target, layer.product)]
    kernel, bias = (w.numpy() for w in layer.mlp.weights)
    lists = (features["ids"].numpy(), features["clicked"].to_list(), features["clicked_categories"].to_list())
    for (target, kind), items, kinds in zip(*lists, strict=True):
        t = np.concatenate([item[target][:4], category[kind][:4]])
        sums = [np.zeros(item.shape[1]), np.zeros(category.shape[1])]
        for i, k in zip(items, kinds, strict=True):
            e = np.concatenate([item[i][:4], category[k][:4]])
            hidden = np.maximum(e @ kernels[0] + t @ kernels[1] + first + (e * t) @ kernels[2], 0)
            sums = [s + (hidden @ kernel + bias) * row for s, row in zip(sums, (item[i], category[k]), strict=True)]
        for found, row in zip(vectors, (item[target], category[kind], *sums), strict=True):
            found.append(row)
    return [tf.constant(np.stack(v), tf.float32) for v in vectors]


@pytest.mark.parametrize(
    "kind, units", [(td.DLRM, {"bottom_mlp": (8, 4)}), (td.DeepFM, {}), (td.DCN, {}), (td.DIN, {})]
)
def test_pooled_by_target_attention(attended, kind, units):
    model = kind(Schema.load(f"{attended}/schema.json").with_dim(4), top_mlp=(8, 1), seed=3, **units)
    model.compile(keras.optimizers.Adam(0.01), td.SGD(1.0), metrics=[], run_eagerly=True)
    rng = np.random.default_rng(0)
    for v in model.variables:
        if v.dtype == tf.float32:
            v.assign(rng.normal(0, 0.3, v.shape))
    features, y = next(iter(dataset(attended, 400, shuffle=False)))
    expected = tf.reshape(model.compute_logits(features["dense"], by_attention(model, features), False), [-1]).numpy()
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(model.logits(features), expected, atol=tolerance)
    names = ("clicked", "clicked_categories")
    padded = {name: features[name].to_tensor(-1, shape=[None, LENGTH + 4]) for name in names}
    np.testing.assert_allclose(model.logits(features | padded), expected, atol=tolerance)
    again = kind.from_config(model.get_config())
    again.build()
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again.logits(features), model.logits(features))
    before = [v.numpy() for v in model.history_attention["clicked"].weights]
    model.train_on_batch(features, y)
    for old, new in zip(before, model.history_attention["clicked"].weights, strict=True):
        assert np.any(old != new.numpy()), new.name


def test_bst_equals_numpy(prepared):
    model = td.BST(Schema.load(f"{prepared[0]}/schema.json").with_dim(4), top_mlp=(8, 1), heads=3, blocks=2, seed=3)
    model.compile(keras.optimizers.Adam(0.01), td.SGD(1.0), metrics=[], run_eagerly=True)
    rng = np.random.default_rng(0)
    for v in model.variables:
        if v.dtype == tf.float32:
            v.assign(rng.normal(0, 0.5, v.shape))
    features, y = next(iter(dataset(prepared[0], 400, shuffle=False)))
    item, category = (model.embeddings.tables[name].numpy() for name in ("item", "category"))
    rows = []
    lists = (features["ids"].numpy(), features["clicked"].to_list(), features["clicked_categories"].to_list())
    for (target, kind), items, kinds in zip(*lists, strict=True):
        events = np.concatenate([item[items].reshape(-1, 4), category[kinds].reshape(-1, 4)], axis=1)
        attended = np.zeros([1 + LENGTH, 8])
        target_vector = np.concatenate([item[target], category[kind]])
        found = numpy_transformer(model.transformers["clicked"], events, target_vector)
        attended[: len(found)] = found
        rows.append(np.concatenate([target_vector, attended.reshape(-1)]))
    inputs = np.concatenate([rows, features["dense"]], axis=1)
    expected = numpy_mlp(model.top_mlp, inputs)[:, 0]
    np.testing.assert_allclose(model.logits(features), expected, atol=1e-5 * np.abs(expected).max())
    names = ("clicked", "clicked_categories")
    padded = {name: features[name].to_tensor(-1, shape=[None, LENGTH + 4]) for name in names}
    np.testing.assert_allclose(model.logits(features | padded), expected, atol=1e-5 * np.abs(expected).max())
    before = [v.numpy() for v in model.transformers["clicked"].weights]
    model.train_on_batch(features, y)
    for old, new in zip(before, model.transformers["clicked"].weights, strict=True):
        assert np.any(old != new.numpy()), new.name


@pytest.mark.parametrize("kind", [td.DCN, td.BST])
def test_target_attention_needs_its_target(attended, kind):
    made = Schema.load(f"{attended}/schema.json").with_dim(4)
    alone = dataclasses.replace(made, categorical=made.categorical[1:])
    name = kind.__name__
    with pytest.raises(ValueError, match=f"'clicked': {name} compares its events with 'item', which the schema lacks"):
        kind(alone)
    with pytest.raises(ValueError, match=r"attention_mlp=\[\]; at least one layer"):
        td.DIN(made, attention_mlp=())
    config = {td.DCN: DCNConfig, td.BST: BSTConfig}[kind](4)
    with pytest.raises(ValueError, match=f"'clicked': {name} compares"):  # as a plan finds
        config.schema(alone)


DIN = DINConfig(4, top_mlp=(8, 1), attention_mlp=(6, 5), attention_softmax=True)
BST = BSTConfig(4, top_mlp=(8, 1), heads=3, dropout=0.2)


READS_EVENTS = pytest.param("prepared", BST, marks=pytest.mark.matrix)


# Others get the same vectors; tests/models/test_scorers.py has them.
@pytest.mark.parametrize("data, model", [("attended", DIN), READS_EVENTS])
def test_trains_exports_and_explains(data, model, request, tmp_path):
    """The export compares every signature with the model, `rank` with the histories in the context."""
    data = request.getfixturevalue(data)
    data = data if isinstance(data, str) else data[0]
    config = RunConfig(
        DataConfig(path=data, shuffle_rows=400),
        model,
        OptimizerConfig("adam", 0.01, "rowwise_adagrad", 0.05),
        TrainConfig(batch_size=50, steps=6, eval_every_steps=6, tensorboard=False),
    )
    train_and_evaluate(config, str(tmp_path / "run"))
    options = ExportOptions(context=("price", "clicked"))
    path = export(str(tmp_path / "run"), str(tmp_path / "out"), options=options).path
    served = tf.saved_model.load(path)
    assert "rank" in served.signatures
    report = verify(path, data, latency=False)
    assert report.passed, report
    lists = {"clicked": tf.constant([[1, 2, -1]]), "clicked_categories": tf.constant([[1]])}
    with pytest.raises(tf.errors.InvalidArgumentError, match="clicked_categories: not as many values as clicked"):
        served.signatures["encoded"](ids=tf.constant([[1, 1]]), dense=tf.constant([[0.5]]), **lists)

    questions = Questions(interaction_examples=50, seeds=1, neighbours=("item:a",))
    explained = explain_run(str(tmp_path / "run"), questions)
    importance = {each.feature: each.worsening for each in explained.importance.features}
    assert importance["clicked"] == importance["clicked_categories"]  # they move together


@pytest.mark.parametrize("data, model", [("attended", DIN), READS_EVENTS])
def test_trains_on_a_stream(data, model, request, tmp_path):
    """A window is scored before it is trained on: by a new model, as the rows of a frame are."""
    data = request.getfixturevalue(data)
    data = data if isinstance(data, str) else data[0]
    rows = written(log(200, seed=2))
    broker = mock_kafka.MockKafka()
    broker.topic("clicks")
    try:
        broker.send("clicks", rows.to_dict("records"))
        config = RunConfig(
            DataConfig(path=data, source=f"kafka://{broker.servers}/clicks"),
            model,
            OptimizerConfig("adam", 0.05, "rowwise_adagrad", 0.5),
            TrainConfig(batch_size=50, tensorboard=False),
            StreamConfig(window_rows=200, stop_at_end=True),
        )
        train_on_stream(config, str(tmp_path / "run"))
    finally:
        broker.close()
    found = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [r["rows"] for r in found] == [200]
    new = model.build(model.schema(Schema.load(f"{data}/schema.json")), seed=config.train.seed)
    trained = td.load_model(str(tmp_path / "run"), which="latest")
    encoded, y = Encoder.load(data)(rows), rows["y"].to_numpy()
    first = log_loss(y, new(encoded))
    assert found[0]["eval"]["log_loss"] == pytest.approx(first, rel=1e-5)
    assert log_loss(y, trained(encoded)) < first - 1e-3
