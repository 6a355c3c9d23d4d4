"""gRPC's health service, with bounded messages: everybody may ask it, also without a token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2

from tfrs_dlrm.serving.protocol import InvalidRequest, ServingError
from tfrs_dlrm.serving.server.grpc_receiving import MessageReceiver

_AT_ONCE = 4  # messages that arrive at once; they may be as large as those of other services until they are there
_MOST_SECONDS = 5.0
_MOST_WAITING = 1000
_MOST_BYTES = 1024  # of a message, which is the name of a service


def health_handler(servicer: health.aio.HealthServicer, seconds: float) -> grpc.GenericRpcHandler:
    """Returns the handler of a gRPC server for the states that `servicer` has.

    Args:
      servicer: with the states.
      seconds: within which a message must arrive; of more than 5, 5 are taken.
    """
    receiver = MessageReceiver(_AT_ONCE, _MOST_WAITING, min(seconds, _MOST_SECONDS))

    async def received(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> Any:
        try:
            data = await receiver.receive(messages)
            if len(data) > _MOST_BYTES:
                raise InvalidRequest(f"the request has {len(data)} bytes; a health check has at most {_MOST_BYTES}")
            return health_pb2.HealthCheckRequest.FromString(data)
        except DecodeError as e:
            code, text = grpc.StatusCode.INVALID_ARGUMENT, f"the request is no HealthCheckRequest: {e}"
        except ServingError as e:
            code, text = getattr(grpc.StatusCode, e.code), str(e)
        await context.abort(code, text)
        raise AssertionError("abort raises")

    async def check(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> Any:
        return await servicer.Check(await received(messages, context), context)

    async def watch(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
        await servicer.Watch(await received(messages, context), context)

    written = health_pb2.HealthCheckResponse.SerializeToString
    return grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health",
        {
            "Check": grpc.stream_unary_rpc_method_handler(check, response_serializer=written),
            "Watch": grpc.stream_stream_rpc_method_handler(watch, response_serializer=written),
        },
    )
