"""Measures the cost of a model: parameters, bytes, and the time of a train step and of an answer."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.config import RunConfig
from tfrs_dlrm.data.reading.dataset import dataset
from tfrs_dlrm.embeddings.quantized import stored_bytes
from tfrs_dlrm.schema.plain import build
from tfrs_dlrm.serving.exporting.export import export_model
from tfrs_dlrm.serving.verification.verify import verify
from tfrs_dlrm.stores import local_copy
from tfrs_dlrm.stores.files import read_json, well_formed, write_json
from tfrs_dlrm.training.factory import load_run, make_optimizers

_STEPS, _WARM_STEPS = 60, 10
_COST_FILE = "cost.json"


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a model, which does not depend on its seed.

    Attributes:
      parameters: the number of trainable numbers, rows of tables included.
      bytes: the size of the exported tables and layers.
      examples_per_second: the speed of train steps, on batches in memory.
      latency_ms: the p50 of the exported model in TensorFlow's C++ runtime, by rows per request.
    """

    parameters: int
    bytes: int
    examples_per_second: float
    latency_ms: dict[str, float]


def measure(workdir: str, home: str) -> Cost:
    """Exports the last checkpoint of a run, times it, and deletes the export; an earlier result is read instead.

    Args:
      workdir: the directory of the run.
      home: the directory of the contestant, which keeps the result.

    Raises:
      ValueError: the export fails its verification.
    """
    path = os.path.join(home, _COST_FILE)
    if os.path.isfile(path):
        then = "remove it; the same command then measures again"
        content = read_json(path, then)
        with well_formed(path, then):
            return build(Cost, content, "cost")
    model, config, _ = load_run(workdir, "latest")
    exported = os.path.join(home, "exported")
    shutil.rmtree(exported, ignore_errors=True)
    export_model(model, local_copy(config.data.path), exported)
    report = verify(exported)
    if not report.passed:
        raise ValueError(f"{report}")
    latency = {str(x.size): x.p50 for x in report.latency if x.signature == "serving_default"}
    tables = list(model.embeddings.tables.values())
    dense = model.dense_variables
    cost = Cost(
        parameters=int(sum(np.prod(v.shape) for v in [*tables, *dense])),
        bytes=int(sum(map(stored_bytes, tables)) + sum(4 * np.prod(v.shape) for v in dense)),
        examples_per_second=_speed(model, config),
        latency_ms=latency,
    )
    write_json(path, dataclasses.asdict(cost))
    shutil.rmtree(exported, ignore_errors=True)
    return cost


def _speed(model: Any, config: RunConfig) -> float:
    """Returns examples/s of train steps on a batch in memory, by the median step."""
    model.compile(*make_optimizers(config.optimizer))
    batch = next(iter(dataset(config.data.path, config.train.batch_size, sort_ids=True, whole_groups=False)))
    step = model.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    seconds = []
    for _ in range(_WARM_STEPS + _STEPS):
        begin = time.perf_counter()
        step(batches)
        seconds.append(time.perf_counter() - begin)
    return float(config.train.batch_size / np.median(seconds[_WARM_STEPS:]))
