"""The computation of a SavedModel: scores of raw values, of encoded values, and of a context with candidates."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Mapping
from typing import Any

import tensorflow as tf

from tfrs_dlrm.data.encoding.encoder import Encoder
from tfrs_dlrm.data.raw.parsing import MISSING_INT
from tfrs_dlrm.embeddings.ids import Features, IdReader
from tfrs_dlrm.embeddings.quantized import Storage
from tfrs_dlrm.embeddings.value_lists import history_lengths, padded_sequences
from tfrs_dlrm.models.history_scorers import candidate_scorer, row_scorer
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.models.scorers import Inputs
from tfrs_dlrm.models.tracing import as_written, needs_autograph
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.serving.exporting.context import feature_names, split_by_context
from tfrs_dlrm.serving.exporting.serving_tables import ServingTables


def check_ranking_model(model: object, function: str) -> None:
    """Raises a ValueError if a model is not of our family, whose inputs are known.

    Args:
      model: given by a user.
      function: the public function that takes it, for the message.
    """
    if not isinstance(model, RankingModel):
        raise ValueError(
            f"{function} takes a tfrs_dlrm.RankingModel, such as DLRM; this is a {type(model).__name__}. A functional"
            " model with tfrs_dlrm.Encoder at its front takes raw values already: save it by model.save(path) or"
            " model.export(path)"
        )


class ServingModel(tf.Module):
    """The encoder and the layers of a model, without the optimizer, slot variables and metrics of its training.

    Args:
      model: built, with its tables in plain variables.
      encoder: of the training data.
      context: the features that all candidates of one request share (of the user, the device, the page); see
        `score_candidates`.
      storage: of the tables' rows.

    Raises:
      ValueError: `context` names an unknown feature, or all features.
    """

    def __init__(
        self, model: RankingModel, encoder: Encoder, context: Collection[str] = (), storage: Storage = "float32"
    ):
        super().__init__(name="serving")
        self.schema = schema = model.schema  # the encoder's may have other dimensions
        self._shared, self._individual, self._context_inputs = split_by_context(schema, context)
        self.storage = storage
        self.tables = ServingTables(model.embeddings.schema, model.embeddings.tables, storage)
        self.tasks = model.label_tasks
        self._calibration = model.calibration
        self._read_ids = IdReader(schema)
        rows, candidates = row_scorer(model), None
        if self._shared is not None and self._individual is not None:
            candidates = candidate_scorer(model, self._shared, self._individual)
        # Saving follows attributes: from the model to its optimizers, and from layers to Keras' functions of training.
        # A plain object is not followed, so only the variables and lookup tables of its parts are saved.
        self._parts = types.SimpleNamespace(encoder=encoder, rows=rows, candidates=candidates)
        self._kept = [x for part in (encoder, rows, candidates) for x in _computed_with(part)]
        self._compute_dtype = model.embeddings.compute_dtype
        self._needs_autograph = needs_autograph([model])

    @property
    def encoder(self) -> Encoder:
        """Encodes raw values."""
        encoder: Encoder = self._parts.encoder
        return encoder

    def as_written(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function that calls this model, to be traced without AutoGraph unless the model needs it."""
        return function if self._needs_autograph else as_written(function)

    @property
    def context(self) -> tuple[str, ...]:
        """Returns the features that the candidates share."""
        return () if self._shared is None else feature_names(self._shared)

    @property
    def context_inputs(self) -> frozenset[str]:
        """Returns the raw inputs of the context: those of its features, and their weights."""
        return self._context_inputs

    def padded(self, encoded: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """Converts the features of the encoder to inputs of `score_encoded`."""
        specs = self.encoded_signature()
        fill = {name: 0.0 if spec.dtype == tf.float32 else MISSING_INT for name, spec in specs.items()}
        return {
            name: encoded[name].to_tensor(fill[name]) if isinstance(encoded[name], tf.RaggedTensor) else encoded[name]
            for name in specs
        }

    def raw_signature(self) -> dict[str, tf.TensorSpec]:
        """Returns the inputs of `score_raw`; see `Encoder.serving_signature`."""
        return self.encoder.serving_signature()

    def encoded_signature(self) -> dict[str, tf.TensorSpec]:
        """Returns the inputs of `score_encoded`.

        `dense`: float32 [B, schema.dense_width]. `ids`: int32 [B, F], the rows of features with one value. `NAME` of
        each multi-valued feature: its rows, int32 [B, L], padded with -1. `NAME_weights`: float32 [B, L].
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
        """Returns the inputs of `score_candidates`: raw values of B contexts with N candidates each.

        Features of the context are [B] or [B, L], and features of the candidates [B, N] or [B, N, L].
        """
        specs = {}
        for name, spec in self.raw_signature().items():
            shape = spec.shape if name in self._context_inputs else [None, None, *spec.shape[1:]]
            specs[name] = tf.TensorSpec(shape, spec.dtype, name)
        return specs

    def score_raw(self, raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns probabilities, or numbers of a regression, float32 [B]; for several labels [B, labels]."""
        features = self.encoder.encode(raw, self.schema)
        outputs = self._parts.rows(self._inputs(features, self.schema))
        return self.tasks.served(self._scores(outputs, self._calibrated_by(features, self.schema)))

    def score_encoded(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Scores encoded rows as `score_raw`; ids outside the table follow the feature's `out_of_range` policy."""
        values: dict[str, Any] = dict(features)
        padded: dict[str, tf.Tensor] = {}  # by multi-valued feature, where it has values
        for f in self.schema.multi_hot:
            ids, weights = values[f.name], values[f.weights_name] if f.weights else None
            if f.sequence_length is not None:
                ids, weights = padded_sequences(ids, weights, f.sequence_length, last=bool(f.history_of))
            padded[f.name] = ids != MISSING_INT
            values[f.name] = tf.RaggedTensor.from_tensor(tf.where(padded[f.name], ids, 0))
            if weights is not None:
                values[f.weights_name] = tf.RaggedTensor.from_tensor(weights)
        with tf.control_dependencies(self._same_events(features)):
            return self.tasks.served(self._encoded_logits(values, padded))

    def _same_events(self, features: Mapping[str, tf.Tensor]) -> list[tf.Operation]:
        """Checks that padded parallel histories have as many values as the one to which they are parallel."""
        checks = []
        for f in self.schema.histories:
            if f.parallel_to:
                message = f"feature {f.name}: not as many values as {f.parallel_to}, to which it is parallel"
                counts = (
                    tf.reduce_sum(tf.cast(features[name] != MISSING_INT, tf.int32), axis=1)
                    for name in (f.name, f.parallel_to)
                )
                checks.append(tf.debugging.assert_equal(*counts, message))
        return [check for check in checks if check is not None]

    def encoded_logits(self, features: Features) -> tf.Tensor:
        """Returns the logits of a batch of `tfrs_dlrm.dataset`, float32 [B] or [B, labels]."""
        return self._encoded_logits(features, {})

    def _encoded_logits(self, features: Features, padded: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns logits; the values of `padded` features, where its masks are true, stay in place.

        TensorFlow Lite and ONNX have no segment sums with empty segments, which ragged values need. Sequences have
        their length in `padded`.
        """
        checked = self._read_ids.check(features)
        rows: dict[str, Any] = {f.name: checked.rows[f.name] for f in self.schema.multi_hot}
        rows |= {f.weights_name: checked.weights[f.name] for f in self.schema.multi_hot if f.weights}
        for f in self.schema.multi_hot:
            if f.name in padded:
                shape = tf.shape(padded[f.name])
                rows[f.name] = tf.where(padded[f.name], tf.reshape(rows[f.name].flat_values, shape), MISSING_INT)
                if f.weights:
                    rows[f.weights_name] = tf.reshape(rows[f.weights_name].flat_values, shape)
        if self.schema.one_hot:
            rows["ids"] = tf.stack([checked.rows[f.name] for f in self.schema.one_hot], axis=1)
        inputs = self._inputs(rows, self.schema)._replace(dense=features.get("dense"))
        return self._scores(self._parts.rows(inputs), self._calibrated_by(rows, self.schema))

    def score_candidates(self, raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Scores N candidates in each of B contexts as `score_raw`, float32 [B, N] or [B, N, labels].

        The context is encoded and looked up once, and computed once as far as the model allows.
        """
        if self._shared is None or self._individual is None:
            raise ValueError("the model has no context features; name them: ServingModel(..., context=[NAME, ...])")
        example = next(raw[name] for name in self.raw_signature() if name not in self._context_inputs)
        contexts, candidates = tf.shape(example)[0], tf.shape(example)[1]
        flat = {}
        for name in self.raw_signature():
            flat[name] = value = raw[name]
            if name not in self._context_inputs:
                flat[name] = tf.reshape(value, tf.concat([[contexts * candidates], tf.shape(value)[2:]], axis=0))
        encoded = [(self.encoder.encode(flat, self._shared), self._shared)]
        for given in self._individual.inputs:  # a cross of both reads the context for each candidate
            if given.name in self._context_inputs and given.name in flat:
                flat[given.name] = tf.repeat(flat[given.name], candidates, axis=0)
        encoded.append((self.encoder.encode(flat, self._individual), self._individual))
        outputs = self._parts.candidates(*(self._inputs(*part) for part in encoded), candidates)
        of_context, of_candidates = (self._calibrated_by(*part) for part in encoded)
        rows = of_candidates if of_context is None else tf.repeat(of_context, candidates)
        answers = self.tasks.served(self._scores(outputs, rows))
        return tf.reshape(answers, [contexts, candidates, *answers.shape[1:]])

    def _scores(self, outputs: tf.Tensor, rows: tf.Tensor | None) -> tf.Tensor:
        """Returns calibrated scores; `rows` as `_calibrated_by` returns them."""
        return self.tasks.scores(outputs, self._calibration.by_label(rows) if self._calibration else None)

    def _calibrated_by(self, features: Mapping[str, Any], part: Schema) -> tf.Tensor | None:
        """Returns the rows of the feature by which the model is calibrated, if there is one and the part has it."""
        return self._calibration.rows_of(features, part) if self._calibration else None

    def _inputs(self, features: Mapping[str, Any], part: Schema) -> Inputs:
        lengths = history_lengths(part, features)
        keys = {f.length_key: lengths[f.name] for f in part.histories if not f.parallel_to}
        return Inputs(features.get("dense"), self._vectors(features, part), keys)

    def _vectors(self, features: Mapping[str, Any], part: Schema) -> list[tf.Tensor] | tf.Tensor:
        """Looks up encoded features, whose rows are all in range."""
        vectors = self.tables.vectors(part, features)
        if isinstance(vectors, tf.Tensor):
            return tf.cast(vectors, self._compute_dtype)
        return [tf.cast(v, self._compute_dtype) for v in vectors]


def _computed_with(part: Any) -> list[Any]:
    """Returns the variables and lookup tables of an encoder or a scorer."""
    if not isinstance(part, tf.Module):
        return []
    kinds = (tf.Variable, tf.saved_model.experimental.TrackableResource)
    return [x for x in tf.train.TrackableView(part).descendants() if isinstance(x, kinds)]
