"""The devices that TensorFlow sees, asked of it in another process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from tfrs_dlrm.tools.doctor.machine import Machine

_PROGRAM = """
import json, tfrs_dlrm, tensorflow as tf
tf.keras.layers.Layer
print("\\n" + json.dumps([device.name for device in tf.config.list_logical_devices()]))
"""


def logical_devices(machine: Machine, seconds: float = 60) -> list[str]:
    """The names of TensorFlow's devices, after it was loaded in a process of its own: a crash there is only reported.

    Args:
      machine: where there is no TPU, TensorFlow is kept from asking for one, which can take minutes.
      seconds: to wait at most.

    Raises:
      RuntimeError: it crashed, failed or did not end in time; the message says which.
    """
    # By default TensorFlow takes all memory of all GPUs, which a run beside this one may have.
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
