import click_log
import numpy as np
import pytest
import tensorflow as tf

import tfrs_dlrm as td
from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.training.loop import train_and_evaluate
from tfrs_dlrm.training.workdir import Workdir


def test_a_run_is_loaded_as_a_compiled_model(tmp_path):
    data, run = click_log.make(str(tmp_path / "log")), str(tmp_path / "run")
    config = RunConfig(
        DataConfig(path=data),
        DLRMConfig(8, bottom_mlp=(16, 8), top_mlp=(16, 1)),
        # Rates at which evaluations get worse, so that a plateau cuts them.
        OptimizerConfig("adam", 5.0, "lazy_adam", 5.0, plateau_factor=0.5, plateau_patience=1),
        TrainConfig(batch_size=128, steps=16, eval_every_steps=2, tensorboard=False),
    )
    result = train_and_evaluate(config, run)
    model, best = td.load_model(run, "latest"), td.load_model(run)
    path = Workdir(run).checkpoint("latest")
    rows, dense = (tf.train.load_checkpoint(f"{path}/{name}") for name in ("rows", "dense"))
    for table, slots in model.embedding_optimizer.slots.items():
        np.testing.assert_array_equal(model.embeddings.tables[table], rows.get_tensor(f"tables/{table}"))
        for slot, v in slots.items():
            np.testing.assert_array_equal(v, rows.get_tensor(f"slots/{table}/{slot}"))
    factor = dense.get_tensor("state/rate_factor/.ATTRIBUTES/VARIABLE_VALUE")
    assert factor < 1
    assert float(model.embedding_optimizer.learning_rate(8)) == 5 * factor
    assert model.optimizer.iterations == model.embedding_optimizer.iterations == 16

    found = best.evaluate(td.dataset(data, 128, split="eval"), verbose=0, return_dict=True)
    np.testing.assert_allclose(found["log_loss"], result.best["log_loss"], rtol=1e-4)
    model.fit(td.dataset(data, 128, shuffle=False).take(3), verbose=0)
    assert model.embedding_optimizer.iterations == 19


def test_refuses_other_checkpoints_and_files(tmp_path):
    with pytest.raises(ValueError, match="which='last': choose one of 'latest', 'best'"):
        Workdir(str(tmp_path)).checkpoint("last")
    with pytest.raises(ValueError, match=r"m.keras is no run .* keras.models.load_model loads what model.save wrote"):
        td.load_model(tmp_path / "m.keras")
