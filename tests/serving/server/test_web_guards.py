"""Which Host and Origin headers are answered."""

import pytest
import serving_bundles
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from tfrs_dlrm.serving.server.security import Security
from tfrs_dlrm.serving.server.web_guards import HostGuard


def status(security, host, origin=None, method="POST"):
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("ok"), methods=["GET", "POST"])])
    client = TestClient(HostGuard(app, security))
    answer = client.request(method, "/", headers={"host": host, **({"origin": origin} if origin else {})})
    assert answer.status_code == 200 or (answer.status_code == 403 and answer.json()["error"])
    return answer.status_code


LOCAL = ["localhost", "localhost:8501", "LOCALHOST", "127.0.0.1:8501", "127.8.8.8", "[::1]:8501", "[::1]"]
FOREIGN = [
    "evil.example",
    "evil.example:8501",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "10.0.0.1",
    "[::1",
    "a b",
]


@pytest.mark.parametrize("host", LOCAL + FOREIGN)
def test_on_loopback_only_names_of_this_machine(host):
    assert status(Security(), host) == (200 if host in LOCAL else 403)
    allowed = Security(allowed_hosts=("models.example",))
    assert status(allowed, host) == (200 if host in LOCAL else 403) and status(allowed, "Models.example:80") == 200


def test_on_other_addresses_all_names_unless_some_are_listed():
    assert status(Security("0.0.0.0", insecure=True), "evil.example") == 200
    listed = Security("0.0.0.0", insecure=True, allowed_hosts=("models.example",))
    assert [status(listed, host) for host in ("models.example", "evil.example", "10.0.0.1:8501")] == [200, 403, 200]


def test_pages_of_other_sites_may_not_post_unless_they_are_listed():
    own, other, page = "http://127.0.0.1:8501", "https://other.example", "https://page.example"
    for origin, expected in ((None, 200), (own, 200), (other, 403), ("null", 403)):
        assert status(Security(), "127.0.0.1:8501", origin) == expected
        assert status(Security(), "127.0.0.1:8501", origin, "GET") == 200
    listed = Security(cors_origins=(page,))
    assert status(listed, "127.0.0.1:8501", page) == 200 and status(listed, "127.0.0.1:8501", other) == 403
    assert status(Security(cors_origins=("*",)), "127.0.0.1:8501", other) == 200
    with pytest.raises(ValueError, match=r"--cors_origins=page.example is no origin; https://example.com:8080 is one"):
        Security(cors_origins=("page.example",))


def test_a_server_sends_no_cors_headers_unless_they_are_asked_for(tmp_path):
    serving_bundles.make(tmp_path / "clicks", 1)
    (tmp_path / "token").write_text("s3cret")
    page = "https://page.example"
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    token = {"authorization": "Bearer s3cret"}
    body = {"instances": [{"price": 4.0, "site": "abc", "slot": 8}]}
    for origins in ((), (page,)):
        security = Security(bearer_token_file=str(tmp_path / "token"), cors_origins=origins)
        with serving_bundles.running(tmp_path / "clicks", security) as server:
            url = f"{server.rest}/v1/models/clicks:predict"
            assert server.http.get("/healthz", headers={"host": "evil.example"}).status_code == 403
            asked = server.http.options(url, headers={"origin": page, **asks})
            answer = server.http.post(url, json=body, headers={"origin": page, **token})
            foreign = server.http.post(url, json=body, headers={"origin": "https://a.example", **token})
            assert foreign.status_code == 403
            if origins:
                assert asked.status_code == answer.status_code == 200
                assert asked.headers["access-control-allow-origin"] == page
                assert answer.headers["access-control-allow-origin"] == page
            else:
                assert asked.status_code != 200 and answer.status_code == 403
                assert not [name for reply in (asked, answer) for name in reply.headers if "access-control" in name]
