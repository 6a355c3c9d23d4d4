"""The layers that models share: MLPs, biases and vectors of numbers, of the model's seed and dtype policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfrs_dlrm.layers.factorization import Bias, DenseVectors
from tfrs_dlrm.layers.hashing import derive_seed
from tfrs_dlrm.layers.mlp import MLP
from tfrs_dlrm.models.label_tasks import Tasks
from tfrs_dlrm.schema import Schema


class ModelParts:
    """Makes the layers of a `RankingModel`, during the `__init__` of its subclasses."""

    schema: Schema
    seed: int
    label_tasks: Tasks
    dtype_policy: Any
    _output_bias: Callable[[], tf.Variable] | None

    def make_top_mlp(self, units: Sequence[int], dropout: float, batch_norm: bool, kind: type[MLP] = MLP) -> MLP:
        """Makes the MLP `top_mlp`, whose last layer is the output: it begins at `Task.first_output` of each label.

        Args:
          units: outputs of the layers; the last is replaced by the number of labels.
          dropout: see `make_mlp`.
          batch_norm: see `make_mlp`.
          kind: see `make_mlp`.
        """
        begins = self.label_tasks.first_outputs
        mlp = self.make_mlp("top_mlp", (*units[:-1], len(begins)), dropout, batch_norm, kind, final_bias=begins)
        self._output_bias = lambda: mlp.dense_layers[-1].bias
        return mlp

    def make_bias(self) -> Bias:
        """Makes the layer `bias`, which is added to the output of a model with one label."""
        bias = Bias(self.label_tasks.first.first_output, dtype="float32", name="bias")
        self._output_bias = lambda: bias.bias
        return bias

    def make_dense_vectors(self, dim: int, name: str = "dense_vectors") -> DenseVectors | None:
        """Makes the layer that gives each number a vector; None if the schema has no numbers.

        It computes in float32, since numbers may be large.

        Args:
          dim: the dimension of the vectors; 1 for linear weights.
          name: of the layer.
        """
        if not self.schema.unprojected_width:
            return None
        return DenseVectors(dim, derive_seed(self.seed, "dense"), dtype="float32", name=name)

    def make_logit(self, name: str) -> keras.layers.Dense:
        """Makes a linear layer without bias and with an output for each label, which is added to the logits.

        Args:
          name: of the layer; decides the initial weights together with the seed.
        """
        initializer = keras.initializers.GlorotNormal(derive_seed(self.seed, name))
        return keras.layers.Dense(
            len(self.schema.labels), use_bias=False, kernel_initializer=initializer, dtype=self.dtype_policy, name=name
        )

    @property
    def output_bias(self) -> tf.Variable | None:
        """The weight that is added to the outputs of `compute_logits`, [labels] or []; None if the model has none.

        It is that of `make_top_mlp` or `make_bias`.
        """
        return self._output_bias() if self._output_bias else None

    def make_mlp(
        self,
        name: str,
        units: Sequence[int],
        dropout: float,
        batch_norm: bool,
        kind: type[MLP] = MLP,
        **kwargs: Any,
    ) -> MLP:
        """Makes an MLP of the model's seed and dtype policy.

        Args:
          name: of the layer; decides the initial weights together with the seed.
          units: outputs of the layers.
          dropout: the share of hidden outputs that training drops.
          batch_norm: whether hidden layers are batch normalized.
          kind: the class of the layer.
          **kwargs: further arguments of `MLP`.
        """
        seed = derive_seed(self.seed, name)
        return kind(
            units, seed=seed, dropout=dropout, batch_norm=batch_norm, dtype=self.dtype_policy, name=name, **kwargs
        )
