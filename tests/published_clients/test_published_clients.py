"""Clients from the package index ask the local server, as they ask TF Serving; `make test-clients`.

The server is the program. Each client is a process in an environment of its own, because several of them bring modules
called `tensorflow` and `tensorflow_serving`.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import serving_bundles
from serving_bundles import by_hand

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
CLIENTS = REPOSITORY / ".venv-clients"
ROWS = {"price": [4.0, 0.0, -2.5], "site": ["abc", "", "a longer name"], "slot": [8, -1, 64]}


def expected(version):
    return [by_hand(version, *row) for row in zip(*ROWS.values(), strict=True)]


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """The port of gRPC."""
    root = tmp_path_factory.mktemp("published") / "clicks"
    for version in (1, 2):
        serving_bundles.make(root, version)
    command = [sys.executable, REPOSITORY / "export/serve.py", root, "--keep=2", "--rest_port=0", "--grpc_port=0"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            for line in server.stdout:
                if found := re.search(r"gRPC 127\.0\.0\.1:(\d+)", line):
                    yield found[1]
                    break
            else:
                raise AssertionError("the server ended before it listened")
        finally:
            server.terminate()
            server.stdout.read()  # until it ended


@pytest.mark.parametrize(
    ("script", "directory"),
    [
        ("ask_serving_utils.py", None),
        ("ask_min_tfs_client.py", "min-tfs-client"),
        ("ask_stubs.py", None),  # of tensorflow-serving-api
        ("ask_stubs.py", "tensorflow-serving-client-grpc"),
    ],
)
def test_a_published_client_gets_the_right_scores(port, script, directory):
    # The packages in directories of their own would overwrite modules of others.
    environment = {**os.environ, "PYTHONPATH": str(CLIENTS / directory) if directory else ""}
    command = [CLIENTS / "bin/python", HERE / script, port, json.dumps(ROWS)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    answers = json.loads(ran.stdout.splitlines()[-1])
    assert answers.pop("newest") == pytest.approx(expected(2), rel=1e-6)
    for version, scores in answers.items():
        assert scores == pytest.approx(expected(int(version)), rel=1e-6), version
