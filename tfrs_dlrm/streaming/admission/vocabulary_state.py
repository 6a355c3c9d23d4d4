"""The vocabularies of a run along a stream as variables of its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_dlrm.streaming.admission.candidates import Candidates
from tfrs_dlrm.streaming.admission.living_vocabulary import LivingVocabulary


class TableState(tf.Module):
    """A `LivingVocabulary` as variables, as it was when `pack` was called last."""

    def __init__(self) -> None:
        super().__init__()
        self.position = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.texts, self.ends = _empty(np.uint8), _empty(np.int64)
        self.counts = _empty(np.float64)
        self.candidate_texts, self.candidate_ends = _empty(np.uint8), _empty(np.int64)
        self.candidate_counts = _empty(np.float64)
        self.occurrences, self.occurrence_ends = _empty(np.int64), _empty(np.int64)

    def pack(self, vocabulary: LivingVocabulary) -> None:
        """Takes over the state of a vocabulary."""
        self.position.assign(vocabulary.position)
        _assign_texts(self.texts, self.ends, vocabulary.values)
        self.counts.assign(vocabulary.counts[: len(vocabulary.values)])
        seen = list(vocabulary.candidates)
        _assign_texts(self.candidate_texts, self.candidate_ends, [value for value, _, _ in seen])
        self.candidate_counts.assign(np.array([count for _, count, _ in seen], np.float64))
        self.occurrences.assign(np.array([p for _, _, positions in seen for p in positions], np.int64))
        self.occurrence_ends.assign(np.cumsum([len(positions) for _, _, positions in seen], dtype=np.int64))

    def unpack(self, room: int, within: int, candidates: Candidates) -> LivingVocabulary:
        """Returns the vocabulary that was packed.

        Args:
          room: how many values the table has rows for.
          within: the half-life of counts in rows.
          candidates: none yet.
        """
        begin = 0
        values = _texts(self.candidate_texts, self.candidate_ends)
        ends, occurrences = self.occurrence_ends.numpy().tolist(), self.occurrences.numpy().tolist()
        for value, count, end in zip(values, self.candidate_counts.numpy().tolist(), ends, strict=True):
            candidates.add(value, count, occurrences[begin:end])
            begin = end
        position = int(self.position.numpy())
        return LivingVocabulary(_texts(self.texts, self.ends), self.counts.numpy(), room, within, candidates, position)


def _empty(dtype: Any) -> tf.Variable:
    return tf.Variable(np.zeros(0, dtype), trainable=False, shape=tf.TensorShape([None]))


def _assign_texts(texts: tf.Variable, ends: tf.Variable, values: Sequence[bytes]) -> None:
    texts.assign(np.frombuffer(b"".join(values), np.uint8))
    ends.assign(np.cumsum([len(value) for value in values], dtype=np.int64))


def _texts(texts: tf.Variable, ends: tf.Variable) -> list[bytes]:
    joined, begin, values = texts.numpy().tobytes(), 0, []
    for end in ends.numpy().tolist():
        values.append(joined[begin:end])
        begin = end
    return values
