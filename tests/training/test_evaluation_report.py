import numpy as np

from tfrs_dlrm.metrics import evaluate_scores
from tfrs_dlrm.training import evaluation_report as report


def test_table_lines_up():
    columns = {
        "this model": {"examples": 1000, "weight": 2500.0, "auc": 0.8012344, "small": 0.00001234, "bad": float("nan")},
        "planted": {"auc": 1.0, "examples": np.int64(7), "seconds": 12.5},
    }
    assert report.table(columns).split("\n") == [
        "          this model    planted",
        "examples        1000          7",
        "weight          2500          -",
        "auc         0.801234   1.000000",
        "small      1.234e-05          -",
        "bad                -          -",
        "seconds            -  12.500000",
    ]


def test_table_without_exponents():
    columns = {"mean": {"a": 0.00001234, "b": -0.0004, "c": 0.5, "rows": 12}}
    assert [line.split() for line in report.table(columns, exponents=False).split("\n")[1:]] == [
        ["a", "0.000012"],
        ["b", "-0.000400"],
        ["c", "0.500000"],
        ["rows", "12"],
    ]


def test_table_of_nothing():
    assert report.table({}) == ""
    assert report.table({"model": {}}) == "  model"


def test_table_of_one_class():
    assert "auc                                 -" in report.table({"one class": evaluate_scores([0, 0], [0.0, 1.0])})
