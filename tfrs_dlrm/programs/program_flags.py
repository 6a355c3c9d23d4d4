"""The flags of one program: defined once, parsed afresh for each command line."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser
from ml_collections.config_flags.tuple_parser import TupleParser

from tfrs_dlrm.config import RunConfig, as_model
from tfrs_dlrm.config.field_checks import unknown_field
from tfrs_dlrm.config.recipes import find_recipe

_NAMES = re.compile(r"[^\W\d][\w.-]*(,[^\W\d][\w.-]*)+")
_HELP = ("--help", "-h", "-help", "--helpshort", "--helpfull")


class UsageError(Exception):
    """A command line that a program does not take."""


class ProgramFlags:
    """The flags of one program.

    They are kept apart from absl's global flags and from the flags of other programs, so that several programs can run
    in one process. Each method that defines a flag returns a holder, whose `value` comes from the last command line.

    Args:
      text: what the program does; the first line of `--help`.
      tensorflow: whether the program needs TensorFlow, which takes seconds to load.
      arguments: what to call the arguments that are not flags, in `--help`; empty if the program takes none.
    """

    def __init__(self, text: str | None, *, tensorflow: bool = True, arguments: str = "") -> None:
        self.text = (text or "").strip()
        self.tensorflow = tensorflow
        self.arguments = arguments
        # Called once the flags are parsed, before TensorFlow is loaded; their errors end the program.
        self.before: list[Callable[[], None]] = []
        # Says what is saved and what to do next, if the program is stopped by a signal.
        self.stopped: Callable[[], str] = lambda: ""
        # Whether a strategy still decides what the devices are.
        self.chooses_devices = False
        self._values = flags.FlagValues()
        self._values.set_gnu_getopt(True)  # flags may follow arguments
        self._names: list[str] = []
        self._required: list[str] = []
        self._recipe = ""
        self.verbosity = self.integer(
            "verbosity", -1, "What to log: -1 warnings, 0 progress, 1 all, and the traceback of an error."
        )

    def string(self, name: str, default: str | None, text: str, required: bool = False) -> flags.FlagHolder:
        """Defines a flag with any text."""
        return self._add(name, flags.DEFINE_string(name, default, text, self._values), required)

    def multi_string(self, name: str, text: str, required: bool = False) -> flags.FlagHolder:
        """Defines a flag that may be repeated."""
        return self._add(name, flags.DEFINE_multi_string(name, [], text, self._values), required)

    def texts(self, name: str, default: Sequence[str], text: str) -> flags.FlagHolder:
        """Defines a flag with several texts, separated by commas."""
        return self._add(name, flags.DEFINE_list(name, [*default], text, self._values))

    def integer(
        self, name: str, default: int | None, text: str, least: int | None = None, most: int | None = None
    ) -> flags.FlagHolder:
        """Defines a flag with an integer from `least` to `most`."""
        return self._add(name, flags.DEFINE_integer(name, default, text, least, most, self._values))

    def number(self, name: str, default: float | None, text: str) -> flags.FlagHolder:
        """Defines a flag with a number."""
        return self._add(name, flags.DEFINE_float(name, default, text, flag_values=self._values))

    def switch(self, name: str, default: bool, text: str) -> flags.FlagHolder:
        """Defines a flag that is on (`--name`) or off (`--noname`)."""
        return self._add(name, flags.DEFINE_bool(name, default, text, self._values))

    def enum(self, name: str, default: str, choices: Sequence[str], text: str) -> flags.FlagHolder:
        """Defines a flag with one of a few texts."""
        return self._add(name, flags.DEFINE_enum(name, default, [*choices], text, self._values))

    def config(self, recipe: str) -> RecipeHolder:
        """Defines --config, which names a recipe in Python, and --config.SECTION.FIELD=VALUE, which changes a field."""
        self._recipe = recipe
        self._names.append("config")
        self._define_config([])
        return RecipeHolder(self._values)

    def parse(self, argv: Sequence[str]) -> Sequence[str]:
        """Reads a command line, whose first word is the program; returns the arguments that are not flags.

        Forgets the command line before: all flags return to their defaults, and the recipe is read again.

        Raises:
          UsageError: a flag does not exist or is missing, or its value is not accepted.
        """
        try:
            for name in self._values:
                self._values[name].unparse()
            argv = self._define_config(argv) if self._recipe else argv
            arguments = self._values(argv)[1:]
        except flags.Error as e:
            raise UsageError(f"{e}; --help lists the flags") from e
        except Exception as e:  # config_flags lets through whatever a recipe or a conversion raises
            parser = self._values["config"].parser if self._recipe else None
            unknown = parser.unknown_field() if isinstance(parser, _RecipeParser) else ""
            raise UsageError(unknown or f"--config: {str(e).strip()}") from e
        missing = [f"--{name}" for name in self._required if not self._values[name].value]
        if missing:
            raise UsageError(f"{' and '.join(missing)} must be given; --help lists the flags")
        if arguments and not self.arguments:
            raise UsageError(f"unknown argument {arguments[0]!r}; arguments look like --name=value")
        return arguments

    def help(self, start: str) -> str:
        """Returns what the program does, how to start it, and its flags."""
        usage = " ".join([start, *(f"--{name}=..." for name in self._required), "[flags]", self.arguments]).rstrip()
        lines = [self.text, "", f"Usage: {usage}", ""]
        for flag in self.definitions():
            words = f"--{flag.name}: {description(flag)}"
            lines += textwrap.wrap(words, 118, initial_indent="  ", subsequent_indent="      ")
        return "\n".join(lines)

    def definitions(self) -> Sequence[flags.Flag]:
        """Returns the flags: first those that must be given, then all others in the order of their definition."""
        names = sorted(self._names, key=lambda name: (name not in self._required, name == "verbosity"))
        return [self._values[name] for name in names]

    def is_required(self, name: str) -> bool:
        """Returns whether a flag must be given."""
        return name in self._required

    def _add(self, name: str, holder: flags.FlagHolder, required: bool = False) -> flags.FlagHolder:
        self._names.append(name)
        if required:
            self._required.append(name)
        return holder

    def _define_config(self, argv: Sequence[str]) -> Sequence[str]:
        """Defines --config for one command line; returns it with the path of the recipe.

        ml_collections finds the overrides in the command line that it gets when the flag is defined. So the flag is
        defined again for each, after the flags of earlier overrides are removed.
        """
        argv = _with_recipe(argv, self._recipe) if argv else argv
        for name in [name for name in self._values if name.partition(".")[0] == "config"]:
            delattr(self._values, name)
        text = f"A recipe (default: {self._recipe}). --config.SECTION.FIELD=VALUE changes one field of it."
        config_flags.DEFINE_config_file("config", None, text, self._values, sys_argv=[*argv])
        self._values["config"].parser = _RecipeParser(argv)
        return argv


class _NamesParser(TupleParser):
    """Reads tuples of a recipe, also of names without quotes, such as `user,item`."""

    def parse(self, argument: Any) -> Any:
        """Returns a tuple."""
        if isinstance(argument, str) and _NAMES.fullmatch(argument):
            return tuple(argument.split(","))
        return super().parse(argument)


config_flags.register_flag_parser_for_type(tuple, _NamesParser())


class _RecipeParser(ConfigFileFlagParser):
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


class RecipeHolder:
    """The recipe that a command line names, with the changes that it makes."""

    def __init__(self, values: flags.FlagValues) -> None:
        self._values = values

    @property
    def value(self) -> RunConfig:
        """The configuration."""
        return self._values["config"].value  # type: ignore[return-value]

    @property
    def name(self) -> str:
        """The file name of the recipe without its ending."""
        return os.path.basename(config_flags.get_config_filename(self._values["config"])).removesuffix(".py")


def wants_help(arguments: Sequence[str]) -> bool:
    """Returns whether a command line asks for `--help`, before any `--`."""
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return any(argument in _HELP for argument in before)


def description(flag: flags.Flag) -> str:
    """Returns the help of a flag, with its choices and its default."""
    details = [f"one of {', '.join(flag.parser.enum_values)}"] if hasattr(flag.parser, "enum_values") else []
    default = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
    if default not in (None, "", False):
        details.append(f"default: {str(default).lower() if default is True else default}")
    text = re.sub(r"^<[^>]*>: |;\s+repeat this option.*", "", flag.help, flags=re.DOTALL)  # words that absl adds
    return text + (f" ({'; '.join(details)})" if details else "")


def _with_recipe(argv: Sequence[str], default: str) -> Sequence[str]:
    """The command line with `--config=PATH`, in place of the name of a recipe or of none."""
    program, *arguments = argv
    for i, argument in enumerate(arguments):
        name, equals, given = argument.partition("=")
        if name in ("--config", "-config"):
            if not equals and i + 1 == len(arguments):
                break
            rest = arguments[i + (1 if equals else 2) :]
            return [program, *arguments[:i], f"--config={find_recipe(given if equals else arguments[i + 1])}", *rest]
        if argument == "--":
            break
    return [program, f"--config={find_recipe(default)}", *arguments]


def _model_name(arguments: Sequence[str]) -> str:
    """Returns the last value of --config.model.name; empty if the flag is missing."""
    found = ""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name.lstrip("-") == "config.model.name" and name.startswith("-"):
            found = value if equals else following
    return found
