"""Describes a served model in the manifest of its bundle."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.data.preparing.samples import to_tensors
from tfrs_dlrm.data.raw.parsing import MISSING_INT
from tfrs_dlrm.embeddings.ids import Features
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.models.tasks import Regression
from tfrs_dlrm.models.tracing import as_written
from tfrs_dlrm.serving.bundle.manifest import BundleFeature, BundleManifest
from tfrs_dlrm.serving.exporting.accuracy import Accuracy
from tfrs_dlrm.serving.exporting.context import feature_names
from tfrs_dlrm.serving.exporting.serving_model import ServingModel
from tfrs_dlrm.serving.exporting.signatures import METHODS

# Other rows in another order may round to a difference this many times the one that was measured.
_ROUNDING_MARGIN = 4


def describe(
    name: str,
    model: RankingModel,
    serving: ServingModel,
    samples: Sequence[Mapping[str, Any]],
    signatures: Mapping[str, Any],
    cost: Accuracy | None,
    checkpoint: str | None,
) -> BundleManifest:
    """Returns the manifest of a bundle, without its files.

    Args:
      name: of the served model.
      model: as trained.
      serving: what is saved.
      samples: rows of the log.
      signatures: concrete functions by name.
      cost: of smaller tables; None for float32.
      checkpoint: the path of the weights.
    """
    bytes_float32 = sum(4 * v.shape.num_elements() for v in model.embeddings.tables.values())
    tolerances = _tolerances(model, serving, samples, cost)
    tasks = dict(zip(model.label_tasks.outputs, (x.task for x in model.schema.labels), strict=True))
    labels = {output: {"task": tasks.get(output, "classification"), **x} for output, x in tolerances.items()}
    first = tolerances[model.label_tasks.outputs[0]]
    not_asked = _not_asked(serving)
    return BundleManifest(
        name=name,
        model=type(model).__name__,
        task=model.schema.label.task,
        created=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        tensorflow=tf.__version__,
        tables={"storage": serving.storage, "bytes": serving.tables.bytes, "bytes_float32": bytes_float32},
        context=tuple(name for name in serving.context if name not in not_asked),
        features=tuple(_features(serving, samples[0])),
        serving_values={i.name: i.serving_value for i in serving.encoder.schema.inputs if i.training_only},
        signatures={name: _signature(name, signature) for name, signature in signatures.items()},
        checkpoint=os.path.basename(checkpoint) if checkpoint else None,
        **first,
        more_outputs=dict(list(labels.items())[1:]),
        keep_negatives=model.schema.label.keep_negatives,
        calibration=_calibration(model),
        accuracy=cost.to_dict() if cost else None,
    )


def _calibration(model: RankingModel) -> dict[str, Any] | None:
    found = model.calibration
    if not found:
        return None
    output = model.label_tasks.outputs[found.label]
    return {"method": found.method, "output": output, "by": found.feature, "curves": len(found.curves)}


def _not_asked(serving: ServingModel) -> set[str]:
    """Returns the features that read no input of a request."""
    schema = serving.encoder.schema
    asked = {name for given in schema.inputs if not given.training_only for name in given.features}
    return {name for name in feature_names(schema) if not schema.member_names(name) & asked}


def _features(serving: ServingModel, sample: Mapping[str, Any]) -> list[BundleFeature]:
    found = []
    for given in serving.encoder.schema.inputs:
        if given.training_only:
            continue
        is_number = given.dtype == "float32" and not given.weights_of
        kind = "weights" if given.weights_of else "time" if given.time else "dense" if is_number else "categorical"
        found.append(
            BundleFeature(
                name=given.name,
                kind=kind,
                dtype=given.dtype,
                rank=2 if given.is_list else 1,
                separator=None if given.size else given.separator,
                time=given.time.format if given.time else None,
                missing={"string": "", "int64": MISSING_INT}.get(given.dtype),
                may_be_missing=not given.needed,
                context=given.name in serving.context_inputs,
                example=sample[given.name],
                size=given.size,
            )
        )
    return found


def _signature(name: str, signature: Any) -> dict[str, Any]:
    def tensors(specs: Mapping[str, Any]) -> dict[str, Any]:
        return {n: {"dtype": s.dtype.name, "shape": s.shape.as_list()} for n, s in sorted(specs.items())}

    method = METHODS.get(name, "predict").rpartition("/")[2]
    inputs = signature.structured_input_signature[1]
    return {"method": method, "inputs": tensors(inputs), "outputs": tensors(signature.structured_outputs)}


def _tolerances(
    model: RankingModel, serving: ServingModel, samples: Sequence[Mapping[str, Any]], cost: Accuracy | None
) -> dict[str, dict[str, Any]]:
    """Returns `tolerance`, `rounding` and `tolerance_up_to` of each output, as the manifest has them."""
    usual = dict(zip(model.label_tasks.outputs, map(_usual, model.label_tasks.all), strict=True))
    found = {}
    for output, rounding in _roundings(model, serving, samples, usual).items():
        # The compared rows differ from the rows on which the cost was measured.
        tolerance = max(rounding, 2 * cost.changes[output]) if cost else rounding
        found[output] = {"tolerance": tolerance, "rounding": rounding, "tolerance_up_to": usual.get(output, 1.0)}
    return found


def _roundings(
    model: RankingModel, serving: ServingModel, samples: Sequence[Mapping[str, Any]], usual: Mapping[str, float]
) -> dict[str, float]:
    """Measures, per output, how far an answer may be from the same model, computed in another order.

    A model that multiplies many numbers, such as a cross network, amplifies rounding. So rows are scored one by one and
    all together.
    """
    encoded = serving.encoder(to_tensors(samples, serving.raw_signature()))

    def scored(features: Features) -> dict[str, tf.Tensor]:
        return model.label_tasks.named(model(features, training=False))

    answers = tf.function(as_written(scored, model), reduce_retracing=True)
    together = answers(encoded)
    alone = [answers({name: v[i : i + 1] for name, v in encoded.items()}) for i in range(len(samples))]
    # bfloat16 has 8 bits of mantissa.
    least = 1e-2 if model.dtype_policy.name == "mixed_bfloat16" else model.rounding
    found = {}
    for output, answer in together.items():
        difference = tf.reduce_max(tf.abs(tf.concat([x[output] for x in alone], axis=0) - answer))
        found[output] = max(least * usual.get(output, 1.0), _ROUNDING_MARGIN * float(difference))
    return found


def _usual(task: Any) -> float:
    """Returns the largest usual answer."""
    return abs(task.mean) + 4 * task.std if isinstance(task, Regression) else 1.0
