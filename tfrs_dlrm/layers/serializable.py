"""What all layers and models have in common: Keras' files know them by name, and they check what they are given."""

from __future__ import annotations

from typing import TypeVar

import tf_keras as keras

from tfrs_dlrm.messages.arguments import with_checked_arguments

C = TypeVar("C", bound=type)


def serializable(kind: C) -> C:
    """Decorates a layer or model: registers it as `tfrs_dlrm>NAME`, and checks the types of constructor arguments."""
    return keras.utils.register_keras_serializable(package="tfrs_dlrm")(with_checked_arguments(kind))
