"""The configurations of models that came after DLRM, with the defaults of their papers."""

import dataclasses
from typing import ClassVar

from tfrs_dlrm.config.field_checks import check_at_least, check_choice, refuse
from tfrs_dlrm.config.models import cost
from tfrs_dlrm.config.models.base import DeepModelConfig, HiddenLayersConfig, check_units
from tfrs_dlrm.config.models.cost import DenseCost
from tfrs_dlrm.config.models.towers import TowerModelConfig
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.schema.histories import parts_of_events


@dataclasses.dataclass
class GDCNConfig(TowerModelConfig):
    """The configuration of `tfrs_dlrm.models.gdcn.GDCN`.

    Attributes:
      cross_layers: the number of layers of the gated cross network.
      cross_structure: whether the MLP reads the same inputs (`parallel`) or follows the cross network (`stacked`).
    """

    keras_class: ClassVar[str] = "tfrs_dlrm.models.gdcn:GDCN"

    name: str = dataclasses.field(default="gdcn", init=False)
    _: dataclasses.KW_ONLY
    top_mlp: tuple[int, ...] = (400, 400, 400, 1)
    cross_layers: int = 3
    cross_structure: str = "parallel"

    def check(self) -> None:
        """Checks the cross network too."""
        super().check()
        check_choice("model.cross_structure", self.cross_structure, ("stacked", "parallel"))
        check_at_least("model", self, cross_layers=1)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts cross network and MLP."""
        width = cost.input_width(schema)
        kernels = 2 * width * width
        layer = DenseCost(kernels + width, 2 * kernels + 5 * width, 6 * width)
        logit = cost.logit(width, schema) if self.cross_structure == "parallel" else DenseCost()
        return layer.times(self.cross_layers) + logit + self.top_cost(width, schema)


@dataclasses.dataclass
class FinalNetConfig(DeepModelConfig):
    """The configuration of `tfrs_dlrm.models.final_net.FinalNet`.

    Attributes:
      second_mlp: units of the hidden layers of a second block, which learns with the first; empty has one block.
    """

    keras_class: ClassVar[str] = "tfrs_dlrm.models.final_net:FinalNet"

    name: str = dataclasses.field(default="final_net", init=False)
    _: dataclasses.KW_ONLY
    top_mlp: tuple[int, ...] = (400, 400, 400, 1)
    second_mlp: tuple[int, ...] = ()

    def check(self) -> None:
        """Checks the second block too."""
        super().check()
        check_units("second_mlp", self.second_mlp, may_be_empty=True)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the blocks: an MLP, and the factors of its hidden layers."""
        width, labels = cost.input_width(schema), len(schema.labels)
        total = self.top_cost(width, schema) + _factors(width, self.top_mlp[:-1])
        if self.second_mlp:
            mean = DenseCost(flops=3 * labels, activations=3 * labels)
            total += self.mlp_cost(width, (*self.second_mlp, labels)) + _factors(width, self.second_mlp) + mean
        return total


def _factors(inputs: int, hidden: tuple[int, ...]) -> DenseCost:
    """Counts what factorized layers of `hidden` units have more than those of an MLP of `inputs` numbers."""
    total = DenseCost()
    for before, units in zip((inputs, *hidden), hidden, strict=False):
        total += DenseCost((before + 1) * units, (2 * before + 3) * units, 3 * units)
    return total


@dataclasses.dataclass
class MaskNetConfig(TowerModelConfig):
    """The configuration of `tfrs_dlrm.models.mask_net.MaskNet`.

    Attributes:
      mask_blocks: the number of blocks.
      mask_units: the number of outputs of each block.
      mask_reduction: how many times wider than its mask the hidden layer is that computes the mask.
      mask_structure: whether all blocks read the embeddings (`parallel`) or each the block before it (`serial`).
    """

    keras_class: ClassVar[str] = "tfrs_dlrm.models.mask_net:MaskNet"
    one_dimension: ClassVar[bool] = True

    name: str = dataclasses.field(default="mask_net", init=False)
    _: dataclasses.KW_ONLY
    top_mlp: tuple[int, ...] = (400, 400, 1)
    mask_blocks: int = 3
    mask_units: int = 400
    mask_reduction: float = 2.0
    mask_structure: str = "parallel"

    def check(self) -> None:
        """Checks the blocks too."""
        super().check()
        check_choice("model.mask_structure", self.mask_structure, ("parallel", "serial"))
        check_at_least("model", self, mask_blocks=1, mask_units=1)
        if not self.mask_reduction > 0:
            refuse("model.mask_reduction", self.mask_reduction, "a positive number is needed, such as 2")

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts vectors, their normalization, blocks and MLP."""
        dim = max(cost.vector_dims(schema))
        width = dim * (len(cost.interacting_dims(schema)) + schema.unprojected_width)
        total = cost.stacked(schema, dim) + _layer_norm(width)
        serial = self.mask_structure == "serial"
        for block in range(self.mask_blocks):
            total += self._block_cost(width, self.mask_units if serial and block else width)
        outputs = self.mask_units if serial else self.mask_blocks * self.mask_units
        return total + self.top_cost(outputs, schema)

    def _block_cost(self, instance: int, width: int) -> DenseCost:
        mask = cost.mlp(instance, (max(1, int(self.mask_reduction * width)), width), False, 0.0)
        kernel, units = width * self.mask_units, self.mask_units
        hidden = DenseCost(kernel, 2 * kernel + width + units, width + 2 * units)
        dropped = units if self.dropout else 0
        return mask + hidden + _layer_norm(units) + DenseCost(flops=dropped, activations=dropped)


def _layer_norm(width: int) -> DenseCost:
    return DenseCost(2 * width, 8 * width, 4 * width)


@dataclasses.dataclass
class AutoIntConfig(TowerModelConfig):
    """The configuration of `tfrs_dlrm.models.auto_int.AutoInt`.

    Attributes:
      attention_layers: the number of attention layers.
      attention_heads: the number of heads of each layer.
      attention_dim: the dimension of each head's vectors.
    """

    keras_class: ClassVar[str] = "tfrs_dlrm.models.auto_int:AutoInt"
    one_dimension: ClassVar[bool] = True

    name: str = dataclasses.field(default="auto_int", init=False)
    _: dataclasses.KW_ONLY
    top_mlp: tuple[int, ...] = (400, 400, 1)
    attention_layers: int = 3
    attention_heads: int = 2
    attention_dim: int = 32

    def check(self) -> None:
        """Checks the attention too."""
        super().check()
        check_at_least("model", self, attention_layers=1, attention_heads=1, attention_dim=1)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts vectors, attention layers and MLP."""
        dim = max(cost.vector_dims(schema))
        fields = len(cost.interacting_dims(schema)) + schema.unprojected_width
        outputs, width, attention = self.attention_heads * self.attention_dim, dim, DenseCost()
        for _ in range(self.attention_layers):
            kernels, weights = 4 * width * outputs, fields * fields * self.attention_heads
            products = 2 * fields * kernels + 4 * fields * fields * outputs
            attention += DenseCost(kernels, products + 4 * weights, 7 * fields * outputs + 2 * weights)
            width = outputs
        logit = cost.logit(fields * outputs, schema)
        return cost.stacked(schema, dim) + attention + logit + self.top_cost(fields * dim, schema)


@dataclasses.dataclass
class XDeepFMConfig(DeepModelConfig):
    """The configuration of `tfrs_dlrm.models.xdeepfm.XDeepFM`.

    Attributes:
      interaction_maps: the number of feature maps of each layer of the compressed interaction network.
    """

    keras_class: ClassVar[str] = "tfrs_dlrm.models.xdeepfm:XDeepFM"
    linear_weights: ClassVar[bool] = True
    one_dimension: ClassVar[bool] = True

    name: str = dataclasses.field(default="xdeepfm", init=False)
    _: dataclasses.KW_ONLY
    top_mlp: tuple[int, ...] = (400, 400, 1)
    interaction_maps: tuple[int, ...] = (200, 200, 200)

    def check(self) -> None:
        """Checks the interaction too."""
        super().check()
        check_units("interaction_maps", self.interaction_maps)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts linear terms, the compressed interaction network and the MLP."""
        dim = max(cost.vector_dims(schema))
        fields = len(cost.interacting_dims(schema)) + schema.unprojected_width
        total, before = cost.stacked(schema, dim + 1), fields
        for maps in self.interaction_maps:
            pairs = before * fields
            total += DenseCost(pairs * maps, dim * (pairs + 2 * pairs * maps + maps), dim * (pairs + maps) + maps)
            before = maps
        sums = sum(self.interaction_maps)
        linear = DenseCost(flops=fields + 2, activations=fields + 2)
        total += cost.concatenation(sums) + cost.logit(sums, schema) + linear
        return total + self.top_cost(fields * dim, schema)


@dataclasses.dataclass
class FinalMLPConfig(HiddenLayersConfig):
    """The configuration of `tfrs_dlrm.models.final_mlp.FinalMLP`.

    Attributes:
      first_mlp: units of the layers of the first stream.
      second_mlp: units of the layers of the second stream.
      first_context: the features from which the gate of the first stream is computed; empty trains one gate for all
        rows.
      second_context: the features for the gate of the second stream.
      gate_mlp: units of the hidden layers of a gate's MLP.
      heads: into how many parts the streams' outputs are split before they are multiplied.
    """

    keras_class: ClassVar[str] = "tfrs_dlrm.models.final_mlp:FinalMLP"

    name: str = dataclasses.field(default="final_mlp", init=False)
    _: dataclasses.KW_ONLY
    first_mlp: tuple[int, ...] = (400, 400, 400)
    second_mlp: tuple[int, ...] = (400, 400, 400)
    first_context: tuple[str, ...] = ()
    second_context: tuple[str, ...] = ()
    gate_mlp: tuple[int, ...] = (64,)
    heads: int = 1

    def check(self) -> None:
        """Checks the streams and gates too."""
        super().check()
        check_units("first_mlp", self.first_mlp)
        check_units("second_mlp", self.second_mlp)
        check_units("gate_mlp", self.gate_mlp, may_be_empty=True)
        check_at_least("model", self, heads=1)
        if self.first_mlp[-1] % self.heads or self.second_mlp[-1] % self.heads:
            refuse("model.heads", self.heads, "it must divide the last numbers of model.first_mlp and second_mlp")

    def features(self, data: Schema) -> list[str]:
        """Returns all features, and checks that those of the gates are among them."""
        names = [f.name for f in (*data.categorical, *data.dense)]
        for field in ("first_context", "second_context"):
            for name in getattr(self, field):
                if name not in names:
                    refuse(f"model.{field}", name, f"name features; the data have {', '.join(names)}")
        return super().features(data)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts gates, streams and their fusion."""
        width, labels = cost.input_width(schema), len(schema.labels)
        total = DenseCost()
        for units, context in ((self.first_mlp, self.first_context), (self.second_mlp, self.second_context)):
            total += self._gate_cost(width, context, schema) + self.mlp_cost(width, units, all_hidden=True)
        p, q = self.first_mlp[-1], self.second_mlp[-1]
        kernel = p * q // self.heads * labels
        fusion = DenseCost(kernel, 2 * kernel + 2 * q * labels, p + q + 2 * q * labels + labels)
        linear = cost.concatenation(p + q) + cost.mlp(p + q, (labels,), False, 0.0)
        return total + cost.concatenation(width) + fusion + linear

    def _gate_cost(self, width: int, context: tuple[str, ...], schema: Schema) -> DenseCost:
        scaled = DenseCost(flops=3 * width, activations=3 * width)
        if not context:
            return scaled + DenseCost(weights=width)
        features = schema.select(context)
        read = sum(cost.vector_dims(features)) + features.unprojected_width
        read += len(features.projected) * (max(cost.vector_dims(schema)) if features.projected else 0)
        return scaled + cost.concatenation(read) + cost.mlp(read, (*self.gate_mlp, width), False, 0.0)


@dataclasses.dataclass
class DINConfig(TowerModelConfig):
    """The configuration of `tfrs_dlrm.models.din.DIN`.

    Attributes:
      attention_mlp: units of the hidden layers of the MLP that weighs an event.
      attention_softmax: whether the weights of a history are normalized.
    """

    keras_class: ClassVar[str] = "tfrs_dlrm.models.din:DIN"

    name: str = dataclasses.field(default="din", init=False)
    _: dataclasses.KW_ONLY
    top_mlp: tuple[int, ...] = (200, 80, 1)
    attention_mlp: tuple[int, ...] = (36,)
    attention_softmax: bool = False

    def check(self) -> None:
        """Checks the attention too."""
        super().check()
        check_units("attention_mlp", self.attention_mlp)

    def compared(self, schema: Schema) -> list[str]:
        """Returns all histories, whatever their pooling."""
        return list(parts_of_events(schema.categorical))

    def history_cost(self, schema: Schema, tables: Schema) -> DenseCost:
        """Counts the attention of all histories, whatever their pooling."""
        attention = cost.target_attention(schema, self.compared(schema), self.attention_mlp)
        return cost.pooled_histories(tables, attended=True) + attention

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the MLP."""
        return self.top_cost(cost.input_width(schema), schema)


@dataclasses.dataclass
class BSTConfig(TowerModelConfig):
    """The configuration of `tfrs_dlrm.models.bst.BST`.

    Attributes:
      heads: the number of attention heads.
      blocks: the number of blocks of the transformer.
      feed_forward: units of the hidden layer of a block's MLP.
    """

    keras_class: ClassVar[str] = "tfrs_dlrm.models.bst:BST"

    name: str = dataclasses.field(default="bst", init=False)
    _: dataclasses.KW_ONLY
    top_mlp: tuple[int, ...] = (1024, 512, 256, 1)
    heads: int = 8
    blocks: int = 1
    feed_forward: int = 64

    def check(self) -> None:
        """Checks the transformer too."""
        super().check()
        check_at_least("model", self, heads=1, blocks=1, feed_forward=1)

    def compared(self, schema: Schema) -> list[str]:
        """Returns all histories, whatever their pooling."""
        return list(parts_of_events(schema.categorical))

    def history_cost(self, schema: Schema, tables: Schema) -> DenseCost:
        """Counts the vectors of events after the first of each history, which lookups write; nothing is pooled."""
        later = sum(((f.sequence_length or 1) - 1) * tables.table_of(f).dim for f in schema.histories)
        return cost.concatenation(later)

    def layer_cost(self, schema: Schema) -> DenseCost:
        """Counts the transformers and the MLP."""
        width, total = cost.input_width(schema), DenseCost()
        for parts in parts_of_events(schema.categorical).values():
            dim, places = sum(schema.table_of(f).dim for f in parts), 1 + (parts[0].sequence_length or 0)
            width += (places - 1) * dim  # the target's place, and those of events in place of one vector
            joined = DenseCost(weights=places * dim, flops=2 * places * dim, activations=3 * places * dim)
            block = cost.transformer_block(places, dim, self.heads, self.feed_forward, self.dropout)
            total += joined + block.times(self.blocks)
        return total + self.top_cost(width, schema)
