"""The base class of all ranking models: the forward pass, and the train step that updates tables and dense weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras as keras

from tfrs_dlrm.embeddings.ids import Features
from tfrs_dlrm.embeddings.kernels.kernel_step import make_table_step
from tfrs_dlrm.embeddings.row_optimizer import RowOptimizer
from tfrs_dlrm.embeddings.tables import EmbeddingTables
from tfrs_dlrm.embeddings.tpu import TPUEmbeddingTables
from tfrs_dlrm.embeddings.value_lists import history_lengths
from tfrs_dlrm.layers.target_attention import TargetAttention
from tfrs_dlrm.messages.arguments import Size
from tfrs_dlrm.models import model_inputs
from tfrs_dlrm.models.calibration import Calibration
from tfrs_dlrm.models.histories import History, attention_layers, with_events, with_pooled
from tfrs_dlrm.models.keras_saving import CompileArguments, KerasSaving
from tfrs_dlrm.models.label_losses import LabelLosses, LossWeights, make_log_variances
from tfrs_dlrm.models.label_tasks import Tasks
from tfrs_dlrm.models.list_losses import ListLoss, MixedLoss
from tfrs_dlrm.models.model_inputs import check_batches, dense_inputs, one_example
from tfrs_dlrm.models.model_parts import ModelParts
from tfrs_dlrm.models.scorers import Scored
from tfrs_dlrm.models.tracing import as_written, step_as_written
from tfrs_dlrm.models.training_setup import (
    check_tables,
    dtype_policy,
    keras_arguments,
    make_row_optimizer,
    make_tables,
    summary_of_tables,
)
from tfrs_dlrm.models.vector_projections import VectorProjections, parts_of
from tfrs_dlrm.schema import Schema, check_schema
from tfrs_dlrm.schema.histories import attended_histories

# Arguments of `keras.Model.compile` that a saved model keeps.
_SAVED_OPTIONS = ("run_eagerly", "steps_per_execution", "jit_compile")


class RankingModel(ModelParts, Scored, KerasSaving):
    """A model that predicts the labels of a schema. Subclasses implement `compute_logits`.

        class LogisticRegression(RankingModel):  # with tables of dimension 1
            def compute_logits(self, dense, embeddings, training):
                return tf.add_n(embeddings)

    The input is an encoded batch of B examples; the output is float32 [B], or [B, L] for L labels. For a label of the
    task `classification` it is the probability that the label is 1, and `logits` returns its logit. For `regression`
    it is the predicted number; see `tfrs_dlrm.models.tasks`.

    The loss of several labels is the sum of their losses, each multiplied by its `loss_weight`; see `loss_weights`.
    Except for the first label, NaN means that the label is missing. A row optimizer updates only the table rows that a
    batch looks up. A Keras optimizer updates all other weights.

    Args:
      schema: of the encoded batches; every table needs a `vocabulary_size`.
      seed: determines the initial tables.
      embeddings: existing tables, which TPUs need; by default tables that fit the strategy in scope are made.
      calibration: curves that logits go through outside of training, see `tfrs-dlrm calibrate`; also as plain values.
      loss_weights: `fixed`, the `loss_weight` of each label; or `uncertainty`, which also learns a factor for each.
        See `LabelLosses`.
      list_loss: a loss of the first label in training, of how the rows of each group are ranked; `softmax` or
        `pairwise_logistic`, see `tfrs_dlrm.models.list_losses`. The schema needs a group, and training batches the
        group of each row, whole numbers [B], as `features["group"]`. Evaluation is by the log loss.
      list_loss_weight: the share of the list loss, from above 0 to 1; that of the log loss is 1 minus this.
      replicate_below: a size in bytes. Smaller tables are copied to each device and larger ones sharded, if the
        strategy supports both. The default is in `tfrs_dlrm.distribute.placement.REPLICATE_BELOW`.

    Raises:
      ValueError: a table has no rows; the strategy is a TPU's and `embeddings` is missing; or the strategy copies all
        tables to every process and they do not fit.
    """

    built: bool
    # Whether a table's row is the vector of `dim` numbers followed by a linear weight of the value.
    linear_weights: ClassVar[bool] = False
    # Whether it reads dense features.
    reads_dense: ClassVar[bool] = True
    # Whether `compute_logits` reads the events of histories, and not one vector for each history.
    reads_histories: ClassVar[bool] = False
    # Whether the `compute_logits` of this very class, not of a subclass, takes `CandidateRows` for any of its tensors.
    takes_candidate_rows: ClassVar[bool] = False
    # How far apart an export may find two probabilities of one row, computed in different orders.
    rounding: ClassVar[float] = 1e-6

    def __init__(
        self,
        schema: Schema,
        seed: int = 0,
        embeddings: EmbeddingTables | TPUEmbeddingTables | None = None,
        replicate_below: Size | None = None,
        calibration: Calibration | Mapping[str, Any] | None = None,
        loss_weights: LossWeights = "fixed",
        list_loss: ListLoss = "none",
        list_loss_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        check_schema(type(self).__name__, schema)
        # Layers cast their inputs; until then dense features stay float32.
        super().__init__(autocast=False, **kwargs)
        self.schema = schema
        self.seed = seed
        self.replicate_below = replicate_below
        self.calibration = Calibration.from_dict(calibration) if isinstance(calibration, Mapping) else calibration
        if self.calibration:
            self.calibration.check(schema)
        # The schema, with as many dimensions as the rows of tables have numbers.
        self._rows_schema = rows = schema.with_linear_weights(self.linear_features) if self.linear_weights else schema
        if embeddings is None:
            embeddings = make_tables(rows, seed, replicate_below, self.dtype_policy)
        else:
            check_tables(embeddings, rows, self.linear_weights, self.linear_features)
        self.embeddings = embeddings
        self.vector_projections = self._projections(rows)
        # By history; None if no history is pooled by it.
        self.history_attention = self._attention() or None
        # Metrics are summed over replicas inside a step. Keras would add their results over workers, AUC included.
        self.distribute_reduction_method = "first"
        self.label_tasks = Tasks(schema)
        self.loss_weights = loss_weights
        self.log_variances = make_log_variances(self, loss_weights)
        self.list_loss, self.list_loss_weight = list_loss, list_loss_weight
        self._mixed_loss = MixedLoss(schema, list_loss, list_loss_weight)
        # Checkpoints know the first by the name `task`.
        self.task, *self.more_tasks = [tfrs.tasks.Ranking(loss=task.loss()) for task in self.label_tasks.all]
        self._output_bias: Callable[[], tf.Variable] | None = None  # as a function, so that no weight is tracked twice
        self._label_losses: LabelLosses | None = None  # until `compile`
        self._compiled_logits: Any = None  # `compute_logits` by XLA, if `compile` is asked for it
        # One trace for all evaluations of a model.
        self.scores = tf.function(as_written(self._scores, self), reduce_retracing=True)

    def _projections(self, rows: Schema) -> VectorProjections | None:
        """Returns the layer that projects vectors of the schema; None if there are none. `rows` has the tables."""
        if not (self.schema.projected and self.reads_dense):
            return None
        parts, dim = parts_of(self.schema), self._projected_dim(rows)
        return VectorProjections(parts, dim, self.seed, dtype=self.dtype_policy, name="vector_projections")

    def _attention(self) -> dict[str, TargetAttention]:
        """Returns the layers that pool histories of `pooling="target_attention"`, during `__init__`."""
        attended = [] if self.reads_histories else attended_histories(self.schema.categorical, self.linear_features)
        return attention_layers(type(self).__name__, self.schema, attended, self.seed, self.dtype_policy)

    def _projected_dim(self, rows: Schema) -> int:
        """Returns how many numbers a projected vector becomes, during `__init__`."""
        return model_inputs.projected_dim(rows)

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Computes logits from dense features and embeddings.

        Args:
          dense: float32 [B, schema.unprojected_width]; None if every dense feature is projected, or
            there are none.
          embeddings: for each of `schema.categorical`, [B, dim of its table] in the compute dtype; [B, sequence_length,
            dim] for a feature with `sequence_length`, unless it is a history, whose events are pooled; with
            `reads_histories`, a `History` for each of these; then for each of `schema.projected` [B, dim of the largest
            table]. With `linear_weights`, rows have dim + 1 numbers.
          training: whether this is a train step.

        Returns:
          [B] or [B, 1] of any float dtype; for several labels [B, len(schema.labels)]. For a regression, the number is
          in standard deviations of the labels above their mean.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not implement compute_logits(dense, embeddings, training)"
        )

    def call(
        self,
        features: Features,
        activations: list[tf.Tensor] | tf.Tensor | None = None,
        training: bool = False,
        logits: bool = False,
    ) -> tf.Tensor:
        """Returns the probabilities or predicted numbers of an encoded batch, float32 [B], or [B, L] for L labels.

        Args:
          features: `dense`, `ids` and multi-valued features of the schema.
          activations: the result of `self.embeddings.lookup(features)`, if it is known already.
          training: whether this is a train step.
          logits: returns logits in place of probabilities.

        Raises:
          ValueError: a feature is missing or has a shape that the schema does not allow, or `features` is no mapping.
        """
        check_batches(features)
        calibrated = None
        if self.calibration and training is not True:
            calibrated = self.calibration.by_label(self.calibration.rows_of(features, self.schema))
        scores = self.label_tasks.scores(self._checked_logits(features, activations, training), calibrated)
        return scores if logits else self.label_tasks.served(scores)

    def logits(
        self, features: Features, activations: list[tf.Tensor] | tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        """Returns the logits or predicted numbers of an encoded batch; see `call` for the arguments."""
        # Through Keras' `__call__`, which collects losses and tells layers whether they train.
        return self(features, activations, training=training, logits=True)

    @step_as_written
    def train_step(self, inputs: Any) -> dict[str, tf.Tensor]:
        """Trains on a batch (features, label[, weight]); returns the metrics since the start of the epoch."""
        features, labels, weights = keras.utils.unpack_x_y_sample_weight(inputs)
        ids: Any = self.embeddings.prepare(features)  # its type depends on the kind of tables
        found = self._table_step.lookup(ids)
        with tf.GradientTape() as tape:
            tape.watch(found)
            scores = self(features, self._table_step.vectors(found), training=True, logits=True)
            loss = self._loss(ids, labels, scores, weights, self._mixed_loss.groups_of(features))
        variables = self.dense_variables
        table_gradients, gradients = tape.gradient(loss, (found, variables))
        if self.embeddings.trainable:
            self._table_step.update(ids, table_gradients)
        if variables:
            self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {m.name: m.result() for m in self.metrics}

    @step_as_written
    def test_step(self, inputs: Any) -> dict[str, tf.Tensor]:
        """Evaluates a batch (features, label[, weight]); returns the metrics since the start of the evaluation."""
        self.compute_loss(inputs, training=False)
        return {m.name: m.result() for m in self.metrics}

    @step_as_written
    def predict_step(self, inputs: Any) -> tf.Tensor:
        """Returns the probabilities or predicted numbers of a batch; see `call`. Label and weight are not read."""
        return super().predict_step(inputs)

    def compute_loss(self, inputs: Any, training: bool = False) -> tf.Tensor:
        """Returns the loss of a batch (features, label[, weight]), and adds the batch to the metrics."""
        features, labels, weights = keras.utils.unpack_x_y_sample_weight(inputs)
        ids: Any = self.embeddings.prepare(features)
        scores = self(features, self.embeddings.lookup(ids), training=training, logits=True)
        groups = self._mixed_loss.groups_of(features) if training else None
        return self._loss(ids, labels, scores, weights, groups, training)

    def build(self, input_shape: Any = None) -> None:
        """Creates every weight by a call on one example; `compile` and the first call do so too.

        Build a model before you restore a checkpoint without compiling: TensorFlow's checks skip weights that do not
        exist yet.
        """
        del input_shape  # the schema says it all
        if not self.built:
            self.built = True  # first, since the call below asks
            example = one_example(self.schema)
            if isinstance(self.embeddings, TPUEmbeddingTables):  # which cannot look up outside a step
                self(example, activations=self.embeddings.zeros(1))
            else:  # without `activations`, so that a saved model does not ask for them
                self(example)
            # Notes the shapes, with which Keras builds a loaded model before it loads the weights.
            keras.layers.Layer.build(self, {name: values.shape for name, values in example.items()})

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | str = "adam",
        embedding_optimizer: RowOptimizer | keras.optimizers.Optimizer | str | Mapping[str, Any] | None = None,
        metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Prepares training and evaluation, and creates all variables that they need.

        Args:
          optimizer: updates all weights except the tables.
          embedding_optimizer: updates the tables; each model needs its instance. The default, `auto`, is
            `RowWiseAdagrad()` or, if tables are on TPU embedding hardware, which has none, `Adagrad()`. Other names are
            `rowwise_adagrad`, `adagrad`, `sgd`, `lazy_adam` and `ftrl`. A Keras optimizer is replaced by the row
            optimizer of the same formula, if there is one. A mapping gives all these by table name, and the default
            updates tables that it does not name; see `PerTableOptimizer`. Learning rates that are numbers change by the
            same factor as the one of `optimizer`; see `RowOptimizer`.
          metrics: of the first label: names, such as `accuracy`, Keras metrics, or functions of (label, prediction).
            Of several labels: a mapping of these by label name, or a list with a list per label. They get probabilities
            or predicted numbers, except for the metrics of this package and those with `from_logits=True`, which get
            logits. `loss` is always reported too. By default every label has `tfrs_dlrm.metrics.default_metrics()` or,
            for a regression, `regression_metrics()`. The names of further labels' metrics end in the label's name.
          **kwargs: arguments of `keras.Model.compile`. `loss` may only repeat the loss of the labels' task, of several
            labels as a list or by label name. With `jit_compile=True`, XLA compiles `compute_logits` and its gradient
            in train steps, the rest not.

        Raises:
          ValueError: another loss, weights of losses or weighted metrics are given; a metric or the embedding optimizer
            is unknown or has no equal here; `jit_compile` is true under a strategy of several devices or for a model
            with a `further_loss`; or the dtype policy is mixed_float16.
        """
        if kwargs.pop("from_serialized", False):
            self.compile_from_saved_model()
            return
        with self.distribute_strategy.scope():
            arguments = keras_arguments(kwargs, self.schema, self.dtype_policy.name, self.further_loss)
            self.build()
            super().compile(optimizer=optimizer, **arguments)
            jit = kwargs.get("jit_compile")
            self._compiled_logits = tf.function(self.compute_logits, jit_compile=True) if jit else None
            if isinstance(self.optimizer, keras.optimizers.Optimizer):  # legacy ones make slots at the first step
                self.optimizer.build(self.dense_variables)
            self.embedding_optimizer = make_row_optimizer(embedding_optimizer, self.embeddings)
            self.embeddings.compile(self.embedding_optimizer)
            self._table_step = make_table_step(self.embeddings, self.embedding_optimizer)
            self.embedding_optimizer.follow(self.optimizer)
            losses = [self.task, *self.more_tasks]
            self._label_losses = LabelLosses(
                self.schema, self.label_tasks, losses, metrics, self.log_variances, self._mixed_loss
            )
        options = {name: kwargs[name] for name in _SAVED_OPTIONS if name in kwargs}
        self._compile_arguments = CompileArguments(self._label_losses.given, options)

    def fit(
        self, x: Any = None, *args: Any, class_weight: Mapping[int, float] | None = None, **kwargs: Any
    ) -> keras.callbacks.History:
        """Trains as `keras.Model.fit` does.

        Raises:
          ValueError: `class_weight` is given and the schema has several labels: Keras would take their columns for
            classes. Or the data are raw values, such as a DataFrame.
        """
        check_batches(x)
        if (validation := kwargs.get("validation_data")) is not None:
            check_batches(validation[0] if isinstance(validation, tuple) else validation)
        if class_weight is not None and self.schema.more_labels:
            raise ValueError(
                f"class_weight={class_weight}: an example has {len(self.schema.labels)} labels, each with its class;"
                " give sample_weight, a weight per example"
            )
        return super().fit(x, *args, class_weight=class_weight, **kwargs)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluates as `keras.Model.evaluate` does.

        Raises:
          ValueError: the data are raw values, such as a DataFrame.
        """
        check_batches(x)
        return super().evaluate(x, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Predicts as `keras.Model.predict` does.

        Raises:
          ValueError: the data are raw values, such as a DataFrame.
        """
        check_batches(x)
        return super().predict(x, *args, **kwargs)

    @property
    def linear_features(self) -> Sequence[str] | None:
        """The features whose values have a linear weight, if the model has `linear_weights`; None for all.

        Tables that only other features look up get rows of one number.
        """
        return None

    @property
    def further_loss(self) -> str | None:
        """Why `compute_logits` calls `add_loss`, and how to do without it, as a clause; None if it does not."""
        return None

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """`loss`, the metrics of the labels, and `out_of_range`, which counts ids outside their tables."""
        return [] if self._label_losses is None else self._label_losses.metrics

    @property
    def out_of_range(self) -> dict[str, int]:
        """How many ids were outside their table since the last reset of the metrics, for features that have any."""
        return {} if self._label_losses is None else self._label_losses.out_of_range.by_feature()

    @property
    def dense_variables(self) -> list[tf.Variable]:
        """The trainable variables except the embedding tables."""
        tables = {id(v) for v in self.embeddings.trainable_variables}
        return [v for v in self.trainable_variables if id(v) not in tables]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor, the schema as JSON; subclasses add further arguments.

        `embeddings` is left out: the model is made with new tables, for the strategy in scope.
        """
        return keras.layers.Layer.get_config(self) | {
            "dtype": self.dtype_policy.name,
            "schema": json.loads(self.schema.to_json()),
            "seed": self.seed,
            "replicate_below": self.replicate_below,
            "loss_weights": self.loss_weights,
            "list_loss": self.list_loss,
            "list_loss_weight": self.list_loss_weight,
            "calibration": self.calibration and self.calibration.to_dict(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> RankingModel:
        """Makes a model from `get_config`, all its layers under the dtype policy of the model.

        Raises:
          TypeError: the constructor of a subclass does not take the arguments.
        """
        del custom_objects
        arguments = config | {"schema": Schema.from_json(json.dumps(config["schema"]))}
        try:
            with dtype_policy(config.get("dtype", keras.mixed_precision.global_policy())):
                return cls(**arguments)
        except TypeError as e:
            raise TypeError(
                f"{cls.__name__} could not be made from its config: {e}. Its constructor has to take **kwargs and pass"
                " them to super().__init__, and its get_config to add what else the constructor takes"
            ) from e

    def summary(
        self,
        line_length: int | None = None,
        positions: list[float] | None = None,
        print_fn: Callable[[str], None] | None = None,
        **kwargs: Any,
    ) -> None:
        """Prints Keras' summary, and below it the tables that Keras does not know, with a total of all parameters.

        Builds the model. The arguments are those of `keras.Model.summary`.
        """
        self.build()
        super().summary(line_length, positions, print_fn, **kwargs)
        for line in summary_of_tables(self.embeddings, self.count_params()):
            (print_fn or print)(line)

    def _checked_logits(
        self, features: Features, activations: list[tf.Tensor] | tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        """Returns the result of `compute_logits` as float32 [B], or [B, L] for L labels."""
        embeddings: Any = self.embeddings(features) if activations is None else activations
        if self.schema.histories:
            embeddings = self._with_histories(features, embeddings)
        return self._logits_of_vectors(features, embeddings, training)

    def _logits_of_vectors(self, features: Features, activations: Any, training: bool = False) -> tf.Tensor:
        """Returns `_checked_logits`; `activations` are of categorical features, as `compute_logits` takes them."""
        compute = self._compiled_logits if training is True and self._compiled_logits else self.compute_logits
        dense = dense_inputs(self.schema, features)
        if self.vector_projections is not None:
            numbers, *vectors = self.vector_projections(dense)
            dense, activations = (numbers if numbers.shape[1] else None), [*activations, *vectors]
        logits = compute(dense, activations, training)
        labels = len(self.schema.labels)
        if labels > 1 and (logits.shape.rank != 2 or logits.shape[1] != labels):
            raise ValueError(
                f"{type(self).__name__}.compute_logits returned shape {logits.shape}; return [B, {labels}], a column"
                " for each label of the schema"
            )
        if labels == 1 and logits.shape.rank == 2 and logits.shape[1] == 1:
            logits = logits[:, 0]
        if labels == 1 and logits.shape.rank != 1:
            raise ValueError(
                f"{type(self).__name__}.compute_logits returned shape {logits.shape}; return [B] or [B, 1]"
            )
        return tf.cast(logits, tf.float32)

    def _with_histories(self, features: Features, embeddings: Sequence[tf.Tensor]) -> list[tf.Tensor | History]:
        """Returns the vectors of all features, those of histories as `compute_logits` takes them."""
        found = with_events(self.schema, embeddings, history_lengths(self.schema, features))
        if self.reads_histories:
            return found
        return with_pooled(self.schema, found, self.history_attention or {})

    def _loss(
        self,
        ids: Any,
        labels: tf.Tensor,
        scores: tf.Tensor,
        weights: tf.Tensor | None,
        groups: tf.Tensor | None,
        training: bool = True,
    ) -> tf.Tensor:
        if self._label_losses is None:
            raise RuntimeError(f"{type(self).__name__} has no losses yet; call compile before training or evaluating")
        return self._label_losses(labels, scores, weights, self.losses, ids.out_of_range, training, groups)

    def _scores(self, features: Any) -> Any:
        """Returns `logits` without training, in each replica of the strategy."""
        return self.distribute_strategy.run(lambda x: self(x, training=False, logits=True), args=(features,))
