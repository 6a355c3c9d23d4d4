"""Writes the reference from the code and the tutorials from notebooks; a script of mkdocs-gen-files."""

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import mkdocs_gen_files
from nbconvert import MarkdownExporter

import tfrs_dlrm
from tfrs_dlrm import plots, schema
from tfrs_dlrm.config import MODELS, RunConfig, model_config
from tfrs_dlrm.programs.commands import SCRIPTS, module_name
from tfrs_dlrm.programs.program_flags import description


def attributes(text: str) -> dict[str, str]:
    """The `Attributes` or `Args` of a docstring: each name with its text."""
    section = re.search(r"^(?:Attributes|Args):\n((?:(?: .*)?\n)*)", inspect.cleandoc(text) + "\n", re.MULTILINE)
    entries = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in entries}


def cell(text: object) -> str:
    """Text of a table's cell."""
    return re.sub(r"\bdocs/([\w/-]+\.md)", r"[\1](../\1)", str(text)).replace("|", "\\|")


def flags_page() -> Iterator[str]:
    """Every program with its flags."""
    yield "# Command-line flags\n"
    yield "In a checkout, each program is also a script: `python train/main.py` is `tfrs-dlrm train`.\n"
    for name, script in SCRIPTS.items():
        program = importlib.import_module(module_name(name)).FLAGS
        yield f"## tfrs-dlrm {name}\n\n{program.text}\n\nIn a checkout: `python {script}`.\n"
        yield "| flag | |\n| --- | --- |"
        for flag in program.definitions():
            needed = " **Must be given.**" if program.is_required(flag.name) else ""
            yield f"| `--{flag.name}` | {cell(description(flag))}{needed} |"
        yield ""


def configuration_page() -> Iterator[str]:
    """Every field of a run's configuration."""
    yield "# Configuration fields\n"
    yield "A recipe returns a `RunConfig`. On the command line, `--config.SECTION.FIELD=VALUE` changes one field.\n"
    for section in dataclasses.fields(RunConfig):
        config = getattr(RunConfig(), section.name)
        if section.name == "model":
            yield "## model\n\nThe fields depend on the model, which `--config.model.name` chooses.\n"
            for name in MODELS:
                yield from fields_of(f"### model: {name}", model_config(name))
        else:
            yield from fields_of(f"## {section.name}", config)


def fields_of(title: str, config: object) -> Iterator[str]:
    """The fields of a configuration with their defaults."""
    texts: dict[str, str] = {}
    for kind in reversed(type(config).__mro__[:-1]):
        texts |= attributes(kind.__doc__ or "")
    yield f"{title}\n\n{inspect.cleandoc(type(config).__doc__ or '').splitlines()[0]}\n"
    yield "| field | default | |\n| --- | --- | --- |"
    for field in dataclasses.fields(config):
        yield f"| `{field.name}` | `{cell(repr(getattr(config, field.name)))}` | {cell(texts.get(field.name, ''))} |"
    yield ""


def api_page() -> Iterator[str]:
    """All public names, by the module that defines them."""
    yield "# Public names\n\nAll of them are attributes of `tfrs_dlrm`, usually imported as `td`.\n"
    for name in sorted(tfrs_dlrm.__all__, key=str.lower):
        found = getattr(tfrs_dlrm, name)
        if inspect.ismodule(found) or found.__module__.startswith("tfrs_dlrm.schema."):
            continue  # on a page of its own
        yield f"::: {found.__module__}.{name}\n"


def schema_page() -> Iterator[str]:
    """The classes of a schema."""
    yield f"# Schema\n\n{inspect.cleandoc(schema.__doc__ or '')}\n"
    yield "In JSON, each class is an object with these fields: see [your own data](../start/your-own-data.md).\n"
    for kind in (schema.Schema, schema.Label, schema.DenseFeature, schema.CategoricalFeature, schema.Table):
        yield f"::: {kind.__module__}.{kind.__name__}\n"
    yield f"::: {schema.Time.__module__}.Time\n"
    yield f"::: {schema.TextFormat.__module__}.TextFormat\n"


def tutorials() -> Iterator[tuple[str, str | bytes]]:
    """The notebooks as pages, with their pictures: the name of each file and its content."""
    for path in sorted(Path("docs/tutorials").glob("*.ipynb")):
        resources = {"output_files_dir": f"{path.stem}-pictures", "unique_key": path.stem}
        page, found = MarkdownExporter().from_filename(str(path), resources)
        download = f'\n\n[The notebook]({path.name}){{: download="" }}\n'
        yield f"tutorials/{path.stem}.md", page.replace(".ipynb)", ".md)") + download
        for name, picture in found["outputs"].items():
            yield f"tutorials/{name}", picture


def plots_page() -> Iterator[str]:
    """The functions that draw."""
    yield f"# Pictures\n\n{inspect.cleandoc(plots.__doc__ or '')}\n"
    yield "They are attributes of `td.plots`, as in `td.plots.roc_curve(labels, model.predict(data))`.\n"
    for name in plots.__all__:
        yield f"::: {getattr(plots, name).__module__}.{name}\n"


for path, page in (
    ("reference/flags.md", flags_page()),
    ("reference/configuration.md", configuration_page()),
    ("reference/api.md", api_page()),
    ("reference/schema.md", schema_page()),
    ("reference/plots.md", plots_page()),
):
    with mkdocs_gen_files.open(path, "w") as file:
        file.write("\n".join(page) + "\n")
for path, content in tutorials():
    with mkdocs_gen_files.open(path, "w" if isinstance(content, str) else "wb") as file:
        file.write(content)
