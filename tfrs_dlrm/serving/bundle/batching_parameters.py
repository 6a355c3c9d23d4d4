"""Reads batching_params.pbtxt as TensorFlow Serving does.

Its Python package lacks the proto (tensorflow_serving/servables/tensorflow/session_bundle_config.proto), so the message
is described here, for its text form only: the numbers of the fields are not TensorFlow Serving's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

# Next to saved_model.pb, where --enable_per_model_batching_parameters looks.
BATCHING = "batching_params.pbtxt"
_WRAPPED = {
    "Int64Value": (
        "max_batch_size",
        "batch_timeout_micros",
        "max_enqueued_batches",
        "num_batch_threads",
        "max_execution_batch_size",
    ),
    "StringValue": ("thread_pool_name",),
    "BoolValue": ("enable_large_batch_splitting",),
}
# The lowest value of each.
_LEAST = {"max_batch_size": 1, "batch_timeout_micros": 0, "max_enqueued_batches": 1, "num_batch_threads": 1}


def check_batching_parameters(text: str) -> str:
    """Returns a sentence about the content of a batching_params.pbtxt.

    Raises:
      ValueError: TensorFlow Serving would not read it, or refuse to load the model with it.
    """
    found = _message()()
    try:
        text_format.Parse(text, found)
    except text_format.ParseError as e:
        raise ValueError(f"{BATCHING} is no BatchingParameters: line {e}") from e
    for name, least in _LEAST.items():
        if found.HasField(name) and getattr(found, name).value < least:
            raise ValueError(f"{BATCHING}: {name} is {getattr(found, name).value}; at least {least} is expected")
    sizes = list(found.allowed_batch_sizes)
    if sizes != sorted(set(sizes)) or min(sizes, default=1) < 1:
        raise ValueError(f"{BATCHING}: allowed_batch_sizes are {sizes}; they must increase, from 1 or more")
    splits = found.enable_large_batch_splitting.value
    limit = "max_execution_batch_size" if splits and found.HasField("max_execution_batch_size") else "max_batch_size"
    if sizes and (not found.HasField(limit) or sizes[-1] != getattr(found, limit).value):
        size = getattr(found, limit).value if found.HasField(limit) else "missing"
        raise ValueError(
            f"{BATCHING}: the last of allowed_batch_sizes is {sizes[-1]}, and {limit} is {size}: make them equal"
        )
    return f"batches of up to {getattr(found, limit).value} rows" if found.HasField(limit) else "batches of any size"


@cache
def _message() -> Any:
    """Makes the class of the message, in a pool of its own: TensorFlow Serving's may be registered elsewhere."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name="batching_parameters.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    message, field = file.message_type.add(name="BatchingParameters"), descriptor_pb2.FieldDescriptorProto
    for kind, names in _WRAPPED.items():
        for name in names:
            message.field.add(
                name=name, number=len(message.field) + 1, label=field.LABEL_OPTIONAL, type=field.TYPE_MESSAGE,
                type_name=f".google.protobuf.{kind}",
            )  # fmt: skip
    for name, label, kind_of in (
        ("allowed_batch_sizes", field.LABEL_REPEATED, field.TYPE_INT64),
        ("pad_variable_length_inputs", field.LABEL_OPTIONAL, field.TYPE_BOOL),
    ):
        message.field.add(name=name, number=len(message.field) + 1, label=label, type=kind_of)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.serving.BatchingParameters"))
