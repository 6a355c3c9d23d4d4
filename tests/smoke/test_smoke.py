"""A whole small run, from raw rows to an export: what has to work on every TensorFlow that setup.py admits."""

import dataclasses
import json
from pathlib import Path

import click_log
import numpy as np
import tensorflow as tf
from run_weights import weights

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.serving.exporting.export import export
from tfrs_dlrm.training.evaluation import evaluate_run
from tfrs_dlrm.training.loop import train_and_evaluate


def test_prepare_train_resume_evaluate_export(tmp_path):
    data = click_log.make(str(tmp_path / "log"))
    config = RunConfig(
        DataConfig(path=data, shuffle_rows=500),
        DLRMConfig(embedding_dim=8, bottom_mlp=(16, 8), top_mlp=(16, 1)),
        OptimizerConfig("adam", 0.005, "rowwise_adagrad", 0.02),
        TrainConfig(batch_size=64, steps=160, eval_every_steps=80),
    )
    once, twice = tmp_path / "once", tmp_path / "twice"
    result = train_and_evaluate(config, str(once))
    assert result.step == 160 and result.best["auc"] > 0.6
    train_and_evaluate(dataclasses.replace(config, train=dataclasses.replace(config.train, steps=80)), str(twice))
    train_and_evaluate(config, str(twice))
    left, right = weights(once), weights(twice)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
    assert evaluate_run(str(once)).scores.metrics() == result.best

    exported = export(str(once), str(tmp_path / "exports"))
    assert exported.comparison.largest_difference < 1e-6
    # Plain TensorFlow, on rows as a client sends them.
    served = tf.saved_model.load(exported.path).signatures["serving_default"]
    references = Path(exported.path, "assets.extra", "reference.jsonl").read_text().splitlines()
    for line in map(json.loads, references[:3]):
        specs = served.structured_input_signature[1]
        inputs = {n: tf.constant([np.nan if v is None else v], specs[n].dtype) for n, v in line["inputs"].items()}
        answers = {name: float(value.numpy().ravel()[0]) for name, value in served(**inputs).items()}
        expected = {name: value for name, value in line.items() if name in answers}
        assert expected and all(abs(answers[name] - value) < 1e-6 for name, value in expected.items())
