"""What every ranking model shares: embeddings, loss, metrics and the train step."""

from __future__ import annotations

import itertools
import json
import types
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras as keras

from tfrs_dlrm.distribute.strategies import distribution_of
from tfrs_dlrm.embeddings.ids import Features
from tfrs_dlrm.embeddings.optimizers import RowWiseAdagrad
from tfrs_dlrm.embeddings.per_table_optimizer import PerTableOptimizer
from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer
from tfrs_dlrm.embeddings.storage import ShardedTable
from tfrs_dlrm.embeddings.tables import EmbeddingTables
from tfrs_dlrm.embeddings.tpu import TPUEmbeddingTables
from tfrs_dlrm.metrics import OutOfRangeIds
from tfrs_dlrm.models.scorers import Broadcast, CandidateScorer, Rows, RowScorer
from tfrs_dlrm.models.tasks import Tasks
from tfrs_dlrm.schema import Schema


class RankingModel(tfrs.models.Model):
    """A model of the schema's labels. Subclasses say in `compute_logits` how features become a logit, or a number.

        class LogisticRegression(RankingModel):  # with tables of dimension 1
            def compute_logits(self, dense, embeddings, training):
                return tf.add_n(embeddings)

    An encoded batch comes in, float32 [B] go out: logits, of which `tf.sigmoid` is the probability that the label is 1;
    where the task of the label is `regression`, the predicted numbers (see `tfrs_dlrm.models.tasks`). Of L labels they
    are [B, L], and so is what `compute_logits` returns; the loss is the sum of those of the labels, each times its
    `loss_weight`, and an example counts for those of its labels that are not NaN. In training, the
    embedding tables belong to a row optimizer, which touches the rows of the batch only, and all other weights to a
    Keras optimizer.

    Args:
      schema: of the encoded batches; every table has its rows.
      seed: makes the initial tables a function of it.
      embeddings: the tables, where they were made already, as TPUs need it; by default those that fit the strategy in
        scope.
      replicate_below: in bytes: under strategies that can do either, smaller tables are copied to each device and
        larger ones shared out among them; by default what `tfrs_dlrm.distribute.placement.REPLICATE_BELOW` has.

    Raises:
      ValueError: a table has no rows; the strategy is one of TPUs and there are no `embeddings`; or it copies all
        tables to every process and they do not fit there.
    """

    built: bool
    # Whether the last number of a table's row is a linear weight of the value, and only those before it its vector.
    linear_weights: ClassVar[bool] = False
    # How far apart an export may find two answers for one row, computed in different orders, as probabilities.
    rounding: ClassVar[float] = 1e-6

    def __init__(
        self,
        schema: Schema,
        seed: int = 0,
        embeddings: EmbeddingTables | TPUEmbeddingTables | None = None,
        replicate_below: int | None = None,
        **kwargs: Any,
    ) -> None:
        # Layers cast their own inputs; until then dense features stay float32.
        super().__init__(autocast=False, **kwargs)
        self.schema = schema
        self.seed = seed
        self.embeddings = _tables(schema, seed, replicate_below) if embeddings is None else embeddings
        # What a step returns is over all replicas already. Keras would add it up over workers, AUC and all.
        self.distribute_reduction_method = "first"
        self.label_tasks = Tasks(schema)
        # Apart, since checkpoints know the first by this name.
        self.task, *self.more_tasks = [tfrs.tasks.Ranking(loss=task.loss()) for task in self.label_tasks.all]
        self._progress = types.SimpleNamespace(loss=None, metrics=[], out_of_range=None)
        # One trace for all evaluations of a model.
        self.scores = tf.function(self._scores, reduce_retracing=True)

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """The model itself.

        Args:
          dense: float32 [B, schema.dense_width]; None where the schema has no dense features.
          embeddings: [B, dim of its table] in the compute dtype for each of `schema.categorical`; of a feature with
            `sequence_length` [B, sequence_length, dim].
          training: whether this is a train step.

        Returns:
          Logits, [B] or [B, 1] of any float dtype; of several labels [B, len(schema.labels)]. Of a regression, how many
          standard deviations of the labels the number is above their mean.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not implement compute_logits(dense, embeddings, training)"
        )

    def call(
        self, features: Features, activations: list[tf.Tensor] | tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        """Logits of an encoded batch, float32 [B] or, of several labels, [B, L]; of a regression, predicted numbers.

        Args:
          features: `dense`, `ids` and multi-valued features, as the schema has them.
          activations: what `self.embeddings.lookup(features)` returned, where that was called before.
          training: whether this is a train step.

        Raises:
          ValueError: a feature is missing or has another shape than the schema says.
        """
        return self.label_tasks.returned(self._score(features, activations, training))

    def _score(
        self, features: Features, activations: list[tf.Tensor] | tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        """What `compute_logits` says, as float32 [B] or, of several labels, [B, L]."""
        embeddings = self.embeddings(features) if activations is None else activations
        logits = self.compute_logits(self._dense(features), embeddings, training)
        heads = len(self.schema.labels)
        if heads > 1 and (logits.shape.rank != 2 or logits.shape[1] != heads):
            wanted = f"[B, {heads}] is needed, a column for each label of the schema"
            raise ValueError(f"{type(self).__name__}.compute_logits returned shape {logits.shape}; {wanted}")
        if heads == 1 and logits.shape.rank == 2 and logits.shape[1] == 1:
            logits = logits[:, 0]
        if heads == 1 and logits.shape.rank != 1:
            raise ValueError(
                f"{type(self).__name__}.compute_logits returned shape {logits.shape}; [B] or [B, 1] is needed"
            )
        return tf.cast(logits, tf.float32)

    def row_scorer(self) -> RowScorer:
        """Returns what computes the logits of rows in a served model.

        Models that need fewer operations when served override it.
        """
        layers = [x for x in self.layers if x is not self.embeddings and not isinstance(x, tfrs.tasks.Task)]
        return Rows(self._score, layers)

    def candidate_scorer(self, context: Schema, own: Schema) -> CandidateScorer:
        """The same of many candidates for one context; models that can share work override it.

        Args:
          context: the part of the schema that the candidates of a request share.
          own: the rest.
        """
        return Broadcast(self.row_scorer(), self.schema, context, own)

    def _dense(self, features: Features) -> tf.Tensor | None:
        width = self.schema.dense_width
        if not width:
            return None
        dense = features.get("dense")
        if dense is None or dense.shape[-1] != width:
            found = "nothing" if dense is None else f"shape {dense.shape}"
            raise ValueError(f"features['dense'] of shape [B, {width}] is needed for this schema; found {found}")
        return dense

    def build(self, input_shape: Any = None) -> None:
        """Creates every weight, by a call on one example; `compile` and the first call do it.

        Needed before a checkpoint is restored into a model that is not compiled: TensorFlow's checks pass over weights
        that do not exist yet.
        """
        del input_shape  # the schema says it all
        if not self.built:
            self.built = True  # first, since the call below asks
            example = _example(self.schema)
            if isinstance(self.embeddings, TPUEmbeddingTables):  # which look nothing up outside of a step
                self(example, activations=self.embeddings.zeros(1))
            else:  # nothing that a saved model would have to be given as well
                self(example)

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | str = "adam",
        embedding_optimizer: RowOptimizer | Mapping[str, RowOptimizer] | None = None,
        metrics: Sequence[keras.metrics.Metric] | None = None,
        **kwargs: Any,
    ) -> None:
        """Prepares training and evaluation, and creates all variables that they need.

        Args:
          optimizer: of all weights but the tables.
          embedding_optimizer: of the tables, not shared with another model. By default `RowWiseAdagrad()`. Tables
            that a mapping from table names to optimizers leaves out use the default too; see `PerTableOptimizer`.
          metrics: of the first label: take (label, logit or number, weight); beside them `loss` is always reported. By
            default those of `tfrs_dlrm.metrics.default_metrics()` or, of a regression, `regression_metrics()`, and with
            several labels those of each, with its name behind theirs.
          **kwargs: as in `keras.Model.compile`, except for `loss` and `weighted_metrics`.

        Raises:
          ValueError: a loss or weighted metrics were given, the embedding optimizer is none of `RowOptimizer`, or the
            dtype policy is mixed_float16.
        """
        for name in {"loss", "loss_weights", "weighted_metrics"} & set(kwargs):
            raise ValueError(f"compile({name}=...): the task of the label says the loss, and all metrics are weighted")
        if self.dtype_policy.name == "mixed_float16":
            raise ValueError("mixed_float16 would need loss scaling, which is not there; use mixed_bfloat16")
        with self.distribute_strategy.scope():
            self.build()
            super().compile(optimizer=optimizer, **kwargs)
            if isinstance(self.optimizer, keras.optimizers.Optimizer):  # legacy ones make slots at the first step
                self.optimizer.build(self.dense_variables)
            self.embedding_optimizer = _row_optimizer(embedding_optimizer)
            self.embeddings.compile(self.embedding_optimizer)
            # In a plain object, which no checkpoint follows: whoever restores one may measure other things.
            self._progress = types.SimpleNamespace(
                loss=keras.metrics.Mean(name="loss"),
                metrics=self._new_metrics() if metrics is None else [list(metrics)],
                out_of_range=OutOfRangeIds([f.name for f in self.schema.categorical]),
            )

    def _new_metrics(self) -> list[list[keras.metrics.Metric]]:
        tasks = self.label_tasks
        return [task.metrics(suffix) for task, suffix in zip(tasks.all, tasks.suffixes, strict=True)]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """`loss`, the metrics given to `compile`, and `out_of_range`, the number of ids that were no rows."""
        progress = self._progress
        of_labels = itertools.chain.from_iterable(progress.metrics)
        return [] if progress.loss is None else [progress.loss, *of_labels, progress.out_of_range]

    @property
    def out_of_range(self) -> dict[str, int]:
        """By feature, how many ids were no rows of their table since the metrics were reset; those that are not 0."""
        return {} if self._progress.out_of_range is None else self._progress.out_of_range.by_feature()

    @property
    def dense_variables(self) -> list[tf.Variable]:
        """The trainable variables that are not embedding tables."""
        tables = {id(v) for v in self.embeddings.trainable_variables}
        return [v for v in self.trainable_variables if id(v) not in tables]

    def compute_loss(self, inputs: Any, training: bool = False) -> tf.Tensor:
        """The loss of a batch (features, label[, weight]); adds the batch to the metrics."""
        features, labels, weights = keras.utils.unpack_x_y_sample_weight(inputs)
        ids: Any = self.embeddings.prepare(features)  # of the engine's own kind
        logits = self(features, self.embeddings.lookup(ids), training=training)
        return self._loss(ids, labels, logits, weights)

    def _loss(self, ids: Any, labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
        """This replica's share of the loss.

        The loss is sum(weight * loss of the example) / B, as in Keras: B counts examples whatever they weigh, so that a
        weight means the same in every batch. Regularization losses of layers are added. Over replicas the shares add up
        to the loss of the global batch.
        """
        examples = tf.cast(tf.shape(logits)[0], tf.float32)
        columns = len(self.label_tasks.all)
        labels, logits = tf.reshape(labels, [-1, columns]), tf.reshape(logits, [-1, columns])
        weights = None if weights is None else tf.reshape(weights, [-1, 1])
        parts = zip(tf.split(labels, columns, axis=1), tf.split(logits, columns, axis=1), strict=True)
        total = sum(self._label_loss(i, *part, weights) for i, part in enumerate(parts))
        # A replica may be left without examples at the end of an epoch, and others with more than their share.
        added = sum(tf.cast(term, tf.float32) for term in self.losses)
        loss = tf.math.divide_no_nan(total, examples) + added
        self._progress.loss.update_state(loss, sample_weight=examples)
        self._progress.out_of_range.update_state(ids.out_of_range)
        strategy, replica = tf.distribute.get_strategy(), tf.distribute.get_replica_context()
        replicas = strategy.num_replicas_in_sync
        if replicas == 1:
            return loss
        if distribution_of(strategy).fixed_batches:
            return loss / replicas
        everywhere = replica.all_reduce(tf.distribute.ReduceOp.SUM, examples)
        return tf.math.divide_no_nan(total, everywhere) + added / replicas

    def _label_loss(self, number: int, labels: tf.Tensor, logits: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
        """The sum of the losses of one label, of [B, 1] each; adds them to its metrics."""
        if number:  # those beside the first may be missing
            known = tf.math.is_finite(labels)
            labels = tf.where(known, labels, 0.0)
            known = tf.cast(known, tf.float32)
            weights = known if weights is None else weights * known
        # Mixed precision casts the first argument; logits and weights stay float32.
        arguments = self.label_tasks.all[number].loss_arguments(labels, logits)
        loss = [self.task, *self.more_tasks][number](*arguments, sample_weight=weights, compute_metrics=False)
        for metric in self._progress.metrics[number] if number < len(self._progress.metrics) else ():
            metric.update_state(labels, logits, sample_weight=weights)
        weight = self.label_tasks.loss_weights[number]
        return loss if weight == 1.0 else weight * loss

    def _scores(self, features: Any) -> Any:
        """What `call` returns, without training, in each replica of the strategy."""
        return self.distribute_strategy.run(lambda x: self(x, training=False), args=(features,))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, the schema as JSON; models with more arguments add them."""
        return {"name": self.name, "schema": json.loads(self.schema.to_json()), "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> RankingModel:
        """Reads `get_config`."""
        del custom_objects
        return cls(**(config | {"schema": Schema.from_json(json.dumps(config["schema"]))}))

    def get_weights(self) -> list[np.ndarray]:
        """As in Keras.

        Raises:
          ValueError: tables are shared out among devices.
        """
        self._check_whole()
        return super().get_weights()

    def set_weights(self, weights: list[np.ndarray]) -> None:
        """As in Keras.

        Raises:
          ValueError: tables are shared out among devices.
        """
        self._check_whole()
        super().set_weights(weights)

    def _check_whole(self) -> None:
        parted = [name for name, t in self.embeddings.tables.items() if isinstance(t, ShardedTable)]
        if parted:
            raise ValueError(
                f"tables {', '.join(parted)} are shared out among devices and are none of Keras' weights; use"
                " td.save_checkpoint and td.restore_checkpoint (or replicate_below, to have copies on each device)"
            )

    def train_step(self, inputs: Any) -> dict[str, tf.Tensor]:
        """One step on a batch (features, label[, weight]); returns the metrics since the start of the epoch."""
        features, labels, weights = keras.utils.unpack_x_y_sample_weight(inputs)
        ids: Any = self.embeddings.prepare(features)  # of the engine's own kind
        activations = self.embeddings.lookup(ids)
        with tf.GradientTape() as tape:
            tape.watch(activations)
            loss = self._loss(ids, labels, self(features, activations, training=True), weights)
        variables = self.dense_variables
        activation_gradients, gradients = tape.gradient(loss, (activations, variables))
        if self.embeddings.trainable:
            self.embeddings.update(ids, activation_gradients, self.embedding_optimizer)
        if variables:
            self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {m.name: m.result() for m in self.metrics}

    def test_step(self, inputs: Any) -> dict[str, tf.Tensor]:
        """Evaluates a batch (features, label[, weight]); returns the metrics since the start."""
        self.compute_loss(inputs, training=False)
        return {m.name: m.result() for m in self.metrics}


def _tables(schema: Schema, seed: int, replicate_below: int | None) -> EmbeddingTables:
    places = distribution_of().places(schema, replicate_below)
    return EmbeddingTables(schema, seed, places, name="embeddings")


def _row_optimizer(given: RowOptimizer | Mapping[str, RowOptimizer] | None) -> RowOptimizer:
    if given is None:
        return RowWiseAdagrad()
    if isinstance(given, Mapping):
        return PerTableOptimizer(RowWiseAdagrad(), given)
    if not isinstance(given, RowOptimizer):
        raise ValueError(
            f"embedding_optimizer={given!r} is no row optimizer; tables take td.RowWiseAdagrad(rate), td.SGD(rate) and"
            " their like, which touch looked-up rows only"
        )
    return given


def _example(schema: Schema) -> dict[str, tf.Tensor | tf.RaggedTensor]:
    """The features of an encoded batch of one example."""
    features: dict[str, tf.Tensor | tf.RaggedTensor] = {}
    if schema.dense_width:
        features["dense"] = tf.zeros([1, schema.dense_width])
    if schema.one_hot:
        features["ids"] = tf.zeros([1, len(schema.one_hot)], tf.int32)
    for feature in schema.multi_hot:
        features[feature.name] = tf.ragged.constant([[0]], dtype=tf.int32)
        if feature.weights:
            features[feature.weights_name] = tf.ragged.constant([[1.0]])
    return features
