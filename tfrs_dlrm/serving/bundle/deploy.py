"""Files that start TF Serving's official image with a model, written next to its versions."""

from __future__ import annotations

import json
import math
import os
import re
from importlib.metadata import version

from absl import logging

from tfrs_dlrm.serving.bundle.batching_parameters import BATCHING
from tfrs_dlrm.serving.bundle.kubernetes import KUBERNETES
from tfrs_dlrm.serving.bundle.loaded_size import bytes_when_loaded
from tfrs_dlrm.serving.bundle.model_names import service_name
from tfrs_dlrm.stores.files import write_text

# The last of the allowed sizes has to be the largest batch (tensorflow_serving/batching).
_BATCHING = """\
max_batch_size { value: 256 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 100 }
num_batch_threads { value: 4 }
allowed_batch_sizes: 1
allowed_batch_sizes: 8
allowed_batch_sizes: 32
allowed_batch_sizes: 128
allowed_batch_sizes: 256
"""
_MODELS = """\
model_config_list {
  config {
    name: "%(name)s"
    base_path: "/models/%(name)s"
    model_platform: "tensorflow"
    model_version_policy { latest { num_versions: 1 } }
  }
}
"""
# Not run here, for lack of Docker.
_COMPOSE = """\
# docker compose -f deploy/docker-compose.yml up
# The image is a tag: pin its digest once you have pulled it (docker inspect --format='{{index .RepoDigests 0}}' IMAGE).
services:
  %(service_yaml)s:
    image: %(image)s
    command:
      - %(config_flag)s
      - --enable_batching
      - --enable_per_model_batching_parameters
      - %(monitoring_flag)s
    ports: ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    volumes: [%(volume)s]
    user: "1000:1000"
    read_only: true
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    tmpfs: [/tmp]
    mem_limit: %(memory)dm
    stop_grace_period: 40s
    restart: unless-stopped
"""
_MONITORING = """\
prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }
"""
_BASE_MEMORY, _STEP = 512, 256  # MiB: of the process with its library and requests; memory is rounded up to steps
_LOADED_PER_SECOND = 50 << 20  # bytes, of a slow volume
_LEAST_STARTUP_SECONDS = 300


def write_batching(path: str) -> None:
    """Writes the batching parameters of the version at `path`."""
    with open(os.path.join(path, BATCHING), "w", encoding="utf-8") as f:
        f.write(_BATCHING)


def write_deploy(output: str, name: str, path: str) -> None:
    """Writes the missing files of OUTPUT/deploy: operators may have changed the others.

    Warns if a file that is there gives less memory than the version needs.

    Args:
      output: the directory of the versions.
      name: of the model; see `model_name`.
      path: of a version, whose files say how much memory it takes.
    """
    directory = os.path.join(output, "deploy")
    os.makedirs(directory, exist_ok=True)
    size = bytes_when_loaded(path)
    memory = memory_mebibytes(size)
    files = {
        "models.config": _MODELS,
        "monitoring.config": _MONITORING,
        "docker-compose.yml": _COMPOSE,
        "kubernetes.yaml": KUBERNETES,
    }
    for file, text in files.items():
        target = os.path.join(directory, file)
        if os.path.exists(target):
            _check_memory(target, memory)
            continue
        write_text(target, text % _values(name, memory, size))


def memory_mebibytes(size: int) -> int:
    """Returns the memory to give to a server, in MiB.

    Args:
      size: the bytes of a loaded version, which are needed twice: the old version answers until the new one is loaded.
    """
    return math.ceil((_BASE_MEMORY + 2 * size / 2**20) / _STEP) * _STEP


def _values(name: str, memory: int, size: int) -> dict[str, object]:
    service, home = service_name(name), f"/models/{name}"
    # JSON's text is YAML's text in double quotes, which no reader takes for a number, a truth value or null.
    return {
        "name": name,
        "service": service,
        "service_yaml": json.dumps(service),
        # Images and tensorflow-serving-api are released together; no digest of an image can be known here.
        "image": json.dumps(f"tensorflow/serving:{version('tensorflow-serving-api')}"),
        "config_flag": json.dumps(f"--model_config_file={home}/deploy/models.config"),
        "monitoring_flag": json.dumps(f"--monitoring_config_file={home}/deploy/monitoring.config"),
        "volume": json.dumps(f"..:{home}:ro"),
        "home_yaml": json.dumps(home),
        "status_yaml": json.dumps(f"/v1/models/{name}"),
        "metadata_yaml": json.dumps(f"/v1/models/{name}/metadata"),
        "memory": memory,
        "startup_failures": max(_LEAST_STARTUP_SECONDS, size // _LOADED_PER_SECOND) // 5,
    }


def _check_memory(file: str, needed: int) -> None:
    with open(file, encoding="utf-8", errors="replace") as f:
        found = re.findall(r'(?:memory|mem_limit): "?(\d+)(Mi|m|Gi|g)\b', f.read())
    given = [int(number) * (1024 if unit.lower().startswith("g") else 1) for number, unit in found]
    if given and min(given) < needed:
        logging.warning(
            "%s gives a server %d MiB of memory; this version needs %d MiB while the one before it still answers:"
            " raise it, or remove the file to have it written again",
            file, min(given), needed,
        )  # fmt: skip
