"""Compares an exported model with the trained one: the questions of `verification`, in TensorFlow's Python."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.data.preparing.samples import to_tensors
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.serving.bundle.manifest import REFERENCE, BundleManifest, Tolerance
from tfrs_dlrm.serving.exporting.accuracy import Accuracy
from tfrs_dlrm.serving.exporting.serving_model import ServingModel
from tfrs_dlrm.serving.runtime.saved_model import RunError
from tfrs_dlrm.serving.verification.questions import QUESTIONS, check_encoded
from tfrs_dlrm.serving.verification.subject import Subject, read_reference
from tfrs_dlrm.serving.verification.verification_report import Failed


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The difference between the exported and the trained model on raw rows.

    Attributes:
      rows: number of rows of the log.
      odd_rows: number of rows made of missing, unseen and malformed values.
      largest_difference: between two probabilities or predicted numbers that should be equal.
      tolerances: the allowed difference to the trained model, by output.
      cost: of smaller tables; None for float32.
    """

    rows: int
    odd_rows: int
    largest_difference: float
    tolerances: Mapping[str, Tolerance]
    cost: Accuracy | None = None


class PythonRuntime:
    """A SavedModel in TensorFlow's Python.

    Args:
      path: the directory with saved_model.pb.
    """

    def __init__(self, path: str):
        self._model = tf.saved_model.load(path)
        self.signatures = self._model.signatures

    def free(self) -> None:
        """Frees the vocabularies in memory, which TensorFlow would keep until the process ends."""
        for function in self.signatures.values():
            variables = {id(v.handle) for v in function.variables}
            for handle in function.captured_inputs:
                if handle.dtype == tf.resource and id(handle) not in variables:
                    tf.raw_ops.DestroyResourceOp(resource=handle, ignore_lookup_error=True)

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the outputs of a signature by name.

        Raises:
          RunError: TensorFlow refuses the values.
        """
        tensors = {name: tf.constant(v, tf.string if v.dtype.kind == "O" else None) for name, v in inputs.items()}
        try:
            return {name: output.numpy() for name, output in self.signatures[signature](**tensors).items()}
        except tf.errors.OpError as e:
            raise RunError(e.error_code, e.message) from e


def write_reference(
    path: str, model: RankingModel, serving: ServingModel, samples: Sequence[Mapping[str, Any]]
) -> None:
    """Writes rows of the log, then odd rows, with the answers of the trained model behind the encoder."""
    odd = odd_rows(serving.schema, samples[0])
    signature = serving.raw_signature()
    rows = [{name: row[name] for name in signature} for row in (*samples, *odd)]
    encoded = serving.encoder(to_tensors(rows, signature))
    answers = {name: v.numpy() for name, v in model.label_tasks.named(model(encoded, training=False)).items()}
    with open(os.path.join(path, REFERENCE), "w", encoding="utf-8") as f:
        for i, row in enumerate(rows):
            line = {"inputs": row} | {name: float(column[i]) for name, column in answers.items()}
            f.write(json.dumps(line | ({"odd": True} if i >= len(samples) else {})) + "\n")


def compare(path: str, manifest: BundleManifest, serving: ServingModel) -> Comparison:
    """Loads the SavedModel at `path` and compares the answers of all signatures, on the rows of `write_reference`.

    Args:
      path: of the version.
      manifest: of the version.
      serving: what was saved.

    Raises:
      ValueError: an answer differs by more than the manifest says.
    """
    runtime = PythonRuntime(path)
    subject = Subject(path, manifest=manifest, runtime=runtime)
    try:
        read_reference(subject)
        raw = subject.rows.raw
        for question in QUESTIONS.values():
            question(subject)
        encoded = serving.padded(serving.encoder({name: tf.constant(v) for name, v in raw.items()}))
        arrays = {name: tensor.numpy() for name, tensor in encoded.items()}
        check_encoded(subject, raw, arrays, lambda i: f"{REFERENCE}, line {i + 1}")
    except (Failed, RunError) as e:
        raise ValueError(f"{path}: the exported model differs from the trained one; nothing is published: {e}") from e
    finally:
        runtime.free()
    odd = int(subject.rows.odd.sum())
    return Comparison(len(subject.rows.odd) - odd, odd, subject.largest_difference, manifest.tolerances)


def odd_rows(schema: Schema, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns copies of a row in which all values are missing, unseen, or malformed.

    A feature that refuses such values (`out_of_range` of `error`, `fill_value` of None) keeps its value.
    """
    kinds: list[tuple[Any, str, int]] = [(None, "", -1), (1e6, "\0 never seen \n", 2**62), (float("-inf"), "\x80", -7)]
    return [_odd_row(schema, row, *kind) for kind in kinds]


def _odd_row(schema: Schema, row: Mapping[str, Any], number: Any, text: str, integer: int) -> dict[str, Any]:
    odd = dict(row)
    refusing = {f.name for f in schema.categorical if f.out_of_range == "error"}
    refusing |= {name for f in schema.categorical if f.name in refusing for name in f.cross}
    for given in schema.inputs:
        if given.needed or refusing & set(given.features):
            continue
        if given.weights_of:
            odd[given.name] = [float("nan")] if given.is_list else "no number" if text else ""
            continue
        value: Any = {"float32": number, "int64": integer, "string": text}[given.dtype]
        odd[given.name] = [value] * (given.size or 1) if given.is_list else value
    return odd
