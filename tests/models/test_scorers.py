"""Scores as they are served, in fewer operations or once per context, equal those of the model in training."""

import dataclasses

import family
import numpy as np
import pytest
import tensorflow as tf

import tfrs_dlrm as td
from tfrs_dlrm.models.dlrm_candidates import DLRMCandidateScorer
from tfrs_dlrm.models.dlrm_serving import DLRMRowScorer
from tfrs_dlrm.models.history_scorers import candidate_scorer, row_scorer
from tfrs_dlrm.models.scorers import BroadcastScorer, Inputs, ModelScorer, SharedScorer
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table

SCHEMA = Schema(
    Label("y"),
    dense=(DenseFeature("a", indicator=True, fill_value=0.0), DenseFeature("b")),
    categorical=tuple(CategoricalFeature(name) for name in "uvwx"),
    tables=(Table("u", 8, 9), Table("v", 4, 9), Table("w", 8, 9), Table("x", 2, 9)),
)
NO_DENSE = SCHEMA.select("uvwx")
# Models that can share nothing, or too little to pay.
COPIED = {"logistic_regression", "matrix_factorization", "factorization_machine", "auto_int", "bst"}


def rows(schema: Schema, count: int, rng: np.random.Generator) -> Inputs:
    dense = tf.constant(rng.normal(size=(count, schema.dense_width)), tf.float32) if schema.dense else None
    dims = {f.name: schema.table_of(f).dim for f in schema.categorical}
    vectors = [tf.constant(rng.normal(size=(count, d)), tf.float32) for d in dims.values()]
    return Inputs(dense, tf.stack(vectors, axis=1) if vectors and len(set(dims.values())) == 1 else vectors)


def build(model):
    """Builds a model, with weights of its numbers that are not all 0."""
    model.build()
    if model.linear and model.schema.dense:
        model.linear_numbers.kernel.assign(np.random.default_rng(2).normal(size=model.linear_numbers.kernel.shape))


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("top_mlp", [pytest.param((1,), marks=pytest.mark.matrix), (6, 5, 1)])
@pytest.mark.parametrize("schema", [SCHEMA, NO_DENSE, SCHEMA.with_dim(8), SCHEMA.select("abu"), NO_DENSE.with_dim(4)])
@pytest.mark.parametrize("linear", [False, True])
def test_dlrm_in_few_operations_is_dlrm(schema, top_mlp, batch, linear):
    model = td.DLRM(schema, (7, 8), top_mlp, seed=3, linear=linear)
    build(model)
    scorer = model.row_scorer()
    assert isinstance(scorer, DLRMRowScorer)
    inputs = rows(schema, batch, np.random.default_rng(1))
    expected = ModelScorer(model.logits, [])(inputs).numpy()
    assert expected.shape == (batch,)
    np.testing.assert_allclose(scorer(inputs), expected, rtol=1e-5, atol=1e-5)


def test_a_dlrm_with_a_score_of_its_own_is_asked():
    class Doubled(td.DLRM):
        def compute_logits(self, dense, embeddings, training):
            return 2 * super().compute_logits(dense, embeddings, training)

    model = Doubled(SCHEMA, (7, 8), (1,))
    model.build()
    inputs = rows(SCHEMA, 5, np.random.default_rng(1))
    np.testing.assert_allclose(model.row_scorer()(inputs), model.logits({"dense": inputs.dense}, inputs.vectors))
    assert isinstance(model.candidate_scorer(SCHEMA.select("abu"), SCHEMA.select("vwx")), BroadcastScorer)


@pytest.mark.parametrize("self_interaction", [False, True])
@pytest.mark.parametrize("top_mlp", [pytest.param((1,), marks=pytest.mark.matrix), (6, 5, 1)])
@pytest.mark.parametrize(
    ("schema", "shared"),
    [(SCHEMA, "abu"), (SCHEMA, "bvx"), (SCHEMA, "ab"), (SCHEMA, "uvw"), (NO_DENSE, "vx"), (NO_DENSE, "u")],
)
@pytest.mark.parametrize(("contexts", "candidates"), [(3, 5), (1, 1)])
@pytest.mark.parametrize("linear", [False, True])
def test_dlrm_once_per_context_is_dlrm_row_by_row(
    schema, shared, top_mlp, self_interaction, contexts, candidates, linear
):
    model = td.DLRM(schema, (7, 8), top_mlp, self_interaction, seed=3, linear=linear)
    build(model)
    context, own = schema.select(shared), schema.select(set("abuvwx") - set(shared))
    scorer = model.candidate_scorer(context, own)
    assert isinstance(scorer, (DLRMCandidateScorer, SharedScorer))
    rng = np.random.default_rng(1)
    given = rows(context, contexts, rng), rows(own, contexts * candidates, rng), tf.constant(candidates)
    together = BroadcastScorer(ModelScorer(model.logits, []), schema, context, own)(*given).numpy()
    assert together.shape == (contexts * candidates,)
    np.testing.assert_allclose(scorer(*given), together, rtol=1e-5, atol=1e-5)
    if len(top_mlp) > 1 and contexts > 1:  # as it is served: operations are fused then
        np.testing.assert_allclose(tf.function(scorer)(*given), together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("schema", "shared"),  # candidates of one vector and of more; vectors as they are, and projected
    [(SCHEMA, "abu"), (SCHEMA, "abuvw"), (SCHEMA.with_dim(2), "abvx"), (NO_DENSE.with_dim(2), "vw")],
)
@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("linear", [False, True])
def test_short_vectors_of_a_context_are_folded_into_the_first_layer(schema, shared, labels, linear):
    schema = dataclasses.replace(schema, more_labels=(Label("z"),) * (labels - 1))
    model = td.DLRM(schema, (7, 2), (6, 5, 1), linear=linear)
    build(model)
    context, own = schema.select(shared), schema.select(set("abuvwx") - set(shared))
    scorer = model.candidate_scorer(context, own)
    assert isinstance(scorer, DLRMCandidateScorer)
    for contexts in (1, 3):
        rng = np.random.default_rng(1)
        given = rows(context, contexts, rng), rows(own, contexts * 4, rng), tf.constant(4)
        expected = BroadcastScorer(ModelScorer(model.logits, []), schema, context, own)(*given).numpy()
        np.testing.assert_allclose(tf.function(scorer)(*given), expected, rtol=1e-5, atol=1e-5)


def test_vectors_longer_than_the_context_has_of_them_are_not_folded():
    model = td.DLRM(SCHEMA, (7, 8), (6, 5, 1))
    build(model)
    assert isinstance(model.candidate_scorer(SCHEMA.select("abu"), SCHEMA.select("vwx")), SharedScorer)


def test_the_linear_term_of_several_labels():
    schema = dataclasses.replace(SCHEMA, more_labels=(Label("z"),))
    model = td.DLRM(schema, (7, 8), (5, 1), linear=True)
    build(model)
    context, own = schema.select("bux"), schema.select("avw")
    rng = np.random.default_rng(1)
    given = rows(context, 2, rng), rows(own, 6, rng), tf.constant(3)
    expected = BroadcastScorer(ModelScorer(model.logits, []), schema, context, own)(*given).numpy()
    assert expected.shape == (6, 2)
    np.testing.assert_allclose(model.candidate_scorer(context, own)(*given), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        BroadcastScorer(model.row_scorer(), schema, context, own)(*given), expected, rtol=1e-5, atol=1e-5
    )


def test_broadcast_orders_columns_and_rows_as_the_schema_has_them():
    def call(features, activations, training):
        assert not training and len(activations) == 4
        return features["dense"] @ [[1.0], [10.0], [100.0]] + activations[0][:, :1] * 1000

    context, own = SCHEMA.select("bu"), SCHEMA.select("avwx")
    given = Inputs(tf.constant([[3.0], [6.0]]), [tf.constant([[4.0] * 8, [5.0] * 8])])
    candidates = Inputs(tf.constant([[1.0, 0], [2, 0], [1, 1], [2, 1]]), [tf.zeros([4, 1])] * 3)
    logits = BroadcastScorer(ModelScorer(call, []), SCHEMA, context, own)(given, candidates, tf.constant(2))
    assert logits.numpy().ravel().tolist() == [4301, 4302, 5611, 5612]


@pytest.mark.parametrize(
    ("schema", "shared", "contexts", "candidates"),
    [
        (family.SCHEMA, {"price", "tags", "last_item"}, 2, 3),  # with the candidate's features between the context's
        (family.SCHEMA, {"user", "item", "price", "age"}, 1, 4),
        (family.SCHEMA, {"tags", "item"}, 3, 1),
        (family.SCHEMA, {"price", "age"}, 1, 1),
        (family.SCHEMA, {"user", "tags", "item", "last_item"}, 2, 2),
        (family.PROJECTED, {"title", "user", "age"}, 2, 3),
        (family.NO_DENSE, {"tags"}, 2, 3),
    ],
)
@pytest.mark.parametrize("form", [*family.FORMS, "dcn mmoe"])
def test_once_per_context_is_row_by_row(form, schema, shared, contexts, candidates):
    if form == "dcn mmoe":
        schema = dataclasses.replace(schema, more_labels=(Label("z"),))
        model = td.DCN(schema.with_dim(4), (5, 1), sharing="mmoe", expert_mlp=(3,))
        model.build()
    else:
        model = family.make(form, schema)
    names = {f.name for f in (*schema.dense, *schema.categorical)}
    context, own = (model.schema.select(part) for part in (shared, names - shared))
    rng = np.random.default_rng(1)
    given = family_rows(model, context, contexts, rng), family_rows(model, own, contexts * candidates, rng)
    row_by_row = ModelScorer(model._checked_logits, [])
    expected = BroadcastScorer(row_by_row, model.schema, context, own)(*given, tf.constant(candidates)).numpy()
    scorer = model.candidate_scorer(context, own)
    kinds = (BroadcastScorer,) if form.split()[0] in COPIED else (SharedScorer, DLRMCandidateScorer)
    assert isinstance(scorer, kinds)
    found = (tf.function(scorer) if contexts == 1 else scorer)(*given, tf.constant(candidates)).numpy()
    assert found.shape[0] == contexts * candidates
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * max(1, np.abs(expected).max()))
    np.testing.assert_allclose(tf.sigmoid(found), tf.sigmoid(expected), atol=model.rounding)


@pytest.mark.parametrize("shared", [{"user", "age", "price"}, {"tags", "age"}, {"user", "item"}])
def test_gates_of_numbers_once_per_context(shared, monkeypatch):
    contexts = {"first_context": ("user", "age"), "second_context": ("price", "item")}
    monkeypatch.setitem(family.FORMS, "final_mlp of numbers", family.FORMS["final_mlp"] | contexts)
    test_once_per_context_is_row_by_row("final_mlp of numbers", family.SCHEMA, shared, 2, 3)


def test_what_computes_in_bfloat16_and_what_reads_tensors_alone_is_copied():
    class Half(td.DCN):
        def compute_logits(self, dense, embeddings, training):
            return super().compute_logits(dense / 2, embeddings, training)

    model = td.DCN(SCHEMA, (1,), dtype="mixed_bfloat16")
    for made in (model, Half(SCHEMA, (1,))):
        made.build()
        assert isinstance(made.candidate_scorer(SCHEMA.select("auv"), SCHEMA.select("bwx")), BroadcastScorer)


def family_rows(model, part, count, rng):
    dims = {f.name: model._rows_schema.table_of(f).dim for f in part.categorical}
    vectors = [tf.constant(rng.normal(0, 0.3, [count, dim]), tf.float32) for dim in dims.values()]
    dense = tf.constant(rng.normal(size=[count, part.dense_width]), tf.float32) if part.dense else None
    return Inputs(dense, vectors)


def histories(rng, part, rows, length=3):
    """Inputs of a part of `WITH_HISTORIES`, of histories with no, some and all events."""
    lengths = {f.length_key: tf.constant(rng.integers(0, length + 1, rows), tf.int32) for f in part.histories}
    vectors = [
        tf.constant(rng.normal(size=[rows, length, 8] if f.history_of else [rows, 8]), tf.float32)
        for f in part.categorical
    ]
    dense = tf.constant(rng.normal(size=[rows, part.dense_width]), tf.float32) if part.dense else None
    return Inputs(dense, vectors, {f.length_key: lengths[f.length_key] for f in part.histories if not f.parallel_to})


HISTORY = {"separator": "|", "sequence_length": 3}
WITH_HISTORIES = Schema(
    Label("y"),
    SCHEMA.dense,
    (
        CategoricalFeature("u"),
        CategoricalFeature("v"),
        CategoricalFeature("h", history_of="u", pooling="target_attention", **HISTORY),
        CategoricalFeature("side", history_of="v", parallel_to="h", separator="|"),
        CategoricalFeature("g", history_of="v", **HISTORY),
    ),
    tuple(Table(name, 8, vocabulary_size=9) for name in "uv"),
)


@pytest.mark.parametrize(
    "shared", [{"h", "side", "g", "a"}, {"v", "h", "side"}, {"u", "v", "h", "side"}, {"u", "v", "b"}]
)
@pytest.mark.parametrize("kind", [td.DLRM, td.DIN, td.BST, td.DCN])
def test_histories_of_a_context_are_pooled_as_those_of_rows(kind, shared):
    units = {"bottom_mlp": (7, 8)} if kind is td.DLRM else {}
    model = kind(WITH_HISTORIES, top_mlp=(5, 1), seed=3, **units)
    model.build()
    names = {*(f.name for f in WITH_HISTORIES.categorical), *"abc"}
    context, own = (WITH_HISTORIES.select(part) for part in (shared, names - shared))
    rng = np.random.default_rng(1)
    given = histories(rng, context, 2), histories(rng, own, 6), tf.constant(3)
    rows = BroadcastScorer(ModelScorer(model._checked_logits, []), WITH_HISTORIES, context, own)
    expected = rows(*given).numpy()
    assert np.ptp(expected) > 1e-3
    together = BroadcastScorer(row_scorer(model), WITH_HISTORIES, context, own)
    np.testing.assert_allclose(together(*given), expected, rtol=1e-5, atol=1e-5)
    scorer = candidate_scorer(model, context, own)
    np.testing.assert_allclose(tf.function(scorer)(*given), expected, rtol=1e-5, atol=1e-5)
