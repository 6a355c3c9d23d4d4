"""The label that is proposed: by its values and by its name."""

import pytest
from csv_logs import with_label

from tfrs_dlrm.data.raw.infer import infer_schema
from tfrs_dlrm.schema import Label

ASKED = "is this what you want? 3 or more: 66.7%, 5 or more: 16.7%; for the number itself say task='regression'"


@pytest.mark.parametrize(
    ("values", "label", "note"),
    [
        ([0, 1, 1, 1] * 20, Label("x"), "0 or 1; 75.0% are 1"),
        (["yes", "no", "yes"] * 20, Label("x", ("yes",), ("no",)), "'yes' is 1, 'no' is 0; 66.7% are 1"),
        ([">50K", "<=50K", "<=50K"] * 20, Label("x", (">50K",), ("<=50K",)), "'>50K' is 1, '<=50K' is 0; 33.3% are 1"),
        ([-1, 1, 1] * 20, Label("x", threshold=1), "1 or more is 1: 66.7%"),
        ([1, 2, 3, 3, 4, 5] * 20, Label("x", threshold=4), f"4 or more is 1: 33.3%; {ASKED}"),
        ([1, 5, 5, 5] * 20, Label("x", threshold=5), "5 or more is 1: 75.0%"),
        (
            ["0", "1", "", "1"] * 20,
            Label("x"),
            "0 or 1; 66.7% are 1; 25.0% of the rows have none, which makes them bad rows",
        ),
    ],
)
def test_labels(tmp_path, values, label, note):
    proposal = infer_schema(with_label(tmp_path, "x", values), label="x")
    assert proposal.schema.label == label and proposal.notes["x"] == note


def test_the_label_is_known_by_its_name(tmp_path):
    flags = ["0", "1"] * 40
    assert infer_schema(with_label(tmp_path, "Is_Click", flags, other=flags)).schema.label == Label("Is_Click")
    only_zeros = with_label(tmp_path, "label", ["0"] * 80, other=flags)  # a log that begins without a click
    assert infer_schema(only_zeros).schema.label == Label("label")
    message = r"log\.csv: it is unclear which column is the label; it may be 'mobile', 'other'\. Give its name as label"
    with pytest.raises(ValueError, match=message):
        infer_schema(with_label(tmp_path, "mobile", flags, other=flags))
    only = infer_schema(with_label(tmp_path, "mobile", flags, other=["a", "b"] * 40))
    assert only.schema.label == Label("mobile") and only.certainty["mobile"] == "likely"
    assert only.notes["mobile"] == "0 or 1; 50.0% are 1; the only column of 0 and 1"
    graded = infer_schema(with_label(tmp_path, "isRating", ["1", "2", "3", "4"] * 20, other=["p", "q", "r", "s"] * 20))
    assert graded.schema.label == Label("isRating", threshold=3) and graded.certainty["isRating"] == "guess"
    with pytest.raises(ValueError, match="it may be 'click', 'target'"):
        infer_schema(with_label(tmp_path, "click", flags, target=flags, other=flags))
    with pytest.raises(ValueError, match="unclear which column is the label; no column holds two values"):
        infer_schema(with_label(tmp_path, "c", ["1", "2", "3"] * 20))
    with pytest.raises(ValueError, match="no column 'bougth' for the label; it has: a, bought"):
        infer_schema(with_label(tmp_path, "bought", flags), label="bougth")
    with pytest.raises(ValueError, match=r"column 'c' cannot be the label; .* it holds: 'p', 'q', 'r'"):
        infer_schema(with_label(tmp_path, "c", ["p", "q", "r"] * 20), label="c")
