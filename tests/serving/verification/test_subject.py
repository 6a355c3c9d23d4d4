"""Reference rows and example requests that are damaged: each is refused by line and name, never by a KeyError."""

import json

import numpy as np
import pytest

from tfrs_dlrm.serving.bundle.manifest import EXAMPLE, BundleFeature, BundleManifest
from tfrs_dlrm.serving.verification.contents import check_example
from tfrs_dlrm.serving.verification.subject import Subject, read_reference
from tfrs_dlrm.serving.verification.verification_report import Failed

FEATURES = (
    BundleFeature("price", dtype="float32"),
    BundleFeature("site", dtype="string", missing=""),
    BundleFeature("tags", dtype="int64", rank=2, missing=-1),
)
ROW = {"inputs": {"price": 1.5, "site": "a", "tags": [3, 4]}, "probability": 0.25}


class Sums:
    """A model whose score is the price."""

    signatures = ("serving_default",)

    def run(self, signature, inputs):
        return {"probability": inputs["price"]}


@pytest.fixture
def subject(tmp_path):
    (tmp_path / "assets.extra").mkdir()
    return Subject(str(tmp_path), manifest=BundleManifest(features=FEATURES, tolerance=1e-6), runtime=Sums())


def reference(subject, tmp_path, text):
    (tmp_path / "assets.extra/reference.jsonl").write_text(text)
    return read_reference(subject)


def test_rows_are_read_by_hand(subject, tmp_path):
    odd = {"inputs": {"price": None, "site": None, "tags": None}, "probability": 1, "odd": True}
    said = reference(subject, tmp_path, f"{json.dumps(ROW)}\n{json.dumps(odd)}\n")
    assert said == "1 rows, and 1 of missing, unseen and malformed values"
    np.testing.assert_array_equal(subject.rows.raw["tags"], [[3, 4], [-1, -1]])
    assert subject.rows.raw["site"].tolist() == [b"a", b""] and subject.rows.answers["probability"].tolist() == [
        0.25,
        1,
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"inputs": ROW["inputs"]}, "line 2: 'probability' is None; a number is expected"),
        (ROW | {"probability": "0.5"}, "line 2: 'probability' is '0.5'; a number is expected"),
        (ROW | {"probability": True}, "line 2: 'probability' is True"),
        ({"probability": 0.5}, "line 2 has no object of inputs"),
        (ROW | {"inputs": [1, "a", []]}, "line 2 has no object of inputs"),
        (ROW | {"inputs": {"price": 1.5, "site": "a"}}, "line 2 has other features than bundle.json lists: tags"),
        ([], "line 2 is no JSON object"),
        (ROW | {"inputs": ROW["inputs"] | {"price": "1"}}, "feature 'price': '1' is no float32"),
        (ROW | {"inputs": ROW["inputs"] | {"price": [1.0]}}, "feature 'price' has lists where"),
        (ROW | {"inputs": ROW["inputs"] | {"site": 3}}, "feature 'site': 3 is no string"),
        (ROW | {"inputs": ROW["inputs"] | {"tags": 3}}, "feature 'tags' has one value where"),
        (ROW | {"inputs": ROW["inputs"] | {"tags": [3.5]}}, "feature 'tags': 3.5 is no int64"),
        (ROW | {"inputs": ROW["inputs"] | {"tags": [2**70]}}, "feature 'tags': a value is outside the range of int64"),
        (ROW | {"inputs": ROW["inputs"] | {"tags": [[1]]}}, r"feature 'tags': \[1\] is no int64"),
    ],
)
def test_a_damaged_row_is_refused_by_its_line_or_feature(subject, tmp_path, row, words):
    with pytest.raises(Failed, match=words):
        reference(subject, tmp_path, f"{json.dumps(ROW)}\n{json.dumps(row)}\n")


def test_rows_that_are_cut_anywhere_are_refused(subject, tmp_path):
    whole = json.dumps(ROW)
    for size in range(1, len(whole)):
        with pytest.raises(Failed, match="line 1 is not valid JSON"):
            reference(subject, tmp_path, whole[:size])
    with pytest.raises(Failed, match="is empty"):
        reference(subject, tmp_path, "")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{", "example_request.json: not valid JSON.*; copy the bundle again"),
        ("[1]", r'has no rows: \{"instances"'),
        ("{}", r'has no rows: \{"instances"'),
        ('{"instances": []}', "has no rows"),
        ('{"instances": {"price": 1}}', "has no rows"),
        ('{"instances": [1]}', r"instances\[0\] has no object of inputs"),
        ('{"instances": [{"price": 1, "tags": []}]}', r"instances\[0\] has other features .* site"),
        ('{"instances": [{"price": "x", "site": "a", "tags": []}]}', "feature 'price': 'x' is no float32"),
        ('{"instances": [{"price": NaN, "site": "a", "tags": []}]}', r"its probability is \[nan\]"),
    ],
)
def test_a_damaged_example_request_is_refused_with_its_cause(subject, tmp_path, body, words):
    (tmp_path / EXAMPLE).write_text(body)
    with pytest.raises(Failed, match=words):
        check_example(subject)


def test_the_example_request_is_asked(subject, tmp_path):
    (tmp_path / EXAMPLE).write_text('{"instances": [{"price": 1.5, "site": "a", "tags": [1]}]}')
    assert check_example(subject) == "1 row answered: probability 1.5"
    (tmp_path / EXAMPLE).unlink()
    with pytest.raises(Failed, match=r"example_request.json is missing"):
        check_example(subject)
