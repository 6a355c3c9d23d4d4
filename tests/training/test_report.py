import tfrs_dlrm  # noqa: F401

# isort: split
import json
import struct

import matplotlib as mpl
import numpy as np
import pytest
import sklearn.metrics
from matplotlib.figure import Figure

from tfrs_dlrm.metrics import evaluate_scores, exact_auc
from tfrs_dlrm.training import evaluation_report as report


def examples(size: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-2.0, 1.5, size)
    return (rng.random(size) < 1 / (1 + np.exp(-logits))).astype(int), logits


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures, save = [], Figure.savefig

    def savefig(figure, *args, **kwargs):
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def text_of(axes) -> str:
    return " | ".join([t.get_text() for t in axes.texts] + [t.get_text() for t in axes.get_legend().get_texts()])


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
        "bad              nan          -",
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


def test_write_json(tmp_path):
    path = tmp_path / "evaluation.json"
    data = {"auc": float("nan"), "n": np.int64(3), "steps": (1, np.float32(0.5)), "curve": np.array([1.0, np.inf])}
    report.write_json(path, {"model": data, "note": "é", "none": None, "yes": True})
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    expected = {"auc": None, "n": 3, "steps": [1, 0.5], "curve": [1.0, None]}
    assert json.loads(text) == {"model": expected, "note": "é", "none": None, "yes": True}


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    labels, logits = examples(50)
    json_path, png_path = tmp_path / "a.json", tmp_path / "a.png"
    report.write_json(json_path, {"auc": 0.5})
    png_path.write_bytes(b"old")
    with pytest.raises(TypeError):
        report.write_json(json_path, {"auc": object()})

    def half_a_file(_, path, **__):
        with open(path, "wb") as f:
            f.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half_a_file)
    with pytest.raises(OSError, match="disk full"):
        report.picture(png_path, labels, logits)
    assert json.loads(json_path.read_text()) == {"auc": 0.5}
    assert png_path.read_bytes() == b"old"


def test_picture_shows_the_data(tmp_path, drawn):
    labels, logits = examples(100_000)
    weights = np.where(np.arange(len(labels)) % 3 == 0, 0.0, 2.0)
    before = dict(mpl.rcParams)
    report.picture(tmp_path / "a.png", labels, logits / 2, weights, title="day 7", references={"planted": logits})
    assert dict(mpl.rcParams) == before
    header = (tmp_path / "a.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", header[16:]) == (1500, 500)
    (figure,) = drawn
    assert figure.get_suptitle() == "day 7"
    roc, calibration, scores = figure.axes[:3]
    auc = exact_auc(labels, logits, weights)
    assert text_of(roc) == f"model: AUC {auc:.4f} | planted: AUC {auc:.4f}"
    model_curve = roc.get_lines()[1]
    assert len(model_curve.get_xdata()) == 2000
    assert sklearn.metrics.auc(*model_curve.get_data()) == pytest.approx(auc, abs=1e-3)
    # The planted scorer is calibrated, the flattened one is not.
    model, planted = ([np.asarray(v) for v in line.lines[0].get_data()] for line in calibration.containers)
    np.testing.assert_allclose(planted[0], planted[1], rtol=0.25)
    assert len(planted[0]) == 20
    assert np.abs(np.log(model[0] / model[1])).max() > 0.7
    clicks, shown = int(labels[weights > 0].sum()), int((weights > 0).sum())
    assert text_of(scores) == f"negative: {shown - clicks:,} | positive: {clicks:,}"


@pytest.mark.parametrize(
    ("labels", "logits", "roc_says"),
    [
        ([0, 1] * 5, np.arange(10.0), "model: AUC 0.6000"),
        ([0, 1], [1.5, 1.5], "model: AUC 0.5000"),
        ([0] * 1234, np.linspace(-3, 1, 1234), "undefined: all 1,234 labels are 0"),
        ([1], [800.0], "undefined: all 1 labels are 1"),
        ([0] * 3, [-800.0] * 3, "undefined: all 3 labels are 0"),
        ([], [], "no examples"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_picture_of_little_data(tmp_path, drawn, labels, logits, roc_says):
    with np.errstate(all="raise", under="ignore"):
        report.picture(tmp_path / "a.png", labels, logits)
    assert (tmp_path / "a.png").stat().st_size > 5000
    roc = drawn[0].axes[0]
    assert roc_says in (text_of(roc) if roc.get_legend() else roc.texts[0].get_text())


def test_picture_drops_outliers_only_where_there_are_many_scores(tmp_path, drawn):
    report.picture(tmp_path / "a.png", [0, 1] * 5, np.arange(10.0))
    report.picture(tmp_path / "b.png", [0, 1] * 5000, np.append(np.linspace(0, 9, 9999), 1e6))
    few, many = (figure.axes[2].patches[0].get_data().edges for figure in drawn)
    assert (few[0], few[-1]) == (0, 9)
    assert many[-1] < 9.1


def test_picture_refuses_what_cannot_be_measured(tmp_path):
    labels, logits = examples(10)
    with pytest.raises(ValueError, match="weight of example 0 is nan"):
        report.picture(tmp_path / "a.png", labels, logits, [np.nan] * 10)
    with pytest.raises(ValueError, match="10 labels, 3 scores"):
        report.picture(tmp_path / "a.png", labels, logits, references={"planted": logits[:3]})
    assert not list(tmp_path.iterdir())


def test_an_evaluation_goes_into_both(tmp_path):
    evaluation = evaluate_scores([0, 0], [0.0, 1.0])
    report.write_json(tmp_path / "e.json", evaluation)
    assert json.loads((tmp_path / "e.json").read_text())["auc"] is None
    assert "auc                               nan" in report.table({"one class": evaluation})
