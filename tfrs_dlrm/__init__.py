"""DLRM and its surroundings for TensorFlow: raw click logs in, a SavedModel for TF Serving out.

TensorFlow Recommenders, `TPUStrategy` and `ParameterServerStrategy` train only under Keras 2 (the package `tf-keras`).
TensorFlow decides which Keras `tf.keras` is when it is first used, so this module says so before anything else does.
"""

import ast
import importlib
import importlib.abc
import importlib.util
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any


def _tf_keras_loader() -> tuple[Any, dict[str, Any]]:
    """Returns what `tf.keras` is, and its attributes; None and nothing before TensorFlow is imported."""
    tensorflow = sys.modules.get("tensorflow")
    # A lazy loader until first used, then the module itself. Any attribute access would resolve it: read its __dict__.
    keras = vars(tensorflow).get("keras") if tensorflow else None
    return keras, object.__getattribute__(keras, "__dict__") if keras is not None else {}


def _use_keras_2() -> None:
    """Makes `tf.keras` Keras 2.

    Raises:
      ImportError: tf-keras is not installed, or `tf.keras` already became Keras 3 in this process.
    """
    if importlib.util.find_spec("tf_keras") is None:
        raise ImportError("tfrs_dlrm needs Keras 2: pip install 'tf-keras' of the same minor version as tensorflow")
    wish = os.environ.get("TF_USE_LEGACY_KERAS")
    _, state = _tf_keras_loader()
    is_keras_3 = state.get("_tfll_keras_version") == "keras_3" or state.get("__name__") == "keras._tf_keras.keras"
    if is_keras_3 or wish not in (None, "1", "true", "True"):
        raise ImportError(
            f"tf.keras is Keras 3 in this process (TF_USE_LEGACY_KERAS={wish!r}); TFRS needs Keras 2."
            " Write `import tfrs_dlrm` above the first use of tf.keras, or set TF_USE_LEGACY_KERAS=1"
            " before Python starts"
        )
    os.environ["TF_USE_LEGACY_KERAS"] = "1"


_use_keras_2()

if TYPE_CHECKING:
    from tfrs_dlrm import plots
    from tfrs_dlrm.checkpoint import restore_checkpoint, restore_facebook_dlrm, save_checkpoint
    from tfrs_dlrm.data.encoding.encoder import Encoder
    from tfrs_dlrm.data.preparing.fit_encoder import fit_encoder
    from tfrs_dlrm.data.preparing.prepare import prepare
    from tfrs_dlrm.data.raw.infer import infer_schema
    from tfrs_dlrm.data.reading.dataset import dataset, steps_per_epoch
    from tfrs_dlrm.distribute.strategies import make_strategy
    from tfrs_dlrm.embeddings.optimizers import FTRL, SGD, Adagrad, LazyAdam, RowWiseAdagrad
    from tfrs_dlrm.embeddings.per_table_optimizer import PerTableOptimizer
    from tfrs_dlrm.embeddings.tables import EmbeddingTables
    from tfrs_dlrm.layers.auto_dis import AutoDis
    from tfrs_dlrm.layers.dot_interaction import DotInteraction
    from tfrs_dlrm.layers.mlp import MLP
    from tfrs_dlrm.models.auto_int import AutoInt
    from tfrs_dlrm.models.bst import BST
    from tfrs_dlrm.models.dcn import DCN
    from tfrs_dlrm.models.deepfm import DeepFM
    from tfrs_dlrm.models.din import DIN
    from tfrs_dlrm.models.dlrm import DLRM
    from tfrs_dlrm.models.embedding_mlp import EmbeddingMLP
    from tfrs_dlrm.models.factorization_machine import FactorizationMachine
    from tfrs_dlrm.models.final_mlp import FinalMLP
    from tfrs_dlrm.models.final_net import FinalNet
    from tfrs_dlrm.models.gdcn import GDCN
    from tfrs_dlrm.models.logistic_regression import LogisticRegression
    from tfrs_dlrm.models.mask_net import MaskNet
    from tfrs_dlrm.models.matrix_factorization import MatrixFactorization
    from tfrs_dlrm.models.ranking import RankingModel
    from tfrs_dlrm.models.wide_and_deep import WideAndDeep
    from tfrs_dlrm.models.xdeepfm import XDeepFM
    from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema, Table, TextFormat, Time
    from tfrs_dlrm.serving.exporting.export import export_model
    from tfrs_dlrm.serving.exporting.raw_model import raw_model
    from tfrs_dlrm.training.factory import load_model
    from tfrs_dlrm.training.initial_rows import init_rows
    from tfrs_dlrm.training.inputs import distributed_dataset
    from tfrs_dlrm.training.loop import train_and_evaluate
    from tfrs_dlrm.training.warm_start import warm_start


def _public_names() -> dict[str, str]:
    """Returns the module of each public name, read from the imports above.

    Type checkers follow these imports. At run time each takes place when its name is first used: TensorFlow takes
    seconds to load, and `--help` should not.
    """
    source = __spec__.loader.get_source(__name__)  # type: ignore[union-attr]
    (block,) = (node for node in ast.parse(source).body if isinstance(node, ast.If))
    imports = (node for node in block.body if isinstance(node, ast.ImportFrom))
    return {alias.name: str(node.module) for node in imports for alias in node.names}


_MODULE_OF = _public_names()
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tfrs_dlrm' has no attribute {name!r}")
    module = _MODULE_OF[name]
    is_module = module == __name__  # `from tfrs_dlrm import plots`
    value = importlib.import_module(f"{module}.{name}") if is_module else getattr(importlib.import_module(module), name)
    globals()[name] = value
    if "tf_keras" in sys.modules:
        _register()
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# What Keras may meet in a file: models, layers, metrics, optimizers and schedules.
_REGISTERING = ("models", "embeddings", "metrics", "data.encoding.encoder", "training.schedules")


def _register() -> None:
    """Registers all classes that Keras saves, so that `keras.models.load_model` finds them."""
    for name in _REGISTERING:
        importlib.import_module(f"tfrs_dlrm.{name}")


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Registers the classes as soon as the user has imported Keras, which takes seconds to load."""

    _searching = False

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        if name != "tf_keras" or self._searching:
            return None
        self._searching = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._searching = False
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            sys.meta_path.remove(self)
            loader, state = _tf_keras_loader()
            if state.get("_tfll_initialized") and "_tfll_keras_version" not in state:
                loader._initialize()  # which imports Keras just now, and needs it done before others use `tf.keras`
            # Not while a module of ours is being imported, which the others may need; `__getattr__` does it then.
            if not any(getattr(m.__spec__, "_initializing", False) for m in _loaded()):
                _register()

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec


def _loaded() -> list[ModuleType]:
    return [module for name, module in sys.modules.items() if name.startswith("tfrs_dlrm")]


def _register_once_keras_is_loaded() -> None:
    if "tf_keras" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _AfterKeras())


_register_once_keras_is_loaded()
