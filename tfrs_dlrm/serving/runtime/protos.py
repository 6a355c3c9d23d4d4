"""The protos of TensorFlow and of TF Serving, without TensorFlow's Python.

Importing a generated module of the package `tensorflow` runs all of TensorFlow's Python: four seconds and half a
gigabyte. The generated modules need only protobuf. So they are loaded from an empty package of that name, which is
removed afterwards: a later `import tensorflow` is not affected. Messages of one name have one class, however often
their module is loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from typing import Any

_TENSORFLOW = "tensorflow"


def tensorflow_directory() -> str:
    """Returns where TensorFlow is installed, without importing it.

    Raises:
      ImportError: it is not installed.
    """
    spec = (
        importlib.util.find_spec(_TENSORFLOW) if _TENSORFLOW not in sys.modules else sys.modules[_TENSORFLOW].__spec__
    )
    if spec is None or spec.origin is None:
        raise ImportError("TensorFlow is not installed; its C++ library and protos are needed: pip install tensorflow")
    return os.path.dirname(spec.origin)


def _load(names: list[str]) -> list[Any]:
    """Loads modules without running TensorFlow's Python, and leaves nothing of `tensorflow` in `sys.modules`."""
    if _TENSORFLOW in sys.modules:
        return [importlib.import_module(name) for name in names]
    package = types.ModuleType(_TENSORFLOW)
    package.__path__ = [tensorflow_directory()]
    sys.modules[_TENSORFLOW] = package
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        for name in [n for n in sys.modules if n == _TENSORFLOW or n.startswith(f"{_TENSORFLOW}.")]:
            del sys.modules[name]


(
    saved_model,
    meta_graph,
    config,
    example,
    tensor,
    types_,
    error_codes,
    predict,
    regression,
    classification,
    inference,
    input_,
    model,
    metadata,
    status,
    management,
    prediction_log,
    model_config,
) = _load(
    [
        "tensorflow.core.protobuf.saved_model_pb2",
        "tensorflow.core.protobuf.meta_graph_pb2",
        "tensorflow.core.protobuf.config_pb2",
        "tensorflow.core.example.example_pb2",
        "tensorflow.core.framework.tensor_pb2",
        "tensorflow.core.framework.types_pb2",
        "tensorflow.core.protobuf.error_codes_pb2",
        "tensorflow_serving.apis.predict_pb2",
        "tensorflow_serving.apis.regression_pb2",
        "tensorflow_serving.apis.classification_pb2",
        "tensorflow_serving.apis.inference_pb2",
        "tensorflow_serving.apis.input_pb2",
        "tensorflow_serving.apis.model_pb2",
        "tensorflow_serving.apis.get_model_metadata_pb2",
        "tensorflow_serving.apis.get_model_status_pb2",
        "tensorflow_serving.apis.model_management_pb2",
        "tensorflow_serving.apis.prediction_log_pb2",
        "tensorflow_serving.config.model_server_config_pb2",
    ]
)


def services() -> tuple[Any, Any]:
    """Returns the modules with the gRPC stubs of PredictionService and of ModelService.

    Raises:
      ImportError: grpcio is not installed.
    """
    modules = _load(
        ["tensorflow_serving.apis.prediction_service_pb2_grpc", "tensorflow_serving.apis.model_service_pb2_grpc"]
    )
    return modules[0], modules[1]
