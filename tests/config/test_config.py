"""A run's configuration: every mistake is named before any work begins."""

import dataclasses
import runpy
from pathlib import Path

import pytest

from tfrs_dlrm.config import EMBEDDING_OPTIMIZERS, MODELS, DataConfig, ModelConfig, RunConfig
from tfrs_dlrm.embeddings.optimizers import ROW_OPTIMIZERS
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("recipe", sorted(p.stem for p in (ROOT / "configs").glob("*.py")))
def test_recipes_are_sound_and_survive_json(recipe):
    config = runpy.run_path(str(ROOT / "configs" / f"{recipe}.py"))["get_config"]()
    config.data.path = config.data.path or "somewhere"
    config.check()
    assert RunConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("data.path", "", "config.data.path='': name the prepared directory"),
        ("data.raw_train", "x.tsv", "config.data.schema='': raw_train needs the schema"),
        ("data.eval_fraction", 1.0, r"config.data.eval_fraction=1.0: a number in \[0, 1\)"),
        ("data.service", "localhost:5050", "config.data.service='localhost:5050': grpc://HOST:PORT is needed"),
        ("data.bad_rows", "skip", "config.data.bad_rows='skip': choose one of error, quarantine"),
        ("model.embedding_dim", 32, "config.model.bottom_mlp=.*: its last number must be model.embedding_dim=32"),
        ("model.top_mlp", (64, 2), r"config.model.top_mlp=\(64, 2\): its last number must be 1"),
        ("model.top_mlp", (0, 1), "a tuple of positive whole numbers"),
        ("optimizer.dense", "adm", "config.optimizer.dense='adm': choose one of adagrad, adam, sgd"),
        ("optimizer.embedding", "adam", "choose one of rowwise_adagrad, adagrad, lazy_adam, ftrl, sgd"),
        ("optimizer.embedding_per_table", "c=adam", "TABLE=OPTIMIZER,... is needed, each table once, with one of"),
        ("optimizer.embedding_per_table", "c=sgd,c=ftrl", "each table once"),
        ("optimizer.embedding_l1", 0.1, "only ftrl has it"),
        ("model.mixed_dim_temperature", -1, "at least 0 is needed"),
        ("model.name", "deep_fm", "config.model.name='deep_fm': choose one of dlrm, logistic_regression, matrix_fact"),
        ("model.interaction", "sum", "choose one of dot, cat"),
        ("model.dropout", 1.0, r"config.model.dropout=1.0: a number in \[0, 1\)"),
        ("model.cross_layers", 0, "config.model.cross_layers=0: at least 1"),
        ("model.cross_rank", -1, "at least 0"),
        ("model.cross_structure", "both", "choose one of stacked, parallel"),
        ("train.monitor", "loss", "choose one of log_loss, auc_minus_log_loss, or leave it empty"),
        ("model.dense_mlp", (8, 0), "a tuple of positive whole numbers"),
        ("optimizer.plateau_factor", 0.0, r"config.optimizer.plateau_factor=0.0: a number in \(0, 1\]"),
        ("optimizer.plateau_patience", 2, "it has no effect without plateau_factor"),
        ("optimizer.end_learning_rate", 1e-6, "it has no effect without decay_steps or plateau_factor"),
        ("optimizer.learning_rate", float("nan"), "config.optimizer.learning_rate=nan: at least 0 is needed"),
        ("optimizer.decay_start_step", 5, "no effect without decay_steps"),
        ("train.batch_size", 0, "config.train.batch_size=0: at least 1"),
        ("train.epochs", 0, "either epochs or steps must be above 0"),
        ("train.precision", "fp16", "config.train.precision='fp16': choose one of float32, bfloat16"),
        ("train.target_auc", 80, r"config.train.target_auc=80: a number in \[0, 1\)"),
    ],
)
def test_mistakes_are_named(field, value, message):
    config = RunConfig(DataConfig(path="x"))
    config.check()
    section, name = field.split(".")
    setattr(getattr(config, section), name, value)
    with pytest.raises(ValueError, match=message):
        config.check()


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"name": "deepfm", "mixed_dim_temperature": 0.3},
            "mixed_dim_temperature=0.3: deepfm needs vectors of one",
        ),
        ({"name": "matrix_factorization", "user": "item"}, "config.model.item='item': it is model.user too"),
        ({"interaction": "cat", "self_interaction": True}, "it belongs to model.interaction='dot'"),
    ],
)
def test_fields_of_a_model_fit_together(fields, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(DataConfig(path="x"), ModelConfig(**fields)).check()


@pytest.mark.parametrize("name", [name for name in MODELS if name != "dlrm"])
def test_what_belongs_to_another_model_has_no_effect(name):
    RunConfig(DataConfig(path="x"), ModelConfig(embedding_dim=8, name=name)).check()  # no end of a bottom MLP


def test_runs_from_before_there_were_other_models_are_read():
    plain = RunConfig(DataConfig(path="x")).to_dict()
    plain["model"] = {k: plain["model"][k] for k in ("embedding_dim", "bottom_mlp", "top_mlp", "self_interaction")}
    assert RunConfig.from_dict(plain) == RunConfig(DataConfig(path="x"))


def test_tables_are_as_the_model_needs_them():
    categorical = (CategoricalFeature("user"), CategoricalFeature("site"), CategoricalFeature("item"))
    stored = (Table("site", 8, stored_in="shared"), Table("shared", 4, 100))
    schema = Schema(Label("y"), (), categorical, (Table("user", 16, 9), Table("item", 16, 9), *stored))

    def dims(**fields):
        return {t.name: t.dim for t in ModelConfig(**fields).schema(schema).tables}

    assert dims(embedding_dim=8) == {"user": 8, "item": 8, "site": 8, "shared": 4}
    assert dims(name="logistic_regression") == {"user": 1, "item": 1, "site": 1, "shared": 1}
    assert dims(name="deepfm", embedding_dim=7) == {"user": 8, "item": 8, "site": 8, "shared": 4}
    plain = schema.select(("user", "item")).with_vocabulary_sizes({"user": 9, "item": 100})
    mixed = ModelConfig(name="wide_and_deep", embedding_dim=8, mixed_dim_temperature=0.5).schema(plain)
    assert {t.name: t.dim for t in mixed.tables} == {"user": 9, "item": 3}
    mf = {"name": "matrix_factorization", "embedding_dim": 8}
    assert dims(**mf) == {"user": 9, "item": 9, "site": 4, "shared": 4}
    assert dims(**mf, user="item", item="user") == dims(**mf)
    with pytest.raises(ValueError, match="table 'site': with a linear weight, a vector of 8 takes 9 numbers, no"):
        dims(name="deepfm", embedding_dim=8)
    with pytest.raises(ValueError, match=r"config.model.item='page': the name of a categorical.* user, site, item"):
        dims(**mf, item="page")
    zeros = {t.name: t.initializer for t in ModelConfig(name="logistic_regression").schema(schema).tables}
    assert zeros == {"user": "zeros", "item": "zeros", "site": "uniform", "shared": "zeros"}


def test_decay_may_not_begin_in_the_warmup():
    config = RunConfig(DataConfig(path="x"))
    config.optimizer = dataclasses.replace(config.optimizer, warmup_steps=10, decay_start_step=5, decay_steps=3)
    with pytest.raises(ValueError, match=r"config.optimizer.decay_start_step=5: the warmup takes 10 steps"):
        config.check()


def test_every_row_optimizer_has_a_name_in_recipes():
    assert set(EMBEDDING_OPTIMIZERS) == set(ROW_OPTIMIZERS)
