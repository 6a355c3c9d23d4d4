"""How the rows of a table are made of the rows of variables: plainly, or compressed.

Each layout answers the two halves of training: what vector a bag has, and what the gradient of that vector says of the
variables' rows. Everything else, optimizers and checkpoints and sharding, deals with variables only.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import TypeAlias

import tensorflow as tf

from tfrs_dlrm.embeddings.bags import Bags, pool
from tfrs_dlrm.embeddings.gradients import Use
from tfrs_dlrm.embeddings.quantized import QuantizedRows
from tfrs_dlrm.embeddings.storage import TableVariable
from tfrs_dlrm.embeddings.variables import read_rows
from tfrs_dlrm.layers.hashing import hashed_rows
from tfrs_dlrm.schema import Schema, Table

Variables: TypeAlias = "Mapping[str, TableVariable | QuantizedRows]"


class Layout(abc.ABC):
    """See the module docstring."""

    @abc.abstractmethod
    def vectors(self, variables: Variables, bags: Bags) -> tf.Tensor:
        """Float32 [B, dim], or [B, length, dim] for sequences; differentiable with respect to the variables."""

    @abc.abstractmethod
    def uses(self, variables: Variables, bags: Bags, gradient: tf.Tensor) -> dict[str, Use]:
        """What `gradient`, float32 [size, dim], of the loss with respect to the vectors says of each variable."""


class Plain(Layout):
    """Row i is row i of one variable."""

    def __init__(self, table: Table):
        self._name = table.name

    def vectors(self, variables: Variables, bags: Bags) -> tf.Tensor:
        """See `Layout`."""
        return pool(read_rows(variables[self._name], bags.rows), bags)

    def uses(self, variables: Variables, bags: Bags, gradient: tf.Tensor) -> dict[str, Use]:
        """See `Layout`."""
        del variables
        positions = None if bags.one_row_each else bags.positions()
        return {self._name: Use(bags.rows, _scaled(gradient, bags), positions, bags.weights)}


class QuotientRemainder(Layout):
    """Row i is the product of row i // R of one variable and row i % R of another; see `Table.remainders`."""

    def __init__(self, table: Table):
        self._quotient, self._remainder = table.parts
        self._remainders = table.remainders

    def vectors(self, variables: Variables, bags: Bags) -> tf.Tensor:
        """See `Layout`."""
        quotients, remainders = self._rows(bags)
        factors = read_rows(variables[self._quotient], quotients), read_rows(variables[self._remainder], remainders)
        return pool(factors[0] * factors[1], bags)

    def uses(self, variables: Variables, bags: Bags, gradient: tf.Tensor) -> dict[str, Use]:
        """See `Layout`."""
        quotients, remainders = self._rows(bags)
        upstream = _scaled(gradient, bags)
        if not bags.one_row_each:
            upstream = tf.gather(upstream, bags.positions())
        of_quotient = upstream * read_rows(variables[self._remainder], remainders)
        of_remainder = upstream * read_rows(variables[self._quotient], quotients)
        return {
            self._quotient: Use(quotients, of_quotient, weights=bags.weights),
            self._remainder: Use(remainders, of_remainder, weights=bags.weights),
        }

    def _rows(self, bags: Bags) -> tuple[tf.Tensor, tf.Tensor]:
        return bags.rows // self._remainders, bags.rows % self._remainders


class Hashed(Layout):
    """Row i is several rows of a variable that other tables use too, side by side; see `Table.stored_in`."""

    def __init__(self, table: Table, home: Table):
        if home.vocabulary_size is None:
            raise ValueError(f"table {home.name!r} has no vocabulary_size; set it")
        self._name, self._home, self._buckets = table.name, home.name, home.vocabulary_size
        self._pieces = table.dim // home.dim

    def vectors(self, variables: Variables, bags: Bags) -> tf.Tensor:
        """See `Layout`."""
        pieces = [read_rows(variables[self._home], self._rows(bags, i)) for i in range(self._pieces)]
        return pool(tf.concat(pieces, axis=1), bags)

    def uses(self, variables: Variables, bags: Bags, gradient: tf.Tensor) -> dict[str, Use]:
        """See `Layout`."""
        del variables
        pieces = tf.concat(tf.split(_scaled(gradient, bags), self._pieces, axis=1), axis=0)
        rows = tf.concat([self._rows(bags, i) for i in range(self._pieces)], axis=0)
        size = tf.cast(bags.size, tf.int32)
        positions = tf.concat([bags.positions() + i * size for i in range(self._pieces)], axis=0)
        weights = None if bags.weights is None else tf.tile(bags.weights, [self._pieces])
        return {self._home: Use(rows, pieces, positions, weights)}

    def _rows(self, bags: Bags, piece: int) -> tf.Tensor:
        return hashed_rows(bags.rows, self._buckets, f"{self._name}/{piece}")


def make_layout(table: Table, schema: Schema) -> Layout:
    """The layout that a table asks for."""
    if table.stored_in:
        return Hashed(table, schema.table(table.stored_in))
    return Plain(table) if table.remainders is None else QuotientRemainder(table)


def _scaled(gradient: tf.Tensor, bags: Bags) -> tf.Tensor:
    return gradient if bags.scale is None else gradient * bags.scale[:, tf.newaxis]
