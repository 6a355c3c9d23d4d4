"""A small run on the log of a first day, the logs of later days, and what an update must leave behind."""

import atexit
import os
import shutil
import tempfile
from functools import cache

import click_log

from tfrs_dlrm.config import DataConfig, DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
from tfrs_dlrm.training.loop import train_and_evaluate

BATCH = 40


def make(directory):
    """Copies a run that is trained once per process to `directory/run`; its data stay where they are."""
    run = os.path.join(directory, "run")
    shutil.copytree(os.path.join(_made(), "run"), run)
    return run


def log(directory, number, rows=400):
    """Writes the log of a later day; returns its path."""
    path = os.path.join(directory, f"day-{number}.csv")
    click_log.write(path, rows, seed=number)
    return path


@cache
def _made():
    home = tempfile.mkdtemp(prefix="updated_run-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    config = RunConfig(
        DataConfig(path=click_log.make(home, rows=800)),
        DLRMConfig(embedding_dim=8, bottom_mlp=(8,), top_mlp=(8, 1)),
        OptimizerConfig(
            learning_rate=0.01, embedding_learning_rate=0.1, warmup_steps=5, decay_start_step=5, decay_steps=20
        ),
        TrainConfig(batch_size=BATCH, tensorboard=False, patience=3),
    )
    train_and_evaluate(config, os.path.join(home, "run"))
    return home
