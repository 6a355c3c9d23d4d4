"""The list of models: what fails is logged and changes nothing, and nothing is loaded once the server ends."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from google.protobuf import text_format

from tfrs_dlrm.serving.protocol import InvalidRequest, ServingError, Unavailable
from tfrs_dlrm.serving.runtime import protos
from tfrs_dlrm.serving.server import served_models
from tfrs_dlrm.serving.server.model_config import VersionPolicy
from tfrs_dlrm.serving.server.served_models import ServedModels


class Model:
    """Answers once it was looked at, which takes until `go` is set."""

    def __init__(self, name, path, policy):
        self.name, self.path, self.policy, self.labels = name, path, policy, {}
        self.go, self.looked, self.closed = asyncio.Event(), asyncio.Event(), False
        self.versions = {}
        self.go.set()

    def available(self):
        return list(self.versions.values())

    async def poll(self):
        self.looked.set()
        await self.go.wait()
        self.versions = {1: SimpleNamespace(number=1, error="")}

    async def close(self):
        self.closed = True


def config(*names):
    """The models `a`, which is there, and others elsewhere."""
    paths = {name: "" if name == "a" else f'base_path: "/{name}"' for name in names}
    text = "".join(f'config {{ name: "{name}" {path} }}' for name, path in paths.items())
    return text_format.Parse(f"model_config_list {{ {text} }}", protos.management.ReloadConfigRequest().config)


def run(tmp_path, test, make=Model):
    (tmp_path / "a" / "1").mkdir(parents=True)

    async def with_models():
        with ThreadPoolExecutor(1) as threads:
            await test(ServedModels(str(tmp_path), "", VersionPolicy(1), threads, make))

    asyncio.run(with_models())


def test_a_search_that_fails_is_made_again(tmp_path, monkeypatch):
    async def test(served):
        (tmp_path / "b" / "1").mkdir(parents=True)
        with monkeypatch.context() as patched:
            patched.setattr(served_models, "find_models", lambda root: os.listdir("/nothing"))
            await served.poll()
        assert [*served.models] == ["a"] and served.models["a"].available()
        await served.poll()
        assert [*served.models] == ["a", "b"]

    run(tmp_path, test)


def refusing(name, path, policy):
    if name == "bad":
        raise PermissionError("its log cannot be written")
    return Model(name, path, policy)


def test_a_model_that_cannot_be_made_changes_nothing(tmp_path):
    async def test(served):
        (a,) = served.models.values()
        with pytest.raises(ServingError, match="its log cannot be written"):
            await served.reload(config("b", "bad"))
        assert served.models == {"a": a} and not a.closed
        for name in ("bad", "good"):
            (tmp_path / name / "1").mkdir(parents=True)
        await served.poll()  # models below the directory are still looked for
        assert [*served.models] == ["a", "good"]

    run(tmp_path, test, refusing)


def test_a_reload_ends_before_the_server_does_and_later_ones_are_refused(tmp_path):
    async def test(served):
        await served.poll()
        a = served.models["a"]
        a.go.clear()
        a.looked.clear()
        reload = asyncio.create_task(served.reload(config("a", "b")))
        await a.looked.wait()
        closing, late = asyncio.create_task(served.close()), asyncio.create_task(served.reload(config("c")))
        await asyncio.sleep(0)
        assert not closing.done() and not late.done()
        a.go.set()
        await asyncio.wait([reload, closing, late])
        with pytest.raises(Unavailable, match="the server is ending"):
            late.result()
        assert [*served.models] == ["a", "b"] and all(model.closed for model in served.models.values())
        await served.poll()
        assert not closing.exception()

    run(tmp_path, test)


@pytest.mark.parametrize("name", ["", ".", "..", "../../etc", "/a", "a:predict", r"a\nb", r"a\000", "x" * 201])
def test_names_that_leave_the_directory_of_logs_or_break_urls_and_metrics_are_refused(tmp_path, name):
    async def test(served):
        with pytest.raises(InvalidRequest, match=r"the model name '.*' cannot stand in a URL"):
            await served.reload(config(name))
        await served.reload(config("my modèl.v2"))
        assert [*served.models] == ["my modèl.v2"]

    run(tmp_path, test)
