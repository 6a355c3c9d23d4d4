"""MODEL.md: how to ask the model of a bundle."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfrs_dlrm.serving.bundle.manifest import BundleFeature, BundleManifest

_SIGNATURES = {
    "serving_default": "Takes raw values, one row per example.",
    "serialized_examples": "Takes serialized `tf.Example`s with the raw values. Absent features are missing values.",
    "regress": "Answers TF Serving's Regress.",
    "classify": 'Answers TF Serving\'s Classify. Class "1" is the label.',
    "encoded": "Takes rows of tables and numbers, as `tfrs_dlrm.Encoder` makes them. Lists are padded with -1. Numbers"
    " must be finite.",
    "rank": "Takes B contexts (usually 1) with N candidates each. Features of the context are given once."
    " `scores` are in the order of the candidates; `order` lists the candidates, best first.",
    "rank_top_k": "As `rank`, for the `k` best candidates only (all `k` are equal), with their `indices`.",
}


def card(manifest: BundleManifest, request: Mapping[str, Any]) -> str:
    """Returns the Markdown.

    Args:
      manifest: of the bundle.
      request: the body of a REST request to `serving_default`.
    """
    lines = [
        *_summary(manifest),
        *_more_outputs(manifest.more_outputs),
        *_kept(manifest.keep_negatives),
        *_calibration(manifest.calibration),
        *_accuracy(manifest.accuracy),
        "## Features",
        "",
        *_table(["name", "type", "missing value", "of the context", "example"], map(_feature, manifest.features)),
        "",
        *_serving_values(manifest.serving_values),
        "A text with a separator holds several values. JSON requests may have NaN as a number, as TF Serving reads it.",
        "",
        "## Signatures",
        "",
    ]
    for name, signature in manifest.signatures.items():
        lines += [f"### {name}", "", f"{_SIGNATURES[name]} (`{signature['method']}`)", ""]
        lines += [*_table(["", "name", "type"], _tensors(signature)), ""]
    lines += [
        "## Request",
        "",
        f"    curl -d @request.json http://localhost:8501/v1/models/{manifest.name}:predict",
        "",
        "with this request.json (`assets.extra/example_request.json`):",
        "",
        *(f"    {line}" for line in json.dumps(request, indent=2).splitlines()),
        "",
        "## Batching",
        "",
        "TF Serving reads `batching_params.pbtxt` with `--enable_per_model_batching_parameters`. It merges requests"
        " only if all sizes but the first agree. `pad_variable_length_inputs` would pad with the first value, which"
        " changes scores. So under batching, inputs of shape [?, ?] (lists, and the candidates of `rank`) need one"
        " length in all requests. Use `serialized_examples` for lists of any length.",
    ]
    return "\n".join(lines) + "\n"


def _summary(manifest: BundleManifest) -> list[str]:
    tables, regression = manifest.tables, manifest.task == "regression"
    answer = "predicts its label, a number," if regression else "predicts the probability of its label"
    share = tables["bytes"] / max(1, tables["bytes_float32"])
    return [
        f"# {manifest.name}",
        "",
        f"A {manifest.model} that {answer} in TF Serving, exported by tfrs-dlrm on {manifest.created} with TensorFlow"
        f" {manifest.tensorflow}. Tables: {tables['storage']}, {tables['bytes'] / 1e6:.1f} MB ({share:.2f} of float32)."
        f" {'Predictions' if regression else 'Probabilities'} are within {manifest.tolerance:.1g} of the trained"
        " model's, on the rows in `assets.extra/reference.jsonl`.",
        "",
    ]


def _more_outputs(outputs: Mapping[str, Any]) -> list[str]:
    if not outputs:
        return []
    names = ", ".join(f"`{name}`" for name in outputs)
    return [
        f"It also gives {names}, of further labels. Regress and Classify answer for the first label, and candidates are"
        " ordered by it.",
        "",
    ]


def _kept(share: float) -> list[str]:
    if share == 1:
        return []
    added = f"{math.log(share):.4f} is added to its logits, so that probabilities are those of the full log."
    return [f"It was trained on {share:.4g} of the negative rows; {added}", ""]


def _calibration(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    by = f", with {found['curves'] - 1} values of `{found['by']}` apart" if found["by"] else ""
    return [f"`{found['output']}` is calibrated after training: {found['method']}{by}.", ""]


def _serving_values(found: Mapping[str, float | str | None]) -> list[str]:
    if not found:
        return []
    values = (f"`{name}` ({'missing' if v is None else f'`{json.dumps(v)}`'})" for name, v in found.items())
    return [f"Not asked for, because only training has it: {', '.join(values)}. In brackets is the value used.", ""]


def _accuracy(found: Mapping[str, Any] | None, label: str = "") -> list[str]:
    if found is None:
        return []
    output = "probability" if "log_loss" in found else "prediction"
    of_label = f" of label {label}" if label else ""
    names = {"auc": "AUC", "log_loss": "log loss", "rmse": "RMSE", "mae": "MAE"}
    changes = [f"{text} {found[n][0]:.6f} -> {found[n][1]:.6f}" for n, text in names.items() if n in found]
    return [
        f"Trained model -> bundle, on {found['examples']:,} examples{of_label}: {', '.join(changes)}; the largest"
        f" change of a {output} is {found['largest_change']:.2g}.",
        "",
        *(line for name, more in found.get("more", {}).items() for line in _accuracy(more, name)),
    ]


def _feature(f: BundleFeature) -> Sequence[str]:
    separated = f", separated by `{f.separator}`" if f.separator else ""
    time = f", time `{f.time}`" if f.time else ""
    several = f", vector of {f.size}" if f.size else ", list" if f.rank > 1 else ""
    kind = f"{f.dtype}{several}{separated}{time}".replace("|", "\\|")
    missing = "NaN" if f.missing is None else json.dumps(f.missing)
    example = json.dumps(f.example).replace("|", "\\|")
    return f.name, kind, missing if f.may_be_missing else "refused", "yes" if f.context else "", f"`{example}`"


def _tensors(signature: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    for side in ("inputs", "outputs"):
        for name, spec in signature[side].items():
            shape = ", ".join("?" if n is None else str(n) for n in spec["shape"])
            yield side[:-1], name, f"{spec['dtype']} [{shape}]"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]
