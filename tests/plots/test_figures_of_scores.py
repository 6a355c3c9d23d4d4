"""Figures of scores: what they draw, against scikit-learn and NumPy, and what they say of little data."""

import struct

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import sklearn.calibration
import sklearn.metrics
from matplotlib.figure import Figure

import tfrs_dlrm as td
from tfrs_dlrm.metrics import exact_auc


def examples(size: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-2.0, 1.5, size)
    return (rng.random(size) < 1 / (1 + np.exp(-logits))).astype(int), logits


def text_of(axes) -> str:
    return " | ".join([t.get_text() for t in axes.texts] + [t.get_text() for t in axes.get_legend().get_texts()])


def points(container):
    """The points of an errorbar."""
    return [np.asarray(v) for v in container.lines[0].get_data()]


def test_three_panels_show_the_data(tmp_path):
    labels, logits = examples(100_000)
    weights = np.where(np.arange(len(labels)) % 3 == 0, 0.0, 2.0)
    before = dict(mpl.rcParams)
    figure = td.plots.classification(labels, logits / 2, weights, "day $7$", {"planted": logits})
    td.plots.save_figure(figure, tmp_path / "a.png")
    assert dict(mpl.rcParams) == before and not mpl._pylab_helpers.Gcf.figs
    header = (tmp_path / "a.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", header[16:]) == (1500, 500)
    assert isinstance(figure, Figure) and figure.get_suptitle() == "day $7$"
    roc, calibration, scores = figure.axes[:3]
    auc = exact_auc(labels, logits, weights)
    assert text_of(roc) == f"model: AUC {auc:.4f} | planted: AUC {auc:.4f}"
    model_curve = roc.get_lines()[1]
    assert len(model_curve.get_xdata()) == 2000
    assert sklearn.metrics.auc(*model_curve.get_data()) == pytest.approx(auc, abs=1e-3)
    # The planted scorer is calibrated, the flattened one is not.
    model, planted = map(points, calibration.containers)
    np.testing.assert_allclose(planted[0], planted[1], rtol=0.25)
    assert len(planted[0]) == 20
    assert np.abs(np.log(model[0] / model[1])).max() > 0.7
    clicks, shown = int(labels[weights > 0].sum()), int((weights > 0).sum())
    assert text_of(scores) == f"negative: {shown - clicks:,} | positive: {clicks:,}"


def test_a_roc_curve_is_that_of_scikit_learn():
    labels, logits = examples(500)
    weights = np.random.default_rng(1).exponential(size=500)
    curve = td.plots.roc_curve(labels, np.round(logits, 1), weights).axes[0].get_lines()[1].get_data()
    wanted = sklearn.metrics.roc_curve(labels, np.round(logits, 1), sample_weight=weights, drop_intermediate=False)
    np.testing.assert_allclose(curve, wanted[:2], atol=1e-12)


def test_calibration_is_that_of_scikit_learn():
    labels, logits = examples(5000)
    p = (1 / (1 + np.exp(-logits))).astype(np.float32)  # as `model.predict` returns them
    axes = td.plots.calibration(labels, p).axes[0]
    means, rates = points(axes.containers[0])
    rate, mean = sklearn.calibration.calibration_curve(labels, p, n_bins=20, strategy="quantile")
    np.testing.assert_allclose(means, mean, rtol=1e-6)
    np.testing.assert_allclose(rates, rate, rtol=1e-6)
    bars = np.array([segment[1, 1] - segment[0, 1] for segment in axes.containers[0].lines[2][0].get_segments()])
    np.testing.assert_allclose(bars / 4, np.sqrt(rate * (1 - rate) / 250), rtol=1e-6)  # 250 examples a group


def test_figures_of_a_regression_show_the_data():
    rng = np.random.default_rng(0)
    labels = rng.normal(50, 5, 4000)
    predictions, weights = labels + rng.normal(1, 2, 4000), rng.choice([0.0, 1.0, 2.0], 4000)
    figure = td.plots.regression(labels, predictions, weights, "ratings")
    pairs, calibration, errors = figure.axes[:3]
    seen, w = weights > 0, weights[weights > 0]
    found, y = predictions[seen], labels[seen]
    assert float((np.asarray(pairs.collections[0].get_array()) ** 2).sum()) == pytest.approx(w.sum(), rel=5e-3)
    quantile = pd.qcut(found, 20, labels=False)
    groups = [quantile == i for i in range(20)]
    wanted = [[np.average(column[g], weights=w[g]) for g in groups] for column in (found, y)]
    np.testing.assert_allclose(points(calibration.containers[0]), wanted, rtol=1e-9)
    spreads = [np.sqrt(np.cov(y[g], aweights=w[g], ddof=0) * (w[g] ** 2).sum() / w[g].sum() ** 2) for g in groups]
    bars = [segment[1, 1] - segment[0, 1] for segment in calibration.containers[0].lines[2][0].get_segments()]
    np.testing.assert_allclose(np.array(bars) / 4, spreads, rtol=1e-6)
    rmse = np.sqrt(sklearn.metrics.mean_squared_error(y, found, sample_weight=w))
    mae = sklearn.metrics.mean_absolute_error(y, found, sample_weight=w)
    assert text_of(errors) == f"RMSE {rmse:.4g}, MAE {mae:.4g}"
    alone = td.plots.prediction_density(labels, predictions, weights).axes[0]
    np.testing.assert_array_equal(alone.collections[0].get_array(), pairs.collections[0].get_array())
    stairs = [axes.patches[0].get_data() for axes in (errors, td.plots.error_distribution(y, found, w).axes[0])]
    np.testing.assert_allclose(stairs[0].values, stairs[1].values)
    assert stairs[0].values @ np.diff(stairs[0].edges) == pytest.approx(1)


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
def test_little_data(labels, logits, roc_says):
    with np.errstate(all="raise", under="ignore"):
        figure = td.plots.classification(labels, logits)
        assert len(figure._repr_png_()) > 5000
        assert td.plots.regression(labels, logits)._repr_png_()
    roc = figure.axes[0]
    assert roc_says in (text_of(roc) if roc.get_legend() else roc.texts[0].get_text())


def test_outliers_are_dropped_only_where_there_are_many_scores():
    few = td.plots.scores_by_class([0, 1] * 5, np.arange(10.0)).axes[0]
    many = td.plots.scores_by_class([0, 1] * 5000, np.append(np.linspace(0, 9, 9999), 1e6)).axes[0]
    few, many = (axes.patches[0].get_data().edges for axes in (few, many))
    assert (few[0], few[-1]) == (0, 9)
    assert many[-1] < 9.1


def test_what_cannot_be_measured_is_refused():
    labels, logits = examples(10)
    with pytest.raises(ValueError, match="weight of example 0 is nan"):
        td.plots.classification(labels, logits, [np.nan] * 10)
    with pytest.raises(ValueError, match="10 labels, 3 scores"):
        td.plots.roc_curve(labels, logits, references={"planted": logits[:3]})
    with pytest.raises(ValueError, match=r"label of example \d is 2.0; expected 0 or 1"):
        td.plots.roc_curve(labels * 2, logits)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def half_a_file(_, file, **__):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half_a_file)
    with pytest.raises(OSError, match="disk full"):
        td.plots.save_figure(td.plots.roc_curve([0, 1], [0.0, 1.0]), path)
    assert path.read_bytes() == b"old"
