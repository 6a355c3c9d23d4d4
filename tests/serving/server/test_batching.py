"""What is merged into one run, and what is not; with a model that waits until it is told to go on."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tfrs_dlrm.serving.runtime.saved_model import RunError
from tfrs_dlrm.serving.runtime.signature import Signature, TensorInfo
from tfrs_dlrm.serving.server.batching import Batcher


class Model:
    """Doubles `x`; refuses negative numbers; records the shape of each run, and runs when `go` is set."""

    def __init__(self):
        x = TensorInfo("x:0", np.dtype(np.float32), (None, None))
        self.signatures = {name: Signature("predict", {"x": x}, {"y": x}) for name in ("serving_default", "rank")}
        self.go, self.entered, self.runs = threading.Event(), threading.Event(), []

    def run(self, signature, inputs):
        self.runs.append((signature, inputs["x"].shape))
        self.entered.set()
        assert self.go.wait(300)
        if (inputs["x"] < 0).any():
            raise RunError(3, "negative")
        return {"y": inputs["x"] * 2}


def run(test):
    model = Model()
    with ThreadPoolExecutor(4) as threads:
        batcher = Batcher(model, threads, 8, lambda rows, requests: None)

        async def ask(rows, width=1, signature="serving_default", value=1.0):
            x = np.full((rows, width), value, np.float32)
            y = (await batcher.run(signature, {"x": x}, rows))["y"]
            np.testing.assert_array_equal(y, x * 2)

        async def entered():
            await asyncio.get_running_loop().run_in_executor(None, model.entered.wait, 60)

        asyncio.run(test(model, batcher, ask, entered))


def test_what_comes_during_a_run_is_merged_up_to_the_limit():
    async def test(model, batcher, ask, entered):
        first = asyncio.create_task(ask(1))
        await entered()
        others = [asyncio.create_task(ask(rows, value=rows)) for rows in (2, 3, 3, 1, 20, 1)]
        await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(first, *others)
        # 2 + 3 + 3 are the limit of 8; 20 are more than it and run alone.
        assert [shape[0] for _, shape in model.runs] == [1, 8, 1, 20, 1]

    run(test)


def test_other_widths_and_rank_are_not_merged():
    async def test(model, batcher, ask, entered):
        tasks = [asyncio.create_task(ask(1, width)) for width in (1, 2)]
        tasks += [asyncio.create_task(ask(1, 3, "rank")) for _ in range(2)]
        await entered()
        tasks.append(asyncio.create_task(ask(4, 2)))
        await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(*tasks)
        assert sorted(shape for _, shape in model.runs) == [(1, 1), (1, 2), (1, 3), (1, 3), (4, 2)]

    run(test)


def test_the_others_of_a_failed_run_are_answered_and_who_gave_up_is_left_out():
    async def test(model, batcher, ask, entered):
        first = asyncio.create_task(ask(1))
        await entered()
        good, bad, gone = (asyncio.create_task(ask(rows, value=v)) for rows, v in ((2, 1), (3, -1), (1, 1)))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(first, good)
        with pytest.raises(RunError, match="negative"):
            await bad
        assert [shape[0] for _, shape in model.runs] == [1, 5, 2, 3]

    run(test)


@pytest.mark.parametrize("signature", ["serving_default", "rank"])
def test_a_caller_that_gives_up_leaves_after_its_run_so_that_its_memory_stays_counted(signature):
    async def test(model, batcher, ask, entered):
        task = asyncio.create_task(ask(1, signature=signature))
        await entered()
        idle = asyncio.create_task(batcher.idle())
        for _ in range(3):  # gRPC cancels again when the server ends
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done() and not idle.done()
        model.go.set()
        await asyncio.wait([task])
        assert task.cancelled()
        await idle

    run(test)


def test_a_caller_that_gives_up_before_its_run_leaves_at_once():
    async def test(model, batcher, ask, entered):
        first = asyncio.create_task(ask(1))
        await entered()
        gone = asyncio.create_task(ask(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        assert gone.cancelled()
        model.go.set()
        await first
        await batcher.idle()
        assert [shape[0] for _, shape in model.runs] == [1]

    run(test)


def test_callers_do_not_wait_for_an_event_loop_that_ends():
    async def test(model, batcher, ask, entered):
        tasks = [asyncio.create_task(ask(1))]
        await entered()
        tasks += [asyncio.create_task(ask(1)) for _ in range(2)]
        await asyncio.sleep(0)
        for task in (*tasks, *batcher._tasks):  # as `asyncio.run` does
            task.cancel()
        model.go.set()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)

    run(test)
