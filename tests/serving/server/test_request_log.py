"""What the server logs of its requests is, once labels came, the log that the model can be trained on again."""

import csv
import glob
import json
import os
import subprocess
import sys
from pathlib import Path

import click_log
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import serving_bundles

import tfrs_dlrm as td
from tfrs_dlrm.data.preparing.prepare import prepare
from tfrs_dlrm.data.preparing.samples import read_samples
from tfrs_dlrm.serving import ServingClient
from tfrs_dlrm.serving.exporting.export import ExportOptions, export_model
from tfrs_dlrm.serving.request_logs.label_join import Joined, join_labels
from tfrs_dlrm.serving.request_logs.log_tables import read_log
from tfrs_dlrm.serving.request_logs.request_log import RequestLog
from tfrs_dlrm.serving.runtime.tfrecord import read_records

CONTEXT = ("age", "user", "tags")
ROWS = 60  # of the log: asked row by row in batches, as examples, and as candidates of one context


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    data = click_log.make(str(tmp_path_factory.mktemp("log")))
    model = td.DLRM(td.Schema.load(f"{data}/schema.json"), (16, 8), (16, 1))
    model.build()
    root = str(tmp_path_factory.mktemp("out") / "clicks")
    export_model(model, data, root, ExportOptions(context=CONTEXT))
    return data, root


def files(directory):
    return sorted(glob.glob(f"{directory}/clicks/requests-*.tfrecord"))


def encoded(prepared):
    """The rows of a prepared directory, in an order that does not depend on the log's."""
    table = pa.concat_tables(pq.read_table(p) for p in sorted(glob.glob(f"{prepared}/train/*.parquet")))
    return sorted(map(repr, table.to_pylist()))


def ask(server, rows):
    """Sends rows in every way that holds raw values; returns their (request_id, row), and how many the log may have."""
    raw = {name: np.array([row[name] for row in rows], object) for name in rows[0]}
    places = []
    with ServingClient(f"grpc://{server.grpc}", "clicks") as grpc, ServingClient(server.rest, "clicks") as rest:
        for number, client in enumerate([grpc, rest] * 10):
            part = slice(2 * number, 2 * number + 2)
            client.predict({name: list(values[part]) for name, values in raw.items()}, request_id=f"p{number}")
            places += [(f"p{number}", 0), (f"p{number}", 1)]
        grpc.regress(rows[40:45], request_id="regress")
        rest.classify(rows[45:50], request_id="classify")
        places += [(name, i) for name in ("regress", "classify") for i in range(5)]
        for i, client in enumerate([grpc, rest] * 5):
            row = rows[50 + i]
            context = {name: value for name, value in row.items() if name in CONTEXT or name == "tags_weights"}
            others = {name: [rows[0][name], row[name]] for name in row if name not in context}
            client.rank(context, others, request_id=f"rank{i}")
            client.rank(context, others, k=1, request_id=f"top{i}")
            places.append((f"rank{i}", 1))
    return places


@pytest.mark.slow
def test_a_log_of_requests_is_prepared_as_the_log_it_came_from(exported, tmp_path):
    data, root = exported
    rows = read_samples(data)[:ROWS]
    with serving_bundles.running(root, request_log=str(tmp_path / "requests")) as server:
        places = ask(server, rows)
        text = server.http.get("/metrics").text
        assert "tfrs_dlrm_request_log_failed_rows_total" in text
    assert len(files(tmp_path / "requests")) == 1  # finished when the server ended
    records = [r for f in files(tmp_path / "requests") for r in read_records(f)]
    assert len(records) == 50 + 10 * 2 + 10
    raw, labels, joined = tmp_path / "raw.csv", tmp_path / "labels.csv", str(tmp_path / "joined.parquet")
    click = [i % 2 for i in range(ROWS)]
    columns = {"tags_weights": "tag_weights"}
    with open(raw, "w", newline="") as f, open(labels, "w", newline="") as g:
        log = csv.DictWriter(f, [columns.get(n, n) for n in rows[0]] + ["clicked", "weight"])
        late = csv.writer(g)
        log.writeheader()
        late.writerow(["request_id", "row", "clicked", "weight"])
        for row, place, clicked in zip(rows, places, click, strict=True):
            log.writerow({columns.get(n, n): v for n, v in row.items()} | {"clicked": clicked, "weight": 1})
            late.writerow([*place, clicked, 1])
    found = join_labels(files(tmp_path / "requests"), str(labels), joined, click_log.SCHEMA)
    assert found == Joined(ROWS, len(records) - ROWS, 0, 0, 0)
    prepare(click_log.SCHEMA, [str(raw)], str(tmp_path / "a"))
    prepare(click_log.SCHEMA, [joined], str(tmp_path / "b"))
    assert encoded(tmp_path / "a") == encoded(tmp_path / "b")


def test_the_logged_probability_is_the_answers_and_ids_come_back(exported, tmp_path):
    data, root = exported
    (row,) = read_samples(data)[:1]
    with serving_bundles.running(root, request_log=str(tmp_path)) as server:
        url = f"{server.rest}/v1/models/clicks:predict"
        body = {"instances": [{k: float("nan") if v is None else v for k, v in row.items()}]}
        content = json.dumps(body)
        given = server.http.post(url, content=content, headers={"x-request-id": "abc"})
        made = server.http.post(url, content=content)
        wrong = server.http.post(url, content="{}", headers={"x-request-id": "of an error"})
        refused = server.http.post(url, content=content, headers={"x-request-id": "x" * 300})
    assert given.headers["x-request-id"] == "abc" and len(made.headers["x-request-id"]) == 32
    assert wrong.status_code == 400 and wrong.headers["x-request-id"] == "of an error"
    assert refused.status_code == 400 and "x-request-id has 300 characters" in refused.json()["error"]
    schema = td.Schema.load(f"{data}/schema.json")
    (table,) = read_log(files(tmp_path)[0], schema)
    logged = dict(zip(table["log/request_id"].to_pylist(), table["log/probability"].to_pylist(), strict=True))
    assert logged.keys() == {b"abc", made.headers["x-request-id"].encode()}
    assert list(logged.values()) == pytest.approx(given.json()["predictions"] * 2)


@pytest.mark.process
def test_what_a_killed_server_left_is_finished_by_the_next(tmp_path):
    program = (
        "import os, sys, numpy as np; from tfrs_dlrm.serving.request_logs.request_log import RequestLog\n"
        "log = RequestLog(sys.argv[1], 1.0)\n"
        "for i in range(5): log.write(f'r{i}', {'x': np.float32([1, 2])}, np.float32([0.5, 0.5]), 1)\n"
        "log._file.write(b'half a record'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], cwd=Path(__file__).parents[3], timeout=300)
    (left,) = os.listdir(tmp_path)
    assert left.endswith(".unfinished")
    log = RequestLog(str(tmp_path), 1.0)
    (whole,) = os.listdir(tmp_path)
    assert whole == left.removesuffix(".unfinished")
    assert len(list(read_records(str(tmp_path / whole)))) == 10
    log.write("r", {"x": np.float32([1])}, np.float32([0.5]), 1)
    RequestLog(str(tmp_path), 1.0)  # leaves alone what another one still writes
    assert sorted(name.endswith(".unfinished") for name in os.listdir(tmp_path)) == [False, True]
    log.close()
