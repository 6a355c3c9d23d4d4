"""FinalNet (Zhu et al. 2023, "FINAL: Factorized Interaction Layer for CTR Prediction", SIGIR)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_dlrm.layers.factorized_interaction import FactorizedMLP
from tfrs_dlrm.layers.serializable import serializable
from tfrs_dlrm.messages.arguments import Count
from tfrs_dlrm.models.model_inputs import check_no_sequences, check_top_mlp, concatenated
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema


@serializable
class FinalNet(RankingModel):
    """FinalNet: an MLP whose hidden layers multiply as well as add, or two of them that learn from their mean.

        h_0 = concat(v_1, ..., v_n, x)
        h_{l+1} = relu((W_l h_l + b_l) * (1 + U_l h_l + c_l))
        z = w . h_last + b
        one block:   logit = z
        two blocks:  logit = (z_1 + z_2) / 2,   loss = L(y, logit) + L(p, z_1) + L(p, z_2)

    elementwise. v_i is the vector of categorical feature i, and x the dense features [B, schema.unprojected_width]. The
    degree in the inputs doubles with each layer. The output of `compute_logits` is [B, L] for L labels.

    Two blocks have weights of their own. Both learn the label through their mean, and each learns to predict alone what
    they predict together: L is the log loss, and p = sigmoid(logit) is taken as given, without a gradient. For a
    regression, L is the squared error and p the prediction. The terms of p are averaged over the batch, without
    weights of examples, and are multiplied by a label's `loss_weight`. They are in the loss of training alone.

    Differences from the paper: its field gates are left out. As in FuxiCTR, the activation follows the sum of the
    linear part and the product; its settings on Criteo also drop outputs of the first block alone. Dense features
    are used as numbers and not embedded.

    Args:
      schema: of the features; no sequences. Tables may have any dimensions.
      top_mlp: outputs of the layers, of which the last is linear and must be 1. With several labels, it has an output
        per label.
      second_mlp: outputs of the hidden layers of a second block; empty for one block.
      dropout: the share of hidden outputs that training drops, from 0 up to 1.
      batch_norm: whether hidden layers are batch normalized before their ReLU.
      seed: determines all initial weights.

    Raises:
      ValueError: a feature is a sequence, or `top_mlp` does not end in 1.
    """

    # Products of many numbers amplify rounding more than sums do.
    rounding = 1e-5
    takes_candidate_rows = True

    def __init__(
        self,
        schema: Schema,
        top_mlp: Sequence[Count] = (400, 400, 400, 1),
        dropout: float = 0.0,
        batch_norm: bool = False,
        seed: int = 0,
        second_mlp: Sequence[Count] = (),
        **kwargs: Any,
    ) -> None:
        check_no_sequences("FinalNet", schema)
        check_top_mlp(top_mlp)
        super().__init__(schema, seed, **kwargs)
        self.top_mlp = self.make_top_mlp(top_mlp, dropout, batch_norm, FactorizedMLP)
        self.second_block = None
        if second_mlp:
            units, begin = (*second_mlp, len(schema.labels)), [0.0] * len(schema.labels)
            self.second_block = self.make_mlp(
                "second_block", units, dropout, batch_norm, FactorizedMLP, final_bias=begin
            )

    def compute_logits(self, dense: tf.Tensor | None, embeddings: list[tf.Tensor], training: bool) -> tf.Tensor:
        """Computes logits [B, L]; see `RankingModel.compute_logits`."""
        inputs = concatenated(dense, embeddings)
        first = self.top_mlp(inputs, training=training)
        if self.second_block is None:
            return first
        # Both have the bias of the first, which therefore moves their mean as `output_bias` has to.
        second = self.second_block(inputs, training=training) + tf.cast(self.output_bias, first.dtype)
        mean = (first + second) / 2
        if training:
            self.add_loss(self._apart(first, mean) + self._apart(second, mean))
        return mean

    def _apart(self, block: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
        """Returns the loss of a block's outputs [B, L], whose labels are the predictions of both blocks; float32 []."""
        block, target = tf.cast(block, tf.float32), tf.stop_gradient(tf.cast(mean, tf.float32))
        rows, total = tf.cast(tf.shape(block)[0], tf.float32), tf.constant(0.0)
        for i, label in enumerate(self.schema.labels):
            if label.task == "regression":
                losses = tf.square(block[:, i] - target[:, i])
            else:
                losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.sigmoid(target[:, i]), block[:, i])
            # At the end of an epoch, a replica may have no examples.
            total += label.loss_weight * tf.math.divide_no_nan(tf.reduce_sum(losses), rows)
        return total

    @property
    def further_loss(self) -> str | None:
        """See `RankingModel.further_loss`; two blocks have one."""
        if self.second_block is None:
            return None
        return "the two blocks of FinalNet have a further loss; leave jit_compile out, or choose second_mlp=()"

    def get_config(self) -> dict[str, Any]:
        """See `RankingModel.get_config`."""
        return super().get_config() | {
            "top_mlp": [*self.top_mlp.units[:-1], 1],
            "dropout": self.top_mlp.dropout,
            "batch_norm": self.top_mlp.batch_norm,
            "second_mlp": [] if self.second_block is None else list(self.second_block.units[:-1]),
        }
