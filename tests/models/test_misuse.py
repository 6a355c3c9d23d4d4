"""Mistakes that users of models make, and the messages that mend them."""

import dataclasses
import types

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from family import SCHEMA, make

import tfrs_dlrm as td
from tfrs_dlrm.config import MODELS


def test_an_encoder_is_no_schema():
    encoder = types.SimpleNamespace(schema=SCHEMA)
    for made in (td.RankingModel, *(c().model_class() for c in MODELS.values()), td.EmbeddingTables):
        with pytest.raises(ValueError, match=f"{made.__name__}: .* SimpleNamespace; give encoder.schema"):
            made(encoder)
    with pytest.raises(ValueError, match=r"DLRM: the schema is of type str; give a tfrs_dlrm.Schema"):
        td.DLRM("data/clicks")


def test_raw_values_and_single_arrays_are_no_batches():
    model = make("logistic_regression")
    model.compile()
    frame = pd.DataFrame({"price": [1.0], "y": [1]})
    calls = (
        model.fit,
        model.evaluate,
        model.predict,
        model,
        model.logits,
        lambda x: model.fit(x=x),
        lambda x: model.fit({}, validation_data=x),
        lambda x: model.fit({}, validation_data=(x, [1])),
    )
    for call in calls:
        with pytest.raises(
            ValueError, match=r"a DataFrame has raw values: .*td.dataset\(frame, .*encoder.raw_inputs\(frame"
        ):
            call(frame)
        for array, kind in ((np.zeros((1, 3)), "array|tensor"), (tf.zeros((1, 3)), "tensor")):
            with pytest.raises(ValueError, match=rf"a mapping of features.* found one ({kind}) of shape \(1, 3\)"):
                call(array)


TWO = dataclasses.replace(
    SCHEMA, label=td.Label("clicked"), more_labels=(td.Label("cents", task="regression", name="spend"),)
)


def test_the_losses_of_several_labels():
    model = td.EmbeddingMLP(TWO, (4, 1))
    for loss in (["binary_crossentropy", "mse"], {"spend": "mse", "clicked": "binary_crossentropy"}):
        model.compile(loss=loss)
    for loss, text in (
        ("binary_crossentropy", r"loss='binary_crossentropy'\) is not .*'spend' \(regression\) is mean_squared_error"),
        (["mse", "mse"], r"loss='mse'\) is not .* 'clicked' \(classification\) is binary_crossentropy"),
        ({"clicked": "binary_crossentropy", "spend": "mae"}, r"loss='mae'\) is not .* 'spend' \(regression\)"),
        ({"clicked": "binary_crossentropy"}, r"loss=None\) is not .* 'spend' \(regression\)"),
        ({"clicked": "binary_crossentropy", "spent": "mse"}, "no label is called 'spent'; did you mean 'spend'?"),
        (["mse"], "1 losses for 2 labels"),
    ):
        with pytest.raises(ValueError, match=text):
            model.compile(loss=loss)
