"""How --config reads a recipe: --config.model.name=NAME switches its model, and unknown fields are named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from tfrs_dlrm.config import RunConfig, as_model
from tfrs_dlrm.config.field_checks import unknown_field

_MODEL = "--config.model.name"


class RecipeParser(ConfigFileFlagParser):
    """Loads a recipe. If the command line names another model, its other fields refer to that model.

    Args:
      arguments: the command line.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__("config")
        self._arguments = arguments
        self._recipe: Any = None

    def parse(self, path: str) -> Any:
        """Loads the file, and switches the model."""
        self._recipe = super().parse(path)
        name = _model_name(self._arguments)
        if name and isinstance(self._recipe, RunConfig):
            try:
                self._recipe.model = as_model(self._recipe.model, name)
            except ValueError as e:
                raise flags.Error(str(e)) from e
        return self._recipe

    def unknown_field(self) -> str:
        """Names the first --config.SECTION.FIELD that the recipe lacks, and the fields it has; empty if none."""
        for argument in self._arguments:
            if not argument.startswith("--config.") or not isinstance(self._recipe, RunConfig):
                continue
            path, holder = argument.removeprefix("--config.").split("=")[0].split("."), self._recipe
            for depth, name in enumerate(path):
                if not hasattr(holder, "__dataclass_fields__") or name not in holder.__dataclass_fields__:
                    return unknown_field(".".join(["config", *path[:depth]]), holder, name)
                holder = getattr(holder, name)
        return ""


def _model_name(arguments: Sequence[str]) -> str:
    """Returns the last value of --config.model.name; empty if the flag is missing."""
    found = ""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name.lstrip("-") == _MODEL.lstrip("-") and name.startswith("-"):
            found = value if equals else following
    return found
