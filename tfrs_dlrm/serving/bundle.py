"""A trained run as a SavedModel that takes the values of the log and returns probabilities."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrs_dlrm.data.encoder import Encoder
from tfrs_dlrm.data.samples import read_samples
from tfrs_dlrm.files import disk_full
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.serving.verify import Comparison, compare
from tfrs_dlrm.training.factory import load_model
from tfrs_dlrm.workdir import Which, Workdir

EXAMPLE_FILE = "example_request.json"


@dataclasses.dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Attributes:
      path: the SavedModel, in a directory whose name is its version.
      checkpoint: where its weights are from.
      comparison: of its scores, once loaded again, with those of the model in training.
    """

    path: str
    checkpoint: str
    comparison: Comparison


class ServingModel(tf.Module):
    """The encoder and the layers of a model, and nothing of its training: no optimizer, no slots, no metrics.

    Args:
      model: built.
      encoder: that its training data went through.
    """

    def __init__(self, model: RankingModel, encoder: Encoder):
        super().__init__(name="serving")
        self.encoder = encoder
        # What holds the weights must be reachable from here to be saved; the model itself would bring its optimizers.
        self.model_layers = [layer for layer in model.layers if not isinstance(layer, tfrs.tasks.Task)]
        self._call = [model.call]

    def serve(self, **raw: tf.Tensor) -> dict[str, tf.Tensor]:
        """Raw values, as `Encoder.signature` names them, to `probability`, float32 [B]."""
        logits = self._call[0](self.encoder(raw), training=False)
        return {"probability": tf.sigmoid(logits)}

    def signature(self) -> tf.types.experimental.ConcreteFunction:
        """`serve` with the raw inputs of the encoder's signature."""
        return tf.function(self.serve).get_concrete_function(**self.encoder.signature())


def export(workdir: str, output: str, which: Which = "best") -> Exported:
    """Exports a run; see `export_model`.

    Args:
      workdir: the directory of the run.
      output: the directory of the served model's versions.
      which: the `best` checkpoint or the `latest`.

    Raises:
      FileNotFoundError: there is no run or no checkpoint.
      ValueError: the exported model disagrees with the trained one.
      OSError: the disk is full.
    """
    model, _, checkpoint = load_model(workdir, which)
    path, comparison = export_model(model, Workdir(workdir).encoder_dir, output)
    return Exported(path, checkpoint, comparison)


def export_model(model: RankingModel, data_dir: str, output: str) -> tuple[str, Comparison]:
    """Writes a SavedModel, loads it again, and compares its probabilities with the model's on raw rows.

    It is written under another name and renamed once it is whole and agrees, so that a server which watches `output`
    never sees half of it.

    Args:
      model: trained on what was prepared in `data_dir`.
      data_dir: the prepared directory: its encoder becomes part of the SavedModel.
      output: the directory of the served model's versions; the new one is the next number.

    Returns:
      The path of the new version, and the comparison.

    Raises:
      ValueError: the exported model disagrees with `model`.
      OSError: the disk is full.
    """
    encoder, samples = Encoder.load(data_dir), read_samples(data_dir)
    version = _next_version(output)
    temporary, path = os.path.join(output, f"unfinished-{version}"), os.path.join(output, str(version))
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with disk_full(f"{output}: run the same command again once there is room"):
            serving = ServingModel(model, encoder)
            tf.saved_model.save(serving, temporary, signatures={"serving_default": serving.signature()})
            _write_example(temporary, samples[0])
        # bfloat16 has 8 bits of mantissa, and sums in another order round differently.
        tolerance = 1e-2 if model.dtype_policy.name == "mixed_bfloat16" else 1e-6
        comparison = compare(temporary, model, encoder, samples, tolerance)
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path, comparison


def _next_version(output: str) -> int:
    names = os.listdir(output) if os.path.isdir(output) else []
    return 1 + max((int(n) for n in names if n.isdecimal()), default=0)


def _write_example(path: str, sample: Mapping[str, object]) -> None:
    """The body of a request to TF Serving's REST API; it reads NaN, which is how a missing number is sent."""
    directory = os.path.join(path, "assets.extra")
    os.makedirs(directory, exist_ok=True)
    instance = {name: float("nan") if value is None else value for name, value in sample.items()}
    with open(os.path.join(directory, EXAMPLE_FILE), "w", encoding="utf-8") as f:
        f.write(json.dumps({"instances": [instance]}, indent=2) + "\n")
