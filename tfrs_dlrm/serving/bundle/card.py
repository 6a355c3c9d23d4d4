"""MODEL.md: what whoever gets a bundle has to know to ask it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_WHAT = {
    "serving_default": "Raw values, a row for each example.",
    "serialized_examples": "Serialized `tf.Example`s with the raw values; what one does not have is missing.",
    "regress": "The same for TF Serving's Regress.",
    "classify": 'The same for Classify: class "1" is the label.',
    "encoded": "Rows of tables and numbers, for callers that encode themselves as `tfrs_dlrm.Encoder` does;"
    " -1 fills up lists. Numbers must be finite.",
    "rank": "B contexts (usually 1), each with N candidates; the features of the context are given once."
    " `scores` are in the order of the candidates, `order` has their numbers, best first.",
    "rank_top_k": "The same, but only the `k` best (all `k` the same) and their numbers.",
}


def card(manifest: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """Markdown.

    Args:
      manifest: of the bundle.
      request: the body of a REST request to `serving_default`.
    """
    tables, regression = manifest["tables"], manifest["task"] == "regression"
    what = "a prediction of its label, a number," if regression else "the probability of its label,"
    answers = "Predictions" if regression else "Probabilities"
    share = tables["bytes"] / max(1, tables["bytes_float32"])
    lines = [
        f"# {manifest['name']}",
        "",
        f"A {manifest['model']} that gives {what} for TF Serving. Made by tfrs-dlrm on"
        f" {manifest['created']} with TensorFlow {manifest['tensorflow']}. Tables: {tables['storage']},"
        f" {tables['bytes'] / 1e6:.1f} MB ({share:.2f} of float32). {answers} are within"
        f" {manifest['tolerance']:.1g} of those of the model in training, on the rows in"
        " `assets.extra/reference.jsonl`.",
        "",
        *_more_outputs(manifest["more_outputs"]),
        *_accuracy(manifest["accuracy"]),
        "## Features",
        "",
        *_table(
            ["name", "type", "a missing value is", "of the context", "example"], map(_feature, manifest["features"])
        ),
        "",
        "Text with a separator holds several values. NaN is a number in JSON requests, as TF Serving reads them.",
        "",
        "## Signatures",
        "",
    ]
    for name, signature in manifest["signatures"].items():
        lines += [f"### {name}", "", f"{_WHAT[name]} (`{signature['method']}`)", ""]
        lines += _table(["", "name", "type"], _tensors(signature))
        lines += [""]
    lines += [
        "## A request",
        "",
        f"    curl -d @request.json http://localhost:8501/v1/models/{manifest['name']}:predict",
        "",
        "with this request.json (it is `assets.extra/example_request.json`):",
        "",
        *(f"    {line}" for line in json.dumps(request, indent=2).splitlines()),
        "",
        "## Batching",
        "",
        "`batching_params.pbtxt` is what `--enable_per_model_batching_parameters` reads. TF Serving joins"
        " requests only where all sizes but the first agree, and fills up with a tensor's first value where"
        " `pad_variable_length_inputs` says so, which would change scores. So under batching, inputs of shape"
        " [?, ?] (lists, and the candidates of `rank`) need one length in all requests, or `serialized_examples` in"
        " their place.",
    ]
    return "\n".join(lines) + "\n"


def _more_outputs(outputs: Mapping[str, Any]) -> list[str]:
    if not outputs:
        return []
    names = ", ".join(f"`{name}`" for name in outputs)
    return [
        f"It also gives {names}, of further labels. Regress and Classify answer for the first label, and candidates are"
        " ordered by it.",
        "",
    ]


def _accuracy(found: Mapping[str, Any] | None, label: str = "") -> list[str]:
    if found is None:
        return []
    output = "probability" if "auc" in found else "prediction"
    of = f" of label {label}" if label else ""
    names = {"auc": "AUC", "log_loss": "log loss", "rmse": "RMSE", "mae": "MAE"}
    changes = [f"{text} {found[n][0]:.6f} -> {found[n][1]:.6f}" for n, text in names.items() if n in found]
    return [
        f"On {found['examples']:,} examples{of}, beside the model as trained: {', '.join(changes)};"
        f" the largest change of a {output} is {found['largest_change']:.2g}.",
        "",
        *(line for name, more in found.get("more", {}).items() for line in _accuracy(more, name)),
    ]


def _feature(f: Mapping[str, Any]) -> Sequence[str]:
    missing = "NaN" if f["missing"] is None else json.dumps(f["missing"])
    kind = (
        f["dtype"]
        + (", list" if f["rank"] > 1 else "")
        + (f", separated by `{f['separator']}`" if f["separator"] else "")
    )
    example = json.dumps(f["example"]).replace("|", "\\|")
    kind = kind.replace("|", "\\|")
    return f["name"], kind, missing if f["may_be_missing"] else "refused", "yes" if f["context"] else "", f"`{example}`"


def _tensors(signature: Mapping[str, Any]) -> Iterable[Sequence[str]]:
    for side in ("inputs", "outputs"):
        for name, spec in signature[side].items():
            shape = ", ".join("?" if n is None else str(n) for n in spec["shape"])
            yield side[:-1], name, f"{spec['dtype']} [{shape}]"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
