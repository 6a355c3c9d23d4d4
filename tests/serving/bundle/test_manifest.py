"""bundle.json with any value missing, of another kind, or cut: it is read, or refused by the name of the value."""

import copy
import dataclasses
import hashlib
import json

import pytest
from google_crc32c import value as crc32c

from tfrs_dlrm.serving.bundle.manifest import BundleFeature, BundleManifest, read_manifest, write_manifest
from tfrs_dlrm.serving.bundle.wholeness import unfinished

_TENSOR = {"dtype": "float32", "shape": [None, 3]}
MANIFEST = BundleManifest(
    name="clicks",
    model="DLRM",
    created="2026-11-01T00:00:00Z",
    tensorflow="2.21.0",
    tables={"storage": "int8", "bytes": 10, "bytes_float32": 40},
    context=("user",),
    features=(BundleFeature("price", "dense", "float32"), BundleFeature("user", "categorical", "string", context=True)),
    signatures={"encoded": {"method": "predict", "inputs": {"dense": _TENSOR}, "outputs": {"probability": _TENSOR}}},
    checkpoint="step-1",
    tolerance=1e-6,
    rounding=1e-6,
    more_outputs={
        "prediction_spend": {"task": "regression", "tolerance": 1.0, "rounding": 0.1, "tolerance_up_to": 5.0}
    },
    accuracy={"examples": 3},
)


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    write_manifest(str(tmp_path), MANIFEST)
    return tmp_path


def places(value, path=()):
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def changed(content, path, change):
    content = copy.deepcopy(content)
    at = content
    for key in path[:-1]:
        at = at[key]
    change(at, path[-1])
    return content


def use(path):
    """Reads a manifest and what programs ask of it."""
    manifest = read_manifest(str(path))
    assert unfinished(str(path), manifest) in ("", "saved_model.pb has 5 bytes; assets.extra/bundle.json says -1")
    return manifest.tolerances, manifest.roundings, manifest.suffixes, manifest.context_inputs, manifest.features


def test_what_is_written_is_read(bundle):
    found = read_manifest(str(bundle))
    assert dataclasses.replace(found, files={}) == MANIFEST
    content = b"graph"
    listed = {"bytes": 5, "sha256": hashlib.sha256(content).hexdigest(), "crc32c": f"{crc32c(content):08x}"}
    assert found.files == {"saved_model.pb": listed}


def test_each_value_of_another_kind_or_missing_is_named(bundle):
    file = bundle / "assets.extra/bundle.json"
    whole = json.loads(file.read_text())
    refused = []
    for path in places(whole):
        for value in ("missing", None, "?", -1, 0.5, True, [], {}, [[3]], {"a": {"b": 1}}):
            if value == "missing":
                content = changed(whole, path, lambda at, key: at.pop(key))
            else:
                content = changed(whole, path, lambda at, key, value=value: at.__setitem__(key, value))
            file.write_text(json.dumps(content))
            try:
                use(bundle)
            except ValueError as e:
                message = str(e)
                names = [key for key in path if isinstance(key, str)]
                assert "export the model again" in message and str(names[0]) in message, (path, value, message)
                refused.append((path, value))
    for path in (("files",), ("features",), ("signatures",), ("tolerance",), ("task",), ("files", "saved_model.pb")):
        assert (path, [[3]]) in refused
    for path in (("files", "saved_model.pb", "bytes"), ("signatures", "encoded", "inputs"), ("features", 0, "name")):
        assert (path, "missing") in refused and (path, True) in refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["files"]["saved_model.pb"].pop("bytes"), "'files': 'saved_model.pb': 'bytes' is missing"),
        (
            lambda m: m["files"]["saved_model.pb"].update(bytes="5"),
            "'files': 'saved_model.pb': 'bytes' is '5'; a whole number is expected",
        ),
        (lambda m: m["features"][1].pop("name"), "'features'[1]: 'name' is missing"),
        (lambda m: m.update(features={}), "'features' is {}; a list of objects is expected"),
        (
            lambda m: m["features"][0].update(rank=3),
            "'features'[0]: 'rank' is 3; 1 or 2 is expected",
        ),
        (
            lambda m: m["signatures"]["encoded"]["inputs"]["dense"].pop("dtype"),
            "'signatures': 'encoded': 'inputs': 'dense': 'dtype' is missing",
        ),
        (lambda m: m.update(task="ranking"), "'task' is 'ranking'; 'classification' or 'regression' is expected"),
    ],
)
def test_the_message_says_where_and_what_is_expected(bundle, change, words):
    file = bundle / "assets.extra/bundle.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError) as refused:
        read_manifest(str(bundle))
    assert str(refused.value) == f"{file}: {words}: export the model again"


def test_a_manifest_that_is_cut_anywhere_is_refused(bundle):
    file = bundle / "assets.extra/bundle.json"
    whole = file.read_bytes().rstrip()
    for size in [*range(0, len(whole), 7), len(whole) - 1]:
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"not valid JSON|the file is empty"):
            read_manifest(str(bundle))
    for content in (b"\xff\xfe{}", b"[" * 100_000, b"[1]", b"null", b'{"format": 2}'):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"not valid JSON|not a text in UTF-8|format .* reads format 1"):
            read_manifest(str(bundle))
