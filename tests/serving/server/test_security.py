"""Who may reach the local server: loopback, or TLS, or a token, or an explicit --insecure."""

import ssl
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import httpx
import pytest
import serving_bundles
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from tfrs_dlrm.serving.server.security import Security

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("security") / "clicks"
    serving_bundles.make(root, 1)
    return root


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_other_addresses_want_protection(host):
    with pytest.raises(ValueError, match=r"--tls_cert and --tls_key.*--bearer_token_file.*--insecure"):
        Security(host)
    for protection in ({"insecure": True}, {"tls_cert": "c", "tls_key": "k"}, {"bearer_token_file": "t"}):
        Security(host, **protection)


def test_loopback_is_open_and_half_of_tls_is_refused():
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        Security(host)
    with pytest.raises(ValueError, match="--tls_cert is given without --tls_key"):
        Security(tls_cert="c")


@pytest.mark.process
def test_the_program_says_so_in_one_line(root):
    ran = subprocess.run(
        [sys.executable, "export/serve.py", str(root), "--host=0.0.0.0"],
        cwd=REPOSITORY, env={"PYTHONPATH": str(REPOSITORY), "PATH": ""}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 1 and ran.stderr.startswith("error: --host=0.0.0.0") and "--insecure" in ran.stderr


def status(channel, metadata=()):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "clicks"
    return model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, metadata=metadata)


def test_a_token_is_asked_for_everywhere_but_at_the_health_checks(root, tmp_path):
    (tmp_path / "token").write_text("s3cret\n")
    security = Security(bearer_token_file=str(tmp_path / "token"))
    with serving_bundles.running(root, security) as server, grpc.insecure_channel(server.grpc) as channel:
        for path in ("/v1/models/clicks", "/metrics", "/catalog", "/page/", "/elsewhere"):
            for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": "s3cret"}):
                answer = server.http.get(path, headers=header)
                assert answer.status_code == 401 and "Bearer" in answer.json()["error"]
        right = {"authorization": "Bearer s3cret"}
        assert server.http.get("/v1/models/clicks", headers=right).status_code == 200
        assert server.http.get("/healthz").status_code == 200
        for metadata in ((), (("authorization", "Bearer wrong"),)):
            with pytest.raises(grpc.RpcError) as raised:
                status(channel, metadata)
            assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
        never, predict = threading.Event(), channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
        try:
            with pytest.raises(grpc.RpcError) as raised:  # nobody waits for the message of a call that is refused
                predict((b"" for _ in range(1) if never.wait(600)), timeout=300)
        finally:
            never.set()
        assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert status(channel, tuple(right.items())).model_version_status[0].version == 1
        assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == 1


def test_tls_for_both(root, tmp_path):
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], capture_output=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with serving_bundles.running(root, Security(tls_cert=certificate, tls_key=key)) as server:
        trusting = ssl.create_default_context(cafile=certificate)
        url = server.rest.replace("http:", "https:")
        assert httpx.get(f"{url}/v1/models/clicks", verify=trusting, timeout=120).status_code == 200
        with pytest.raises(httpx.HTTPError):
            server.http.get("/v1/models/clicks")
        credentials = grpc.ssl_channel_credentials(Path(certificate).read_bytes())
        with grpc.secure_channel(server.grpc, credentials) as channel:
            assert status(channel).model_version_status[0].version == 1


def test_an_empty_token_is_refused(root, tmp_path):
    (tmp_path / "token").write_text("\n")
    with pytest.raises(ValueError, match="must hold one token"):
        Security(bearer_token_file=str(tmp_path / "token")).token()
