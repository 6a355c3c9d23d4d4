"""What requests lack has its serving value in the encoder."""

import numpy as np
import pandas as pd
import pytest
from served_log import ONLY, ROWS, SCHEMA, SHOWN, as_served, make, prepared

import tfrs_dlrm as td
from tfrs_dlrm.schema import CategoricalFeature, Label, Schema, Table, Time


def test_features_equal_pandas_on_rows_with_the_value():
    rows, data = prepared()
    encoder = td.Encoder.load(data)
    asked = ["price", "user", "site"]
    assert list(encoder.serving_signature()) == asked
    # A part of the schema may have nothing that requests have.
    alone = encoder.encode(encoder.raw_inputs(rows[asked]), encoder.schema.select(["place", "slot"]))
    assert alone["ids"].shape == (ROWS, 2)
    found = encoder(rows[asked])
    names = [f.name for f in encoder.schema.one_hot]
    got = dict(zip(names, found["ids"].numpy().T, strict=True))
    position = (1 - rows.position.mean()) / rows.position.std(ddof=0)
    wanted = np.stack([rows.price, np.full(ROWS, position), np.zeros(ROWS), np.ones(ROWS)], axis=1)
    np.testing.assert_allclose(found["dense"], wanted, rtol=1e-6, atol=1e-6)
    counts = rows.place.value_counts()
    by_count = sorted(counts.index, key=lambda p: (-counts[p], p))
    days = (pd.Timestamp(SHOWN).normalize() - pd.to_datetime(rows.shown).min().normalize()).days
    bucket = 1 + np.searchsorted([0, 9], days, side="right")
    for name, row in {
        "spot": 2,
        "place": 1 + by_count.index("p1"),
        "slot": 3,
        "shown_hour": 8,
        "shown_days": bucket,
    }.items():
        np.testing.assert_array_equal(got[name], row)
    seen = rows[rows.place == "p1"].site
    assert ((got["place_x_site"] > 0) == rows.site.isin(seen)).all()
    # By the encoder itself, on the columns that were set; and what a batch has is taken.
    for features, frame in ((found, as_served(rows)), (encoder(rows), rows)):
        again = encoder({name: encoder.raw_inputs(frame)[name] for name in encoder.signature()})
        for name in again:
            np.testing.assert_array_equal(features[name], again[name])
    fitted = td.fit_encoder(SCHEMA, rows)
    np.testing.assert_array_equal(fitted(rows[asked])["ids"], found["ids"])
    with pytest.raises(ValueError, match="site"):
        encoder(rows[["price", "user"]])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"serving_value": "p7"},
            "serving_value='p7' has no row; give a value of the training rows: .* frequent are 'p",
        ),
        ({"serving_value": None, "out_of_range": "error"}, "out_of_range='error' refuses missing values"),
        ({"time": Time(("hour",)), "column": "shown", "serving_value": "noon"}, "is no time of the format 'iso8601'"),
        (
            {"encoding": "ids", "dtype": "int64", "column": "slot", "serving_value": 9},
            "'place': serving_value=9.* has no",
        ),
    ],
)
def test_values_that_the_encoder_does_not_know_are_refused(fields, message):
    place, site = CategoricalFeature("place", **(ONLY | fields)), CategoricalFeature("site")
    tables = (Table("place", vocabulary_size=7),) if fields.get("encoding") == "ids" else ()
    with pytest.raises(ValueError, match=message):
        td.fit_encoder(Schema(Label("y"), categorical=(place, site), tables=tables), make())


def test_requests_need_an_input():
    with pytest.raises(ValueError, match="all features are training_only; requests need one at least"):
        td.fit_encoder(Schema(Label("y"), categorical=(CategoricalFeature("place", **ONLY),)), make())
