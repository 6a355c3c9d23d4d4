"""Chooses between the readers of confluent-kafka and tensorflow-io."""

from __future__ import annotations

import tensorflow as tf
from packaging.version import Version

from tfrs_dlrm.messages import install_command
from tfrs_dlrm.streaming.address import StreamAddress
from tfrs_dlrm.streaming.confluent import ConfluentReader
from tfrs_dlrm.streaming.reader import StreamError, StreamReader

# tensorflow-io 0.37.1, its last release, was built for 2.16 and runs on 2.17; on later ones its native ops do not load.
_TENSORFLOW_IO = Version("2.18")


def open_reader(address: StreamAddress) -> StreamReader:
    """The reader that the address names, or by default tensorflow-io's where it is installed and loads.

    Raises:
      StreamError: it is not installed or does not load, or a setting of librdkafka is wrong.
    """
    if address.reader == "confluent":
        return ConfluentReader(address)
    try:
        if not address.reader and Version(tf.__version__) >= _TENSORFLOW_IO:
            raise ImportError
        from tfrs_dlrm.streaming.tensorflow_io import TensorFlowIOReader
    except ImportError as e:
        if address.reader:
            raise StreamError(
                f"reader=tensorflow_io: {e or 'it does not load'}; this is TensorFlow {tf.__version__}, and it needs"
                f" TensorFlow 2.17 or earlier: {install_command('io')}"
            ) from e
        return ConfluentReader(address)
    return TensorFlowIOReader(address)
