"""Dynamic batching: requests that arrive during a run are run together afterwards.

A request never waits for later ones. Under load, batches form by themselves.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

import numpy as np

from tfrs_dlrm.serving.protocol import is_rank
from tfrs_dlrm.serving.runtime.saved_model import RunError, SavedModel
from tfrs_dlrm.serving.runtime.signature import Signature
from tfrs_dlrm.serving.server.uninterrupted import uninterrupted

_Tensors = dict[str, np.ndarray]


@dataclasses.dataclass(eq=False)
class _Request:
    inputs: _Tensors
    rows: int
    answer: asyncio.Future[_Tensors]  # which a caller that is cancelled cancels with itself
    over: bool = False  # whether no run will answer any more

    def end(self, outputs: _Tensors | None = None, error: Exception | None = None) -> None:
        """Answers with outputs, or with an error; with neither, the caller is cancelled."""
        self.over = True
        if self.answer.done():  # the caller gave up
            return
        if outputs is not None:
            self.answer.set_result(outputs)
        elif error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.cancel()


class Batcher:
    """Runs the requests of one version.

    Args:
      model: to run.
      threads: that run it.
      max_batch_size: rows of merged requests; a larger request runs alone.
      observe: called with the rows and the number of requests of every run.
    """

    def __init__(self, model: SavedModel, threads: Executor, max_batch_size: int, observe: Callable[[int, int], None]):
        self._model, self._threads, self._most, self._observe = model, threads, max_batch_size, observe
        self._mergeable = {name for name, signature in model.signatures.items() if _mergeable(name, signature)}
        self._waiting: dict[Any, collections.deque[_Request]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, signature: str, inputs: _Tensors, rows: int) -> _Tensors:
        """Returns the outputs for inputs that were checked.

        A caller that is cancelled leaves at once while its request waits to be merged, and later after the run.

        Raises:
          RunError: TensorFlow refuses them.
        """
        if signature not in self._mergeable:
            self._observe(rows, 1)
            return await uninterrupted(self._start(self._alone(signature, inputs)))
        key = (signature, *(inputs[name].shape[1:] for name in sorted(inputs)))
        request = _Request(inputs, rows, asyncio.get_running_loop().create_future())
        if key in self._waiting:
            self._waiting[key].append(request)
        else:  # the key stays until its requests are run
            self._waiting[key] = collections.deque([request])
            self._start(self._drain(key))
        return await self._answered(key, request)

    async def _answered(self, key: Any, request: _Request) -> _Tensors:
        """Returns the answer; a caller that is cancelled takes a request that waits out of its queue."""
        try:
            return await request.answer
        except asyncio.CancelledError:
            if request in self._waiting.get(key, ()):
                self._waiting[key].remove(request)
                raise
            if not request.over:
                request.answer = asyncio.get_running_loop().create_future()  # which the end of the run completes
                with contextlib.suppress(Exception):
                    await uninterrupted(request.answer)
            raise

    async def idle(self) -> None:
        """Waits until nothing runs, not even for callers that gave up."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _alone(self, signature: str, inputs: _Tensors) -> _Tensors:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._model.run, signature, inputs)

    async def _drain(self, key: Any) -> None:
        waiting, batch = self._waiting[key], list[_Request]()
        try:
            while waiting:
                batch = self._take(waiting)
                await self._answer(key[0], batch)
        finally:
            del self._waiting[key]
            for request in (*batch, *waiting):  # none is left, unless the event loop ends
                request.end()

    def _take(self, waiting: collections.deque[_Request]) -> list[_Request]:
        batch = [waiting.popleft()]
        rows = batch[0].rows
        while waiting and rows + waiting[0].rows <= self._most:
            batch.append(waiting.popleft())
            rows += batch[-1].rows
        return batch

    async def _answer(self, signature: str, batch: list[_Request]) -> None:
        self._observe(sum(request.rows for request in batch), len(batch))
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._threads, self._run, signature, batch)
        except RunError as e:
            if len(batch) == 1:
                batch[0].end(error=e)
            else:  # find the request at fault
                for request in batch:
                    await self._answer(signature, [request])
        except Exception as e:
            for request in batch:
                request.end(error=e)
        else:
            for request, answer in zip(batch, answers, strict=True):
                request.end(answer)

    def _run(self, signature: str, batch: list[_Request]) -> list[_Tensors]:
        """Returns the outputs of each request; merging and splitting are for the thread as well."""
        if len(batch) == 1:
            return [self._model.run(signature, batch[0].inputs)]
        names = batch[0].inputs
        merged = {name: np.concatenate([request.inputs[name] for request in batch]) for name in names}
        return _split(self._model.run(signature, merged), batch)


def _mergeable(name: str, signature: Signature) -> bool:
    """Returns whether axis 0 of every input and output is the batch, and a run costs more than its rows."""
    tensors = [*signature.inputs.values(), *signature.outputs.values()]
    return not is_rank(name) and all(tensor.shape and tensor.shape[0] is None for tensor in tensors)


def _split(outputs: _Tensors, batch: list[_Request]) -> list[_Tensors]:
    ends = np.cumsum([request.rows for request in batch])
    for name, output in outputs.items():
        if output.shape[0] != ends[-1]:
            raise RunError(13, f"output {name!r} has {output.shape[0]} rows for {ends[-1]}")
    return [
        {name: output[end - request.rows : end] for name, output in outputs.items()}
        for request, end in zip(batch, ends, strict=True)
    ]
