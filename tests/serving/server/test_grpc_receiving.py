"""Messages of gRPC that are on their way: few at once, counted, and none waits for ever."""

import asyncio
import contextlib

import pytest

from tfrs_dlrm.serving.protocol import Overloaded
from tfrs_dlrm.serving.server.admission import Admission
from tfrs_dlrm.serving.server.grpc_receiving import MessageReceiver


async def message(arrived):
    await arrived.wait()
    yield b"message"


def test_few_arrive_at_once_some_wait_and_the_others_are_refused():
    async def test():
        receiver = MessageReceiver(at_once=1, most_waiting=1, seconds=300)
        arrived = asyncio.Event()
        first, second, third = (asyncio.create_task(receiver.receive(message(arrived))) for _ in range(3))
        with pytest.raises(Overloaded, match="1 messages wait to be received, as many as are allowed"):
            await third
        assert not first.done() and not second.done()
        arrived.set()
        assert await first == await second == b"message"

    asyncio.run(test())


def test_a_message_waits_for_its_turn_for_some_time_only():
    async def test():
        receiver = MessageReceiver(at_once=1, most_waiting=9, seconds=0.01)
        await receiver._turns.acquire()
        with pytest.raises(Overloaded, match=r"not the message's turn within 0\.01 s"):
            await receiver.receive(message(asyncio.Event()))
        receiver._turns.release()
        arrived = asyncio.Event()
        arrived.set()
        assert await receiver.receive(message(arrived)) == b"message"

    asyncio.run(test())


def test_messages_on_their_way_take_of_the_memory_of_all_requests():
    async def test():
        admission = Admission(10, most_bytes=100, most_request_bytes=40)
        receiver = MessageReceiver(at_once=3, most_waiting=9, seconds=300, most_bytes=40)
        arrived = asyncio.Event()

        async def receive():
            with admission.call() as call:
                return await receiver.receive(message(arrived), call)

        tasks = [asyncio.create_task(receive()) for _ in range(3)]
        with pytest.raises(Overloaded, match="all requests take 80 bytes of memory and this one needs 40 more"):
            await tasks[2]
        assert admission.memory == 80
        tasks[1].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tasks[1]
        assert admission.memory == 40
        arrived.set()
        assert await tasks[0] == b"message" and admission.memory == 0

    asyncio.run(test())
