"""All that there is to see in the model of a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from tfrs_dlrm.data.preparing.manifest import PreparedManifest, Split
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.schema.suggestions import did_you_mean
from tfrs_dlrm.stores import Progress, local_copy
from tfrs_dlrm.tools.explain import neighbours
from tfrs_dlrm.tools.explain.explanation import Explanation, Neighbours
from tfrs_dlrm.tools.explain.importance import Importances, permutation_importance
from tfrs_dlrm.tools.explain.interactions import Interactions, interactions
from tfrs_dlrm.tools.explain.sample import Sample, draw
from tfrs_dlrm.tools.explain.usage import TableUsage, count_lookups, table_usage
from tfrs_dlrm.training.factory import load_model
from tfrs_dlrm.training.workdir import Which, Workdir

PARTS = ("importance", "interactions", "tables")


@dataclasses.dataclass(frozen=True)
class Questions:
    """What to find out.

    Attributes:
      parts: which of `PARTS`.
      features: of importance and interactions; none means all that the model looks at.
      examples: to measure importance on.
      interaction_examples: to measure interactions on; the first of those.
      seeds: permutations of both.
      neighbours: rows to find those most like, as TABLE:VALUE each; see `neighbours.find`.
      top: how many neighbours, and rows of a table.
      label: that of importance and interactions, by its name; by default the first. Examples of which it is not known
        are left out.
    """

    parts: tuple[str, ...] = PARTS
    features: tuple[str, ...] = ()
    examples: int = 50_000
    interaction_examples: int = 2_000
    seeds: int = 3
    neighbours: tuple[str, ...] = ()
    top: int = 10
    label: str = ""


def explain_run(
    workdir: str,
    questions: Questions = Questions(),
    data: str = "",
    split: Split = "eval",
    which: Which = "best",
    progress: Progress | None = None,
) -> Explanation:
    """Looks into the model of a run, on one device.

    Args:
      workdir: the directory of the run.
      questions: what to find out.
      data: a prepared directory; by default the one that the run trained on. Its training rows are what the rows of
        the tables are looked up by.
      split: the rows of it that importance and interactions are measured on.
      which: the `best` checkpoint or the `latest`.
      progress: is told how far each part is, in examples.

    Raises:
      FileNotFoundError: there is no run, checkpoint or data.
      ValueError: a part, feature, label, table or value does not exist, the set is empty, or the data have another
        schema or vocabulary than the checkpoint.
    """
    home = Workdir(workdir)
    config, directory = home.config(), home.encoder_dir
    schema, data = config.model.schema(home.schema()), local_copy(data or config.data.path)
    looked_at = schema.select(config.model.features(schema))
    _check(questions, schema)
    queries = {query: _find(query, schema, looked_at, directory) for query in questions.neighbours}
    manifest = PreparedManifest.load(data)
    home.check_data(data)
    asks_model = {"importance", "interactions"} & set(questions.parts)
    if asks_model:
        manifest.shards(split)  # says so where it is empty
    model, _, checkpoint = load_model(workdir, which)
    usage, found = _tables(questions, model, looked_at, data, queries, progress)
    importance, strengths = None, None
    if asks_model:
        sample = draw(data, split, questions.examples, label=schema.label_number(questions.label))
        features = list(dict.fromkeys(questions.features)) or _names(looked_at)
        batch = config.train.eval_batch_size
        importance, strengths = _of_features(questions, model, sample, features, batch, progress)
    label = questions.label or schema.label.column
    return Explanation(checkpoint, data, split, label, importance, strengths, usage, found, schema, directory)


def _check(questions: Questions, schema: Schema) -> None:
    """Finds what does not exist."""
    for part in questions.parts:
        if part not in PARTS:
            raise ValueError(f"no part {part!r}; choose among {', '.join(PARTS)}")
    for name in ("examples", "interaction_examples", "seeds", "top"):
        if getattr(questions, name) < 1:
            raise ValueError(f"{name}={getattr(questions, name)}; at least 1 is needed")
    schema.label_number(questions.label)
    known = _names(schema)
    for feature in questions.features:
        if feature not in known:
            raise ValueError(
                f"no feature {feature!r}; {did_you_mean(feature, known) or 'there are ' + ', '.join(known)}"
            )


def _names(schema: Schema) -> list[str]:
    return [f.name for f in schema.dense] + [f.name for f in schema.categorical]


def _find(query: str, schema: Schema, looked_at: Schema, directory: str) -> tuple[str, int]:
    """Table and row of a query for neighbours, where the model looks at that table."""
    table, row = neighbours.find(schema, directory, query)
    if table not in {t.name for t in looked_at.tables}:
        features = ", ".join(_names(looked_at))
        raise ValueError(f"neighbours {query!r}: the model looks at {features} only, and learned nothing of {table!r}")
    return table, row


def _of_features(
    questions: Questions,
    model: RankingModel,
    sample: Sample,
    features: list[str],
    batch_size: int,
    progress: Progress | None,
) -> tuple[Importances | None, Interactions | None]:
    """What was asked of both; a single feature has none to interact with."""
    importance, strengths = None, None
    if "importance" in questions.parts:
        advance = _stage(progress, "importance", len(sample) * (1 + len(features) * questions.seeds))
        importance = permutation_importance(model, sample, features, questions.seeds, batch_size, advance)
    if "interactions" in questions.parts and len(features) > 1:
        sample = sample.first(questions.interaction_examples)
        total = len(sample) * (1 + questions.seeds * math.comb(len(features) + 1, 2))
        advance = _stage(progress, "interactions", total)
        strengths = interactions(model, sample, features, questions.seeds, batch_size, advance)
    return importance, strengths


def _tables(
    questions: Questions,
    model: RankingModel,
    looked_at: Schema,
    data: str,
    queries: dict[str, tuple[str, int]],
    progress: Progress | None,
) -> tuple[list[TableUsage], list[Neighbours]]:
    """One table after the other, since the counts of all of them might not fit into memory."""
    users = [f.table for f in looked_at.categorical]
    train_rows = PreparedManifest.load(data).rows("train")
    asked = {table for table, _ in queries.values()}
    tables = [table for table in dict.fromkeys(users) if "tables" in questions.parts or table in asked]
    advance = _stage(progress, "tables", train_rows * sum(users.count(table) for table in tables))
    usage, found = [], {}
    for table in tables:
        counts = count_lookups(looked_at, data, table, advance)
        if "tables" in questions.parts:
            usage.append(table_usage(model, table, counts, questions.top))
        for query, (of, row) in queries.items():
            if of == table:
                nearest = neighbours.nearest(model, table, row, questions.top)
                lookups = {other: int(counts[other]) for other in (row, *nearest.rows)}
                found[query] = Neighbours(table, row, nearest, lookups)
    return usage, [found[query] for query in queries]


def _stage(progress: Progress | None, name: str, total: int) -> Callable[[int], None]:
    """What is to be called with the number of examples that are done."""
    done = 0

    def advance(examples: int) -> None:
        nonlocal done
        done += examples
        if progress:
            progress(name, done, total, done)

    return advance
