"""Reads a checkpoint of facebookresearch/dlrm (`dlrm_s_pytorch.py`) into a `DLRM`.

The reference code has tables `emb_l.I` and MLPs `bot_l` and `top_l`, whose layers have even numbers, because the
activations between them count too. Both codes concatenate the bottom vector and the lower triangle of dot products, row
by row. So weights differ only in being transposed, and in the order of features if the schema has another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_dlrm.checkpoint.state_dict import StateDict
from tfrs_dlrm.checkpoint.table_rows import PART_BYTES, row_bytes
from tfrs_dlrm.embeddings.storage import LogicalTable
from tfrs_dlrm.layers.mlp import MLP
from tfrs_dlrm.messages.arguments import checked
from tfrs_dlrm.models.dlrm import DLRM
from tfrs_dlrm.schema import CategoricalFeature

# How many names an error lists.
_LISTED = 6


class _Weight(NamedTuple):
    """A weight of the model: the shape of its tensor in the checkpoint, and the function that takes that tensor."""

    shape: tuple[int, ...]
    assign: Callable[[np.ndarray], object]


class _Checkpoint:
    """The tensors of a checkpoint, by the names that a model on one device gives them.

    Training on several devices puts `module.` into names, and `--md-flag` puts `embs.` into those of tables.
    """

    def __init__(self, state: StateDict) -> None:
        self.state = state
        self.keys = {key.replace("module.", "").replace(".embs.", "."): key for key in state}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.state[self.keys[name]]


@checked
def restore_facebook_dlrm(model: DLRM, path: str | os.PathLike[str], features: Sequence[str] | None = None) -> None:
    """Overwrites the weights of a model with a checkpoint of facebookresearch/dlrm, whose scores it then gives.

        model = td.DLRM(schema, bottom_mlp=(512, 256, 64, 16), top_mlp=(512, 256, 1))
        td.restore_facebook_dlrm(model, "dlrm.npz")

    The file holds the state dict of the PyTorch model. The values of a feature must have the row numbers of its
    training, so categorical features have the encoding `ids`. Row 0 belongs to an ordinary value then, not to unseen
    ones. Dense features are in the order of `schema.dense`.

    Tables of `--qr-flag` (with the operation `mult`) need their `Table.remainders`, and tables of `--md-flag` their
    `Table.dim`. The weights of `--weighted-pooling` are multiplied into the rows. Optimizers stay as they are.

    Args:
      model: of the same layers; its tables may be on any devices. In a run of several processes all of them call this.
      path: a `.npz` or `.safetensors` file.
      features: the names of the categorical features in the order of the checkpoint's tables; by default the order of
        `schema.categorical`.

    Raises:
      FileNotFoundError: the file does not exist.
      ImportError: the library `safetensors` is not installed.
      ValueError: the file is no such checkpoint, or of a model with other layers. The model may be half restored then.
    """
    ordered = _in_order(model, features)
    _check_model(model, ordered)
    checkpoint = _Checkpoint(StateDict(path))
    model.build()
    weights = {
        **_mlp_weights("bot_l", model.bottom_mlp),
        **_mlp_weights("top_l", model.top_mlp, _top_inputs(model, ordered)),
        **_table_weights(model, ordered, checkpoint),
    }
    _check_names(checkpoint, model, ordered, weights)
    with model.distribute_strategy.scope():
        for name, weight in weights.items():
            values = checkpoint[name]
            if values.shape != weight.shape:
                raise ValueError(
                    f"{checkpoint.state.path}: {checkpoint.keys[name]} has shape {values.shape}, and the model needs"
                    f" {weight.shape}; {_advice(checkpoint, name)}"
                )
            weight.assign(values)
        model.embeddings.load()


def _in_order(model: DLRM, features: Sequence[str] | None) -> list[CategoricalFeature]:
    """Returns the categorical features in the order of the checkpoint's tables."""
    if not isinstance(model, DLRM):
        raise ValueError(
            f"the model is a {type(model).__name__}; a checkpoint of facebookresearch/dlrm needs a td.DLRM"
        )
    by_name = {f.name: f for f in model.schema.categorical}
    names = list(by_name) if features is None else list(features)
    if sorted(names) != sorted(by_name):
        raise ValueError(f"features={names}: name each categorical feature of the schema once: {list(by_name)}")
    return [by_name[name] for name in names]


def _check_model(model: DLRM, features: Iterable[CategoricalFeature]) -> None:
    """Checks that a model of facebookresearch/dlrm can have this form."""
    if model.schema.projected:
        raise ValueError(
            f"feature {model.schema.projected[0].name!r} is projected, which facebookresearch/dlrm cannot do; drop"
            " projected: its numbers are then inputs of the bottom MLP"
        )
    if not model.schema.dense or model.top_mlp.batch_norm or model.linear or model.numbers != "mlp":
        raise ValueError(
            "models of facebookresearch/dlrm have dense features, a bottom MLP and no batch normalization; add the"
            " dense features to the schema, and leave out batch_norm, linear and numbers"
        )
    if model.sharing != "shared_bottom":
        raise ValueError(
            f"sharing={model.sharing!r}: models of facebookresearch/dlrm have one top MLP; leave out sharing"
        )
    if model.schema.histories:
        raise ValueError(
            f"feature {model.schema.histories[0].name!r} is a history, which models of facebookresearch/dlrm do not"
            " have; leave out history_of: its values then have a table of their own, which combiner='sum' adds up"
        )
    owners: dict[str, str] = {}
    for f in features:
        table = model.schema.table_of(f)
        if owners.setdefault(table.name, f.name) != f.name or table.stored_in:
            raise ValueError(
                f"feature {f.name!r} shares the rows of table {table.stored_in or table.name!r}; facebookresearch/dlrm"
                " has a table for each feature: remove `table` and `stored_in`"
            )
        if f.multi_valued and (table.combiner != "sum" or table.remainders):
            raise ValueError(
                f"feature {f.name!r} has several values, and its table has combiner={table.combiner!r} and"
                f" remainders={table.remainders}; facebookresearch/dlrm adds up the vectors of several values, and"
                " quotients and remainders separately: set combiner='sum', and no remainders"
            )


def _check_names(
    checkpoint: _Checkpoint, model: DLRM, features: Sequence[CategoricalFeature], weights: Mapping[str, _Weight]
) -> None:
    """Checks that the checkpoint has the tensors that the model needs, and no others."""
    factors = {f"v_W_l.{i}" for i, f in enumerate(features) if model.schema.table_of(f).remainders is None}
    missing = [name for name in weights if name not in checkpoint.keys]
    unknown = [name for name in checkpoint.keys if name not in weights and name not in factors]
    if missing or unknown:
        what = [f"has no {_some(missing)}"] if missing else []
        what += [f"has {_some(unknown)}, for which the model has no place"] if unknown else []
        advice = _advice(checkpoint, (unknown or missing)[0])
        raise ValueError(f"{checkpoint.state.path} {' and '.join(what)}; {advice}")


def _mlp_weights(name: str, mlp: MLP, inputs: np.ndarray | None = None) -> dict[str, _Weight]:
    """Returns the weights of an MLP; `inputs` are the checkpoint's numbers of the inputs of its first layer."""
    weights = {}
    for i, layer in enumerate(mlp.dense_layers):
        fan_in, units = layer.kernel.shape
        columns = np.arange(fan_in) if inputs is None or i else inputs
        weights[f"{name}.{2 * i}.weight"] = _Weight((units, fan_in), partial(_assign_kernel, layer.kernel, columns))
        weights[f"{name}.{2 * i}.bias"] = _Weight((units,), layer.bias.assign)
    return weights


def _assign_kernel(kernel: tf.Variable, columns: np.ndarray, values: np.ndarray) -> None:
    kernel.assign(values.T[columns])


def _top_inputs(model: DLRM, features: Sequence[CategoricalFeature]) -> np.ndarray:
    """Returns for each input of the model's top MLP its number in the checkpoint."""
    names = [f.name for f in features]
    # The checkpoint's number of each vector of the model. The bottom MLP's vector is the first in both.
    number = np.array([0, *(1 + names.index(f.name) for f in model.schema.categorical)])
    if model.interaction is None:
        starts = np.cumsum([0, model.bottom_mlp.units[-1], *(model.schema.table_of(f).dim for f in features)])
        return np.concatenate([np.arange(starts[n], starts[n + 1]) for n in number])
    rows, columns = np.tril_indices(len(number), 0 if model.self_interaction else -1)
    product = np.zeros([len(number), len(number)], int)
    product[rows, columns] = product[columns, rows] = np.arange(len(rows))
    return np.concatenate([np.arange(model.dim), model.dim + product[number[rows], number[columns]]])


def _table_weights(model: DLRM, features: Sequence[CategoricalFeature], checkpoint: _Checkpoint) -> dict[str, _Weight]:
    """Returns the weights of the tables and of their projections."""
    stored = model.embeddings.logical_tables()
    weights = {}
    for i, feature in enumerate(features):
        table = model.schema.table_of(feature)
        suffixes = ("weight",) if table.remainders is None else ("weight_q", "weight_r")
        for suffix, part in zip(suffixes, table.parts, strict=True):
            rows = stored[f"tables/{part}"]
            weights[f"emb_l.{i}.{suffix}"] = _Weight(rows.shape, partial(_assign_rows, rows, checkpoint, f"v_W_l.{i}"))
        if table.name in model.projections:
            kernel = model.projections[table.name].kernel
            weights[f"emb_l.{i}.proj.weight"] = _Weight(
                (model.dim, table.dim), partial(_assign_kernel, kernel, np.arange(table.dim))
            )
    return weights


def _assign_rows(table: LogicalTable, checkpoint: _Checkpoint, factor: str, values: np.ndarray) -> None:
    """Overwrites all rows of a table, some at a time, times their factors if the checkpoint has any."""
    if factor in checkpoint.keys:
        values = values * checkpoint[factor][:, np.newaxis]
    step = max(1, PART_BYTES // row_bytes(table))
    for shard in table.shards:
        for first in range(shard.begin, shard.end, step):
            shard.write(first, tf.cast(values[first : min(first + step, shard.end)], table.dtype))


def _advice(checkpoint: _Checkpoint, name: str) -> str:
    """Says which table, or which model, the tensor of this name is of."""
    keys = checkpoint.keys
    if not {"bot_l.0.weight", "bot_l.0.bias", "top_l.0.weight", "top_l.0.bias"} <= keys.keys():
        return "give the state dict of a model of dlrm_s_pytorch.py"
    table = ".".join(name.split(".")[:2])
    if f"{table}.weight_r" in keys and table.startswith("emb_l."):
        remainders, dim = checkpoint[f"{table}.weight_r"].shape
        return f"{table} needs a Table with dim={dim} and remainders={remainders}"
    if f"{table}.weight" in keys and table.startswith("emb_l."):
        rows, dim = checkpoint[f"{table}.weight"].shape
        return f"{table} needs a Table with dim={dim} and vocabulary_size={rows}"
    tables = {key.split(".")[1] for key in keys if key.startswith("emb_l.")}
    units = {}
    for mlp in ("bot_l", "top_l"):
        biases = (f"{mlp}.{2 * i}.bias" for i in range(len(keys)))
        units[mlp] = tuple(len(checkpoint[bias]) for bias in biases if bias in keys)
    vectors, products = len(tables) + 1, checkpoint["top_l.0.weight"].shape[1] - units["bot_l"][-1]
    options = {vectors * (vectors - 1) // 2: "", vectors * (vectors + 1) // 2: ", self_interaction=True"}
    option = options.get(products, ", interaction='cat'")
    return (
        f"it is of td.DLRM(schema, bottom_mlp={units['bot_l']}, top_mlp={units['top_l']}{option}) with"
        f" {checkpoint['bot_l.0.weight'].shape[1]} dense and {len(tables)} categorical features"
    )


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{rest}"
