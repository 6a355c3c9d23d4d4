"""The configurations of models: their mistakes, their tables, and how one becomes another."""

import subprocess
import sys

import pytest

from tfrs_dlrm.config import MODELS, DataConfig, DCNConfig, DeepFMConfig, DLRMConfig, RunConfig, as_model, model_config
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table


@pytest.mark.parametrize(
    "name, fields, message",
    [
        ("deepfm", {"mixed_dim_temperature": 0.5}, "mixed_dim_temperature=0.5: deepfm needs vectors of one dimension"),
        ("dcn", {"mixed_dim_temperature": 0.5, "embedding_dim": 10}, "embedding_dim=10: .* needs a power of 2"),
        ("matrix_factorization", {"user": "item"}, "config.model.item='item': model.user is the same feature"),
        ("dlrm", {"interaction": "cat", "self_interaction": True}, "it needs model.interaction='dot'"),
        ("dcn", {"cross_layers": 0}, "config.model.cross_layers=0: at least 1"),
        ("dcn", {"cross_rank": -1}, "at least 0"),
        ("dcn", {"cross_structure": "both"}, "choose one of stacked, parallel"),
        ("dcn", {"dense_mlp": (8, 0)}, "a tuple of positive whole numbers"),
        ("gdcn", {"cross_layers": 0}, "config.model.cross_layers=0: at least 1"),
        ("final_mlp", {"first_mlp": (8, 3), "heads": 2}, "model.heads=2: it must divide the last numbers"),
        ("mask_net", {"mask_structure": "both"}, "choose one of parallel, serial"),
        ("mask_net", {"mask_reduction": 0}, "model.mask_reduction=0: a positive number"),
        ("auto_int", {"attention_heads": 0}, "at least 1"),
        ("xdeepfm", {"interaction_maps": ()}, "a tuple of positive whole numbers"),
        ("mlp", {"remainders": 3, "shared_rows": 5}, "config.model.shared_rows=5: model.remainders is set too"),
        ("mlp", {"remainders": 3, "compress_above": 2}, "from 2 to model.compress_above=2 is needed"),
    ],
)
def test_mistakes_are_named(name, fields, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(DataConfig(path="x"), model_config(name, **fields)).check()


def test_an_unknown_model_is_named():
    expected = "config.model.name='deep_fm': choose one of dlrm, logistic_regression, .*; did you mean 'deepfm'"
    for make in (lambda: model_config("deep_fm"), lambda: as_model(DLRMConfig(), "deep_fm")):
        with pytest.raises(ValueError, match=expected):
            make()


def test_another_model_keeps_the_fields_that_both_have():
    dlrm = DLRMConfig(8, bottom_mlp=(4, 8), top_mlp=(5, 1), dropout=0.1, shared_rows=9)
    deepfm = as_model(dlrm, "deepfm")
    assert deepfm == DeepFMConfig(8, top_mlp=(5, 1), dropout=0.1, shared_rows=9)
    assert as_model(deepfm, "dlrm") == DLRMConfig(
        8, bottom_mlp=(512, 256, 8), top_mlp=(5, 1), dropout=0.1, shared_rows=9
    )
    assert as_model(dlrm, "dlrm") is dlrm
    for name in MODELS:
        as_model(DCNConfig(24, top_mlp=(3, 1)), name).check()


def test_names_and_classes():
    data = Schema(Label("y"), (DenseFeature("price"),), (CategoricalFeature("user"), CategoricalFeature("item")))
    for name, config in MODELS.items():
        assert config.name == config().name == name and config.__name__.endswith("Config")
        model = config().model_class()
        assert config.linear_weights == model.linear_weights
        assert model.reads_dense == ("price" in config().features(data))


def test_no_configuration_loads_tensorflow():
    """Help, plans and the check for TPUs would take seconds longer."""
    code = "import tfrs_dlrm.config, tfrs_dlrm.tools.planner, sys; print([m for m in sys.modules if m[:6] == 'tensor'])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_tables_are_as_the_model_needs_them():
    categorical = (CategoricalFeature("user"), CategoricalFeature("site"), CategoricalFeature("item"))
    stored = (Table("site", 8, stored_in="shared"), Table("shared", 4, 100))
    schema = Schema(Label("y"), (), categorical, (Table("user", 16, 9), Table("item", 16, 9), *stored))

    def dims(name, data=schema, **fields):
        """The dimensions of vectors, and the numbers of rows where they are others."""
        config = model_config(name, **fields)
        vectors = config.schema(data)
        found = [{t.name: t.dim for t in x.tables} for x in (vectors, config.table_schema(vectors))]
        return found[:1] if found[0] == found[1] else found

    assert dims("dlrm", embedding_dim=8) == [{"user": 8, "item": 8, "site": 8, "shared": 4}]
    assert dims("logistic_regression") == [{"user": 1, "item": 1, "site": 1, "shared": 1}]
    assert dims("deepfm", embedding_dim=8) == [
        {"user": 8, "item": 8, "site": 8, "shared": 4},
        {"user": 9, "item": 9, "site": 9, "shared": 5},  # still two of its rows
    ]
    assert dims("deepfm", embedding_dim=7)[1] == {"user": 8, "item": 8, "site": 8, "shared": 4}
    plain = schema.select(("user", "item")).with_vocabulary_sizes({"user": 9, "item": 100})
    mixed = dims("wide_and_deep", plain, embedding_dim=8, mixed_dim_temperature=0.5)
    assert mixed == [{"user": 8, "item": 2}, {"user": 9, "item": 3}]
    shared = dims("deepfm", plain, embedding_dim=8, shared_rows=7, compress_above=50)
    assert shared[1] == {"user": 9, "item": 9, "shared_rows": 9}
    of_two = dims("matrix_factorization", embedding_dim=8)
    assert of_two[1] == {"user": 9, "item": 9, "site": 1, "shared": 4}
    assert of_two == dims("matrix_factorization", embedding_dim=8, user="item", item="user")
    with pytest.raises(ValueError, match=r"config.model.first_context='page': name features; .* user, site, item"):
        model_config("final_mlp", first_context=("user", "page")).features(schema)
    with pytest.raises(ValueError, match=r"config.model.item='page': name a categorical feature.* user, site, item"):
        model_config("matrix_factorization", item="page").table_schema(schema)
    zeros = {t.name: t.initializer for t in model_config("logistic_regression").schema(schema).tables}
    assert zeros == {"user": "zeros", "item": "zeros", "site": "uniform", "shared": "zeros"}
