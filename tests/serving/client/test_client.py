"""The client says and hears the same over gRPC and over REST."""

import datetime
import shutil
import subprocess
import sys

import numpy as np
import pytest
import stand_in

from tfrs_dlrm.messages import install_command
from tfrs_dlrm.serving import ServingClient
from tfrs_dlrm.serving import protocol as errors

SERVERS = {"grpc": stand_in.grpc_server, "rest": stand_in.rest_server}


@pytest.fixture(scope="module", params=list(SERVERS))
def address(request):
    with SERVERS[request.param]() as address:
        yield address


@pytest.fixture
def client(address):
    with ServingClient(address, "clicks") as client:
        yield client


def ask(client, site="a", **options):
    return client.predict({"price": [1.5], "site": [site], "slot": [1]}, **options)


def test_python_values_become_what_the_model_takes(client):
    answer = client.predict({"price": [1, None, 2.5], "site": ["ä", b"\xff\x00", None], "slot": [1, None, 7.0]})
    assert ask(client, b"\xff")["site_bytes"] == [b"\xff"]
    mixed = client.predict({"price": [1, 2], "site": ["ä", b"\xff"], "slot": [1, 2]})
    assert mixed["site_bytes"].tolist() == ["ä".encode(), b"\xff"]
    assert answer["score"].dtype == np.float32 and answer["score"].tolist() == [2, 99, 9.5]
    assert answer["site_bytes"].dtype == object and answer["site_bytes"].tolist() == ["ä".encode(), b"\xff\x00", b""]


def test_a_value_is_what_it_is_in_a_log(client):
    """As `data/raw/values.py` says."""
    site = [24216, 24216.0, True, 0.5, 2**64 - 1, float("nan")]
    answer = client.predict(
        {"price": [*["1.5", True, "true", "", 2, 0.5]], "site": site, "slot": [1, "1", "1.0", 1.0, True, "TRUE"]}
    )
    assert answer["site_bytes"].tolist() == [b"24216", b"24216", b"true", b"0.5", b"18446744073709551615", b""]
    assert answer["score"].tolist() == [2.5, 2, 2, 101, 3, 1.5]
    gaps = client.predict({"price": [1, 1], "site": ["a", "b"], "slot": np.array([7, np.nan])})
    assert (
        gaps["score"].tolist()
        == client.predict({"price": [1, 1], "site": ["a", "b"], "slot": [7, None]})["score"].tolist()
    )


def test_arrays_one_row_and_no_rows(client):
    price, site, slot = np.array([1.5, np.nan]), np.array(["a", "b"]), np.array([1, 2], np.int32)
    features = {"price": price, "site": site, "slot": slot}
    one = {name: value[:1] for name, value in features.items()}
    none = {name: value[:0] for name, value in features.items()}
    assert client.predict(features)["score"].tolist() == [2.5, 102]
    assert client.predict(one, "one_output")["probability"].tolist() == [2.5]
    empty = client.predict(none)
    assert empty["score"].shape == (0,) and empty["score"].dtype == np.float32


def test_versions_and_labels(client):
    assert ask(client, version=1)["score"] == ask(client, label="stable")["score"] == 2.5
    with pytest.raises(errors.NotFound, match="no version 2"):
        ask(client, version=2)
    with pytest.raises(ValueError, match=r"version=1 and label='stable': give one of them"):
        ask(client, version=1, label="stable")


def test_rank_takes_one_context_and_its_candidates(client):
    answer = client.rank({"site": "a"}, {"price": [1, None, 3]})
    assert answer["scores"].tolist() == [1, 100, 3] and answer["order"].tolist() == [1, 2, 0]
    answer = client.rank({"site": "a"}, {"price": np.float32([1, np.nan, 3])}, k=2)
    assert answer["scores"].tolist() == [100, 3] and answer["indices"].tolist() == [1, 2]
    assert answer["indices"].dtype == np.int32


def test_rows_as_examples(client):
    rows = [{"price": 1, "slot": 2, "site": "a"}, {"price": None, "slot": np.int32(3), "site": b"\xff"}]
    assert client.regress(rows).tolist() == [3, 103] and client.regress(rows).dtype == np.float32
    assert client.classify(rows) == [[("0", -3), ("1", 3)], [("0", -103), ("1", 103)]]


def test_metadata_and_status(client):
    rank = client.metadata()["rank"]
    assert rank.inputs["price"].dtype == np.float32 and rank.inputs["price"].shape == (None, None)
    assert [(s.version, s.state, s.error) for s in client.status()] == [(1, "AVAILABLE", ""), (2, "END", "broken")]


@pytest.mark.parametrize(
    "code, error",
    [
        ("INVALID_ARGUMENT", errors.InvalidRequest),
        ("NOT_FOUND", errors.NotFound),
        ("UNAVAILABLE", errors.Unavailable),
        ("RESOURCE_EXHAUSTED", errors.Overloaded),
        ("UNAUTHENTICATED", errors.Unauthenticated),
        ("PERMISSION_DENIED", errors.Unauthenticated),
        ("INTERNAL", errors.ServingError),
    ],
)
def test_errors_have_types_and_the_words_of_the_server(client, code, error):
    with pytest.raises(errors.ServingError, match=f"the site is {code}") as raised:
        ask(client, code)
    assert type(raised.value) is error
    assert ask(client)["score"] == 2.5  # and the next request goes through


def test_no_answer_in_time_and_nobody_there(address):
    with ServingClient(address, "clicks", timeout=0.3) as client:
        ask(client)
        with pytest.raises(errors.DeadlineExceeded):
            ask(client, "SLOW")
    nobody = address.split(":")[0] + "://127.0.0.1:1"
    with ServingClient(nobody, "clicks") as client, pytest.raises(errors.Unavailable):
        ask(client)


def test_values_that_do_not_fit_are_refused_by_name_before_they_are_sent(client):
    def refused(match, **features):
        given = {"price": [1.5], "site": ["a"], "slot": [1]} | features
        with pytest.raises(errors.InvalidRequest, match=match):
            client.predict(given)

    refused("feature 'price': float32 is needed, 'cheap' is no number", price=["cheap"])
    refused("feature 'site': string is needed, 5j is of type complex", site=[5j])
    refused("feature 'site': string is needed, 1e\\+17 may be another whole number, rounded", site=[1e17])
    refused("feature 'slot': int64 is needed, 1.5 is no whole number", slot=[1.5])
    refused("feature 'slot': int64 is needed, '1.5' is no number", slot=["1.5"])
    refused("feature 'slot': int64 is needed, 100000000000000000 may be another whole number, rounded", slot=[1e17])
    refused("feature 'slot': int64 is needed, 18446744073709551615 is out of range", slot=[2**64 - 1])
    refused("feature 'slot': int64 is needed, 18446744073709551616 is out of range", slot=[1, 2**64])
    refused("feature 'slot': int64 is needed, 5j is no number", slot=[1, 5j])
    refused("feature 'slot': int64 is needed, datetime.date.* is no number", slot=[datetime.date(2026, 1, 1)])
    refused("feature 'price': float32 is needed, int too large to convert to float", price=[10**400])
    refused("feature 'price': its lists are of unequal lengths", price=[[1], [1, 2]])
    refused(r"\['color'\] do not match", color=["red"])  # the server knows


@pytest.mark.parametrize("request_id", ["ü1", "a\nb", " a"])
def test_a_request_id_that_no_header_holds_is_refused_alike(client, request_id):
    with pytest.raises(errors.InvalidRequest, match="printable ASCII"):
        ask(client, request_id=request_id)
    with pytest.raises(errors.InvalidRequest, match="printable ASCII"):
        client.regress([{"price": 1.5}], request_id=request_id)


@pytest.mark.parametrize("kind", list(SERVERS))
def test_the_bearer_token_is_sent(kind):
    with SERVERS[kind](stand_in.TOKEN) as address:
        with ServingClient(address, "clicks", bearer_token=stand_in.TOKEN) as client:
            assert ask(client)["score"] == 2.5
        with ServingClient(address, "clicks") as client, pytest.raises(errors.Unauthenticated, match="no token"):
            ask(client)


@pytest.mark.parametrize("kind", list(SERVERS))
def test_tls_with_a_certificate_of_ones_own(kind, tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate")
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=here -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with SERVERS[kind](tls=(key, certificate)) as address:
        with ServingClient(address, "clicks", certificate=certificate) as client:
            assert ask(client)["score"] == 2.5
        with ServingClient(address, "clicks", timeout=1) as client, pytest.raises(errors.Unavailable):  # not trusted
            ask(client)


def test_an_address_that_is_none():
    with pytest.raises(ValueError, match=r"'localhost:8500' is none of grpc://HOST:PORT"):
        ServingClient("localhost:8500", "clicks")


def test_503_is_too_much_work_where_it_says_when_to_retry():
    assert type(errors.from_status(503, "busy", retry_after=True)) is errors.Overloaded
    assert type(errors.from_status(503, "gone", retry_after=False)) is errors.Unavailable


def test_what_is_too_large_is_one_error_of_both():
    assert type(errors.from_status(413, "large", retry_after=False)) is errors.TooLarge
    by_grpc = errors.from_code("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (5 vs. 4)")
    assert type(by_grpc) is errors.TooLarge


def test_neither_tensorflow_nor_the_other_transport_is_loaded():
    program = """
import sys
import tfrs_dlrm.serving
assert not {"numpy", "grpc", "httpx", "tensorflow"} & set(sys.modules)
sys.modules["grpc"] = None  # not installed
from tfrs_dlrm.serving import ServingClient
ServingClient("http://127.0.0.1:1", "clicks").close()
assert "tensorflow" not in sys.modules
try:
    ServingClient("grpc://127.0.0.1:1", "clicks")
except ImportError as e:
    print(e)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert f"grpcio for grpc:// addresses: {install_command('serving')}" in done.stdout, done.stderr
