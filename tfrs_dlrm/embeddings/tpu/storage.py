"""Tables and slots as the embedding hardware of TPUs keeps them, read and written as wholes; see `embeddings.storage`.

The hardware of v2 to v4 (V1) deals out ranges of rows to the hosts, whose variables are a copy of what is on the
chips. SparseCores stack tables on each other and deal out single rows: those of a table go round the cores, beginning
with another core for each table of a stack.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfrs_dlrm.embeddings.storage import Piece, Stored, VariablePiece


@dataclasses.dataclass(frozen=True)
class CoreLayout:
    """Where the rows of a table are in a stack on SparseCores.

    Attributes:
      rows: of the table.
      dim: of the table; its rows in the stack may be longer.
      cores: SparseCores in all.
      core_rows: rows of the stack on each core.
      offset: the row of each core where the table begins.
      rotation: the core of row 0.
    """

    rows: int
    dim: int
    cores: int
    core_rows: int
    offset: int
    rotation: int

    def cores_and_rows(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The core of each of `rows`, int [n], and its row there."""
        return (rows + self.rotation) % self.cores, self.offset + rows // self.cores


class SparseCorePiece(Piece):
    """A table, or a slot, spread over the SparseCores of several devices.

    Args:
      variables: of the stack: the rows of all cores of each device, [cores of a device * core_rows, padded dim].
      layout: of the table.
    """

    def __init__(self, variables: Sequence[tf.Variable], layout: CoreLayout) -> None:
        self.begin, self.end = 0, layout.rows
        self.device = "/CPU:0"
        self._variables = tuple(variables)
        self._layout = layout

    def read(self, first: int, last: int) -> tf.Tensor:
        """See `Piece`."""
        parts, places = [], []
        for variable, rows, place in self._by_device(first, last):
            with tf.device(variable.device):
                found = tf.gather(variable, rows)
            parts.append(found[: len(place), : self._layout.dim])
            places.append(place)
        with tf.device(self.device):
            order = np.argsort(np.concatenate(places))
            return tf.gather(tf.concat([tf.identity(part) for part in parts], axis=0), order)

    def write(self, first: int, values: tf.Tensor) -> None:
        """See `Piece`."""
        values = tf.convert_to_tensor(values)
        for variable, rows, place in self._by_device(first, first + values.shape[0]):
            padded = np.resize(place, len(rows))
            padded[len(place) :] = place[-1]
            with tf.device(variable.device):
                new = tf.gather(values, padded)
                if variable.shape[1] > self._layout.dim:
                    new = tf.concat([new, tf.gather(variable, rows)[:, self._layout.dim :]], axis=1)
                variable.scatter_update(tf.IndexedSlices(new, rows))

    def _by_device(self, first: int, last: int) -> list[tuple[tf.Variable, np.ndarray, np.ndarray]]:
        """For each device its variable, which rows of it, and where these are among rows `first` to `last`.

        Equally many rows of every device, so that one compiled gather or scatter does for all: the last is repeated.
        """
        layout = self._layout
        cores, places_in_core = layout.cores_and_rows(np.arange(first, last))
        per_device = layout.cores // len(self._variables)
        local = (cores % per_device) * layout.core_rows + places_in_core
        most = per_device * -(-(last - first) // layout.cores)
        found = []
        for i, variable in enumerate(self._variables):
            (place,) = np.nonzero(cores // per_device == i)
            if place.size:
                rows = np.full(most, local[place[-1]], np.int32)
                rows[: place.size] = local[place]
                found.append((variable, rows, place))
        return found


class Shifted(Piece):
    """A slot whose numbers on the hardware are larger by a small one, which keeps them above 0.

    Args:
      piece: of the slot on the hardware.
      by: the small number.
    """

    def __init__(self, piece: Piece, by: float) -> None:
        self.begin, self.end, self.device = piece.begin, piece.end, piece.device
        self._piece, self._by = piece, by

    def read(self, first: int, last: int) -> tf.Tensor:
        """See `Piece`."""
        return tf.maximum(self._piece.read(first, last) - self._by, 0.0)

    def write(self, first: int, values: tf.Tensor) -> None:
        """See `Piece`."""
        self._piece.write(first, values + self._by)


def on_hosts(variables: Sequence[tf.Variable]) -> list[Piece]:
    """The pieces of a table, or slot, whose rows are dealt out to hosts in ranges."""
    pieces: list[Piece] = []
    for variable in variables:
        pieces.append(VariablePiece(pieces[-1].end if pieces else 0, [variable]))
    return pieces


def stored(pieces: Sequence[Piece], dim: int, shift: float = 0.0) -> Stored:
    """A table or slot of these pieces; see `Shifted` for `shift`."""
    if shift:
        pieces = [Shifted(piece, shift) for piece in pieces]
    return Stored((pieces[-1].end, dim), tf.float32, tuple(pieces))
