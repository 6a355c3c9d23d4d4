"""Settings that a recipe leaves to the data: what is chosen for them, and why.

A recipe sets such a field to `FROM_DATA`, or `train.monitor` to `auto`, and `fitted` replaces it once the data are
known. Any other value is kept. docs/guides/defaults.md has the numbers behind the rules.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from tfrs_dlrm.config.run import ACCUMULATING, AUTO, RunConfig, left_to_data, with_field
from tfrs_dlrm.messages.aligned import aligned

# Fewer rows of either class in the evaluation set say too little about an AUC: its standard error is above 0.03.
FEW_FOR_AUC = 100
_LEAST_BATCH, _LARGEST_BATCH = 64, 4096
_STEPS_AN_EPOCH = 400
# Of the rows that center predictions.
_CENTER_SHARE, _LEAST_CENTER, _LARGEST_CENTER = 20, 20_000, 100_000
# The gradient of one example with respect to a number of a row, in order of magnitude.
_GRADIENT = 0.3
# The most epochs with fewer training rows than this.
_EPOCHS = ((100_000, 15.0), (1_000_000, 8.0), (10_000_000, 4.0))


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """What the choices depend on.

    Attributes:
      rows: the number of training rows.
      eval_rows: the number of evaluation rows.
      rarer: how many evaluation rows have the rarer value of a first label of 0 or 1; None for a regression, or if
        unknown.
    """

    rows: int
    eval_rows: int
    rarer: int | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """A value that was chosen.

    Attributes:
      field: SECTION.FIELD of the configuration.
      value: the value.
      reason: why, in words.
    """

    field: str
    value: int | float | str
    reason: str


def fitted(config: RunConfig, facts: DataFacts, begun: RunConfig | None = None) -> tuple[RunConfig, tuple[Choice, ...]]:
    """Returns the configuration with a value in every field, and the choices.

    Args:
      config: the recipe.
      facts: of the data.
      begun: the run that is resumed, whose values are kept; None for a new run.
    """
    choices: list[Choice] = []
    for field in left_to_data(config):
        if begun is not None and _get(begun, field) is not None:
            choice = Choice(field, _get(begun, field), "as this run began")
        else:
            value, reason = _RULES[field](config, facts)
            choice = Choice(field, value, reason)
        config = with_field(config, field, choice.value)
        choices.append(choice)
    return config, tuple(choices)


def choice_lines(choices: tuple[Choice, ...]) -> list[str]:
    """Returns the choices as a table, a line each, after a line that says how to change them; empty without choices."""
    if not choices:
        return []
    rows = []
    for choice in choices:
        value = f"{choice.value:g}" if isinstance(choice.value, float) else str(choice.value)
        rows.append((f"  {choice.field}", value or "default", choice.reason))
    return ["chosen for these data (--config.FIELD=VALUE changes one):", *aligned(rows, left=(0, 1, 2))]


def _batch_size(config: RunConfig, facts: DataFacts) -> tuple[int, str]:
    size = _LEAST_BATCH
    while size < _LARGEST_BATCH and facts.rows // (2 * size) >= _STEPS_AN_EPOCH:
        size *= 2
    steps = max(1, facts.rows // size)
    return min(size, max(1, facts.rows)), f"{facts.rows:,} training rows: {steps:,} steps an epoch"


def _learning_rate(config: RunConfig, facts: DataFacts) -> tuple[float, str]:
    return 0.001, "of Adam, at every size"


def _embedding_learning_rate(config: RunConfig, facts: DataFacts) -> tuple[float, str]:
    if config.optimizer.embedding not in (AUTO, *ACCUMULATING):
        return 0.001, f"of {config.optimizer.embedding}"
    return 0.05, "of Adagrad with an initial accumulator"


def _embedding_accumulator(config: RunConfig, facts: DataFacts) -> tuple[float, str]:
    if config.optimizer.embedding not in (AUTO, *ACCUMULATING):
        return 0.0, f"{config.optimizer.embedding} has none"
    value = float(f"{(_GRADIENT / config.train.batch_size) ** 2:.3g}")
    return value, f"({_GRADIENT:g} / batch size) squared: rows seen a few times take small steps"


def _dropout(config: RunConfig, facts: DataFacts) -> tuple[float, str]:
    return 0.0, "0.2 gained on one of three small sets, and lost on two"


def _epochs(config: RunConfig, facts: DataFacts) -> tuple[float, str]:
    epochs = next((epochs for rows, epochs in _EPOCHS if facts.rows < rows), 2.0)
    if facts.eval_rows:
        return epochs, "the most; it stops when the evaluation no longer improves"
    return max(1.0, epochs / 3), "without an evaluation set nothing says when to stop"


def _eval_every_steps(config: RunConfig, facts: DataFacts) -> tuple[int, str]:
    if not facts.eval_rows:
        return 0, "there is no evaluation set: a checkpoint after each epoch"
    return max(1, facts.rows // config.train.batch_size // 2), "twice an epoch"


def _patience(config: RunConfig, facts: DataFacts) -> tuple[int, str]:
    if not facts.eval_rows:
        return 0, "there is no evaluation set"
    return 4, "evaluations in a row without improvement"


def _center_rows(config: RunConfig, facts: DataFacts) -> tuple[int, str]:
    rows = min(facts.rows, max(_LEAST_CENTER, min(_LARGEST_CENTER, facts.rows // _CENTER_SHARE)))
    return rows, "training rows whose predictions average to the mean label, by the last bias"


def _monitor(config: RunConfig, facts: DataFacts) -> tuple[str, str]:
    if not facts.eval_rows:
        return "", "there is no evaluation set"
    if facts.rarer is None:
        return "", "RMSE"
    if config.train.target_auc:
        return "", "AUC, of which train.target_auc is"
    if facts.rarer < FEW_FOR_AUC:
        return "log_loss", f"{facts.rarer:,} evaluation rows of the rarer class are too few for an AUC"
    return "auc_minus_normalized_entropy", "the best checkpoint has a good AUC and a good log loss"


_RULES: dict[str, Callable[[RunConfig, DataFacts], tuple[Any, str]]] = {
    "train.batch_size": _batch_size,
    "optimizer.learning_rate": _learning_rate,
    "optimizer.embedding_learning_rate": _embedding_learning_rate,
    "optimizer.embedding_accumulator": _embedding_accumulator,
    "model.dropout": _dropout,
    "train.epochs": _epochs,
    "train.eval_every_steps": _eval_every_steps,
    "train.patience": _patience,
    "train.center_rows": _center_rows,
    "train.monitor": _monitor,
}


def _get(config: RunConfig, path: str) -> Any:
    section, _, name = path.partition(".")
    return getattr(getattr(config, section), name, None)
