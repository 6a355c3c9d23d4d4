"""What is chosen for fields that a recipe leaves to the data."""

import dataclasses
import functools

import pytest

from tfrs_dlrm.config import (
    AUTO,
    FROM_DATA,
    DataConfig,
    DataFacts,
    LogisticRegressionConfig,
    RunConfig,
    TrainConfig,
    choice_lines,
    fitted,
    left_to_data,
    load_recipe,
    with_defaults,
)
from tfrs_dlrm.tools.comparison.contestants import set_field

DEFAULT = functools.partial(load_recipe, "configs/default.py")


def facts(rows: int = 8_000, eval_rows: int = 1_000, rarer: int | None = 300) -> DataFacts:
    return DataFacts(rows, eval_rows, rarer)


@pytest.mark.parametrize(
    ("rows", "batch"), [(50, 50), (900, 64), (32_561, 64), (51_200, 128), (419_943, 1024), (10**9, 4096)]
)
def test_batches_are_at_least_400_an_epoch_where_the_rows_allow_it(rows, batch):
    train = fitted(DEFAULT(), facts(rows))[0].train
    assert train.batch_size == batch
    steps = rows // batch
    assert steps >= 400 or batch <= 64
    assert train.eval_every_steps == max(1, steps // 2)


@pytest.mark.parametrize(("rows", "drawn"), [(8_000, 8_000), (200_000, 20_000), (10**6, 50_000), (10**9, 100_000)])
def test_some_rows_center_predictions(rows, drawn):
    assert fitted(DEFAULT(), facts(rows))[0].train.center_rows == drawn


def test_every_field_gets_a_value_and_given_values_stay():
    recipe = DEFAULT()
    assert left_to_data(recipe)
    recipe.train.batch_size, recipe.optimizer.learning_rate, recipe.data.path = 500, 0.5, "x"
    found, choices = fitted(recipe, facts())
    assert not left_to_data(found) and (found.train.batch_size, found.optimizer.learning_rate) == (500, 0.5)
    assert found.train.eval_every_steps == 8  # follows the batch size that was given
    assert {"train.batch_size", "optimizer.learning_rate"}.isdisjoint(choice.field for choice in choices)
    found.check()
    assert RunConfig.from_dict(found.to_dict()) == found
    assert fitted(found, facts(10**6)) == (found, ())


def test_the_best_checkpoint_does_not_go_by_the_auc_of_a_few_clicks():
    assert fitted(DEFAULT(), facts(rarer=300))[0].train.monitor == "auc_minus_normalized_entropy"
    assert fitted(DEFAULT(), facts(rarer=8))[0].train.monitor == "log_loss"
    assert fitted(DEFAULT(), facts(rarer=0))[0].train.monitor == "log_loss"
    assert fitted(DEFAULT(), facts(rarer=None))[0].train.monitor == ""  # a regression: RMSE
    recipe = DEFAULT()
    recipe.train.target_auc = 0.8
    assert fitted(recipe, facts(rarer=300))[0].train.monitor == ""


def test_without_an_evaluation_set_nothing_depends_on_one():
    train = fitted(DEFAULT(), facts(eval_rows=0, rarer=None))[0].train
    assert (train.patience, train.monitor, train.eval_every_steps) == (0, "", 0)
    assert 1 <= train.epochs < fitted(DEFAULT(), facts())[0].train.epochs


def test_a_resumed_run_keeps_what_it_began_with():
    begun = fitted(DEFAULT(), facts())[0]
    found, choices = fitted(DEFAULT(), facts(10**6), begun)
    assert found.train == begun.train and found.optimizer == begun.optimizer
    assert {choice.reason for choice in choices} == {"as this run began"}


def test_first_steps_of_rows_do_not_depend_on_the_batch_size():
    found = [fitted(DEFAULT(), facts(rows))[0] for rows in (8_000, 10**7)]
    a, b = (config.optimizer.embedding_accumulator * config.train.batch_size**2 for config in found)
    assert a == pytest.approx(b, rel=0.01) and a > 0


def test_models_without_dropout_and_other_row_optimizers():
    recipe = dataclasses.replace(DEFAULT(), model=LogisticRegressionConfig(1))
    recipe.optimizer.embedding = "lazy_adam"
    recipe.data.path = "x"
    found, choices = fitted(recipe, facts())
    found.check()
    assert "model.dropout" not in {choice.field for choice in choices}
    assert found.optimizer.embedding_accumulator == 0 and found.optimizer.embedding_learning_rate < 0.01


def test_choices_are_a_table_of_fields_values_and_reasons():
    title, *lines = choice_lines(fitted(DEFAULT(), facts())[1])
    assert "--config.FIELD=VALUE" in title
    assert lines[0].split()[:2] == ["train.batch_size", "64"] and "8,000 training rows" in lines[0]
    assert len({line.index(line.split()[1]) for line in lines}) == 1
    assert choice_lines(()) == []


def test_checks_and_defaults():
    recipe = DEFAULT()
    recipe.data.path = "x"
    recipe.check()
    plain = with_defaults(recipe)
    assert not left_to_data(plain) and plain.train.batch_size == TrainConfig().batch_size
    recipe.data.source = "kafka://localhost:9092/clicks"
    with pytest.raises(ValueError, match=r"config.train.batch_size=-1: a stream has no rows to count"):
        recipe.check()
    for wrong in (-2, -0.5):
        bad = RunConfig(DataConfig(path="x"), train=TrainConfig(epochs=wrong))
        with pytest.raises(ValueError, match=f"config.train.epochs={wrong}: at least 0"):
            bad.check()
    contestant = DEFAULT()
    assert contestant.train.monitor == AUTO and contestant.optimizer.learning_rate == FROM_DATA
    set_field(contestant, "optimizer.learning_rate", "0.01")
    assert contestant.optimizer.learning_rate == 0.01
