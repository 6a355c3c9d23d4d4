"""A run's configuration: every mistake is named before any work begins."""

import dataclasses

import pytest

from tfrs_dlrm.config import EMBEDDING_OPTIMIZERS, DataConfig, RunConfig, load_recipe, model_config
from tfrs_dlrm.config.recipes import recipe_names
from tfrs_dlrm.embeddings.optimizers import ROW_OPTIMIZERS


@pytest.mark.parametrize("recipe", recipe_names())
def test_recipes_are_sound_and_survive_json(recipe):
    config = load_recipe(recipe)
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
        ("optimizer.embedding", "adam", "choose one of auto, rowwise_adagrad, adagrad, lazy_adam, ftrl, sgd"),
        ("optimizer.embedding_per_table", "c=adam", "TABLE=OPTIMIZER,... is needed, each table once, with one of"),
        ("optimizer.embedding_per_table", "c=sgd,c=ftrl", "each table once"),
        ("optimizer.embedding_l1", 0.1, "only ftrl has it"),
        ("model.mixed_dim_temperature", -1, "at least 0 is needed"),
        ("model.name", "deepfm", r"config.model.name='deepfm': DLRMConfig is dlrm; .*as_model\(config, 'deepfm'\)"),
        ("model.interaction", "sum", "choose one of dot, cat"),
        ("model.dropout", 1.0, r"config.model.dropout=1.0: a number in \[0, 1\)"),
        ("train.monitor", "loss", "choose one of log_loss, auc_minus_log_loss, auc_minus_normalized_entropy, ndcg, or"),
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


def test_models_survive_json_and_old_runs_are_dlrm():
    for name in ("dlrm", "dcn", "logistic_regression"):
        config = RunConfig(DataConfig(path="x"), model_config(name, embedding_dim=4))
        assert RunConfig.from_dict(config.to_dict()) == config
    plain = RunConfig(DataConfig(path="x")).to_dict()
    plain["model"] = {k: plain["model"][k] for k in ("embedding_dim", "bottom_mlp", "top_mlp", "self_interaction")}
    assert RunConfig.from_dict(plain) == RunConfig(DataConfig(path="x"))
    plain["model"]["cross_rank"] = 3
    with pytest.raises(ValueError, match=r"not the configuration of a run of this version: .* 'cross_rank'"):
        RunConfig.from_dict(plain)


def test_decay_may_not_begin_in_the_warmup():
    config = RunConfig(DataConfig(path="x"))
    config.optimizer = dataclasses.replace(config.optimizer, warmup_steps=10, decay_start_step=5, decay_steps=3)
    with pytest.raises(ValueError, match=r"config.optimizer.decay_start_step=5: the warmup takes 10 steps"):
        config.check()


def test_every_row_optimizer_has_a_name_in_recipes():
    assert set(EMBEDDING_OPTIMIZERS) == set(ROW_OPTIMIZERS)


@pytest.mark.parametrize("content", ["", "def get_config():\n    return {}\n"])
def test_a_file_that_is_no_recipe(tmp_path, content):
    (tmp_path / "mine.py").write_text(content)
    with pytest.raises(ValueError, match=r"mine\.py: get_config\(\) is needed, which returns a .*RunConfig"):
        load_recipe(str(tmp_path / "mine.py"))
