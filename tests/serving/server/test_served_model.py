"""A model whose load is interrupted because the server ends."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from tfrs_dlrm.serving.server import served_model
from tfrs_dlrm.serving.server.model_config import VersionPolicy
from tfrs_dlrm.serving.server.resting import Resting
from tfrs_dlrm.serving.server.served_model import ServedModel


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_that_is_loaded_while_the_server_ends_is_closed(tmp_path, monkeypatch, fails):
    (tmp_path / "1").mkdir()
    begun, go, closed = threading.Event(), threading.Event(), []

    def load(path):
        begun.set()
        assert go.wait(300)
        if fails:
            raise ValueError("broken")
        return SimpleNamespace(close=lambda: closed.append(path)), None

    monkeypatch.setattr(served_model, "load", load)
    monkeypatch.setattr(Resting, "reached", lambda *_: True)

    async def test():
        with ThreadPoolExecutor(1) as loader:
            model = ServedModel("m", str(tmp_path), VersionPolicy(1), loader, None, lambda *_: None)
            polling = asyncio.create_task(model.poll())
            assert await asyncio.to_thread(begun.wait, 300)
            polling.cancel()
            await asyncio.sleep(0)
            assert not polling.done()  # the load goes on in its thread
            go.set()
            with pytest.raises(asyncio.CancelledError):
                await polling
            await model.close()
        assert not model.available()

    asyncio.run(test())
    assert len(closed) == (not fails)
