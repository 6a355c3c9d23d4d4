"""A store on loopback for the tests of a module, and a local cache for each test."""

import pytest
from loopback_s3 import loopback_s3

from tfrs_dlrm.stores import errors


@pytest.fixture(scope="module")
def server():
    with loopback_s3("bucket") as found:
        yield found


@pytest.fixture
def store(server, tmp_path, monkeypatch):
    """The server, which this process is pointed to; no waits between attempts."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TFRS_DLRM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(errors, "_FIRST_WAIT", 0.01)
    server.failing, server.refuse = 0.0, b""
    yield server
    server.failing, server.refuse = 0.0, b""


@pytest.fixture
def place(request):
    """An address of its own."""
    return f"s3://bucket/{request.node.name.partition('[')[0]}"
