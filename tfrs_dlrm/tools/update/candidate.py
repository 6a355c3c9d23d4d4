"""The run that trains the new model of an update."""

from __future__ import annotations

import dataclasses
import os

from tfrs_dlrm.checkpoint import directory
from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.stores.files import remove_unfinished, write_json
from tfrs_dlrm.tools.update.options import UpdateOptions
from tfrs_dlrm.training.run_calibration import read_calibration
from tfrs_dlrm.training.workdir import CONFIG_FILE, Workdir


def candidate_config(config: RunConfig, schema: Schema, data: str, workdir: str, options: UpdateOptions) -> RunConfig:
    """Returns the configuration of a run that begins with the weights of the current model.

    Learning rates are constant: neither the rise nor the decay of a whole training fits one day. Nothing ends the run
    early, and the best checkpoint is the one with the lowest log loss, by which the models are compared.

    Args:
      config: of the run with the current model.
      schema: its schema.
      data: the prepared log.
      workdir: the directory of the current model.
      options: of the update.
    """
    rates = config.optimizer
    optimizer = dataclasses.replace(
        rates,
        learning_rate=options.learning_rate or rates.learning_rate,
        embedding_learning_rate=options.embedding_learning_rate or rates.embedding_learning_rate,
        warmup_steps=0,
        decay_start_step=0,
        decay_steps=0,
        end_learning_rate=0.0,
        plateau_factor=1.0,
        plateau_patience=1,
    )
    train = dataclasses.replace(
        config.train,
        warm_start=workdir,
        epochs=options.epochs,
        steps=0,
        eval_every_steps=0,
        target_auc=0.0,
        patience=0,
        monitor="log_loss" if schema.label.task == "classification" else config.train.monitor,
    )
    of_log = dataclasses.replace(config.data.of_prepared(data), service="")
    return dataclasses.replace(config, data=of_log, optimizer=optimizer, train=train)


def finish_candidate(run: str, data: str, workdir: str) -> None:
    """Makes the trained run one that can stand in the place of the current one; a second call changes nothing.

    It no longer names the run that it began from, and has that run's calibration. Of its latest checkpoints only
    the last stays: a training that was interrupted has saved more of them than another.

    Args:
      run: the directory of the trained run.
      data: the prepared log.
      workdir: the directory of the current model.
    """
    remove_unfinished(run)
    home = Workdir(run)
    checkpoints = home.file("checkpoints")
    for earlier in list(directory.steps(checkpoints).values())[1:]:
        directory.remove(earlier)
    directory.tidy(checkpoints)
    config = home.config()
    config.data.path, config.train.warm_start = data, ""
    write_json(os.path.join(run, CONFIG_FILE), config.to_dict())
    if calibration := read_calibration(Workdir(workdir)):
        dataclasses.replace(calibration, checkpoint=os.path.basename(home.checkpoint("best"))).save(home)
