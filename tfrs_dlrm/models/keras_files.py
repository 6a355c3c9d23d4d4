"""The files of Keras' own saving: what a name means, files that are whole, and the tables in a file of weights."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2


def is_keras(path: Any, save_format: str | None) -> bool:
    """Whether `keras.Model.save` writes a `.keras` file."""
    return str(path).endswith(".keras") if save_format is None else save_format in ("keras", "keras_v3")


def writes_objects(path: Any) -> bool:
    """Whether a file of weights is one to which each object writes itself, by `save_own_variables`."""
    return str(path).endswith((".weights.h5", ".keras"))


def is_hdf5(path: Any, save_format: str | None = None) -> bool:
    """Whether a file of weights has a HDF5 group per layer of the model."""
    return not writes_objects(path) and (str(path).endswith((".h5", ".hdf5")) or save_format in ("h5", "hdf5"))


@contextlib.contextmanager
def whole_file(path: Any, wanted: bool = True) -> Iterator[Any]:
    """Yields a name to write to. The file gets the name `path` only if the block succeeds.

    Args:
      path: of the file. Addresses such as `gs://...` are yielded unchanged, because Keras uploads whole files.
      wanted: if False, `path` is yielded unchanged.
    """
    if not wanted or not isinstance(path, (str, os.PathLike)) or "://" in str(path):
        yield path
        return
    directory, name = os.path.split(path)
    unfinished = os.path.join(directory, f"unfinished-{os.getpid()}-{name}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(unfinished)


def widen_bfloat16(path: str) -> None:
    """Rewrites the bfloat16 arrays of a HDF5 file as float32, which has all their values. Keras reads no bfloat16."""
    bytes_of_bfloat16 = np.dtype("V2")
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, x: names.append(name) if getattr(x, "dtype", None) == bytes_of_bfloat16 else None)
        for name in names:
            values = file[name][()].view(tf.bfloat16.as_numpy_dtype).astype(np.float32)
            del file[name]
            file[name] = values


def table_shapes(path: Any, layer: str) -> dict[str, tuple[int, ...]] | None:
    """Returns the shapes of the tables of a model in a file of weights.

    Args:
      path: a HDF5 file with a group per layer, the prefix of a TensorFlow checkpoint, or a SavedModel.
      layer: the name of the tables' layer.

    Returns:
      Shapes by name of the table; None if there is no such file.
    """
    path = os.fspath(path)
    if is_hdf5(path):
        return _shapes_in_hdf5(path, layer) if os.path.isfile(path) else None
    if not tf.io.gfile.exists(f"{path}.index"):
        path = os.path.join(path, "variables", "variables")
    return _shapes_in_checkpoint(path) if tf.io.gfile.exists(f"{path}.index") else None


def _shapes_in_hdf5(path: str, layer: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def visit(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset):
            shapes[name.rpartition("/")[2].partition(":")[0]] = found.shape

    with h5py.File(path, "r") as file:
        if layer in file:
            file[layer].visititems(visit)
    return shapes


def _shapes_in_checkpoint(prefix: str) -> dict[str, tuple[int, ...]]:
    """Follows the object graph, because a SavedModel has the variables under other names."""
    reader = tf.train.load_checkpoint(prefix)
    proto = reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
    nodes = trackable_object_graph_pb2.TrackableObjectGraph.FromString(proto).nodes
    node = nodes[0]
    for name in ("embeddings", "tables"):
        children = {c.local_name: nodes[c.node_id] for c in node.children}
        if name not in children:
            return {}
        node = children[name]
    shapes = reader.get_variable_to_shape_map()
    keys = {c.local_name: [a.checkpoint_key for a in nodes[c.node_id].attributes] for c in node.children}
    return {name: tuple(shapes[of_table[0]]) for name, of_table in keys.items() if of_table}
