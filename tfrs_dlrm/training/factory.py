"""Makes the objects that a configuration names."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.checkpoint.contents import CheckpointContents
from tfrs_dlrm.checkpoint.restore import restore_contents
from tfrs_dlrm.config import ACCUMULATING, AUTO, ModelConfig, OptimizerConfig, RunConfig
from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.embeddings.optimizers import ROW_OPTIMIZERS
from tfrs_dlrm.embeddings.per_table_optimizer import PerTableOptimizer
from tfrs_dlrm.embeddings.row_optimizer import Rate, RowOptimizer
from tfrs_dlrm.embeddings.tables import EmbeddingTables
from tfrs_dlrm.embeddings.tpu import TPUEmbeddingTables
from tfrs_dlrm.messages.arguments import checked
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.models.training_setup import dtype_policy
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.stores import local_copy
from tfrs_dlrm.training.memory_check import check_memory
from tfrs_dlrm.training.run_calibration import read_calibration
from tfrs_dlrm.training.schedules import ScaledRate, WarmupPolynomialDecay
from tfrs_dlrm.training.state import RunState
from tfrs_dlrm.training.tpu import tpu_tables
from tfrs_dlrm.training.workdir import Which, Workdir

_DENSE = {"adagrad": keras.optimizers.Adagrad, "adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}


def make_model(
    config: ModelConfig, schema: Schema, seed: int, tables: Callable[[Schema], TPUEmbeddingTables] | None = None
) -> RankingModel:
    """Returns the model of a configuration, not yet compiled.

    Args:
      config: its name and shape.
      schema: of the data.
      seed: of the initial weights.
      tables: makes them for the schema of the tables, where the strategy in scope needs that; see `tpu_tables`.
    """
    schema = config.schema(schema)
    embeddings = tables(config.table_schema(schema)) if tables else None
    return config.build(schema, seed, embeddings)


def tables_for(config: RunConfig) -> Callable[[Schema], TPUEmbeddingTables] | None:
    """Returns the `tables` argument of `make_model` for the strategy in scope; None except on TPUs."""
    if not distribution_of().fixed_batches:
        return None
    return lambda schema: tpu_tables(local_copy(config.data.path), schema, config.train.batch_size, config.train.seed)


def with_row_optimizers(
    config: RunConfig, tables: EmbeddingTables | TPUEmbeddingTables, begun: RunConfig | None
) -> tuple[RunConfig, str]:
    """Returns the configuration with the row optimizer that `auto` stands for, and a line that names all of them.

    Args:
      config: the run.
      tables: of its model.
      begun: the run that the directory holds, perhaps begun under another strategy; a resumed run keeps its optimizer.
    """
    optimizer, why = config.optimizer.resolved(bool(tables.on_hardware)), ""
    if config.optimizer.embedding == AUTO:
        why = " (auto: TPU embedding hardware has no rowwise_adagrad)" if tables.on_hardware else " (auto)"
        if begun and begun.optimizer.embedding != optimizer.embedding:
            optimizer = dataclasses.replace(optimizer, embedding=begun.optimizer.embedding)
            why = " (auto: the one that this run began with)"
    return dataclasses.replace(config, optimizer=optimizer), f"row optimizers: {optimizer.row_optimizers}{why}"


def learning_rates(config: OptimizerConfig, factor: tf.Variable | float = 1.0) -> dict[str, Rate]:
    """Returns the learning rates of the `dense` weights and of the tables, `embedding`.

    Args:
      config: rates and schedules.
      factor: the cuts by plateaus so far; ignored without `plateau_factor`.
    """
    embedding = config.embedding_learning_rate or config.learning_rate
    return {"dense": _rate(config, config.learning_rate, factor), "embedding": _rate(config, embedding, factor)}


def rates_at(rates: Mapping[str, Rate], step: int) -> dict[str, float]:
    """Returns the learning rates of a step, counted from 0, with the cuts so far."""
    return {name: float(rate(step) if callable(rate) else rate) for name, rate in rates.items()}


def make_optimizers(
    config: OptimizerConfig, factor: tf.Variable | float = 1.0
) -> tuple[keras.optimizers.Optimizer, RowOptimizer]:
    """Returns the optimizers of the dense weights and of the tables; arguments as in `learning_rates`.

    `auto` stands for the row optimizer of tables that are not on TPU embedding hardware; see `with_row_optimizers`.
    """
    config = config.resolved(on_hardware=False)
    rates = learning_rates(config, factor)
    dense = _DENSE[config.dense](rates["dense"], **_dense_arguments(config))
    per_table = {table: _row_optimizer(config, name, rates["embedding"]) for table, name in config.per_table().items()}
    default = _row_optimizer(config, config.embedding, rates["embedding"])
    return dense, PerTableOptimizer(default, per_table) if per_table else default


def set_rates(model: RankingModel, config: OptimizerConfig) -> None:
    """Sets learning rates that are numbers; a restored model has those of its checkpoint, which may be others."""
    rates = learning_rates(config)
    if not callable(rates["dense"]):
        model.optimizer.learning_rate = rates["dense"]
        for rule in model.embedding_optimizer.rules:
            rule.learning_rate = rates["embedding"]


def _dense_arguments(config: OptimizerConfig) -> dict[str, float]:
    if config.dense != "adagrad":
        return {}
    # Keras adds epsilon under the root, where it must be negligible next to the square of a gradient if the accumulator
    # starts at 0. The small one equals PyTorch's 1e-10 outside of the root.
    epsilon = {} if config.dense_accumulator else {"epsilon": 1e-20}
    return {"initial_accumulator_value": config.dense_accumulator, **epsilon}


def _row_optimizer(config: OptimizerConfig, name: str, rate: Rate) -> RowOptimizer:
    extra = {"l1": config.embedding_l1} if name == "ftrl" else {"weight_decay": config.embedding_weight_decay}
    if name in ACCUMULATING:
        extra["initial_accumulator"] = config.embedding_accumulator
    return ROW_OPTIMIZERS[name](rate, l2=config.embedding_l2, **extra)


@checked
def load_model(workdir: str, which: Which = "best") -> RankingModel:
    """Loads the model of a run of the training programs, compiled as in the run, to score or to train on.

        model = td.load_model("runs/clicks")
        model.evaluate(td.dataset("data/clicks", batch_size=1024, split="eval"))

    The tables are placed on the devices of the strategy in scope, whatever the strategy of the run was. Optimizers,
    their slots and the learning rates are those of the checkpoint. Call `compile` for others.

    Args:
      workdir: the directory of the run, or its address in an object store.
      which: `best`, by evaluation AUC (of a regression: RMSE) or by `train.monitor`, or `latest`.

    Raises:
      FileNotFoundError: the directory holds no run or no checkpoint.
      ValueError: the checkpoint is damaged, `which` is unknown, or `workdir` is a file that `model.save` wrote.
    """
    if os.fspath(workdir).endswith(".keras"):
        raise ValueError(
            f"{workdir} is no run of the training programs; keras.models.load_model loads what model.save wrote"
        )
    return load_run(workdir, which, compiled=True)[0]


def load_run(
    workdir: str, which: Which = "best", compiled: bool = False, calibrated: bool = True
) -> tuple[RankingModel, RunConfig, str]:
    """Returns the trained model of a run, its configuration, and the path of the checkpoint.

    Args:
      workdir: the directory of the run.
      which: see `load_model`.
      compiled: whether the model is compiled as in the run, with the slots of the checkpoint. If not, on TPUs, whose
        tables are made when it is compiled, it has an optimizer without slots: so a run is scored there, whatever its
        row optimizer is.
      calibrated: whether the model has the calibration of the run, if there is one.

    Raises:
      FileNotFoundError: the directory holds no run or no checkpoint.
      ValueError: the calibration is of another checkpoint, the checkpoint is damaged, or its tables do not fit in the
        memory that is left.
    """
    home = Workdir(workdir)
    config = home.config()
    state = RunState(config.optimizer)
    path = home.checkpoint(which)
    schema = home.schema(path)
    check_memory(config, schema, distribution_of())
    with precision(config.train.precision):
        model = make_model(config.model, schema, config.train.seed, tables_for(config))
        if calibrated and (found := read_calibration(home)):
            found.check_checkpoint(home, which)
            model.calibration = found.calibration
        model.build()
        if compiled:
            model.compile(*make_optimizers(config.optimizer, state.rate_factor))
        elif distribution_of().fixed_batches:
            model.compile(embedding_optimizer="sgd")
    cuts = {"state": state} if config.optimizer.plateau_factor < 1 else {}
    restore_contents(CheckpointContents.of(model, cuts, optimizers=compiled), path)
    return model, config, path


def precision(name: str) -> contextlib.AbstractContextManager[None]:
    """Sets the dtype policy under which layers are made: `float32` or `bfloat16`."""
    return dtype_policy("mixed_bfloat16" if name == "bfloat16" else "float32")


def _rate(config: OptimizerConfig, peak: float, factor: tf.Variable | float) -> Rate:
    rate: Rate = peak
    if config.warmup_steps or config.decay_steps:
        rate = WarmupPolynomialDecay(
            peak,
            warmup_steps=config.warmup_steps,
            decay_start_step=config.decay_start_step,
            decay_steps=config.decay_steps,
            end_learning_rate=config.end_learning_rate,
            power=config.decay_power,
        )
    return rate if config.plateau_factor == 1 else ScaledRate(rate, factor, config.end_learning_rate)
