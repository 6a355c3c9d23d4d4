"""Names of versions: numbers of 64 bits, as TF Serving reads them."""

import shutil

import grpc
import numpy as np
import pytest
import serving_bundles
import tensorflow as tf
from absl import logging
from serving_bundles import by_hand
from tensorflow_serving.apis import prediction_service_pb2_grpc

from tfrs_dlrm.serving.bundle.versions import find_versions, newest_version, next_version, remove_old, version_number
from tfrs_dlrm.serving.client.serving_client import ServingClient
from tfrs_dlrm.serving.protocol import InvalidRequest

LARGEST = 2**63 - 1


# tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc reads names by strings::safe_strto64.
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("1", 1),
        ("007", 7),
        ("0", 0),
        ("-3", -3),
        ("1700000000", 1700000000),
        (str(LARGEST), LARGEST),
        ("0" * 5000 + "5", 5),
        ("-" + "0" * 5000, 0),
        (str(LARGEST + 1), None),
        (str(-LARGEST - 2), None),
        ("9" * 20, None),
        ("9" * 5000, None),
        ("1.5", None),
        ("v1", None),
        ("", None),
        ("-", None),
        ("--1", None),
        ("\u0661", None),
        ("1_000", None),
    ],
)
def test_a_version_is_a_number_of_64_bits(name, number):
    assert version_number(name) == number


def test_other_names_are_passed_over_with_one_line(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: lines.append(text % values))
    for name in ("1", "02", "2", "10", "9" * 20, "\u0661", "deploy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
    for _ in range(3):
        assert find_versions(str(tmp_path)) == {
            1: str(tmp_path / "1"),
            2: str(tmp_path / "2"),
            10: str(tmp_path / "10"),
        }
    assert len(lines) == 3 and sorted(line.split()[0].rsplit("/")[-1] for line in lines) == ["02", "9" * 20, "\u0661"]
    assert newest_version(str(tmp_path)) == str(tmp_path / "10") and next_version(str(tmp_path)) == 11
    (tmp_path / "0012").mkdir()
    (tmp_path / "0012" / "saved_model.pb").touch()
    assert remove_old(str(tmp_path), 1) == [str(tmp_path / name) for name in ("1", "2", "10")]
    assert newest_version(str(tmp_path)) == str(tmp_path / "0012") and next_version(str(tmp_path)) == 13
    (tmp_path / str(LARGEST)).mkdir()
    with pytest.raises(ValueError, match=f"version {LARGEST} is the largest that a server loads"):
        next_version(str(tmp_path))


def test_a_version_of_19_digits_is_served_and_asked_for_and_one_of_20_is_not_loaded(tmp_path):
    root, number = tmp_path / "clicks", 9_000_000_000_000_000_000
    serving_bundles.make(root, 4)
    shutil.copytree(root / "4", root / str(number))
    shutil.copytree(root / "4", root / ("9" * 20))
    row = {"price": np.float32([4]), "site": [b"abc"], "slot": np.int64([8])}
    with serving_bundles.running(root) as server:
        url = f"{server.rest}/v1/models/clicks"
        states = server.http.get(url).json()["model_version_status"]
        assert [(s["version"], s["state"]) for s in states] == [(str(number), "AVAILABLE")]
        body = {"instances": [{"price": 4.0, "site": "abc", "slot": 8}]}
        assert server.http.post(f"{url}/versions/{number}:predict", json=body).json() == {
            "predictions": [by_hand(4, 4, "abc", 8)]
        }
        answer = server.http.post(f"{url}/versions/{'9' * 20}:predict", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"] == f"Failed to convert version: {'9' * 20} to numeric."
        with grpc.insecure_channel(server.grpc) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            answer = stub.Predict(serving_bundles.predict_request(row, version=number))
        assert answer.model_spec.version.value == number
        assert answer.outputs["probability"].float_val == [by_hand(4, 4, "abc", 8)]
        assert tf.make_ndarray(answer.outputs["probability"]).shape == (1,)
        for address in (server.rest, f"grpc://{server.grpc}"):
            with ServingClient(address, "clicks") as client:
                assert client.predict(row, version=number)["probability"] == [by_hand(4, 4, "abc", 8)]
                with pytest.raises(InvalidRequest, match="numbers of 64 bits"):
                    client.predict(row, version=10**20)
