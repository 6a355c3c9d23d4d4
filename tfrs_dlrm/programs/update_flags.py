"""The flags about the training of an update, which `update` and `backtest` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfrs_dlrm.programs.program_flags import ProgramFlags

if TYPE_CHECKING:
    from tfrs_dlrm.tools.update import UpdateOptions


def define_update_flags(program: ProgramFlags) -> Callable[..., UpdateOptions]:
    """Defines the flags; returns a function that makes the options of an update from them, and of others by name."""
    flags = {
        "eval_fraction": program.number(
            "eval_fraction", 0.1, "The share of a day's rows to compare models on, drawn at random and not trained on."
        ),
        "epochs": program.number("epochs", 1.0, "Of updates: passes over the new rows."),
        "learning_rate": program.number(
            "learning_rate", 0.0, "Of updates, for the MLPs; 0 keeps that of the run. Later updates keep it too."
        ),
        "embedding_learning_rate": program.number(
            "embedding_learning_rate", 0.0, "Of updates, for the tables; 0 keeps that of the run."
        ),
        "replay": program.number(
            "replay",
            0.0,
            "Of updates: how many rows of earlier days to mix in, as a share of the new rows, such as 0.1.",
        ),
    }

    def options(**others: Any) -> UpdateOptions:
        from tfrs_dlrm.tools.update import UpdateOptions

        return UpdateOptions(**{name: flag.value for name, flag in flags.items()}, **others)

    return options
