"""Mistakes that users of models make, and the messages that mend them."""

import types

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from family import SCHEMA, make

import tfrs_dlrm as td

MODELS = (
    td.DLRM,
    td.DCN,
    td.DeepFM,
    td.EmbeddingMLP,
    td.FactorizationMachine,
    td.LogisticRegression,
    td.MatrixFactorization,
    td.RankingModel,
    td.WideAndDeep,
)


def test_an_encoder_is_no_schema():
    encoder = types.SimpleNamespace(schema=SCHEMA)
    for made in (*MODELS, td.EmbeddingTables):
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
