"""Asks a strategy of `tf.distribute` what the library does differently under it; these are the usual answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import tensorflow as tf

from tfrs_dlrm.distribute.placement import Places, RowsOnDevice, Topology, place
from tfrs_dlrm.schema import Schema

# Reads the part of the data that a context names; all of them without a context.
Read: TypeAlias = Callable[[tf.distribute.InputContext | None], tf.data.Dataset]
# How the gradients of all replicas reach the rows of the tables.
Exchange = Literal["merge", "gather", "send"]


class Distribution:
    """A strategy of `tf.distribute`, and what differs under it. These answers fit every strategy of one process.

    Attributes:
      name: one of `tfrs_dlrm.distribute.placement.STRATEGIES`.
      strategy: the strategy of TensorFlow.
      exchange: `merge`: replicas hand their gradients to the devices of the rows; `gather`: every process holds all
        tables and gathers all gradients; `send`: workers send theirs to servers without waiting for each other.
      several_processes: whether several processes each run the whole program and step together.
      asynchronous: whether workers train without waiting for each other, and a coordinator hands out their steps.
      fixed_batches: whether every replica takes batches of one size, known before the tables are made.
      no_input_service: why input workers cannot read the training data; empty if they can.
    """

    name: ClassVar[str] = "one_device"
    exchange: ClassVar[Exchange] = "merge"
    several_processes: ClassVar[bool] = False
    asynchronous: ClassVar[bool] = False
    fixed_batches: ClassVar[bool] = False
    no_input_service: ClassVar[str] = ""

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.strategy = strategy

    # Tables.

    @property
    def embedding_hardware(self) -> str:
        """The hardware that looks up embeddings: `V1`, `SparseCore`, or empty."""
        return ""

    @property
    def topology(self) -> Topology:
        """The devices that can hold tables; an unknown strategy counts as one device."""
        return Topology("one_device")

    def places(self, schema: Schema, replicate_below: int | None = None) -> Places:
        """Returns which tables are shared out among the devices, and how.

        Args:
          schema: with the rows of all tables.
          replicate_below: see `tfrs_dlrm.distribute.placement.place`.

        Raises:
          ValueError: a table has no rows, or the strategy cannot hold the tables.
        """
        return {}

    # Processes.

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one of its run that writes files."""
        return True

    def any_process(self, fact: bool) -> bool:
        """Whether something is so in any of the processes that step together; all of them must ask."""
        return fact

    def wait_for_all(self) -> None:
        """Returns once all processes that step together have called it."""
        self.any_process(False)

    # Training data.

    @property
    def only_one_device(self) -> bool:
        """Whether a single replica, in this process, does everything."""
        return self.strategy.num_replicas_in_sync == 1

    @property
    def reads_records(self) -> bool:
        """Whether processes without Python read the training data, as records."""
        return False

    @property
    def epoch_share(self) -> tuple[int, int]:
        """The number of processes that share an epoch, and of batches that each takes in a step."""
        return 1, 1

    def feed(self, read: Read) -> Any:
        """Returns the argument of `model.fit`, given the function that reads the data."""
        return read(None)

    # Evaluation.

    @property
    def evaluation_part(self) -> tf.distribute.InputContext | None:
        """The part of an evaluation set that this process scores; None is all of it."""
        return None

    def score(self, logits: Callable[[Any], Any], batches: tf.data.Dataset) -> Iterator[tuple[np.ndarray, ...]]:
        """Yields the logits of each batch, its label and perhaps its weight.

        Args:
          logits: of the features of a batch, in every replica.
          batches: of `(features, label[, weight])`; under `fixed_batches` features of one size, of which only the
            first `len(label)` examples count.
        """
        if self.only_one_device:
            yield from self._score_here(logits, batches)
            return
        for features, *targets in self.strategy.experimental_distribute_dataset(batches):
            # A replica may be left without examples in the last batch.
            columns = [self.strategy.experimental_local_results(x) for x in (logits(features), *targets)]
            yield tuple(np.concatenate([x.numpy() for x in parts]) for parts in columns)

    def _score_here(
        self, logits: Callable[[Any], Any], batches: Iterable[Sequence[Any]]
    ) -> Iterator[tuple[np.ndarray, ...]]:
        for features, *targets in batches:
            found = self.strategy.experimental_local_results(logits(features))[0]
            yield (found.numpy(), *(t.numpy() for t in targets))

    def of_all_processes(self, columns: list[np.ndarray]) -> list[np.ndarray]:
        """The columns of all processes that each scored a part, one after the other, in each of them."""
        return columns


def place_on(devices: Sequence[str], schema: Schema, topology: Topology, replicate_below: int | None) -> Places:
    """Places the tables of a schema on devices by name; the result has the tables that are shared out."""
    return {
        table.name: [RowsOnDevice(s.begin, s.end, devices[s.device]) for s in table.shards]
        for table in place(schema, topology, replicate_below).tables
        if table.kind == "sharded"
    }
