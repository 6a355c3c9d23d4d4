"""Figures of what programs write as JSON: curves, groups, explanations and comparisons."""

import io
import json

import numpy as np
import pytest
import tf_keras as keras

import tfrs_dlrm as td

RECORDS = [
    {
        "step": 10,
        "train": {"loss": 0.7, "auc": 0.6},
        "eval": {"examples": 9, "auc": 0.61},
        "learning_rate": {"dense": 1},
    },
    {
        "step": 30,
        "train": {"loss": 0.5, "auc": None},
        "eval": {"examples": 9, "auc": 0.64},
        "learning_rate": {"dense": 2},
    },
]


def lines_of(figure):
    """By panel and line, the points."""
    return {
        axes.get_title(): {line.get_label(): [np.asarray(v).tolist() for v in line.get_data()] for line in axes.lines}
        for axes in figure.axes
        if axes.axison
    }


def test_curves_of_a_run():
    nan = pytest.approx(np.nan, nan_ok=True)
    assert lines_of(td.plots.training_curves(RECORDS)) == {
        "loss": {"train": [[10, 30], [0.7, 0.5]]},
        "AUC": {"train": [[10, 30], [0.6, nan]], "eval": [[10, 30], [0.61, 0.64]]},
        "learning rate": {"dense": [[10, 30], [1, 2]]},
    }
    assert set(lines_of(td.plots.training_curves(RECORDS, ["auc"]))) == {"AUC", "learning rate"}
    windows = [{"window": i, "step": 5 * i, "eval": {"auc": 0.5 + i / 10}, "train": {}} for i in range(3)]
    assert lines_of(td.plots.training_curves(windows)) == {"AUC": {"eval": [[0, 5, 10], [0.5, 0.6, 0.7]]}}
    with pytest.raises(ValueError, match="the history has none of rmse; it has loss, auc, examples, learning_rate"):
        td.plots.training_curves(RECORDS, ["rmse"])


def test_curves_of_what_fit_returns():
    history = {"loss": [3.0, 2.0], "auc": [0.5, 0.6], "val_loss": [3.5, 2.5], "lr": [0.1, 0.05]}
    fitted = keras.callbacks.History()
    fitted.history = history
    figure = td.plots.training_curves(history)
    assert figure.axes[0].get_xlabel() == "epoch"
    assert lines_of(td.plots.training_curves(fitted)) == lines_of(figure)
    assert lines_of(figure) == {
        "loss": {"train": [[1, 2], [3.0, 2.0]], "eval": [[1, 2], [3.5, 2.5]]},
        "AUC": {"train": [[1, 2], [0.5, 0.6]]},
        "learning rate": {"learning rate": [[1, 2], [0.1, 0.05]]},
    }


def test_groups_are_drawn_by_their_size():
    columns = {
        "value": ["a", "$x_1$ " + "b" * 60, "<script>"],
        "examples": [5, 70, 9],
        "label_mean": [0.1, 0.2, 0.3],
        "prediction_mean": [0.1, 0.25, 0.2],
        "auc": [None, 0.7, 0.8],
    }
    figure = td.plots.groups(columns, "site", top=2)
    sizes, means, quality = figure.axes
    assert [t.get_text() for t in sizes.get_yticklabels()] == ["$x_1$ " + "b" * 34 + "...", "<script>"]
    assert [bar.get_width() for bar in sizes.patches] == [70, 9]
    assert {line.get_label(): line.get_xdata().tolist() for line in means.lines} == {
        "label": [0.2, 0.3],
        "prediction": [0.25, 0.2],
    }
    assert quality.lines[0].get_xdata().tolist() == [0.7, 0.8] and quality.get_title() == "AUC"
    assert figure.get_suptitle() == "site: 2 of 3 values" and figure._repr_png_()
    with pytest.raises(ValueError, match="no groups"):
        td.plots.groups({name: [] for name in columns})


def test_an_explanation_is_drawn_as_its_json_has_it():
    found = {
        "importance": {
            "auc": 0.75,
            "log_loss": 0.5,
            "examples": 1000,
            "seeds": 1,
            "features": [
                {"feature": name, "auc_drops": [x], "log_loss_rises": [x], "auc_drop": x, "auc_drop_spread": None}
                | {"log_loss_rise": 2 * x, "log_loss_rise_spread": 0.1}
                for name, x in (("site", 0.2), ("user", -0.1))
            ],
        },
        "interactions": {
            "features": ["site", "user"],
            "strength": [[None, 0.3], [0.3, None]],
            "examples": 10,
            "unit": "logit",
        },
        "tables": {
            "site": {"rows": 6, "dead": 2, "norms": {"edges": [0.0, 1.0, 2.0], "looked_up": [3, 1], "dead": [0, 2]}}
        },
    }
    figures = td.plots.explanation(json.loads(json.dumps(found)))
    assert list(figures) == ["importance", "interactions", "tables"]
    left, right = figures["importance"].axes
    assert left.get_title() == "Drop in AUC (of 0.7500)" and right.get_title() == "Rise in log loss (of 0.5000)"
    assert [[bar.get_width() for bar in axes.patches] for axes in (left, right)] == [[0.2, -0.1], [0.4, -0.2]]
    (image,) = figures["interactions"].axes[0].images
    assert image.get_array().tolist() == [[None, 0.3], [0.3, None]]
    used, dead = (patch.get_data() for patch in figures["tables"].axes[0].patches)
    assert used.values.tolist() == [3, 1] and (dead.values - dead.baseline).tolist() == [0, 2]
    assert list(td.plots.explanation({"importance": found["importance"]})) == ["importance"]


def test_a_comparison_is_drawn_as_its_json_has_it(tmp_path):
    summary = {
        name: {"seeds": [0, 1, 2, 3], "metrics": ["auc"], "auc_mean": auc, "auc_std": 0.02} | more
        for name, auc, more in (("dlrm", 0.8, {"bytes": 5e6}), ("dcn", 0.7, {}))
    }
    figure = td.plots.comparison(summary)
    quality, sizes = figure.axes
    assert [t.get_text() for t in quality.get_yticklabels()] == ["dlrm", "dcn"]
    assert [c.lines[0].get_xdata().tolist() for c in quality.containers] == [[0.8], [0.7]]
    (bar,) = quality.containers[0].lines[2][0].get_segments()
    assert bar[:, 0].tolist() == pytest.approx([0.78, 0.82])  # 2 * 0.02 / sqrt(4)
    assert [line.get_data() for line in sizes.lines] == [([5.0], [0.8])]
    outcomes = [
        {"label": "dlrm", "shown": ["auc"], "curve": [{"step": s, "auc": a} for s, a in curve]}
        for curve in ([(1, 0.5), (2, 0.6)], [(1, 0.7), (2, 0.7), (3, 0.9)])
    ]
    curves = td.plots.comparison_curves(outcomes)
    assert lines_of(curves)["AUC on the whole evaluation set; bands from worst to best seed"] == {
        "dlrm": [[1, 2], pytest.approx([0.6, 0.65])]
    }
    paths = td.plots.save_figures({"quality": figure, "curves": curves}, str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves.png", "quality.png"] and len(paths) == 2


def test_the_updates_of_a_run():
    days = [
        {"day": "monday", "decision": "accepted", "new_values": {"site": 0.2, "user": 0.3},
         "before": {"auc": 0.6, "calibration": 1.1}, "current": {"auc": 0.61}, "candidate": {"auc": 0.63}},
        {"day": "a log with a long name", "decision": "rejected", "new_values": {"site": 0.1, "user": 0.4},
         "before": {"auc": 0.7}, "current": {"auc": 0.71}, "candidate": {"auc": 0.5}},
    ]  # fmt: skip
    figure = td.plots.updates(days)
    nan = pytest.approx(np.nan, nan_ok=True)
    shown = lines_of(figure)
    assert shown["AUC"] == {
        "current model, all rows of the day": [[0, 1], [0.6, 0.7]],
        "current model, held-out rows": [[0, 1], [0.61, 0.71]],
        "new model, held-out rows": [[0, 1], [0.63, 0.5]],
        "rejected": [[1], [0.5]],
    }
    assert shown["calibration"]["current model, all rows of the day"] == [[0, 1], [1.1, nan]]
    assert shown["Share of values that have a row since the day"] == {
        "user": [[0, 1], [0.3, 0.4]], "site": [[0, 1], [0.2, 0.1]]
    }  # fmt: skip
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["monday", "a log with a lo…"]
    td.plots.updates([{**days[0], "before": {}, "new_values": {}}]).savefig(io.BytesIO(), format="png")
