"""Finds the recipes and schemas of configs/, in a checkout and in an installed package."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

from tfrs_dlrm.config.run import RunConfig
from tfrs_dlrm.messages import did_you_mean

_PACKAGE = Path(__file__).resolve().parents[1]


def configs_folder() -> Path:
    """Returns the folder of the recipes: inside an installed package, next to the package in a checkout."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def recipe_names() -> list[str]:
    """Returns the names of the recipes that come with the package, sorted."""
    return sorted(path.stem for path in configs_folder().glob("*.py") if path.stem != "__init__")


def find_recipe(name: str) -> str:
    """Returns the path of a recipe.

    Args:
      name: a Python file, or a recipe of the package: `quickstart`, `quickstart.py` or `configs/quickstart.py`.

    Raises:
      FileNotFoundError: neither exists.
    """
    if os.path.isfile(name):
        return name
    packaged = configs_folder() / f"{name.removeprefix('configs/').removesuffix('.py')}.py"
    if packaged.is_file():
        return str(packaged)
    known = recipe_names()
    stem = os.path.basename(name).removesuffix(".py")
    hint = " ".join(filter(None, [did_you_mean(stem, known, 1), f"The package has {', '.join(known)}"]))
    raise FileNotFoundError(f"{name!r} is neither a file nor a recipe; {hint}")


def load_recipe(name: str) -> RunConfig:
    """Returns the configuration of a recipe, which the caller may change.

    Args:
      name: see `find_recipe`.

    Raises:
      FileNotFoundError: there is no such recipe.
      ValueError: the file has no `get_config` that returns a `RunConfig`.
    """
    path = find_recipe(name)
    get_config = runpy.run_path(path).get("get_config")
    found = get_config() if callable(get_config) else None
    if not isinstance(found, RunConfig):
        raise ValueError(f"{path}: get_config() is needed, which returns a tfrs_dlrm.config.RunConfig")
    return found


def find_schema(path: str) -> str:
    """Returns `path`, or the file of the package where `path` begins with configs/ and does not exist here."""
    if path.startswith("configs/") and not os.path.exists(path):
        packaged = configs_folder() / path.removeprefix("configs/")
        if packaged.is_file():
            return str(packaged)
    return path
