"""The panels of the columns of a log show the shares that the profile has."""

import pytest

import tfrs_dlrm as td

NUMBER = {
    "name": "price",
    "quantiles": {"0.01": 0.0, "0.5": 2.0, "0.99": 24.0},
    "distribution": {"values": [0.0, 2.5, 24.0], "rows": [5, 3, 2]},
}
VALUES = {"name": "$ite", "top": {"values": ["a", "b" * 40], "rows": [6, 2], "label_mean": [0.5, 0.1], "among": 10}}
EMPTY = {"name": "tags", "quantiles": {}, "top": {"values": [], "rows": [], "among": 0}}


def test_shares_of_both_logs():
    old = {"name": "$ite", "top": {"values": ["a"], "rows": [10], "label_mean": [0.5], "among": 40}}
    figure = td.plots.log_columns([NUMBER, VALUES, EMPTY], [NUMBER, old], ("tuesday", "monday"))
    number, values, empty = figure.axes
    (now, before) = (patch.get_data().values for patch in number.patches)
    assert now.tolist() == before.tolist() and (now[0], now[2], now[-1]) == (0.5, 0.3, 0.2)
    assert [bar.get_width() for bar in values.patches] == [0.6, 0.2]
    assert [*values.lines[0].get_xdata()] == [0.25, 0.0]
    assert [label.get_text() for label in values.get_yticklabels()] == ["a", "b" * 14 + "..."]
    assert [axes.get_title() for axes in figure.axes] == ["price", "$ite", "tags"]
    assert empty.texts[0].get_text() == "no values"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["tuesday", "monday"]
    same = td.plots.log_columns([VALUES], [old], ("data", "data")).legends[0]
    assert [text.get_text() for text in same.get_texts()] == ["data", "data"]
    figure.canvas.draw()
    with pytest.raises(ValueError, match="no columns to draw"):
        td.plots.log_columns([])
