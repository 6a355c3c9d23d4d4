"""A model of raw values: the same answers as the exported bundle and as the programs, saved in each form of Keras."""

import click_log
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tf_keras as keras

import tfrs_dlrm as td
from tfrs_dlrm.data.preparing.samples import SAMPLES, read_samples, to_tensors
from tfrs_dlrm.training.evaluation import score
from tfrs_dlrm.training.inputs import evaluation_dataset


@pytest.fixture(scope="module")
def expected(trained):
    """The probabilities that the programs compute for the samples, which are the first evaluation rows."""
    data, model = trained
    logits = score(model, evaluation_dataset(data, 100)).logits[:SAMPLES]
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def raw_rows(data):
    encoder = td.Encoder.load(data)
    raw = to_tensors(read_samples(data), encoder.signature())
    assert np.isnan(raw["age"]).any() and (encoder(raw)["ids"].numpy()[:, 0] == 0).any()  # missing ages, unseen sites
    assert (raw["slot"].numpy() >= 5).any() and (raw["tags"].numpy() == b"").any()
    return raw


def test_raw_model_bundle_and_programs_agree(tmp_path, trained, expected):
    data, model = trained
    raw = raw_rows(data)
    whole = td.raw_model(model, data)
    answers = {"called": whole(raw), "predicted": whole.predict(raw, batch_size=100, verbose=0)}
    answers["with an encoder"] = td.raw_model(model, td.Encoder.load(data))(raw)
    path, _ = td.export_model(model, data, str(tmp_path / "exports"))
    answers["bundle"] = tf.saved_model.load(path).signatures["serving_default"](**raw)["probability"]
    whole.save(tmp_path / "whole.keras")
    whole.save(tmp_path / "whole")
    for name in ("whole.keras", "whole"):
        answers[name] = keras.models.load_model(tmp_path / name)(raw)
    answers["served"] = tf.saved_model.load(str(tmp_path / "whole")).signatures["serving_default"](**raw)["probability"]
    for name, found in answers.items():
        assert found.shape == (SAMPLES,), name
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)


def test_rows_of_a_frame(trained, expected, tmp_path):
    """The columns of the log, of which the label is not needed."""
    data, model = trained
    log = pd.DataFrame(read_samples(data)).rename(columns={"tags_weights": "tag_weights"})
    whole = td.raw_model(model, data)
    raw = td.Encoder.load(data).raw_inputs(log)
    np.testing.assert_allclose(whole.predict(raw, verbose=0), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict(td.Encoder.load(data)(log), verbose=0), expected, atol=1e-6)


def test_lists_and_several_labels():
    frame = pd.DataFrame(
        {
            "clicked": [0, 1, 1, 0] * 5,
            "paid": [1.0, None, 3.0, 2.0] * 5,
            "tags": [["a", "b"], [], None, ["b"]] * 5,
            "slot": pd.array([3, None, 1, 9], "Int64").repeat(5),
        }
    )
    tags = td.CategoricalFeature("tags", multi_valued=True)
    slot = td.CategoricalFeature("slot", dtype="int64")
    labels = td.Label("clicked"), (td.Label("paid", task="regression"),)
    schema = td.Schema(labels[0], (), (tags, slot), more_labels=labels[1]).with_dim(4)
    encoder = td.fit_encoder(schema, frame)
    model = td.EmbeddingMLP(encoder.schema, top_mlp=(4, 1))
    raw = td.raw_model(model, encoder)
    rows = frame[["slot", "tags"]]
    answers = raw.predict(encoder.raw_inputs(rows), verbose=0)
    assert answers.shape == (20, 2) and encoder.raw_inputs(rows)["tags"].shape == (20, 2)
    np.testing.assert_allclose(answers, model(encoder(rows)), atol=1e-6)


def test_models_that_are_no_ranking_model_and_encoders_without_rows(tmp_path, trained):
    data, model = trained
    encoder = td.Encoder.load(data)
    specs = encoder.signature()
    inputs = {name: keras.Input(spec.shape[1:], dtype=spec.dtype, name=name) for name, spec in specs.items()}
    own = keras.Model(inputs, keras.layers.Dense(1)(encoder(inputs)["dense"]))
    with pytest.raises(ValueError, match=r"raw_model takes a tfrs_dlrm\.RankingModel, .* this is a Functional\. "):
        td.raw_model(own, encoder)
    with pytest.raises(
        ValueError, match=r"export_model takes a .* save it by model\.save\(path\) or model\.export\(path"
    ):
        td.export_model(own, data, str(tmp_path / "exports"))
    own.export(str(tmp_path / "own"))
    raw = raw_rows(data)
    served = tf.saved_model.load(str(tmp_path / "own"))
    np.testing.assert_allclose(served.serve([raw[name] for name in sorted(raw)]), own(raw), atol=1e-6)
    with pytest.raises(ValueError, match=r"needs the prepared directory, not its encoder: rows in it check the export"):
        td.export_model(model, encoder, str(tmp_path / "exports"))


def test_the_encoder_has_to_be_that_of_the_training_data(tmp_path, trained):
    data, model = trained
    other = click_log.make(str(tmp_path / "other"), rows=400, seed=1)
    with pytest.raises(ValueError, match="the encoder and the model differ in site; give the encoder of the data"):
        td.raw_model(model, other)
    with pytest.raises(
        FileNotFoundError, match=r"nope is no prepared directory .* or an encoder, such as that of fit_e"
    ):
        td.raw_model(model, str(tmp_path / "nope"))
    encoder = td.Encoder(td.Schema.load(f"{data}/schema.json"), data, name="price")
    with pytest.raises(ValueError, match="feature 'price': a layer has this name; give the price another"):
        td.raw_model(model, encoder)
