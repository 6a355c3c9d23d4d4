"""The metrics of several processes that share a port, as one: whichever is asked adds up what all have counted."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
from collections.abc import Callable, Iterable

from absl import logging

_SECONDS = 5.0  # within which another process answers
_SOCKET = "*.metrics"


class MetricPeers:
    """The metrics of one process, for the others, and theirs for it.

    Args:
      directory: private to the processes; each has a Unix socket there.
      index: of this process, which no other has.
      text: returns this process's metrics in Prometheus' text format; its argument says whether under TF Serving's
        names too.
    """

    def __init__(self, directory: str, index: int, text: Callable[[bool], bytes]):
        self._directory, self._path, self._text = directory, f"{directory}/{index}{_SOCKET[1:]}", text

    async def start(self) -> None:
        """Answers the others; a former process of the same index is forgotten."""
        if os.path.exists(self._path):
            os.remove(self._path)
        self._server = await asyncio.start_unix_server(self._answer, self._path)

    async def text(self, tf_serving: bool) -> bytes:
        """Returns the sums over all processes; one that does not answer is left out, and the log says so."""
        others = sorted(set(glob.glob(f"{glob.escape(self._directory)}/{_SOCKET}")) - {self._path})
        texts = await asyncio.gather(*(self._ask(path, tf_serving) for path in others))
        return summed([self._text(tf_serving), *texts])

    async def _ask(self, path: str, tf_serving: bool) -> bytes:
        try:
            return await asyncio.wait_for(_exchange(path, b"1" if tf_serving else b"0"), _SECONDS)
        except (OSError, asyncio.TimeoutError) as e:
            logging.warning("the metrics lack those of a process, %s: %r", os.path.basename(path), e)
            return b""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # the other is gone
            writer.write(self._text(await reader.readexactly(1) == b"1"))
            await writer.drain()
        writer.close()


async def _exchange(path: str, question: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(question)
        return await reader.read()
    finally:
        writer.close()


def summed(texts: Iterable[bytes]) -> bytes:
    """Returns one text in Prometheus' format whose samples are the sums of those with equal names and labels.

    The time at which a counter was created is the earliest.
    """
    comments: dict[str, list[str]] = {}
    samples: dict[str, dict[str, float]] = {}
    for text in texts:
        family = ""
        for line in text.decode().split("\n"):
            if line.startswith("# "):  # as `# TYPE name counter`
                family = line.split(" ", 3)[2]
                said = comments.setdefault(family, [])
                if line not in said:
                    said.append(line)
            elif line:
                _add(samples.setdefault(family, {}), *line.rsplit(" ", 1))
    lines = []
    for family, said in comments.items():
        lines += [*said, *(f"{key} {value!r}" for key, value in samples.get(family, {}).items())]
    return "".join(f"{line}\n" for line in lines).encode()


def _add(samples: dict[str, float], key: str, text: str) -> None:
    value = float(text)
    if key not in samples:
        samples[key] = value
    elif key.partition("{")[0].endswith("_created"):
        samples[key] = min(samples[key], value)
    else:
        samples[key] += value
