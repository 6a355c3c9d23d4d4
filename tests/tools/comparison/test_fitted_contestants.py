"""Contestants on raw logs, which are prepared once, whatever seeds the contestants have."""

import dataclasses

import click_log
import pytest

from tfrs_dlrm.config import FROM_DATA, DataConfig, RunConfig, TrainConfig
from tfrs_dlrm.data.preparing.on_demand import ensure_prepared
from tfrs_dlrm.tools.comparison import contestants
from tfrs_dlrm.tools.comparison.fitted_contestants import fitted_contestants


def test_contestants_of_other_seeds_train_on_data_that_are_split_once(tmp_path):
    click_log.write(str(tmp_path / "log.csv"), rows=1000)
    click_log.SCHEMA.save(str(tmp_path / "schema.json"))
    data = DataConfig(
        path=str(tmp_path / "data"),
        raw_train=str(tmp_path / "log.csv"),
        schema=str(tmp_path / "schema.json"),
        eval_fraction=0.25,
    )
    recipe = RunConfig(data=data, train=TrainConfig(batch_size=FROM_DATA, seed=3))
    found = contestants(recipe, ["dlrm", "dcn:train.seed=7", "deepfm:train.batch_size=8"])
    fitted = fitted_contestants(found, data, recipe.train.seed)
    with pytest.raises(ValueError, match="seed"):
        ensure_prepared(data, 7)
    for contestant in fitted:  # as a run does
        assert ensure_prepared(contestant.config.data, contestant.config.train.seed) == data.path
    assert [c.config.train.batch_size for c in fitted] == [64, 64, 8]
    whole = dataclasses.replace(data, path=str(tmp_path / "whole"), eval_fraction=0.0)
    with pytest.raises(ValueError, match=r"whole has no evaluation set to compare models on; prepare with --eval_fr"):
        fitted_contestants(found, whole, 3)
