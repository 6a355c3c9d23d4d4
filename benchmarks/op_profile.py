"""Where the time of our train step goes, by kind of operation: what a ratio that is not reached has for a reason.

python benchmarks/op_profile.py --workload=criteo_kaggle --optimizer=rowwise --precision=fp32
"""

from __future__ import annotations

import collections
import glob
import os
import resource
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses

import tensorflow as tf
from absl import app, flags
from peers.ours import Ours
from tensorflow.tsl.profiler.protobuf import xplane_pb2
from workloads import WORKLOADS, Weights

_WORKLOAD = flags.DEFINE_enum("workload", "criteo_kaggle", list(WORKLOADS), "What is trained.")
_OPTIMIZER = flags.DEFINE_enum("optimizer", "rowwise", ["sgd", "adagrad", "rowwise"], "Of tables and MLPs.")
_PRECISION = flags.DEFINE_enum("precision", "bf16", ["fp32", "bf16"], "Of MLPs and interactions.")
_BATCH = flags.DEFINE_integer("batch", 2048, "Examples in a batch.")
_STEPS = flags.DEFINE_integer("steps", 20, "Steps to profile.", lower_bound=1)

_KINDS = {
    "matrix products": ("MatMul", "BatchMatMul"),
    "rows read": ("ResourceGather",),
    "rows written": ("ResourceScatterUpdate",),
    "duplicates": ("Unique", "SegmentSum", "TopKV2", "Cumsum", "TensorScatterAdd", "Where"),
    "moving": ("Transpose", "Pack", "Unpack", "Concat", "Gather", "Slice", "Pad", "Reshape", "Cast", "Tile"),
}
# What encloses operations, and so would count them twice.
_ENCLOSING = (
    "ExecutorState",
    "train_step",
    "TFE_",
    "Eager",
    "KernelAndDevice",
    "ParallelFor",
    "FunctionRun",
    "Executor",
)


def main(argv: list[str]) -> None:
    del argv
    workload = dataclasses.replace(WORKLOADS[_WORKLOAD.value], batch=_BATCH.value, batches=4)
    model = Ours(workload, _OPTIMIZER.value, _PRECISION.value, Weights(workload))
    for i in range(8):
        model.step(i)
    before, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for i in range(_STEPS.value):
        model.step(i)
    wall = (time.perf_counter() - begin) / _STEPS.value
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / _STEPS.value
    cores = len(os.sched_getaffinity(0))
    print(
        f"{workload.name}, {_OPTIMIZER.value}, {_PRECISION.value}, batch {workload.batch}: {wall * 1e3:.1f} ms a step,"
        f" {cpu / wall / cores:.0%} of {cores} cores busy\n"
    )
    times = _times(model)
    total = sum(times.values())
    print("  share    ms  kind of operation (times of operations that run side by side are added up)")
    for kind, seconds in sorted(times.items(), key=lambda item: -item[1]):
        print(f"  {seconds / total:5.0%} {seconds * 1e3:5.1f}  {kind}")


def _times(model: Ours) -> dict[str, float]:
    """Seconds in a step by kind."""
    with tempfile.TemporaryDirectory() as directory:
        with tf.profiler.experimental.Profile(directory):
            for i in range(_STEPS.value):
                model.step(i)
        (path,) = glob.glob(f"{directory}/**/*.xplane.pb", recursive=True)
        space = xplane_pb2.XSpace()
        with open(path, "rb") as f:
            space.ParseFromString(f.read())
    times: dict[str, float] = collections.Counter()
    for plane in space.planes:
        for line in plane.lines if "CPU" in plane.name else ():
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if ":" in name and not name.startswith(_ENCLOSING):
                    times[_kind(name.rsplit(":", 1)[-1])] += event.duration_ps / 1e12 / _STEPS.value
    return times


def _kind(operation: str) -> str:
    for kind, words in _KINDS.items():
        if any(word in operation for word in words):
            return kind
    return "elementwise and the rest"


if __name__ == "__main__":
    app.run(main)
