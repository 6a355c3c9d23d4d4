"""Explains the model of a run: the importance of features, their interactions, and the tables."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from tfrs_dlrm.data.preparing.manifest import PreparedManifest, Split
from tfrs_dlrm.messages import did_you_mean
from tfrs_dlrm.models.ranking import RankingModel
from tfrs_dlrm.schema import Schema
from tfrs_dlrm.stores import Progress, local_copy
from tfrs_dlrm.tools.explain import neighbours
from tfrs_dlrm.tools.explain.expert_weights import expert_weights
from tfrs_dlrm.tools.explain.explanation import Explanation, Neighbours
from tfrs_dlrm.tools.explain.importance import PermutationImportance, permutation_importance
from tfrs_dlrm.tools.explain.interactions import Interactions, interactions
from tfrs_dlrm.tools.explain.sample import Sample, draw_sample
from tfrs_dlrm.tools.explain.table_usage import TableUsage, count_lookups, table_usage
from tfrs_dlrm.training.factory import load_run
from tfrs_dlrm.training.workdir import Which, Workdir

PARTS = ("importance", "interactions", "tables", "gates")


@dataclasses.dataclass(frozen=True)
class Questions:
    """The questions to a model.

    Attributes:
      parts: some of `PARTS`.
      features: the features of importance and interactions; empty for all that the model reads.
      examples: how many examples to measure importance on.
      interaction_examples: how many of these to measure interactions on.
      seeds: the number of permutations.
      neighbours: the rows whose nearest rows to find, each as TABLE:VALUE; see `neighbours.find_row_of`.
      top: how many neighbours, and rows of a table, to report.
      label: the name of the label of importance and interactions; by default the first. Examples without it are left
        out.
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
    """Explains the model of a run, on one device.

    Args:
      workdir: the directory of the run.
      questions: the questions.
      data: a prepared directory; by default the one that the run trained on. The lookups of its training rows are
        counted.
      split: the rows that importance and interactions are measured on.
      which: the `best` checkpoint or the `latest`.
      progress: called with the progress of each part, in examples.

    Raises:
      FileNotFoundError: the run, checkpoint or data do not exist.
      ValueError: a part, feature, label, table or value does not exist, the split is empty, or the data have another
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
    asks_model = {"importance", "interactions", "gates"} & set(questions.parts)
    if asks_model:
        manifest.shards(split)  # raises if it is empty
    model, _, checkpoint = load_run(workdir, which)
    usage, found = _tables(questions, model, looked_at, data, queries, progress)
    importance, strengths, gates = None, None, []
    if asks_model:
        sample = draw_sample(data, split, questions.examples, label=schema.label_number(questions.label))
        features = list(dict.fromkeys(questions.features)) or _names(looked_at)
        batch = config.train.eval_batch_size
        importance, strengths = _of_features(questions, model, sample, features, batch, progress)
        if "gates" in questions.parts:
            gates = expert_weights(model, sample, batch, stage(progress, "gates", len(sample)))
    label = questions.label or schema.label.column
    return Explanation(checkpoint, data, split, label, importance, strengths, gates, usage, found, schema, directory)


def _check(questions: Questions, schema: Schema) -> None:
    """Raises ValueError for questions about something that does not exist."""
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
                f"no feature {feature!r}; {did_you_mean(feature, known) or 'name one of ' + ', '.join(known)}"
            )


def _names(schema: Schema) -> list[str]:
    return [f.name for f in schema.dense] + [f.name for f in schema.categorical]


def _find(query: str, schema: Schema, looked_at: Schema, directory: str) -> tuple[str, int]:
    """Returns table and row of a query for neighbours, if the model reads that table."""
    table, row = neighbours.find_row_of(schema, directory, query)
    if table not in {t.name for t in looked_at.tables}:
        features = ", ".join(_names(looked_at))
        raise ValueError(f"neighbours {query!r}: the model reads only {features}; name a table of these, not {table!r}")
    return table, row


def _of_features(
    questions: Questions,
    model: RankingModel,
    sample: Sample,
    features: list[str],
    batch_size: int,
    progress: Progress | None,
) -> tuple[PermutationImportance | None, Interactions | None]:
    """Measures importance and interactions, if asked for; a single feature has no interactions."""
    importance, strengths = None, None
    if "importance" in questions.parts:
        advance = stage(progress, "importance", len(sample) * (1 + len(features) * questions.seeds))
        importance = permutation_importance(model, sample, features, questions.seeds, batch_size, advance)
    if "interactions" in questions.parts and len(features) > 1:
        sample = sample.first(questions.interaction_examples)
        total = len(sample) * (1 + questions.seeds * math.comb(len(features) + 1, 2))
        advance = stage(progress, "interactions", total)
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
    """Reads one table after the other, because the counts of all tables might not fit into memory."""
    users = [f.table for f in looked_at.categorical]
    train_rows = PreparedManifest.load(data).rows("train")
    asked = {table for table, _ in queries.values()}
    tables = [table for table in dict.fromkeys(users) if "tables" in questions.parts or table in asked]
    advance = stage(progress, "tables", train_rows * sum(users.count(table) for table in tables))
    usage, found = [], {}
    for table in tables:
        counts = count_lookups(looked_at, data, table, advance)
        if "tables" in questions.parts:
            usage.append(table_usage(model, table, counts, questions.top))
        for query, (of, row) in queries.items():
            if of == table:
                nearest = neighbours.nearest_rows(model, table, row, questions.top)
                lookups = {other: int(counts[other]) for other in (row, *nearest.rows)}
                found[query] = Neighbours(table, row, nearest, lookups)
    return usage, [found[query] for query in queries]


def stage(progress: Progress | None, name: str, total: int) -> Callable[[int], None]:
    """Returns a function to call with the number of finished examples, each time some are."""
    done = 0

    def advance(examples: int) -> None:
        nonlocal done
        done += examples
        if progress:
            progress(name, done, total, done)

    return advance
