"""DLRM and its surroundings for TensorFlow: raw click logs in, a SavedModel for TF Serving out.

TensorFlow Recommenders, `TPUStrategy` and `ParameterServerStrategy` train only under Keras 2 (the package `tf-keras`).
TensorFlow decides which Keras `tf.keras` is when it is first used, so this module says so before anything else does.
"""

import importlib.util
import os
import sys


def _use_keras_2() -> None:
    """Makes `tf.keras` Keras 2.

    Raises:
      ImportError: tf-keras is not installed, or `tf.keras` already became Keras 3 in this process.
    """
    if importlib.util.find_spec("tf_keras") is None:
        raise ImportError("tfrs_dlrm needs Keras 2: pip install 'tf-keras' of the same minor version as tensorflow")
    wish = os.environ.get("TF_USE_LEGACY_KERAS")
    tensorflow = sys.modules.get("tensorflow")
    # A lazy loader until first used, then the module itself. Any attribute access would resolve it: read its __dict__.
    keras = vars(tensorflow).get("keras") if tensorflow else None
    state = object.__getattribute__(keras, "__dict__") if keras is not None else {}
    is_keras_3 = state.get("_tfll_keras_version") == "keras_3" or state.get("__name__") == "keras._tf_keras.keras"
    if is_keras_3 or wish not in (None, "1", "true", "True"):
        raise ImportError(
            f"tf.keras is Keras 3 in this process (TF_USE_LEGACY_KERAS={wish!r}); TensorFlow Recommenders needs Keras 2."
            " Write `import tfrs_dlrm` above the first use of tf.keras, or set TF_USE_LEGACY_KERAS=1"
            " before Python starts"
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"


_use_keras_2()
