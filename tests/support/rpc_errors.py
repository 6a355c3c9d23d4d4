"""The errors of gRPC calls."""

from collections.abc import Callable

import grpc
import pytest


def code(call: Callable[[], object]) -> tuple[str, str]:
    """The name of the status and the details of a call that has to fail."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code().name, raised.value.details()
