"""LightGBM as a contestant: gradient-boosted trees on the same rows, to see whether a network is worth its cost.

See Ke et al. 2017, "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NIPS.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfrs_dlrm.config import DataConfig, RunConfig, TrainConfig
from tfrs_dlrm.config.field_checks import check_at_least, refuse
from tfrs_dlrm.data.preparing.manifest import Split, encoded_schema
from tfrs_dlrm.data.reading.row_groups import open_row_groups
from tfrs_dlrm.messages import install_command
from tfrs_dlrm.models.tasks import BinaryClassification, Task, task_of
from tfrs_dlrm.schema import GROUP, SCHEMA_FILE, Schema
from tfrs_dlrm.stores import local_copy
from tfrs_dlrm.stores.files import write_text
from tfrs_dlrm.tools.comparison.outcome import rows_for_choices
from tfrs_dlrm.training.evaluation import Scores

NAME = "lightgbm"
# Of a feature with several values, so many rows of its table get a column: the most frequent ones in training.
_COLUMNS_OF_LISTS = 50
_SPLITS: tuple[Split, Split] = ("train", "eval")
# Bounds of tuning, within which values are drawn uniformly by their logarithm, or uniformly.
_LOGARITHMIC = {
    "trees.learning_rate": (0.01, 0.3),
    "trees.num_leaves": (7.0, 255.0),
    "trees.min_data_in_leaf": (5.0, 300.0),
    "trees.lambda_l2": (1e-3, 100.0),
    "trees.cat_smooth": (1.0, 200.0),
}
_EVEN = {"trees.feature_fraction": (0.4, 1.0)}


@dataclasses.dataclass
class Trees:
    """The parameters of LightGBM, by its names and with its defaults, except for both fractions.

    Attributes:
      learning_rate: the factor of each tree.
      num_leaves: of a tree, at most.
      min_data_in_leaf: how many rows a leaf has at least.
      lambda_l2: the L2 penalty of the values of leaves.
      cat_smooth: smooths the statistics of categorical values.
      feature_fraction: the share of the columns that a tree may use.
      bagging_fraction: the share of the rows that a tree is grown on.
      num_iterations: how many trees to grow at most.
      early_stopping_round: growing stops after so many trees that do not lower the loss of the even evaluation rows.
    """

    learning_rate: float = 0.1
    num_leaves: float = 31.0
    min_data_in_leaf: float = 20.0
    lambda_l2: float = 0.0
    cat_smooth: float = 10.0
    feature_fraction: float = 0.9
    bagging_fraction: float = 0.9
    num_iterations: int = 2000
    early_stopping_round: int = 50


@dataclasses.dataclass
class TreesConfig:
    """The recipe of a contestant that is LightGBM.

    Attributes:
      data: of the recipe that all contestants share; only `path` counts.
      train: of that recipe; only `seed` and `monitor` count.
      trees: the parameters.
    """

    data: DataConfig
    train: TrainConfig
    trees: Trees

    @classmethod
    def of(cls, base: RunConfig) -> TreesConfig:
        """Makes the recipe from the one that all contestants share.

        Raises:
          ImportError: LightGBM is not installed.
        """
        _lightgbm()
        return cls(copy.deepcopy(base.data), copy.deepcopy(base.train), Trees())

    def check(self) -> None:
        """Raises a ValueError if a parameter is out of its range."""
        t = self.trees
        check_at_least("trees", t, min_data_in_leaf=1, lambda_l2=0, cat_smooth=0, num_leaves=2)
        check_at_least("trees", t, num_iterations=1, early_stopping_round=1)
        for name in ("learning_rate", "feature_fraction", "bagging_fraction"):
            if not 0 < getattr(t, name) <= 1:
                refuse(f"trees.{name}", getattr(t, name), "a number above 0 and at most 1 is needed")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values of what counts, as JSON has them: later versions may have other fields beside these."""
        counts = {
            "data": {"path": self.data.path},
            "train": {"seed": self.train.seed, "monitor": self.train.monitor},
            "trees": dataclasses.asdict(self.trees),
        }
        found: dict[str, Any] = json.loads(json.dumps(counts))
        return found

    def shortened(self, share: float) -> TreesConfig:
        """Returns the recipe with a share of the trees."""
        found = copy.deepcopy(self)
        found.trees.num_iterations = max(1, round(found.trees.num_iterations * share))
        return found

    def spaces(self) -> dict[str, tuple[tuple[float, float], bool]]:
        """Returns, by `trees.FIELD`, bounds that include the recipe's value, and whether they are logarithmic."""
        found = {}
        for fields, log in ((_LOGARITHMIC, True), (_EVEN, False)):
            for name, (low, high) in fields.items():
                value = float(getattr(self.trees, name.partition(".")[2]))
                found[name] = ((min(low, value) if value else low), max(high, value)), log
        return found


Recipe = TypeVar("Recipe", RunConfig, TreesConfig)


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of a split, as LightGBM reads them.

    Attributes:
      columns: float64 [N, C]; see `read`.
      categorical: the numbers of the columns that hold rows of tables.
      labels: the first label, [N].
      weights: [N], or None.
      groups: int64 [N], if the schema has a group.
    """

    columns: np.ndarray
    categorical: list[int]
    labels: np.ndarray
    weights: np.ndarray | None
    groups: np.ndarray | None = None


def frequent_rows(directory: str) -> dict[str, np.ndarray]:
    """Returns the 50 most frequent rows of each feature with several values in the training split, ascending.

    Row 0 of a vocabulary is left out: it stands for all values that have no row. Equally frequent rows are taken from
    the first.
    """
    schema = Schema.load(os.path.join(directory, SCHEMA_FILE))
    if not schema.multi_hot:
        return {}
    table, found = _table(directory, "train", [f.name for f in schema.multi_hot]), {}
    for f in schema.multi_hot:
        rows, counts = np.unique(table[f.name].combine_chunks().flatten().to_numpy(), return_counts=True)
        listed = rows > 0 if f.encoding == "vocabulary" else np.ones(len(rows), bool)
        rows, counts = rows[listed], counts[listed]
        found[f.name] = np.sort(rows[np.argsort(-counts, kind="stable")[:_COLUMNS_OF_LISTS]])
    return found


def read(directory: str, split: Split, frequent: Mapping[str, np.ndarray] | None = None) -> Rows:
    """Reads a split of prepared data.

    A number is a column. So is a feature with one value: the row of its table, as a category. A feature with several
    values is a column with their number, and one for each of the `frequent_rows` of its table: the sum of the weights
    of the value, 1 without weights, or 0 where an example lacks it.

    Args:
      directory: a prepared directory.
      split: `train` or `eval`.
      frequent: the result of `frequent_rows`, if it is known already.
    """
    schema = Schema.load(os.path.join(directory, SCHEMA_FILE))
    frequent = frequent_rows(directory) if frequent is None else frequent
    table = _table(directory, split, encoded_schema(schema).names)
    columns = [table[name].to_numpy() for name in schema.dense_columns]
    categorical = range(len(columns), len(columns) + len(schema.one_hot))
    columns += [table[f.name].to_numpy() for f in schema.one_hot]
    for f in schema.multi_hot:
        columns += _of_lists(table[f.name], table[f.weights_name] if f.weights else None, frequent[f.name])
    together = np.column_stack(columns).astype(np.float64)
    weights = table["weight"].to_numpy() if schema.weight else None
    groups = table[GROUP].to_numpy() if schema.group else None
    return Rows(together, list(categorical), table[schema.label_columns[0]].to_numpy(), weights, groups)


def _table(directory: str, split: Split, names: list[str]) -> pa.Table:
    parts = [file.read_row_group(i, columns=names) for file, i in open_row_groups(directory, split)]
    return pa.concat_tables(parts).combine_chunks()


def _of_lists(values: pa.ChunkedArray, weights: pa.ChunkedArray | None, rows: np.ndarray) -> list[np.ndarray]:
    """Returns the columns of a feature with several values: their number, then one for each of some ascending rows."""
    lists = values.combine_chunks()
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    example, value = np.repeat(np.arange(len(counts)), counts), lists.flatten().to_numpy()
    weight = np.ones(len(value)) if weights is None else weights.combine_chunks().flatten().to_numpy()
    found, kept = np.zeros((len(counts), len(rows))), np.isin(value, rows)
    np.add.at(found, (example[kept], np.searchsorted(rows, value[kept])), weight[kept])
    return [counts, *found.T]


def fit(config: TreesConfig, workdir: str) -> tuple[Scores, int]:
    """Grows trees, until the loss of the evaluation rows for choices stops falling; writes them to `model.txt`.

    Args:
      config: the recipe, on prepared data.
      workdir: the directory of the run.

    Returns:
      The scores of the first label of all evaluation rows, and the number of trees.
    """
    lightgbm = _lightgbm()
    directory = local_copy(config.data.path)
    schema = Schema.load(os.path.join(directory, SCHEMA_FILE))
    task, frequent = task_of(schema.label), frequent_rows(directory)
    train, evaluation = (read(directory, split, frequent) for split in _SPLITS)
    shift = task.logit_shift if isinstance(task, BinaryClassification) else 0.0  # of rows that `prepare` dropped
    dataset = _dataset(lightgbm, train, slice(None), 0.0)
    chosen = rows_for_choices(len(evaluation.labels), evaluation.groups)
    stops = lightgbm.early_stopping(config.trees.early_stopping_round, verbose=False)
    booster = lightgbm.train(
        _parameters(config, task),
        dataset,
        config.trees.num_iterations,
        valid_sets=[_dataset(lightgbm, evaluation, chosen, shift, dataset)],
        callbacks=[stops],
    )
    outputs = booster.predict(evaluation.columns, raw_score=True)
    os.makedirs(workdir, exist_ok=True)
    write_text(os.path.join(workdir, "model.txt"), booster.model_to_string())
    found = np.asarray(outputs + shift, np.float32)
    scores = Scores(evaluation.labels, found, evaluation.weights, task, groups=evaluation.groups)
    return scores, int(booster.best_iteration or booster.current_iteration())


def _parameters(config: TreesConfig, task: Task) -> dict[str, Any]:
    trees = config.trees
    binary = isinstance(task, BinaryClassification)
    return {
        "objective": "binary" if binary else "regression",
        "metric": "binary_logloss" if binary else "l2",
        "learning_rate": trees.learning_rate,
        "num_leaves": round(trees.num_leaves),
        "min_data_in_leaf": round(trees.min_data_in_leaf),
        "lambda_l2": trees.lambda_l2,
        "cat_smooth": trees.cat_smooth,
        "feature_fraction": trees.feature_fraction,
        "bagging_fraction": trees.bagging_fraction,
        "bagging_freq": 1,
        "seed": config.train.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "verbosity": -1,
    }


def _dataset(lightgbm: Any, rows: Rows, kept: slice | np.ndarray, shift: float, like: Any = None) -> Any:
    count = len(rows.labels[kept])
    return lightgbm.Dataset(
        np.ascontiguousarray(rows.columns[kept]),  # LightGBM copies a slice with a warning
        np.ascontiguousarray(rows.labels[kept]),
        reference=like,
        weight=None if rows.weights is None else rows.weights[kept],
        init_score=np.full(count, shift) if shift else None,
        categorical_feature=rows.categorical,
        free_raw_data=True,
        params={"verbosity": -1},
    )


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError as e:
        raise ImportError(f"{NAME} is not installed: {install_command('compare')}, or leave it out") from e
    return lightgbm
