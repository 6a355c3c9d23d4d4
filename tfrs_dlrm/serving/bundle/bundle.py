"""A trained run as a SavedModel that takes the values of the log and returns probabilities or predicted numbers."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.preparing.manifest import PreparedManifest, Split
from tfrs_dlrm.data.preparing.samples import read_samples, to_tensors
from tfrs_dlrm.data.raw.parsing import MISSING_INT
from tfrs_dlrm.data.reading.dataset import dataset
from tfrs_dlrm.embeddings.ids import Features
from tfrs_dlrm.embeddings.quantized import Storage
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.models.tasks import Regression
from tfrs_dlrm.serving.bundle.accuracy import Accuracy, accuracy
from tfrs_dlrm.serving.bundle.card import card
from tfrs_dlrm.serving.bundle.deploy import write_batching, write_deploy
from tfrs_dlrm.serving.bundle.manifest import REFERENCE, write_manifest
from tfrs_dlrm.serving.bundle.model import ServingModel
from tfrs_dlrm.serving.bundle.signatures import METHODS, make_signatures, set_methods
from tfrs_dlrm.serving.bundle.tolerance import Tolerance
from tfrs_dlrm.serving.bundle.verify import Comparison, compare
from tfrs_dlrm.serving.bundle.versions import LAST, next_version, remove_old
from tfrs_dlrm.serving.bundle.warmup import write_warmup
from tfrs_dlrm.stores import Store, is_store_url, join, local_copy, publish, visible_files
from tfrs_dlrm.stores.files import disk_full
from tfrs_dlrm.training.factory import load_model
from tfrs_dlrm.training.workdir import Which, Workdir

EXAMPLE_FILE = "example_request.json"


@dataclasses.dataclass(frozen=True)
class Options:
    """What is in a bundle.

    Attributes:
      context: the features that the candidates of a request share (of the user, the device, the page); with some there
        are the signatures `rank` and `rank_top_k`.
      storage: of the tables' rows: `float32` as trained, `float16`, or `int8` with a range for each row.
      keep: how many of the newest versions stay; None deletes none.
      evaluation: the prepared directory on whose evaluation set smaller tables are compared with the trained ones; by
        default that of the run.
    """

    context: tuple[str, ...] = ()
    storage: Storage = "float32"
    keep: int | None = None
    evaluation: str | None = None


_PLAIN = Options()
# Other rows, and other orders, than those whose answers are compared may be so many times as far apart.
_ROUNDED = 4


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


def export(workdir: str, output: str, which: Which = "best", options: Options = _PLAIN) -> Exported:
    """Exports a run; see `export_model`.

    Args:
      workdir: the directory of the run.
      output: the directory of the served model's versions.
      which: the `best` checkpoint or the `latest`.
      options: of the bundle.

    Raises:
      FileNotFoundError: there is no run or no checkpoint.
      ValueError: the options do not fit the model, or the exported model disagrees with the trained one.
      OSError: the disk is full.
    """
    model, config, checkpoint = load_model(workdir, which)
    evaluation = options.evaluation or config.data.path
    options = dataclasses.replace(options, evaluation=evaluation)
    path, comparison = export_model(model, Workdir(workdir).encoder_dir, output, options, checkpoint)
    return Exported(path, checkpoint, comparison)


def export_model(
    model: RankingModel, data_dir: str, output: str, options: Options = _PLAIN, checkpoint: str | None = None
) -> tuple[str, Comparison]:
    """Writes a SavedModel, loads it again, and compares its answers with the model's on raw rows.

    It is written under another name and renamed once it is whole and agrees, so that a server which watches `output`
    never sees half of it. Stores have no rename: there it is written once it agrees, `saved_model.pb` and then
    `published.json` last.

    Args:
      model: trained on what was prepared in `data_dir`.
      data_dir: the prepared directory: its encoder becomes part of the SavedModel.
      output: the directory of the served model's versions, or where they are in an object store; the new one is the
        next number.
      options: what is in the bundle.
      checkpoint: where the weights are from, for the bundle's manifest.

    Returns:
      The path of the new version, and the comparison.

    Raises:
      ValueError: the options do not fit the model, or the exported model disagrees with `model`.
      OSError: the disk is full.
    """
    if is_store_url(output):
        return _export_to_store(model, data_dir, output, options, checkpoint)
    return _export(model, data_dir, output, next_version(output), options, checkpoint)


def _export_to_store(
    model: RankingModel, data_dir: str, output: str, options: Options, checkpoint: str | None
) -> tuple[str, Comparison]:
    """Writes the bundle to a local directory first, where it is checked, and publishes what passed."""
    with tempfile.TemporaryDirectory() as scratch:
        home = os.path.join(scratch, os.path.basename(output.rstrip("/")))
        path, comparison = _export(model, data_dir, home, next_version(output), options, checkpoint)
        address, store = join(output, os.path.basename(path)), Store(output)
        # Servers take a version with this file for a whole one.
        publish(path, address, last=LAST)
        for name in visible_files(home):
            if not name.split("/")[0].isdecimal():
                store.upload(os.path.join(home, name), name)
    if options.keep is not None:
        remove_old(output, options.keep)
    return address, comparison


def _export(
    model: RankingModel, data_dir: str, output: str, version: int, options: Options, checkpoint: str | None
) -> tuple[str, Comparison]:
    encoder, samples = Encoder.load(data_dir), read_samples(data_dir)
    serving = ServingModel(model, encoder, options.context, options.storage)
    cost = _cost(model, serving, local_copy(options.evaluation or data_dir)) if options.storage != "float32" else None
    temporary, path = os.path.join(output, f"unfinished-{version}"), os.path.join(output, str(version))
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with disk_full(f"{output}: run the same command again once there is room"):
            signatures = make_signatures(serving)
            tf.saved_model.save(serving, temporary, signatures=signatures)
            set_methods(temporary, signatures)
            roundings = _roundings(model, serving, samples)
            found = compare(temporary, model, serving, samples, _tolerances(roundings, cost), roundings)
            comparison = dataclasses.replace(found, cost=cost)
            _write_extras(temporary, serving, samples, comparison)
            name = os.path.basename(os.path.abspath(output))
            manifest = _manifest(name, model, serving, samples[0], signatures)
            manifest["checkpoint"] = checkpoint and os.path.basename(checkpoint)
            manifest |= _outputs(model, comparison, roundings) | {"accuracy": cost and cost.to_dict()}
            with open(os.path.join(temporary, "MODEL.md"), "w", encoding="utf-8") as f:
                f.write(card(manifest, _request(samples[0])))
            write_manifest(temporary, manifest)
            write_deploy(output, name)
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if options.keep is not None:
        remove_old(output, options.keep)
    return path, comparison


def _outputs(model: RankingModel, comparison: Comparison, roundings: Mapping[str, Tolerance]) -> dict[str, Any]:
    """What the manifest says of the outputs: tolerances of the first, and names and tolerances of the others."""
    first, *others = [
        {"tolerance": tolerance.absolute, "rounding": roundings[name].absolute, "tolerance_up_to": tolerance.usual}
        for name, tolerance in comparison.tolerances.items()
    ]
    named = zip(model.label_tasks.outputs[1:], model.schema.more_labels, others, strict=True)
    return first | {"more_outputs": {name: {"task": label.task, **other} for name, label, other in named}}


def _roundings(
    model: RankingModel, serving: ServingModel, samples: Sequence[Mapping[str, Any]]
) -> dict[str, Tolerance]:
    """By output, how far an answer may be from that of the same model, computed in another order.

    A model that multiplies many numbers, as a cross network does, makes more of a rounded digit than others. So it is
    measured how far its own answers are apart where rows are scored one by one and all together.
    """
    tasks = model.label_tasks
    encoded = serving.encoder(to_tensors(samples, serving.raw_signature()))

    @tf.function(reduce_retracing=True)
    def answers(features: Features) -> tf.Tensor:
        return tf.reshape(tasks.served(model(features, training=False)), [-1, len(tasks.all)])

    alone = [answers({name: v[i : i + 1] for name, v in encoded.items()}) for i in range(len(samples))]
    apart = tf.reduce_max(tf.abs(tf.concat(alone, axis=0) - answers(encoded)), axis=0).numpy().tolist()
    # bfloat16 has 8 bits of mantissa.
    least = 1e-2 if model.dtype_policy.name == "mixed_bfloat16" else model.rounding
    usual = [abs(task.mean) + 4 * task.std if isinstance(task, Regression) else 1.0 for task in tasks.all]
    outputs = zip(tasks.outputs, usual, apart, strict=True)
    return {name: Tolerance(max(least * own, _ROUNDED * found), own) for name, own, found in outputs}


def _tolerances(roundings: Mapping[str, Tolerance], cost: Accuracy | None) -> dict[str, Tolerance]:
    """By output, how far an answer may be from the training side's."""
    if cost is None:
        return dict(roundings)
    # The rows that are compared are others than those that the cost was found on.
    return {
        name: dataclasses.replace(rounding, absolute=max(rounding.absolute, 2 * own.largest_change))
        for (name, rounding), own in zip(roundings.items(), [cost, *cost.more.values()], strict=True)
    }


def _cost(model: RankingModel, serving: ServingModel, data_dir: str) -> Accuracy:
    """Of smaller tables, on the evaluation set; on the training set where there is none."""
    split: Split = "eval" if PreparedManifest.load(data_dir).rows("eval") else "train"
    return accuracy(model, serving, dataset(data_dir, 2048, split=split, shuffle=False, drop_remainder=False))


def _write_extras(
    path: str, serving: ServingModel, samples: Sequence[Mapping[str, Any]], comparison: Comparison
) -> None:
    """What lies beside the SavedModel: warmup requests, rows with the training side's answers, a request."""
    os.makedirs(os.path.join(path, "assets.extra"), exist_ok=True)
    with open(os.path.join(path, REFERENCE), "w", encoding="utf-8") as f:
        for i, row in enumerate(comparison.inputs):
            line = {"inputs": row} | {name: float(answers[i]) for name, answers in comparison.answers.items()}
            f.write(json.dumps(line | ({"odd": True} if i >= comparison.rows else {})) + "\n")
    raw = to_tensors(samples[:32], serving.raw_signature())
    encoded = serving.padded(serving.encoder(raw))
    raw_arrays, encoded_arrays = ({name: v.numpy() for name, v in values.items()} for values in (raw, encoded))
    context = serving.context_inputs if serving.context else None
    write_warmup(path, raw_arrays, encoded_arrays, context, serving.schema.label.task == "classification")
    write_batching(path)
    with open(os.path.join(path, "assets.extra", EXAMPLE_FILE), "w", encoding="utf-8") as f:
        f.write(json.dumps(_request(samples[0]), indent=2) + "\n")


def _manifest(
    name: str, model: RankingModel, serving: ServingModel, sample: Mapping[str, Any], signatures: Mapping[str, Any]
) -> dict[str, Any]:
    bytes_float32 = sum(4 * v.shape.num_elements() for v in model.embeddings.tables.values())
    return {
        "name": name,
        "model": type(model).__name__,
        "task": model.schema.label.task,
        "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "tensorflow": tf.__version__,
        "tables": {"storage": serving.storage, "bytes": serving.tables.bytes, "bytes_float32": bytes_float32},
        "context": list(serving.context),
        "features": _features(serving, sample),
        "signatures": {name: _signature(name, signature) for name, signature in signatures.items()},
    }


def _features(serving: ServingModel, sample: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of each raw input what a caller has to know."""
    schema = serving.schema
    dense = {f.name: f for f in schema.dense}
    categorical = {f.name: f for f in schema.categorical}
    weighted = {f.weights_name: f for f in schema.categorical if f.weights}
    found = []
    for name, spec in serving.raw_signature().items():
        kind = "dense" if name in dense else "categorical" if name in categorical else "weights"
        own = categorical.get(name) or weighted.get(name)
        found.append(
            {
                "name": name,
                "kind": kind,
                "dtype": spec.dtype.name,
                "rank": spec.shape.rank,
                "separator": own.separator if own else None,
                "missing": {"string": "", "int64": MISSING_INT}.get(spec.dtype.name),
                "may_be_missing": kind != "dense" or dense[name].fill_value is not None,
                "context": name in serving.context_inputs,
                "example": sample[name],
            }
        )
    return found


def _signature(name: str, signature: Any) -> dict[str, Any]:
    def tensors(specs: Mapping[str, Any]) -> dict[str, Any]:
        return {n: {"dtype": s.dtype.name, "shape": s.shape.as_list()} for n, s in sorted(specs.items())}

    method = name if name in METHODS else "predict"
    inputs = signature.structured_input_signature[1]
    return {"method": method, "inputs": tensors(inputs), "outputs": tensors(signature.structured_outputs)}


def _request(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request to TF Serving's REST API; it reads NaN, which is how a missing number is sent."""
    return {"instances": [{name: float("nan") if value is None else value for name, value in sample.items()}]}
