"""Files that start TF Serving's official image with a model, written next to its versions."""

from __future__ import annotations

import os

from tfrs_dlrm.serving.bundle.batching_parameters import BATCHING

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
# Not run here, for lack of Docker and a cluster.
_COMPOSE = """\
# docker compose -f deploy/docker-compose.yml up
services:
  %(service)s:
    image: tensorflow/serving:latest
    command:
      - --model_config_file=/models/%(name)s/deploy/models.config
      - --enable_batching
      - --enable_per_model_batching_parameters
      - --monitoring_config_file=/models/%(name)s/deploy/monitoring.config
    ports: ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    volumes: ["..:/models/%(name)s:ro"]
    restart: unless-stopped
"""
_MONITORING = """\
prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }
"""
_KUBERNETES = """\
# kubectl apply -f deploy/kubernetes.yaml, with the directory of the versions in a volume claimed as %(service)s
apiVersion: apps/v1
kind: Deployment
metadata: {name: %(service)s}
spec:
  replicas: 2
  selector: {matchLabels: {app: %(service)s}}
  template:
    metadata: {labels: {app: %(service)s}}
    spec:
      containers:
        - name: serving
          image: tensorflow/serving:latest
          args:
            - --model_config_file=/models/%(name)s/deploy/models.config
            - --enable_batching
            - --enable_per_model_batching_parameters
            - --monitoring_config_file=/models/%(name)s/deploy/monitoring.config
          ports: [{containerPort: 8500, name: grpc}, {containerPort: 8501, name: rest}]
          readinessProbe: {httpGet: {path: /v1/models/%(name)s, port: rest}, periodSeconds: 5}
          volumeMounts: [{name: model, mountPath: /models/%(name)s, readOnly: true}]
      volumes:
        - name: model
          persistentVolumeClaim: {claimName: %(service)s, readOnly: true}
---
apiVersion: v1
kind: Service
metadata: {name: %(service)s}
spec:
  selector: {app: %(service)s}
  ports: [{name: grpc, port: 8500}, {name: rest, port: 8501}]
"""


def write_batching(path: str) -> None:
    """Writes the batching parameters of the version at `path`."""
    with open(os.path.join(path, BATCHING), "w", encoding="utf-8") as f:
        f.write(_BATCHING)


def write_deploy(output: str, name: str) -> None:
    """Writes the missing files of OUTPUT/deploy: operators may have changed the others."""
    directory = os.path.join(output, "deploy")
    os.makedirs(directory, exist_ok=True)
    # Names of services and labels are lower-case letters, digits and dashes.
    service = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower()).strip("-") or "model"
    files = {
        "models.config": _MODELS,
        "monitoring.config": _MONITORING,
        "docker-compose.yml": _COMPOSE,
        "kubernetes.yaml": _KUBERNETES,
    }
    for file, text in files.items():
        path = os.path.join(directory, file)
        if not os.path.exists(path):
            with open(f"{path}.tmp", "w", encoding="utf-8") as f:
                f.write(text % {"name": name, "service": service})
            os.replace(f"{path}.tmp", path)
