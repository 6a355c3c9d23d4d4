"""Rows that a plan reads, held against conversion and checks column by column."""

import json
import math
import random

import numpy as np
import pytest

from tfrs_dlrm.serving.bundle.manifest import BundleFeature, BundleManifest
from tfrs_dlrm.serving.protocol import InvalidRequest
from tfrs_dlrm.serving.runtime.signature import Signature, TensorInfo
from tfrs_dlrm.serving.runtime.tensors import memory
from tfrs_dlrm.serving.server import json_bodies, json_tensors
from tfrs_dlrm.serving.server.request_checks import Limits, check
from tfrs_dlrm.serving.server.row_plan import RowPlan

DTYPES = {"price": "f4", "rate": "f4", "exact": "f8", "slot": "i8", "hour": "i4", "site": "O", "page": "O"}
SIGNATURE = Signature("predict", {n: TensorInfo(n, np.dtype(d), (None,)) for n, d in DTYPES.items()}, {})
MANIFEST = BundleManifest(
    features=(BundleFeature("price", "dense", may_be_missing=False), BundleFeature("rate", "dense"))
)
LIMITS = Limits(rows=4, string_bytes=5)
USUAL = {"f": [0.5, -3, 0, 7], "i": [0, 8, -1], "O": ["abc", "", "é"]}
STRANGE = [math.nan, math.inf, 2**24, -(2**24), 2**31, 2**53, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 1e30, 1e300]
STRANGE += [9.3e18, True, None, "abcdef", "\ud800", [1.0], [], {}, {"b64": "YQ=="}, {"b64": "?"}]


def column_by_column(data):
    arrays, by_rows = json_tensors.predict_inputs(json_bodies.parse(data), SIGNATURE)
    assert by_rows
    return arrays, check("serving_default", SIGNATURE, arrays, MANIFEST, LIMITS)


def test_a_plan_takes_only_what_is_valid_and_as_it_is_taken_column_by_column():
    plan, rng, taken = RowPlan(SIGNATURE, MANIFEST, LIMITS), random.Random(0), {True: 0, False: 0}
    for _ in range(4000):
        rows = [
            {name: rng.choice(USUAL[info.dtype.kind]) for name, info in SIGNATURE.inputs.items()}
            for _ in range(rng.randint(1, 5))
        ]
        if rng.random() < 0.7:
            row, name = rng.choice(rows), rng.choice([*DTYPES])
            row[name] = rng.choice(STRANGE)
        if rng.random() < 0.1:
            row = rng.choice(rows)
            row[rng.choice(["more", "price"])] = row.pop(rng.choice([*DTYPES]))
        if rng.random() < 0.02:
            rows[rng.randrange(len(rows))] = rng.choice([[1.0] * len(DTYPES), "x" * len(DTYPES), 5, None, {}])
        data = json.dumps({"instances": rows}).encode()
        found = plan.read(json_bodies.parse_quickly(data)["instances"])
        taken[found is not None] += 1
        if found is None:
            continue
        expected, count = column_by_column(data)  # which raises if they are not valid
        assert found.rows == count and found.size == sum(map(memory, expected.values()))
        assert found.arrays.keys() == expected.keys()
        for name, array in expected.items():
            assert found.arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(found.arrays[name], array, strict=True)
    assert min(taken.values()) > 500, taken


@pytest.mark.parametrize("rows", [[], [{}], {"a": 1}, None, 5, [[]], [None]])
def test_a_plan_leaves_what_is_no_row_to_others(rows):
    assert RowPlan(SIGNATURE, MANIFEST, LIMITS).read(rows) is None


def test_usual_rows_are_taken_so_that_they_are_fast():
    plan = RowPlan(SIGNATURE, None, LIMITS)
    row = {"price": math.nan, "rate": 1, "exact": 0.1, "slot": 2**62, "hour": -5, "site": "é", "page": ""}
    found = plan.read([row, {**row, "price": 2}])
    assert found is not None and found.rows == 2
    np.testing.assert_array_equal(found.arrays["price"], np.float32([math.nan, 2]))
    assert found.arrays["site"].tolist() == ["é".encode()] * 2


def test_lists_examples_and_candidates_have_no_plan():
    def signature(**shapes):
        return Signature("predict", {n: TensorInfo(n, np.dtype("O"), shape) for n, shape in shapes.items()}, {})

    assert RowPlan.is_possible("serving_default", SIGNATURE)
    assert not RowPlan.is_possible("rank", SIGNATURE)
    for shapes in ({"examples": (None,)}, {"a": (None,), "b": (None, None)}, {"a": (None,), "b": ()}, {"a": None}):
        assert not RowPlan.is_possible("serving_default", signature(**shapes))
    with pytest.raises(InvalidRequest, match="prise"):
        column_by_column(json.dumps({"instances": [{**dict.fromkeys(DTYPES, 1), "prise": 1}]}).encode())
