"""Whole numbers are told from ids: logs whose types are known, and the evidence by hand."""

import numpy as np
import pyarrow as pa
import pytest

from tests.support import misleading_logs, typed_logs
from tfrs_dlrm.data.raw.column_names import said_by_name
from tfrs_dlrm.data.raw.infer import infer_schema
from tfrs_dlrm.data.raw.number_evidence import ValueCounts, label_evidence
from tfrs_dlrm.data.raw.number_or_category import decide
from tfrs_dlrm.data.raw.sampled_column import SampledColumn

KINDS = {
    "categorical": {"category"},
    "multi-valued": {"list"},
    "label": {"label"},
    "left out": {"once", "left", "time"},
}


def found(proposal):
    """The kinds that each column of a proposal may have been."""
    kinds = proposal.kinds().items()
    return {c: {"time"} if kind.startswith("time: ") else KINDS.get(kind, {"number"}) for c, kind in kinds}


@pytest.mark.parametrize("logs", [typed_logs.LOGS, misleading_logs.LOGS], ids=["typed", "misleading"])
def test_logs_of_known_types(logs):
    """At most one type in a hundred is wrong, in columns of every kind."""
    wrong, total = [], 0
    for log in logs:
        frame, kinds = log()
        (label,) = [column for column, kind in kinds.items() if kind == "label"]
        # Mostly it is the only column of two values.
        named = label if logs is misleading_logs.LOGS or log is typed_logs.people else None
        proposal = infer_schema(frame, label=named)
        for column, got in found(proposal).items():
            if not got & set(kinds[column].split()):
                wrong.append(f"{log.__name__} {column}: {proposal.kinds()[column]}: {proposal.notes[column]}")
        total += len(kinds)
        assert list(proposal.certainty) == list(proposal.notes) == list(frame)
    assert total > 100 and len(wrong) <= total / 100, "\n".join(wrong)


def test_the_same_rows_give_the_same_proposal():
    frame, _ = typed_logs.fraud()
    assert infer_schema(frame) == infer_schema(frame)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("id userId USER_ID SITE-ID site.id deviceid zipCode ZIP client_ip HASH key1 product_code postcode os", "id"),
        ("price unit-price n_views numClicks person_age birthYear cnt discount_pct lat total_sales", "number"),
        ("C14 paid grid valid token position x priceless height_class_ok", ""),
    ],
)
def test_names(names, said):
    assert {name: said_by_name(name) for name in names.split()} == dict.fromkeys(names.split(), said)


@pytest.mark.parametrize(
    ("low", "high", "step", "kind"),
    [(20, 1400, 25, "number"), (0, 1440, 1, "number"), (1000, 3000, 1, "category"), (100, 2000, 2, "category")],
)
def test_numbers_that_are_spread_evenly(low, high, step, kind):
    """Names of things are drawn evenly, too; but rounded amounts have a step, and minutes of a day end at 1439."""
    rows = step * np.random.default_rng(0).integers(low, high, 8000)
    labels = np.random.default_rng(1).integers(0, 2, 8000).astype(float)
    assert decide(SampledColumn("x", pa.array(rows)), labels).kind == kind


def counted(rows):
    values, places = np.unique(rows, return_inverse=True)
    return ValueCounts(values.astype(np.float64), np.bincount(places), places)


def entropy(p):
    return -(p * np.log(p) + (1 - p) * np.log1p(-p))


def test_a_label_of_single_values():
    """Every second value is a 1 of nine in ten: the entropy of 0.9 for single values, of 0.5 for their size."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(np.repeat(np.arange(50), 200))
    told = label_evidence(counted(rows), (rng.random(10_000) < np.where(rows % 2, 0.9, 0.1)).astype(float))
    assert told.constant == pytest.approx(entropy(0.5), abs=0.002)
    assert told.number == pytest.approx(entropy(0.5), abs=0.003)
    assert told.category == pytest.approx(entropy(0.9), abs=0.015) and told.category_sure > 20


def test_a_label_of_sizes():
    """The logit grows with the number: single values tell no more than a curve."""
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 200, 10_000)
    p = 1 / (1 + np.exp(-(rows - 100) / 40))
    told = label_evidence(counted(rows), (rng.random(10_000) < p).astype(float))
    assert told.number == pytest.approx(entropy(p).mean(), abs=0.01) and told.number_sure > 20
    assert told.category > told.number - 0.001 and told.category_sure < 1.5


def test_labels_of_one_class_tell_nothing():
    assert label_evidence(counted(np.arange(100) % 9), np.append(np.ones(19), np.zeros(81))) is None


def test_lumps():
    """The share of rows whose value is far more frequent than those around it; round numbers do not count."""
    even = np.repeat(np.arange(100), 20)
    assert counted(even).lumps() == 0
    assert counted(np.append(even, np.repeat([13, 57], 1000))).lumps() == pytest.approx(2040 / 3960, abs=0.02)
    assert counted(np.append(even, np.repeat([10, 20, 30, 50], 1000))).lumps() == 0
