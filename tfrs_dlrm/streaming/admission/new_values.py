"""The vocabularies of a run whose tables admit values along a stream, window by window."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfrs_dlrm.config import StreamConfig
from tfrs_dlrm.config.admitting_tables import with_room
from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.encoding.vocabulary import read_vocabulary
from tfrs_dlrm.data.raw.typed_rows import TypedRows
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.streaming.admission.candidates import Candidates
from tfrs_dlrm.streaming.admission.checkpoint_encoder import write_encoder
from tfrs_dlrm.streaming.admission.first_counts import counted_rows, first_counts
from tfrs_dlrm.streaming.admission.fresh_rows import begin_anew
from tfrs_dlrm.streaming.admission.living_vocabulary import Changes, LivingVocabulary, Occurrences
from tfrs_dlrm.streaming.admission.vocabulary_state import TableState
from tfrs_dlrm.streaming.admission.window_texts import WindowTexts
from tfrs_dlrm.training.workdir import ENCODER_DIR


class NewValues:
    """Admits new values to tables.

    Args:
      config: how often a value is seen before it gets a row.
      tables: from `admitting_tables`; without any, nothing is admitted.
      encoder_dir: the files that the run encodes by; those that do not change are in each checkpoint too.
      encoder: of the data; learns the values that are admitted.
      model: compiled, with room.

    Attributes:
      saved: what is to be saved in checkpoints, by name; call `pack` before, and `unpack` after it was restored.
    """

    def __init__(
        self,
        config: StreamConfig,
        tables: Mapping[str, int],
        encoder_dir: str,
        encoder: Encoder,
        model: RankingModel,
    ):
        self._config, self._tables, self._encoder_dir = config, tables, encoder_dir
        self._encoder, self._model = encoder, model
        self._texts = WindowTexts(encoder, tables)
        self._states = {table: TableState() for table in tables}
        self.saved = {"new_values": tf.train.Checkpoint(**self._states)} if tables else {}
        self._vocabularies: dict[str, LivingVocabulary] = {}  # after `begin` or `unpack`

    def __bool__(self) -> bool:
        return bool(self._tables)

    def begin(self, data_dir: str) -> None:
        """Takes the vocabularies and counts of the prepared data."""
        half_life = self._config.admit_within
        rows = counted_rows(data_dir, self._encoder.schema) if self._tables else 0
        for table, room in self._tables.items():
            values = [value.encode() for value in read_vocabulary(data_dir, table)]
            counts = first_counts(data_dir, table, len(values), rows, half_life)
            self._use(table, LivingVocabulary(values, counts, room, half_life, self._no_candidates()))

    def lines(self) -> list[str]:
        """Returns a line for each table: how many values it has, and has room for."""
        return [
            f"table {table!r}: {len(self._vocabularies[table].values):,} values, and room for {room:,}"
            for table, room in self._tables.items()
        ]

    def see(self, rows: TypedRows, first: int) -> tuple[bool, dict[str, Any]]:
        """Counts the values of a window, admits those that were seen often enough, and begins their rows anew.

        Args:
          rows: of the window.
          first: how many rows came before it.

        Returns:
          Whether a vocabulary changed, and what to record: the share of values without a row before the window, and the
          values `admitted`, `evicted`, and those with a row now, by table.
        """
        found = self._texts(rows, first)
        changes = {table: self._see(table, found[table], first + len(rows)) for table in self._tables}
        record = {
            "unseen": {table: c.unseen / c.seen if c.seen else 0.0 for table, c in changes.items()},
            "admitted": {table: c.admitted for table, c in changes.items()},
            "evicted": {table: len(c.fresh) for table, c in changes.items()},
            "values": {table: len(v.values) for table, v in self._vocabularies.items()},
        }
        return any(c.admitted for c in changes.values()), record

    def _see(self, table: str, found: Occurrences, position: int) -> Changes:
        vocabulary = self._vocabularies[table]
        changes = vocabulary.see(found, position)
        begin_anew(self._model, table, changes.fresh)
        self._use(table, vocabulary)
        return changes

    def _use(self, table: str, vocabulary: LivingVocabulary) -> None:
        self._vocabularies[table] = vocabulary
        self._encoder.look_up_by(table, _Lookup(vocabulary))

    def pack(self) -> None:
        """Copies the vocabularies to `saved`."""
        for table, state in self._states.items():
            state.pack(self._vocabularies[table])

    def unpack(self) -> None:
        """Takes the vocabularies from `saved`."""
        for table, room in self._tables.items():
            vocabulary = self._states[table].unpack(room, self._config.admit_within, self._no_candidates())
            self._use(table, vocabulary)

    def write_files(self, checkpoint: str) -> None:
        """Writes the vocabularies into the directory of a checkpoint, if they change along the stream."""
        if self._tables:
            values = {table: v.values for table, v in self._vocabularies.items()}
            schema = with_room(self._encoder.schema, self._tables)
            write_encoder(os.path.join(checkpoint, ENCODER_DIR), self._encoder_dir, schema, values)

    def _no_candidates(self) -> Candidates:
        config = self._config
        return Candidates(config.admit_after, config.admit_within, config.admit_candidates)


class _Lookup:
    """The lines of texts in a vocabulary as it is at the time; see `tfrs_dlrm.data.encoding.encoder.Lookup`."""

    def __init__(self, vocabulary: LivingVocabulary):
        self._vocabulary = vocabulary

    def lookup(self, texts: tf.Tensor) -> tf.Tensor:
        return tf.constant(self._vocabulary.rows(texts.numpy().tolist()) - 1, tf.int64)

    def size(self) -> tf.Tensor:
        return tf.constant(len(self._vocabulary.values), tf.int64)
