"""The machine and its devices, seen without TensorFlow and by a TensorFlow in another process."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from tfrs_dlrm.distribute.memory import available_memory

GPU_FILES = ("dev/nvidia[0-9]*",)
# The drivers of older and of newer TPUs. /dev/accel without a number is a directory of other makers' accelerators;
# /dev/vfio/vfio exists without any device.
TPU_FILES = ("dev/accel[0-9]*", "dev/vfio/[0-9]*")
_VARIABLES = ("TF_CONFIG", "TPU_", "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS", "CUDA_VISIBLE_DEVICES")
_PROGRAM = """
import json, tfrs_dlrm, tensorflow as tf
tf.keras.layers.Layer
print("\\n" + json.dumps([device.name for device in tf.config.list_logical_devices()]))
"""


@dataclasses.dataclass(frozen=True)
class Machine:
    """The hardware and environment of this process.

    Attributes:
      cores: number of processor cores.
      memory: available bytes, within the limit of a container; None if unknown.
      gpus: device files of NVIDIA GPUs.
      tpus: device files of TPUs.
      locked_tpus: the device files of TPUs that this user may not read and write.
      environment: the environment variables that decide where TensorFlow computes.
    """

    cores: int = 1
    memory: int | None = None
    gpus: tuple[str, ...] = ()
    tpus: tuple[str, ...] = ()
    locked_tpus: tuple[str, ...] = ()
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


def examine_machine(root: str = "/") -> Machine:
    """Examines the machine whose file system begins at `root`."""
    tpus = _matching(root, TPU_FILES)
    return Machine(
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=available_memory(lambda path: _read(root, path.lstrip("/"))),
        gpus=_matching(root, GPU_FILES),
        tpus=tpus,
        locked_tpus=tuple(f for f in tpus if not os.access(f, os.R_OK | os.W_OK)),
        environment={k: v for k, v in sorted(os.environ.items()) if k.startswith(_VARIABLES)},
    )


def logical_devices(machine: Machine, seconds: float = 60) -> list[str]:
    """Returns TensorFlow's names of the devices, from another process that loads TensorFlow and may crash.

    Args:
      machine: if it has no TPU, TensorFlow must not ask for one, which can take minutes.
      seconds: the longest time to wait.

    Raises:
      RuntimeError: TensorFlow crashed, failed or took too long; the message says which.
    """
    # By default TensorFlow takes all memory of all GPUs, which another run may need.
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true"} | os.environ
    if not machine.tpus:
        environment["TPU_SKIP_MDS_QUERY"] = "1"
    command = [sys.executable, "-c", _PROGRAM]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"TensorFlow was not loaded within {seconds:.0f} seconds") from None
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1].strip()
    if done.returncode < 0:
        raise RuntimeError(f"loading TensorFlow ends in {signal.Signals(-done.returncode).name}: {last}")
    raise RuntimeError(f"loading TensorFlow fails: {last}")


def _matching(root: str, patterns: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(f for pattern in patterns for f in glob.glob(os.path.join(root, pattern))))


def _read(root: str, name: str) -> str:
    try:
        with open(os.path.join(root, name), encoding="utf-8") as f:
            return f.read()
    except OSError:
        return ""
