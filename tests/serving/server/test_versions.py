"""Versions of the local server: switched under load, refused when broken, and ended politely."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import serving_bundles
from serving_bundles import by_hand

REPOSITORY = Path(__file__).parents[3]
BODY = {"instances": [{"price": 4.0, "site": "abc", "slot": 8}]}


def version_of(answer):
    return round(answer.json()["predictions"][0] - by_hand(0, 4, "abc", 8))


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for a minute"
        time.sleep(0.02)


def test_a_version_is_switched_under_load_without_a_failed_request(tmp_path):
    root = tmp_path / "clicks"
    serving_bundles.make(root, 1)
    with serving_bundles.running(root) as server:
        stop, seen, failed = threading.Event(), [], []

        def load():
            with httpx.Client(timeout=60) as client:
                while not stop.is_set():
                    answer = client.post(f"{server.rest}/v1/models/clicks:predict", json=BODY)
                    (seen if answer.status_code == 200 else failed).append(answer)

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        for version in (2, 3):
            serving_bundles.make(root, version)
            wait_for(lambda version=version: seen and version_of(seen[-1]) == version)
        stop.set()
        for thread in threads:
            thread.join()
        assert not failed and {version_of(answer) for answer in seen} == {1, 2, 3}
        states = httpx.get(f"{server.rest}/v1/models/clicks").json()["model_version_status"]
        assert states[0]["version"] == "3" and states[0]["state"] == "AVAILABLE"
        assert all(state["state"] != "AVAILABLE" for state in states[1:])


def test_an_old_version_stays_until_its_last_request_is_done(tmp_path):
    root = tmp_path / "clicks"
    serving_bundles.make(root, 1)
    with serving_bundles.running(root) as server:
        model = server.server.service.models["clicks"]

        async def hold(entered, leave):
            with model.choose().in_use() as version:
                entered.set()
                while not leave.is_set():
                    await asyncio.sleep(0.01)
                assert version.model is not None
            return version

        entered, leave = threading.Event(), threading.Event()
        holding = asyncio.run_coroutine_threadsafe(hold(entered, leave), server.server._web_task.get_loop())
        entered.wait()
        serving_bundles.make(root, 2)
        wait_for(lambda: model.available() and model.available()[0].number == 2 and len(model.available()) == 1)
        leave.set()
        version = holding.result(60)
        wait_for(lambda: version.model is None)


def cut_warmup(path):
    file = os.path.join(path, "assets.extra", "tf_serving_warmup_requests")
    data = bytearray(Path(file).read_bytes())
    data[-6] ^= 1
    Path(file).write_bytes(data)


def wrong_warmup(path):
    file = os.path.join(path, "assets.extra", "tf_serving_warmup_requests")
    log = serving_bundles.warmup_logs("clicks")[0]
    del log.predict_log.request.inputs["slot"]
    Path(file).write_bytes(serving_bundles.record(log.SerializeToString()))
    manifest = os.path.join(path, "assets.extra", "bundle.json")
    listed = json.loads(Path(manifest).read_text())
    listed["files"]["assets.extra/tf_serving_warmup_requests"]["bytes"] = os.path.getsize(file)
    Path(manifest).write_text(json.dumps(listed))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_warmup, ["record 2", "checksum"]),
        (wrong_warmup, ["record 0", "'slot'", "missing"]),
        (lambda path: os.remove(f"{path}/variables/variables.index"), ["variables/variables.index", "missing"]),
        (lambda path: os.truncate(f"{path}/saved_model.pb", 100), ["saved_model.pb", "100 bytes"]),
    ],
)
def test_a_broken_version_is_refused_and_the_one_before_it_stays(tmp_path, damage, words):
    root = tmp_path / "clicks"
    serving_bundles.make(root, 1)
    with serving_bundles.running(root) as server:
        serving_bundles.make(root, 2, damage)
        url = f"{server.rest}/v1/models/clicks"
        wait_for(lambda: httpx.get(url).json()["model_version_status"][0]["state"] == "END")
        newest, older = httpx.get(url).json()["model_version_status"]
        assert newest["version"] == "2" and newest["status"]["error_code"] == "FAILED_PRECONDITION"
        assert all(word in newest["status"]["error_message"] for word in words), newest
        assert older["state"] == "AVAILABLE" and version_of(httpx.post(f"{url}:predict", json=BODY)) == 1
        assert httpx.get(f"{server.rest}/readyz").status_code == 200


def test_a_version_that_is_copied_bit_by_bit_is_served_once_it_is_whole(tmp_path):
    root, name = tmp_path / "clicks", "variables/variables.data-00000-of-00001"
    serving_bundles.make(root, 1)
    serving_bundles.make(tmp_path / "other", 2)
    whole = (tmp_path / "other" / "2" / name).read_bytes()
    os.truncate(tmp_path / "other" / "2" / name, 1)
    with serving_bundles.running(root) as server:
        url = f"{server.rest}/v1/models/clicks"
        (tmp_path / "other" / "2").rename(root / "2")
        wait_for(lambda: httpx.get(url).json()["model_version_status"][0]["status"]["error_code"] != "OK")
        assert version_of(httpx.post(f"{url}:predict", json=BODY)) == 1
        with open(root / "2" / name, "r+b") as f:
            f.write(whole)
        wait_for(lambda: version_of(httpx.post(f"{url}:predict", json=BODY)) == 2)


def test_with_no_good_version_the_server_says_so_until_one_comes(tmp_path):
    root = tmp_path / "clicks"
    serving_bundles.make(root, 1, cut_warmup)
    with serving_bundles.running(root) as server:
        url = f"{server.rest}/v1/models/clicks:predict"
        assert httpx.get(f"{server.rest}/readyz").status_code == 503
        assert httpx.post(url, json=BODY).status_code == 404
        serving_bundles.make(root, 2)
        wait_for(lambda: httpx.get(f"{server.rest}/readyz").status_code == 200)
        assert version_of(httpx.post(url, json=BODY)) == 2


def test_a_directory_of_models_is_served(tmp_path):
    for name, version in (("a", 1), ("b", 5)):
        serving_bundles.make(tmp_path / name, version)
    (tmp_path / "deploy").mkdir()
    with serving_bundles.running(tmp_path, max_concurrent=1) as server:
        for name, version in (("a", 1), ("b", 5)):
            assert version_of(httpx.post(f"{server.rest}/v1/models/{name}:predict", json=BODY)) == version
        with server.server.service.request("test", "test") as call:
            call.begin()
            answer = httpx.post(f"{server.rest}/v1/models/a:predict", json=BODY)
        assert answer.status_code == 429 and "as many as are allowed" in answer.json()["error"]
        assert answer.headers["Retry-After"] == "1"


def test_the_program_serves_without_pythons_tensorflow_and_ends_on_sigterm(tmp_path):
    root = tmp_path / "clicks"
    serving_bundles.make(root, 1)
    program = "\n".join(
        [
            "import atexit, runpy, sys",
            "sys.argv[0] = 'export/serve.py'",
            "atexit.register(lambda: print('tensorflow' in sys.modules, flush=True))",
            "runpy.run_path('export/serve.py', run_name='__main__')",
        ]
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(root), "--rest_port=0", "--grpc_port=0"],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        lines = [process.stdout.readline() for _ in range(5)]
        assert "model clicks, version 1" in lines[1], (lines, process.poll())
        assert httpx.get(lines[4].split()[-1]).headers["content-type"].startswith("text/html")
        url = lines[2].split()[-1].replace("NAME", "clicks")
        assert version_of(httpx.post(url, json=BODY)) == 1
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0 and out.split()[-1] == "False", err
    assert "Traceback" not in err
