"""Whether what disturbed programs wrote equals what undisturbed ones did. A check returns what differs, or nothing."""

import json
import os

import numpy as np


def check_prepared(path: str, whole: str) -> str:
    """Compares prepared directories byte for byte."""
    return _different(path, whole, _files(whole), _files(path))


def check_run(path: str, whole: str) -> str:
    """Compares metrics, results, and every number in the latest and the best checkpoint."""
    names = ["metrics.jsonl", "result.json", *(n for n in _files(whole) if n.startswith("encoder/"))]
    if wrong := _different(path, whole, names, [n for n in _files(path) if n in names or n.startswith("encoder/")]):
        return wrong
    for kind in ("checkpoints", "best"):
        steps, found = (sorted(os.listdir(os.path.join(p, kind))) for p in (whole, path))
        if steps != found:
            return f"{kind} has {found}, not {steps}"
        for step in steps:
            for file in ("rows", "dense"):
                name = os.path.join(kind, step, file)
                if wrong := _different_numbers(os.path.join(path, name), os.path.join(whole, name)):
                    return f"{name}: {wrong}"
    return ""


def check_bundles(path: str, whole: str, same_version: bool = False) -> str:
    """Compares each version with its manifest, and its variables and reference answers with the undisturbed export.

    That has one version for all, or with `same_version` one of the same number for each.
    """
    from tfrs_dlrm.serving.bundle.manifest import file_facts, files_of, read_manifest

    for version in sorted(v for v in os.listdir(path) if v.isdecimal()):
        found = os.path.join(path, version)
        listed = read_manifest(found).files
        if sorted([*listed, "assets.extra/bundle.json"]) != files_of(found):
            return f"version {version} has other files than its manifest"
        for name, facts in listed.items():
            if file_facts(os.path.join(found, name)) != facts:
                return f"version {version}: {name} differs from the manifest"
        answers = ("variables/variables.data", "assets/", "assets.extra/reference.jsonl")
        same = [name for name in listed if name.startswith(answers)]
        if wrong := _different(found, os.path.join(whole, version if same_version else "1"), same, same):
            return f"version {version}: {wrong}"
    return "" if os.path.isdir(os.path.join(path, "1")) else "there is no version"


def check_update(path: str, whole: str) -> str:
    """Compares the run, the served versions, the files of updates, and what is known of the update."""
    runs, served = ([os.path.join(p, name) for p in (path, whole)] for name in ("run", "served"))
    if wrong := check_run(*runs) or check_bundles(*served, same_version=True):
        return wrong
    names, expected = ([n for n in _files(run) if n.startswith("updates/") or "/" not in n] for run in runs)
    if names != expected:
        return f"other files: {', '.join(sorted({*expected} ^ {*names})[:5])}"
    data = [n for n in expected if n.startswith("updates/")]
    if wrong := _different(*runs, data, data):
        return wrong
    records = [_json(os.path.join(run, "updates.jsonl")) for run in runs]
    for record in records:
        assert isinstance(record, dict)
        del record["options"]
    return "" if records[0] == records[1] else "updates.jsonl differs"


def check_served(path: str) -> str:
    """Looks for a whole version, which a server would load."""
    from tfrs_dlrm.serving.bundle.manifest import file_facts, read_manifest
    from tfrs_dlrm.serving.bundle.versions import newest_version

    newest = newest_version(os.path.join(path, "served"))
    listed = read_manifest(newest).files
    broken = [name for name, facts in listed.items() if file_facts(os.path.join(newest, name)) != facts]
    return f"{newest} is not whole: {', '.join(broken)}" if broken else ""


def check_comparison(path: str, whole: str) -> str:
    """Compares the summaries, and what was chosen for each model."""
    names = [n for n in _files(whole) if n == "compare.json" or n.endswith("/chosen.json")]
    for name in names:
        if _json(os.path.join(path, name)) != _json(os.path.join(whole, name)):
            return f"{name} differs"
    return ""


def _json(path: str) -> object:
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def _files(directory: str) -> list[str]:
    found = [os.path.join(root, name) for root, _, names in os.walk(directory) for name in names]
    return sorted(os.path.relpath(name, directory) for name in found)


def _different(path: str, whole: str, expected: list[str], found: list[str]) -> str:
    if sorted(expected) != sorted(found):
        return f"other files: {', '.join(sorted({*expected} ^ {*found})[:5])}"
    for name in expected:
        with open(os.path.join(path, name), "rb") as a, open(os.path.join(whole, name), "rb") as b:
            if a.read() != b.read():
                return f"{name} differs"
    return ""


def _different_numbers(path: str, whole: str) -> str:
    import tensorflow as tf

    found, expected = tf.train.load_checkpoint(path), tf.train.load_checkpoint(whole)
    names = set(expected.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    if names != set(found.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}:
        return "other variables"
    for name in sorted(names):
        if not np.array_equal(found.get_tensor(name), expected.get_tensor(name)):
            return f"{name} differs"
    return ""
