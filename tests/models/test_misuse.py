"""Mistakes that users of models make, and the messages that mend them."""

import types

import pytest
from family import SCHEMA

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
