"""What runs in a process of its own for strategies.py: one measurement, its result as JSON in a file.

strategy_worker.py mirrored '{"workload": ..., "devices": [2, 4], "rounds": 5, "steps": 10}' OUTPUT
strategy_worker.py STRATEGY '{"workload": ..., "steps": 100, "memory": false}' OUTPUT     (in a cluster: TF_CONFIG)
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import psutil
from peers.ours import schema
from workloads import Workload, batches

from tfrs_dlrm.distribute import cluster


def mirrored(workload: Workload, devices: list[int], rounds: int, steps: int) -> dict[str, Any]:
    """Milliseconds a step of one device and of replicas on logical CPUs, in turns, and the bytes on each device."""
    import tensorflow as tf

    from tfrs_dlrm.distribute.strategies import make_strategy

    most = make_strategy("mirrored", max(devices))  # first: it decides how many logical CPUs there are
    strategies = {"1": make_strategy("one_device")}
    strategies |= {str(n): most if n == max(devices) else make_strategy("mirrored", n) for n in devices}
    runs, seconds = {}, {name: [] for name in strategies}
    for name, strategy in strategies.items():
        model = make_model(workload, strategy)
        with strategy.scope():
            data = iter(strategy.experimental_distribute_dataset(dataset(workload)))

        @tf.function
        def some(data=data, model=model, strategy=strategy):
            for _ in tf.range(steps):
                strategy.run(model.train_step, args=(next(data),))

        some()
        runs[name] = model, some
    for _ in range(rounds):
        for name, (_, some) in runs.items():
            begin = time.perf_counter()
            some()
            seconds[name].append((time.perf_counter() - begin) / steps)
    return {"seconds": seconds, "bytes": {name: list(allocated(model).values()) for name, (model, _) in runs.items()}}


def in_cluster(strategy_name: str, workload: Workload, steps: int, memory: bool) -> dict[str, Any]:
    """Examples/s of a run; with `memory`, what the model takes: bytes of variables by device, and of this process."""
    process, before = psutil.Process(), 0
    import tensorflow as tf

    from tfrs_dlrm.distribute.strategies import make_strategy
    from tfrs_dlrm.training.asynchronous import Workers

    strategy = make_strategy(strategy_name)
    tf.zeros([1]).numpy()
    before = process.memory_info().rss
    model = make_model(workload, strategy)
    resident = process.memory_info().rss - before
    result: dict[str, Any] = {"allocated": allocated(model), "resident": resident}
    if memory:
        return result | {"plan": planned(workload, strategy)}

    @tf.autograph.experimental.do_not_convert
    def read() -> tf.data.Dataset:
        return dataset(workload)

    workers = Workers(model, read, 5)
    workers.fit(max(20, steps // 5), [], lambda: False)
    begin = time.perf_counter()
    workers.fit(steps, [], lambda: False)
    return result | {"examples_per_second": workload.batch * steps / (time.perf_counter() - begin)}


def planned(workload: Workload, strategy: Any) -> list[int]:
    """By device, what the planner says of tables, slots, dense weights and their slots."""
    from tfrs_dlrm.config import DLRMConfig, OptimizerConfig, RunConfig, TrainConfig
    from tfrs_dlrm.distribute.strategies import distribution_of
    from tfrs_dlrm.tools.planner import plan

    config = RunConfig(
        model=DLRMConfig(workload.dim, bottom_mlp=workload.bottom, top_mlp=workload.top),
        optimizer=OptimizerConfig(dense="adagrad", embedding="rowwise_adagrad"),
        train=TrainConfig(batch_size=workload.batch),
    )
    config.data.path = "unused"
    memory = plan(schema(workload), config, distribution_of(strategy).topology).memory
    return [m.tables + m.slots + m.dense_weights + m.dense_slots for m in memory]


def make_model(workload: Workload, strategy: Any) -> Any:
    import tf_keras as keras

    import tfrs_dlrm as td

    with strategy.scope():
        model = td.DLRM(schema(workload), workload.bottom, workload.top)
        model.compile(keras.optimizers.Adagrad(0.01), td.RowWiseAdagrad(0.01), metrics=[])
    return model


def dataset(workload: Workload) -> Any:
    """Eight batches over and over, in the graph, so that any process can read them."""
    import tensorflow as tf

    some = [b for _, b in zip(range(8), batches(workload), strict=False)]
    features = {"dense": np.stack([b.dense for b in some]), "ids": np.stack([np.stack(b.ids, 1) for b in some])}
    data = tf.data.Dataset.from_tensor_slices((features, np.stack([b.labels for b in some])))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return data.repeat().prefetch(2).with_options(options)


def allocated(model: Any) -> dict[str, int]:
    """Bytes of tables, slots, dense weights and their slots on each device; metrics and counters are left out."""
    from tfrs_dlrm.embeddings.storage import LogicalTable, copies

    variables = []
    tables = [*model.embeddings.tables.values()]
    slots = [s for each in model.embedding_optimizer.slots.values() for s in each.values()]
    for rows in tables + slots:
        for shard in LogicalTable.of(rows).shards:
            variables += shard.copies
    for v in [*model.dense_variables, *model.optimizer.variables]:
        variables += copies(v) if v.shape.rank else ()
    out: dict[str, int] = {}
    for v in variables:
        out[v.device] = out.get(v.device, 0) + v.shape.num_elements() * v.dtype.size
    return dict(sorted(out.items()))


def main(strategy: str, arguments: str, output: str) -> None:
    options = json.loads(arguments)
    options["workload"] = Workload.from_dict(options["workload"])
    if strategy == "mirrored" and "devices" in options:
        result = mirrored(**options)
    else:
        own = cluster.task()
        if strategy == "parameter_server" and own and own[0] != "chief":
            cluster.serve()
        result = in_cluster(strategy, **options)
        if own and own[0] == "worker" and own[1]:
            time.sleep(2)  # the first one writes
            os._exit(0)
    with open(output, "w", encoding="utf-8") as f:
        json.dump(result, f)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
