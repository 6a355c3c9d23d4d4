"""Layouts: how the rows of a table are stored in rows of variables, plainly or compressed.

A layout computes the vectors of bags, and turns their gradients into gradients of the variables' rows. Optimizers,
checkpoints and sharding know variables only.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TypeAlias

import tensorflow as tf

from tfrs_dlrm.embeddings.bags import Bags, pool
from tfrs_dlrm.embeddings.gradients import LookupGradient
from tfrs_dlrm.embeddings.quantized import QuantizedRows
from tfrs_dlrm.embeddings.row_access import read_rows
from tfrs_dlrm.embeddings.storage import TableVariable
from tfrs_dlrm.layers.hashing import hashed_rows
from tfrs_dlrm.schema import Schema, Table

Variables: TypeAlias = "Mapping[str, TableVariable | QuantizedRows]"


class Layout(abc.ABC):
    """A way to store a table in variables."""

    @abc.abstractmethod
    def vectors(self, variables: Variables, bags: Bags) -> tf.Tensor:
        """Returns float32 [B, dim], or [B, length, dim] for sequences; differentiable with respect to the variables."""

    @abc.abstractmethod
    def lookup_gradients(self, variables: Variables, bags: Bags, gradient: tf.Tensor) -> dict[str, LookupGradient]:
        """Returns the gradient of each variable, given the gradient of the vectors, float32 [size, dim]."""


class PlainLayout(Layout):
    """Row i is row i of one variable."""

    def __init__(self, table: Table):
        self._name = table.name

    def vectors(self, variables: Variables, bags: Bags) -> tf.Tensor:
        """See `Layout.vectors`."""
        return pool(read_rows(variables[self._name], bags.rows), bags)

    def lookup_gradients(self, variables: Variables, bags: Bags, gradient: tf.Tensor) -> dict[str, LookupGradient]:
        """See `Layout.lookup_gradients`."""
        del variables
        positions = None if bags.one_row_each else bags.positions()
        return {self._name: LookupGradient(bags.rows, _scaled(gradient, bags), positions, bags.weights)}


class QuotientRemainderLayout(Layout):
    """Row i is the product of row i // R of one variable and row i % R of another; see `Table.remainders`."""

    def __init__(self, table: Table):
        self._quotient, self._remainder = table.parts
        self._remainders = table.remainders

    def vectors(self, variables: Variables, bags: Bags) -> tf.Tensor:
        """See `Layout.vectors`."""
        quotients, remainders = self._rows(bags)
        factors = read_rows(variables[self._quotient], quotients), read_rows(variables[self._remainder], remainders)
        return pool(factors[0] * factors[1], bags)

    def lookup_gradients(self, variables: Variables, bags: Bags, gradient: tf.Tensor) -> dict[str, LookupGradient]:
        """See `Layout.lookup_gradients`."""
        quotients, remainders = self._rows(bags)
        upstream = _scaled(gradient, bags)
        if not bags.one_row_each:
            upstream = tf.gather(upstream, bags.positions())
        of_quotient = upstream * read_rows(variables[self._remainder], remainders)
        of_remainder = upstream * read_rows(variables[self._quotient], quotients)
        return {
            self._quotient: LookupGradient(quotients, of_quotient, weights=bags.weights),
            self._remainder: LookupGradient(remainders, of_remainder, weights=bags.weights),
        }

    def _rows(self, bags: Bags) -> tuple[tf.Tensor, tf.Tensor]:
        return bags.rows // self._remainders, bags.rows % self._remainders


class HashedLayout(Layout):
    """Row i is the concatenation of several rows of a variable that tables share; see `Table.stored_in`."""

    def __init__(self, table: Table, schema: Schema):
        home = schema.table(table.stored_in)
        if home.vocabulary_size is None:
            raise ValueError(f"table {home.name!r} has no vocabulary_size; set it")
        self._name, self._home, self._buckets = table.name, home.name, home.vocabulary_size
        self._dim, self._width, self._pieces = table.dim, home.dim, schema.pieces(table)

    def vectors(self, variables: Variables, bags: Bags) -> tf.Tensor:
        """See `Layout.vectors`."""
        pieces = [read_rows(variables[self._home], self._rows(bags, i)) for i in range(self._pieces)]
        return pool(tf.concat(pieces, axis=1)[:, : self._dim], bags)

    def lookup_gradients(self, variables: Variables, bags: Bags, gradient: tf.Tensor) -> dict[str, LookupGradient]:
        """See `Layout.lookup_gradients`."""
        del variables
        pieces = tf.concat(in_pieces(_scaled(gradient, bags), self._pieces, self._width), axis=0)
        rows = tf.concat([self._rows(bags, i) for i in range(self._pieces)], axis=0)
        size = tf.cast(bags.size, tf.int32)
        positions = tf.concat([bags.positions() + i * size for i in range(self._pieces)], axis=0)
        weights = None if bags.weights is None else tf.tile(bags.weights, [self._pieces])
        return {self._home: LookupGradient(rows, pieces, positions, weights)}

    def _rows(self, bags: Bags, piece: int) -> tf.Tensor:
        return hashed_rows(bags.rows, self._buckets, f"{self._name}/{piece}")


def make_layout(table: Table, schema: Schema) -> Layout:
    """Returns the layout of a table."""
    if table.stored_in:
        return HashedLayout(table, schema)
    return PlainLayout(table) if table.remainders is None else QuotientRemainderLayout(table)


def in_pieces(gradient: tf.Tensor, pieces: int, width: int) -> list[tf.Tensor]:
    """Splits the gradient of vectors [size, dim] into those of stored rows [size, width], with zeros at the end."""
    missing = pieces * width - gradient.shape[1]
    return tf.split(tf.pad(gradient, [[0, 0], [0, missing]]) if missing else gradient, pieces, axis=1)


def _scaled(gradient: tf.Tensor, bags: Bags) -> tf.Tensor:
    return gradient if bags.scale is None else gradient * bags.scale[:, tf.newaxis]
