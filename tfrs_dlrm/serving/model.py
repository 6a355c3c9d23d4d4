"""What a SavedModel computes: raw values, encoded values, or a context and its candidates to probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrs_dlrm.data.encoder import Encoder
from tfrs_dlrm.data.rows import MISSING_INT
from tfrs_dlrm.models.ranking import RankingModel


class ServingModel(tf.Module):
    """The encoder and the layers of a model, and nothing of its training: no optimizer, no slots, no metrics.

    Args:
      model: built.
      encoder: that its training data went through.
      context: the features that all candidates of one request share (of the user, the device, the page); see `rank`.

    Raises:
      ValueError: `context` names a feature that there is not, or all of them.
    """

    def __init__(self, model: RankingModel, encoder: Encoder, context: Sequence[str] = ()):
        super().__init__(name="serving")
        self.encoder = encoder
        self.schema = encoder.schema
        self.context = tuple(context)
        names = [f.name for f in self.schema.dense] + [f.name for f in self.schema.categorical]
        unknown = sorted(set(context) - set(names))
        if unknown or (context and set(context) == set(names)):
            problem = f"no feature is called {unknown}" if unknown else "no feature is left for the candidates"
            raise ValueError(f"context={list(context)}: {problem}; the features are {', '.join(names)}")
        # What holds the weights must be reachable from here to be saved; the model itself would bring its optimizers.
        self.model_layers = [layer for layer in model.layers if not isinstance(layer, tfrs.tasks.Task)]
        self._call = [model.call]

    def raw_signature(self) -> dict[str, tf.TensorSpec]:
        """The inputs of `score_raw`; see `Encoder.signature`."""
        return self.encoder.signature()

    def encoded_signature(self) -> dict[str, tf.TensorSpec]:
        """The inputs of `score_encoded`.

        `dense`: float32 [B, schema.dense_width]; `ids`: int32 [B, F], the rows of the features with one value; and for
        each multi-valued feature, under its name, its rows, int32 [B, L], -1 where there is none; weights float32
        [B, L] under `NAME_weights`.
        """
        specs = {}
        if self.schema.dense_width:
            specs["dense"] = tf.TensorSpec([None, self.schema.dense_width], tf.float32, "dense")
        if self.schema.one_hot:
            specs["ids"] = tf.TensorSpec([None, len(self.schema.one_hot)], tf.int32, "ids")
        for f in self.schema.multi_hot:
            specs[f.name] = tf.TensorSpec([None, None], tf.int32, f.name)
            if f.weights:
                specs[f.weights_name] = tf.TensorSpec([None, None], tf.float32, f.weights_name)
        return specs

    def rank_signature(self) -> dict[str, tf.TensorSpec]:
        """The inputs of `score_candidates`: raw values, [B] or [B, L] of the context, [B, N] or [B, N, L] of the rest.

        B is the number of contexts, N that of the candidates which each of them has.
        """
        specs = {}
        for name, spec in self.raw_signature().items():
            shape = spec.shape if self._is_context(name) else [None, None, *spec.shape[1:]]
            specs[name] = tf.TensorSpec(shape, spec.dtype, name)
        return specs

    def score_raw(self, raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Probabilities float32 [B]."""
        return tf.sigmoid(self._call[0](self.encoder(raw), training=False))

    def score_encoded(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Probabilities float32 [B]."""
        features = dict(features)
        for f in self.schema.multi_hot:
            there = features[f.name] != MISSING_INT
            features[f.name] = tf.ragged.boolean_mask(features[f.name], there)
            if f.weights:
                features[f.weights_name] = tf.ragged.boolean_mask(features[f.weights_name], there)
        return tf.sigmoid(self._call[0](features, training=False))

    def score_candidates(self, raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Probabilities float32 [B, N] of N candidates in each of B contexts."""
        example = next(value for name, value in raw.items() if not self._is_context(name))
        contexts, candidates = tf.shape(example)[0], tf.shape(example)[1]
        rows = {}
        for name, value in raw.items():
            if self._is_context(name):
                rows[name] = tf.repeat(value, candidates, axis=0)
            else:
                rows[name] = tf.reshape(value, tf.concat([[contexts * candidates], tf.shape(value)[2:]], axis=0))
        return tf.reshape(self.score_raw(rows), [contexts, candidates])

    def _is_context(self, name: str) -> bool:
        return name in self.context or any(
            f.weights_name == name and f.name in self.context for f in self.schema.categorical
        )
