"""Exports a trained run as a SavedModel that takes the values of the log and returns probabilities or predictions."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.data.encoding.checksums import encoder_fingerprint
from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.encoding.vocabulary import all_rows_by_value
from tfrs_dlrm.data.preparing.manifest import PreparedManifest, Split
from tfrs_dlrm.data.preparing.samples import read_samples, to_tensors
from tfrs_dlrm.data.reading.dataset import dataset
from tfrs_dlrm.data.reading.model_rows import with_model_rows
from tfrs_dlrm.embeddings.quantized import Storage
from tfrs_dlrm.messages.arguments import check_argument
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.serving.bundle.card import card
from tfrs_dlrm.serving.bundle.deploy import write_batching, write_deploy
from tfrs_dlrm.serving.bundle.manifest import EXAMPLE, BundleManifest, write_manifest
from tfrs_dlrm.serving.bundle.model_names import model_name
from tfrs_dlrm.serving.bundle.versions import (
    COMPLETING,
    next_version,
    remove_old,
    remove_unfinished_versions,
    unfinished_version,
    version_number,
)
from tfrs_dlrm.serving.bundle.warmup import write_warmup
from tfrs_dlrm.serving.exporting.accuracy import Accuracy, accuracy
from tfrs_dlrm.serving.exporting.comparison import Comparison, compare, write_reference
from tfrs_dlrm.serving.exporting.description import describe
from tfrs_dlrm.serving.exporting.encoder_check import check_encoder
from tfrs_dlrm.serving.exporting.serving_model import ServingModel, check_ranking_model
from tfrs_dlrm.serving.exporting.signatures import finish_graph, make_signatures
from tfrs_dlrm.stores import Store, is_store_url, join, local_copy, publish, visible_files
from tfrs_dlrm.stores.files import check_writable_place, disk_full, put
from tfrs_dlrm.stores.lock import directory_lock
from tfrs_dlrm.training.factory import load_run
from tfrs_dlrm.training.workdir import Which, Workdir


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """The contents of a bundle.

    Attributes:
      context: the features that the candidates of a request share (of the user, the device, the page), or inputs, which
        stand for all features that read them. With some, the bundle has the signatures `rank` and `rank_top_k`.
      storage: of the tables' rows: `float32` as trained, `float16`, or `int8` with a range for each row.
      keep: how many of the newest versions stay; None deletes none.
      evaluation: the prepared directory on whose evaluation set smaller tables are compared with the trained ones; by
        default that of the run.
    """

    context: tuple[str, ...] = ()
    storage: Storage = "float32"
    keep: int | None = None
    evaluation: str | None = None


_PLAIN = ExportOptions()


@dataclasses.dataclass(frozen=True)
class Exported:
    """A version that `export` wrote.

    Attributes:
      path: the SavedModel, in a directory whose name is its version.
      checkpoint: the path of its weights.
      comparison: of its answers, once loaded again, with the trained model.
    """

    path: str
    checkpoint: str
    comparison: Comparison


def export(workdir: str, output: str, which: Which = "best", options: ExportOptions = _PLAIN) -> Exported:
    """Exports a run; see `export_model`.

    Args:
      workdir: the directory of the run.
      output: the directory of the served model's versions.
      which: the `best` checkpoint or the `latest`.
      options: of the bundle.

    Raises:
      FileNotFoundError: the directory holds no run or no checkpoint.
      ValueError: servers cannot take the name of the model, the options do not fit it, or the exported model disagrees
        with the trained one.
      OSError: the disk is full, or `output` cannot be written.
    """
    model_name(output)  # before the work
    check_writable_place(output)
    model, config, checkpoint = load_run(workdir, which)
    options = dataclasses.replace(options, evaluation=options.evaluation or config.data.path)
    home = Workdir(workdir)
    if home.encodes_as(config.data.path):
        check_encoder(Encoder.load(home.encoder_dir), config.data.path)
    path, comparison = export_model(model, home.encoder_of(checkpoint), output, options, checkpoint)
    return Exported(path, checkpoint, comparison)


def export_model(
    model: RankingModel, data_dir: str, output: str, options: ExportOptions = _PLAIN, checkpoint: str | None = None
) -> tuple[str, Comparison]:
    """Writes a SavedModel, loads it again, and compares its answers with the model's on raw rows.

    The version is written under another name and renamed once it is whole and agrees, so that a server which watches
    `output` never sees half of it. A second export to the same directory waits for the first. Stores have no rename: a
    version is uploaded once it agrees, `saved_model.pb` and then `published.json` last.

    Args:
      model: trained on the data in `data_dir`.
      data_dir: the prepared directory: its encoder becomes part of the SavedModel.
      output: the directory of the served model's versions, or its address in an object store; the version is the next
        number.
      options: what is in the bundle.
      checkpoint: the path of the weights, for the bundle's manifest.

    Returns:
      The path of the version, and the comparison.

    Raises:
      FileNotFoundError: `data_dir` is no prepared directory.
      ValueError: the model is no `RankingModel`, an encoder is given for the directory, servers cannot take the name of
        `output`, the options do not fit the model, or the exported model disagrees with `model`.
      OSError: the disk is full.
    """
    check_ranking_model(model, "export_model")
    model_name(output)
    if isinstance(data_dir, Encoder):
        raise ValueError(
            "export_model needs the prepared directory, not its encoder: rows in it check the exported model. Write it"
            " by tfrs_dlrm.prepare(schema, frame, directory), of the training rows: then a model on the encoder of"
            " fit_encoder for these rows fits"
        )
    check_argument("export_model", "data_dir", data_dir, str)
    if is_store_url(output):
        path, comparison = _export_to_store(model, data_dir, output, options, checkpoint)
        if options.keep is not None:
            remove_old(output, options.keep)
        return path, comparison
    with directory_lock(output, "exports to it") as lock:
        lock.acquire(wait=lambda owner: True)  # this version follows that one
        remove_unfinished_versions(output)
        path, comparison = _export(model, data_dir, output, next_version(output), options, checkpoint)
        if options.keep is not None:
            remove_old(output, options.keep)
        return path, comparison


def _export_to_store(
    model: RankingModel, data_dir: str, output: str, options: ExportOptions, checkpoint: str | None
) -> tuple[str, Comparison]:
    """Writes the bundle to a local directory, and publishes it once it was compared."""
    version = next_version(output)
    with tempfile.TemporaryDirectory() as scratch:
        home = os.path.join(scratch, os.path.basename(output.rstrip("/")))
        path, comparison = _export(model, data_dir, home, version, options, checkpoint)
        address, store = join(output, os.path.basename(path)), Store(output)
        publish(path, address, last=COMPLETING)
        for name in visible_files(home):
            if version_number(name.split("/")[0]) is None:
                store.upload(os.path.join(home, name), name)
    return address, comparison


def _export(
    model: RankingModel, data_dir: str, output: str, version: int, options: ExportOptions, checkpoint: str | None
) -> tuple[str, Comparison]:
    encoder, samples = Encoder.load(data_dir), read_samples(data_dir)
    check_encoder(encoder, local_copy(data_dir))
    serving = ServingModel(model, encoder, options.context, options.storage)
    cost = None
    if options.storage != "float32":
        cost = _cost(model, serving, local_copy(options.evaluation or data_dir), local_copy(data_dir))
    name = model_name(output)
    temporary, path = unfinished_version(output, version), os.path.join(output, str(version))
    try:
        with disk_full(output):
            signatures = make_signatures(serving)
            tf.saved_model.save(serving, temporary, signatures=signatures)
            finish_graph(temporary, signatures)
            os.makedirs(os.path.join(temporary, "assets.extra"), exist_ok=True)
            manifest = describe(name, model, serving, samples, signatures, cost, checkpoint)
            write_reference(temporary, model, serving, samples)
            comparison = dataclasses.replace(compare(temporary, manifest, serving), cost=cost)
            _write_requests(temporary, serving, samples, manifest)
            write_batching(temporary)
            with open(os.path.join(temporary, "MODEL.md"), "w", encoding="utf-8") as f:
                f.write(card(manifest, _request(samples[0], manifest)))
            write_manifest(temporary, manifest)
            write_deploy(output, name, temporary)
            put(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path, comparison


def _cost(model: RankingModel, serving: ServingModel, data_dir: str, encoder_dir: str) -> Accuracy:
    """Measures smaller tables on the evaluation set, or on the training set without one.

    The vocabularies in `encoder_dir` may have moved along a stream since the data were prepared. A value without a row
    now counts as unseen.
    """
    split: Split = "eval" if PreparedManifest.load(data_dir).rows("eval") else "train"
    rows = dataset(data_dir, 2048, split=split, shuffle=False, drop_remainder=False)
    if encoder_fingerprint(data_dir) != encoder_fingerprint(encoder_dir):
        schema, moved = Schema.load(os.path.join(data_dir, SCHEMA_FILE)), all_rows_by_value(data_dir, encoder_dir)
        of_model = with_model_rows(schema, moved)
        rows = rows.map(lambda features, *rest: (of_model(features), *rest))
    return accuracy(model, serving, rows)


def _write_requests(
    path: str, serving: ServingModel, samples: Sequence[Mapping[str, Any]], manifest: BundleManifest
) -> None:
    """Writes the warmup requests and the example request."""
    raw = to_tensors(samples[:32], serving.raw_signature())
    encoded = serving.padded(serving.encoder(raw))
    raw_arrays, encoded_arrays = ({name: v.numpy() for name, v in tensors.items()} for tensors in (raw, encoded))
    context = serving.context_inputs if serving.context else None
    write_warmup(path, raw_arrays, encoded_arrays, context, serving.schema.label.task == "classification")
    with open(os.path.join(path, EXAMPLE), "w", encoding="utf-8") as f:
        f.write(json.dumps(_request(samples[0], manifest), indent=2) + "\n")


def _request(sample: Mapping[str, Any], manifest: BundleManifest) -> dict[str, Any]:
    """Returns the body of a request to TF Serving's REST API, which reads a missing number as NaN and takes no null."""
    row: dict[str, Any] = {}
    for feature in manifest.features:
        missing, value = feature.missing_number, sample[feature.name]
        if feature.rank == 2:
            row[feature.name] = [missing if v is None else v for v in value or []]
        else:
            row[feature.name] = missing if value is None else value
    return {"instances": [row]}
