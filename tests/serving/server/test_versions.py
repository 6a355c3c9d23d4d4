"""Versions of the local server: switched under load, refused when broken, and ended politely."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import serving_bundles
from serving_bundles import by_hand
from waiting import wait_for

from tfrs_dlrm.serving.bundle.loaded_size import bytes_when_loaded
from tfrs_dlrm.serving.bundle.wholeness import EXPORTER
from tfrs_dlrm.serving.runtime.saved_model import SavedModel
from tfrs_dlrm.serving.server import loading, resting

REPOSITORY = Path(__file__).parents[3]
BODY = {"instances": [{"price": 4.0, "site": "abc", "slot": 8}]}


def version_of(answer):
    return round(answer.json()["predictions"][0] - by_hand(0, 4, "abc", 8))


def test_a_version_is_switched_under_load_without_a_failed_request(tmp_path):
    root = tmp_path / "clicks"
    serving_bundles.make(root, 1)
    with serving_bundles.running(root) as server:
        stop, seen, failed = threading.Event(), [], []

        def load():
            with httpx.Client(timeout=120) as client:
                while not stop.is_set():
                    answer = client.post(f"{server.rest}/v1/models/clicks:predict", json=BODY)
                    (seen if answer.status_code == 200 else failed).append(answer)

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        for version in (2, 3):
            serving_bundles.make(root, version)
            wait_for(lambda version=version: seen and version_of(seen[-1]) == version, f"version {version} answers")
        stop.set()
        for thread in threads:
            thread.join()
        assert not failed and {version_of(answer) for answer in seen} == {1, 2, 3}
        states = server.http.get("/v1/models/clicks").json()["model_version_status"]
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
        wait_for(lambda: [version.number for version in model.available()] == [2], "version 2 is alone")
        leave.set()
        version = holding.result(300)
        wait_for(lambda: version.model is None, "version 1 is unloaded")


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
    serving_bundles.seal(path)


def wrong_reference(path):
    file = Path(path, "assets.extra/reference.jsonl")
    file.write_text(file.read_text().replace("2.", "2.5"))
    serving_bundles.seal(path)


def flipped_byte(path):
    file = Path(path, "saved_model.pb")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: [cut_warmup(path), serving_bundles.seal(path)], ["record 2", "checksum"]),
        (cut_warmup, ["tf_serving_warmup_requests was changed", "CRC32C", "copy the version again"]),
        (flipped_byte, ["saved_model.pb was changed"]),
        (wrong_reference, ["2 scores differ from the training side's", "reference.jsonl, line"]),
        (lambda path: os.truncate(f"{path}/assets.extra/bundle.json", 100), ["bundle.json", "not valid JSON"]),
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
        wait_for(
            lambda: server.http.get(url).json()["model_version_status"][0]["state"] == "END", "version 2 is refused"
        )
        newest, older = server.http.get(url).json()["model_version_status"]
        assert newest["version"] == "2" and newest["status"]["error_code"] == "FAILED_PRECONDITION"
        assert all(word in newest["status"]["error_message"] for word in words), newest
        assert older["state"] == "AVAILABLE" and version_of(server.http.post(f"{url}:predict", json=BODY)) == 1
        assert server.http.get("/readyz").status_code == 200


def test_a_version_that_is_copied_bit_by_bit_is_served_once_it_is_whole(tmp_path):
    root, name = tmp_path / "clicks", "variables/variables.data-00000-of-00001"
    serving_bundles.make(root, 1)
    serving_bundles.make(tmp_path / "other", 2)
    whole = (tmp_path / "other" / "2" / name).read_bytes()
    os.truncate(tmp_path / "other" / "2" / name, 1)
    with serving_bundles.running(root) as server:
        url = "/v1/models/clicks"

        def newest():
            return server.http.get(url).json()["model_version_status"][0]

        (tmp_path / "other" / "2").rename(root / "2")
        wait_for(lambda: newest()["status"]["error_code"] != "OK", "the version that is not whole is refused")
        assert version_of(server.http.post(f"{url}:predict", json=BODY)) == 1
        with open(root / "2" / name, "r+b") as f:
            f.write(whole)
        wait_for(lambda: version_of(server.http.post(f"{url}:predict", json=BODY)) == 2, "version 2 answers")


def copied(source, target, order, look):
    """Copies a version file by file, as tar does, and looks after each; yields which files are still missing."""
    files = sorted((f.relative_to(source) for f in source.rglob("*") if f.is_file()), key=order)
    for i, name in enumerate(files):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        for half in (1, 2):  # a large file grows
            content = (source / name).read_bytes()
            (target / name).write_bytes(content[: len(content) * half // 2])
            look()
            yield [*files[i + (half == 2) :]]


@pytest.mark.parametrize("manifest_first", [False, True], ids=["manifest last", "manifest first"])
def test_a_slow_copy_is_served_when_the_last_file_is_there_and_not_before(tmp_path, manifest_first):
    root = tmp_path / "clicks"
    serving_bundles.make(root, 1)
    serving_bundles.make(tmp_path / "other", 2)
    with serving_bundles.running(root, poll_seconds=3600) as server:
        model = server.server.service.models["clicks"]

        def order(name):
            return (name.parts[0] == "assets.extra") != manifest_first, name.name == "bundle.json", name

        for missing in copied(tmp_path / "other/2", root / "2", order, lambda: server.call(model.poll())):
            served = [version.number for version in model.available()]
            assert served == ([1] if missing else [2]), missing
        loaded = model.available()[0]
        assert loaded.manifest is not None and not loaded.error and 1 not in {v.number for v in model.available()}


def test_a_stalled_copy_is_refused_by_name_and_served_once_it_continues(tmp_path):
    root = tmp_path / "clicks"
    serving_bundles.make(root, 1)
    serving_bundles.make(tmp_path / "other", 2)
    with serving_bundles.running(root, poll_seconds=3600) as server:
        model = server.server.service.models["clicks"]
        late = tmp_path / "late"
        (tmp_path / "other/2/variables/variables.index").rename(late)
        shutil.copytree(tmp_path / "other/2", root / "2")
        server.call(model.poll())
        assert 2 not in model.versions, "it may still be copied"
        server.call(model.poll())
        assert "variables.index is missing" in model.versions[2].error and model.available()[0].number == 1
        shutil.copy(late, root / "2/variables/variables.index")
        server.call(model.poll())
        assert [version.number for version in model.available()] == [2]


def test_a_served_version_whose_files_change_is_loaded_again_or_says_why_not(tmp_path):
    root = tmp_path / "clicks"
    serving_bundles.make(root, 1)
    serving_bundles.make(tmp_path / "other", 2)
    with serving_bundles.running(root, poll_seconds=3600) as server:
        model, url = server.server.service.models["clicks"], f"{server.rest}/v1/models/clicks"
        before, file = model.choose(), root / "1/assets.extra/reference.jsonl"
        rows = file.read_text()
        for content in (rows, rows.replace("1.", "1.5")):  # as a copy on top of it, which is the same at first
            file.write_text(content)
            server.call(model.poll())
            server.call(model.poll())
        (status,) = server.http.get(url).json()["model_version_status"]
        assert status["state"] == "AVAILABLE" and status["status"]["error_code"] == "OK"
        assert "files changed since it was loaded" in status["status"]["error_message"]
        assert "reference.jsonl has" in status["status"]["error_message"]
        assert version_of(server.http.post(f"{url}:predict", json=BODY)) == 1
        shutil.rmtree(root / "1")
        (tmp_path / "other/2").rename(root / "1")  # another model under the same number
        server.call(model.poll())
        after = model.choose()
        assert after is not before and after.number == 1 and not after.warning
        assert version_of(server.http.post(f"{url}:predict", json=BODY)) == 2
        assert 'version="1"} 1.0' in server.http.get("/metrics").text


def test_a_plain_saved_model_is_served_after_a_rest_and_a_bundle_that_lost_its_manifest_never(tmp_path, monkeypatch):
    def plain(path):
        shutil.rmtree(os.path.join(path, "assets.extra"))

    def lost(path):
        plain(path)
        file = Path(path, "saved_model.pb")
        saved = serving_bundles.read_saved_model(file)
        saved.meta_graphs[0].meta_info_def.meta_graph_version = EXPORTER
        file.write_bytes(saved.SerializeToString())

    root = tmp_path / "clicks"
    serving_bundles.make(root, 1)
    clock = SimpleNamespace(time=time.time, monotonic=lambda: now[0])
    now = [0.0]
    monkeypatch.setattr(resting, "time", clock)
    with serving_bundles.running(root, poll_seconds=3600) as server:
        model = server.server.service.models["clicks"]
        serving_bundles.make(root, 2, plain)
        serving_bundles.make(root, 3, lost)
        for now[0], served in ((0, 1), (9, 1), (10.5, 2)):
            server.call(model.poll())
            assert model.choose().number == served
        assert model.choose().manifest is None
        assert "bundle.json is missing, and tfrs-dlrm exported this version with it" in model.versions[3].error


def test_a_version_that_does_not_fit_the_memory_is_refused_until_it_does(tmp_path, monkeypatch):
    root = tmp_path / "clicks"
    serving_bundles.make(root, 1)
    with serving_bundles.running(root, poll_seconds=3600) as server:
        model = server.server.service.models["clicks"]
        left = [50_000_000]
        monkeypatch.setattr(loading, "available_memory", lambda: left[0])
        monkeypatch.setattr(loading, "SavedModel", None)  # it is not tried
        serving_bundles.make(root, 2)
        server.call(model.poll())
        server.call(model.poll())
        error = model.versions[2].error
        assert "takes about 68 MB of memory, and 50 MB are left: give the server more memory" in error
        assert model.choose().number == 1
        assert model.versions[2].bytes_needed == bytes_when_loaded(str(root / "2"))
        monkeypatch.setattr(loading, "SavedModel", SavedModel)
        left[0] = 10**9
        server.call(model.poll())
        assert model.choose().number == 2


def test_with_no_good_version_the_server_says_so_until_one_comes(tmp_path):
    root = tmp_path / "clicks"
    serving_bundles.make(root, 1, cut_warmup)
    with serving_bundles.running(root) as server:
        url = f"{server.rest}/v1/models/clicks:predict"
        assert server.http.get("/readyz").status_code == 503
        assert server.http.post(url, json=BODY).status_code == 404
        serving_bundles.make(root, 2)
        wait_for(lambda: server.http.get("/readyz").status_code == 200, "version 2 is ready")
        assert version_of(server.http.post(url, json=BODY)) == 2


def test_a_directory_of_models_is_served(tmp_path):
    for name, version in (("a", 1), ("b", 5)):
        serving_bundles.make(tmp_path / name, version)
    (tmp_path / "deploy").mkdir()
    with serving_bundles.running(tmp_path, max_concurrent=1) as server:
        for name, version in (("a", 1), ("b", 5)):
            assert version_of(server.http.post(f"/v1/models/{name}:predict", json=BODY)) == version
        with server.server.service.request("test", "test") as call:
            call.begin()
            answer = server.http.post("/v1/models/a:predict", json=BODY)
        assert answer.status_code == 429 and "as many as are allowed" in answer.json()["error"]
        assert answer.headers["Retry-After"] == "1"


@pytest.mark.process
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
        assert httpx.get(lines[4].split()[-1], timeout=120).headers["content-type"].startswith("text/html")
        url = lines[2].split()[-1].replace("NAME", "clicks")
        assert version_of(httpx.post(url, json=BODY, timeout=120)) == 1
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0 and out.split()[-1] == "False", err
    assert "Traceback" not in err
