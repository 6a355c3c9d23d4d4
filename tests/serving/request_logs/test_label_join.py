"""Logged requests, joined with labels, are the training rows that they would have been."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from served_log import ROWS, SCHEMA, prepared

import tfrs_dlrm as td
from tfrs_dlrm.serving.request_logs.label_join import join_labels
from tfrs_dlrm.serving.request_logs.request_log import RequestLog


def test_logged_requests_get_the_value_from_the_labels(tmp_path):
    rows, data = prepared()
    encoder = td.Encoder.load(data)
    log = RequestLog(str(tmp_path / "requests"), 1.0)
    raw = {name: value.numpy() for name, value in encoder.raw_inputs(rows[["price", "user", "site"]]).items()}
    log.write("r", raw, np.full(ROWS, 0.5, np.float32), 1)
    log.close()
    requests, labels = [str(tmp_path / "requests/*.tfrecord")], str(tmp_path / "labels.csv")
    later = ["position", "delay", "place", "slot", "shown"]
    pd.DataFrame({"request_id": "r", "row": range(ROWS), "y": rows.y, **rows[later]}).to_csv(labels, index=False)
    (tmp_path / "requests/requests-1-1.tfrecord.unfinished").write_bytes(b"half a record")
    joined = join_labels([str(tmp_path / "requests")], labels, str(tmp_path / "joined.parquet"), SCHEMA)
    assert (joined.rows, joined.lacking) == (ROWS, ())
    td.prepare(SCHEMA, str(tmp_path / "joined.parquet"), str(tmp_path / "data"))
    columns = [*encoder.schema.dense_columns, *(f.name for f in encoder.schema.one_hot)]
    again, first = (pq.read_table(f"{home}/train", columns=columns) for home in (tmp_path / "data", data))
    for name in columns:
        np.testing.assert_allclose(again[name].to_numpy(), first[name].to_numpy(), rtol=1e-6)
    # Labels without them: the values are not known, and so missing.
    pd.DataFrame({"request_id": "r", "row": range(ROWS), "y": rows.y}).to_csv(labels, index=False)
    joined = join_labels(requests, labels, str(tmp_path / "joined.parquet"), SCHEMA)
    assert joined.lacking == tuple(later)
    assert all(pq.read_table(tmp_path / "joined.parquet")[name].null_count == ROWS for name in later)
    # Labels of a later day that have them are not read without them.
    after = str(tmp_path / "labels2.csv")
    pd.DataFrame({"request_id": "r", "row": range(ROWS), "y": rows.y, **rows[later]}).to_csv(after, index=False)
    with pytest.raises(ValueError, match=r"labels2\.csv: has 'position', .*, which the labels before it lack; join"):
        join_labels(requests, str(tmp_path / "labels*.csv"), str(tmp_path / "joined.parquet"), SCHEMA)
