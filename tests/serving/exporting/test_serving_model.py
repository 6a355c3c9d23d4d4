"""What is served is what was trained, with a context once or with every row, with whole tables or with smaller ones."""

import numpy as np
import pytest
import tensorflow as tf

import tfrs_dlrm as td
from tfrs_dlrm.data.preparing.samples import read_samples, to_tensors
from tfrs_dlrm.embeddings.quantized import ByteRows, HalfRows
from tfrs_dlrm.serving.exporting.accuracy import accuracy
from tfrs_dlrm.serving.exporting.serving_model import ServingModel


@pytest.fixture(scope="module")
def with_encoder(trained):
    """The shared log and model, and the encoder of the log."""
    data, model = trained
    return data, model, td.Encoder.load(data)


@pytest.mark.parametrize(
    "context", [["price", "age", "user"], ["tags", "site"], ["age", "slot"]], ids=lambda names: "+".join(names)
)
def test_candidates_score_as_rows_of_their_own(with_encoder, context):
    data, model, encoder = with_encoder
    serving = ServingModel(model, encoder, context)
    raw = to_tensors(read_samples(data)[:24], encoder.signature())
    shared = [name for name in raw if name.removesuffix("_weights") in context]
    # 4 contexts with 6 candidates each: the rows 0, 6, 12 and 18 give the context.
    expected = {n: np.repeat(v.numpy()[::6], 6, axis=0) if n in shared else v.numpy() for n, v in raw.items()}
    request = {n: v[::6] if n in shared else tf.reshape(v, [4, 6]) for n, v in raw.items()}
    assert {n: s.shape.rank for n, s in serving.rank_signature().items()} == {n: v.ndim for n, v in request.items()}
    scores = serving.score_candidates(request)
    trained_side = model(encoder({n: tf.constant(v) for n, v in expected.items()}))
    np.testing.assert_allclose(scores, tf.reshape(trained_side, [4, 6]), atol=1e-6)
    # One context, one candidate.
    one = serving.score_candidates({n: v[:1] if n in shared else v[:1, :1] for n, v in request.items()})
    np.testing.assert_allclose(one, scores[:1, :1], atol=1e-6)


def test_encoded_rows_score_as_raw_ones(with_encoder):
    data, model, encoder = with_encoder
    serving = ServingModel(model, encoder)
    raw = to_tensors(read_samples(data), encoder.signature())
    encoded = encoder(raw)
    padded = {
        name: encoded[name].to_tensor(0.0 if spec.dtype == tf.float32 else -1)
        if isinstance(encoded[name], tf.RaggedTensor)
        else encoded[name]
        for name, spec in serving.encoded_signature().items()
    }
    np.testing.assert_allclose(serving.score_encoded(padded), serving.score_raw(raw), atol=1e-6)
    np.testing.assert_allclose(serving.score_raw(raw), model(encoded), atol=1e-6)


def test_a_context_has_to_be_some_of_the_features(with_encoder):
    _, model, encoder = with_encoder
    with pytest.raises(ValueError, match=r"no feature is called colour, size; the features are price, age, site"):
        ServingModel(model, encoder, ["size", "age", "colour"])
    with pytest.raises(ValueError, match="no feature is left for the candidates"):
        ServingModel(model, encoder, ["price", "age", "site", "user", "slot", "tags"])


def test_quantized_rows_by_hand():
    table = tf.Variable([[0.0, 1.0, 255.0], [-2.0, -2.0, -2.0], [1.0, 1.5, 2.0]])
    # Row 0: steps of 1, exact. Row 1: no range. Row 2: steps of 1/255, of which 1.5 is between the 127th and 128th.
    rows = ByteRows(table).gather(tf.constant([2, 0, 1, 0])).numpy()
    np.testing.assert_array_equal(rows[1:], [[0, 1, 255], [-2, -2, -2], [0, 1, 255]])
    np.testing.assert_allclose(rows[0], [1, 1.5, 2], atol=0.5 / 255 + 1e-6)
    half = HalfRows(tf.Variable([[1 / 3, 2048.5]])).gather(tf.constant([0])).numpy()
    np.testing.assert_array_equal(half, np.float16([[1 / 3, 2048.5]]))


@pytest.mark.parametrize(("storage", "share", "error"), [("float16", 0.5, 2**-11), ("int8", 72 / 256, 0.5 / 255)])
def test_smaller_tables_of_dimension_64(storage, share, error):
    """Bytes, and how far a row may be off: half a step of float16, or of a 255th of the row's range."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(70_000, 64)).astype(np.float32)  # more than are converted at a time
    table = (HalfRows if storage == "float16" else ByteRows)(tf.Variable(values))
    assert table.bytes == share * values.nbytes
    some = rng.integers(0, len(values), 1000)
    range_ = np.abs(values[some]) if storage == "float16" else np.ptp(values[some], axis=1, keepdims=True)
    assert (np.abs(table.gather(tf.constant(some)).numpy() - values[some]) <= error * range_ * 1.001 + 1e-7).all()


@pytest.mark.parametrize(("storage", "auc", "change"), [("float16", 1e-4, 0.002), ("int8", 5e-4, 0.02)])
def test_accuracy_of_smaller_tables(with_encoder, storage, auc, change):
    data, model, encoder = with_encoder
    serving = ServingModel(model, encoder, storage=storage)
    found = accuracy(model, serving, td.dataset(data, 256, split="eval"))
    assert found.examples > 500 and abs(np.subtract(*found.metrics["auc"])) <= auc
    assert 0 < found.largest_change < change
    assert serving.tables.bytes < 4 * sum(v.shape.num_elements() for v in model.embeddings.tables.values())
    same = accuracy(model, ServingModel(model, encoder), td.dataset(data, 256, split="eval"))
    assert len(set(same.metrics["auc"])) == 1 and same.largest_change < 1e-6
