"""The sections of a report, each made of the findings about a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from tfrs_dlrm import plots
from tfrs_dlrm.config import OptimizerConfig
from tfrs_dlrm.metrics.names import title
from tfrs_dlrm.schema import CategoricalFeature, DenseFeature, Label, Schema
from tfrs_dlrm.tools.report.findings import Findings
from tfrs_dlrm.tools.report.label_pictures import group_pictures, score_pictures
from tfrs_dlrm.tools.report.markup import Html, element, facts, picture, table, together
from tfrs_dlrm.training.evaluation import Scores

_FEATURES = 15
_BYTES = {"float32": 4, "bfloat16": 2}
# Fields of a run's optimizers that are shown in any case; the others only where they differ from their defaults.
_RATES = ("dense", "learning_rate", "embedding", "embedding_learning_rate")


def head(found: Findings) -> Html:
    """Shows what is reported on, and the numbers that matter most."""
    scores = found.evaluation.scores
    metrics = scores.metrics()
    shown = {title(name): metrics[name] for name in scores.task.shown[:2] if name in metrics}
    shown |= {"Training rows": found.manifest.rows("train"), "Parameters": sum(_parameters(found))}
    model = type(found.config.model).name
    return together(
        [
            element("p", f"{model}, {found.evaluation.checkpoint}, on {found.evaluation.data} ({found.options.split})"),
            facts(shown, "key"),
        ]
    )


def data(found: Findings) -> Html:
    """Shows the prepared data: rows, labels and features."""
    manifest, schema = found.manifest, found.schema
    rows = {"Prepared data": found.evaluation.data, "Training rows": manifest.rows("train")}
    rows |= {"Evaluation rows": manifest.rows("eval"), "Malformed rows set aside": manifest.bad_rows}
    rows |= {"Weights": schema.weight} if schema.weight else {}
    return together(
        [
            facts(rows),
            table(
                "Labels. The mean is weighted; of a classification it is the share of positives.",
                ("label", "column", "task", "training rows with it", "mean", f"{found.options.split} rows", "mean"),
                _label_rows(found),
            ),
            table(
                "Features, and the rows of their tables.",
                ("feature", "kind", "encoding", "table", "rows", "dimension", "values without a row"),
                [
                    *((f.name, *_dense(f), None, None, None, None) for f in schema.dense),
                    *(
                        (f.name, *_categorical(f, schema), manifest.out_of_range.get(f.name, 0))
                        for f in schema.categorical
                    ),
                ],
            ),
        ]
    )


def model(found: Findings) -> Html:
    """Shows the model: its fields, tables, layers and optimizers."""
    fields = {k: v for k, v in found.config.to_dict()["model"].items() if v not in (0, 0.0, False, [], "")}
    tables, layers = _parameters(found)
    optimizer, usual = dataclasses.asdict(found.config.optimizer), dataclasses.asdict(OptimizerConfig())
    return together(
        [
            facts({"Parameters in tables": tables, "Parameters in layers": layers, **_words(fields)}),
            table(
                "Tables as they are stored, and the slots of their row optimizers.",
                ("table", "rows", "dimension", "type", "MB", "MB of slots"),
                _table_rows(found),
            ),
            table(
                "Weights of the layers.",
                ("weights", "shape", "parameters"),
                [(name, " x ".join(map(str, s)) or "1", math.prod(s)) for name, s in found.layers.items()],
            ),
            element("h3", "Optimizers"),
            facts(_words({k: v for k, v in optimizer.items() if k in _RATES or v != usual[k]})),
        ]
    )


def training(found: Findings) -> Html:
    """Shows how the run went, and its curves."""
    train, result = found.config.train, found.result
    shown: dict[str, Any] = {"Batch size": train.batch_size, "Precision": train.precision, "Seed": train.seed}
    if result:
        shown |= {"Steps": result["step"], "Best evaluation at step": result["best_step"], "Ended": result["reason"]}
    if not found.history:
        return together([facts(shown), element("p", "The run has not written metrics yet.")])
    tasks = [(scores.task, suffix) for scores, suffix in _labels(found)]
    metrics = ["loss", *(f"{name}{suffix}" for task, suffix in tasks for name in task.shown[:2])]
    alt = f"Curves of {', '.join(metrics)} and the learning rates, in training and evaluation"
    return together([facts(shown), picture(plots.training_curves(found.history, metrics), alt)])


def evaluation(found: Findings) -> Html:
    """Shows metrics, calibration and groups of each label."""
    columns = found.evaluation.columns()
    rows = dict.fromkeys(name for column in columns.values() for name in column)
    parts = [
        table(
            f"Metrics of {found.evaluation.checkpoint} on the {found.options.split} rows.",
            ("metric", *columns),
            [(name, *(column.get(name) for column in columns.values())) for name in rows],
        ),
        *(element("p", f"{note}.") for note in found.evaluation.scores.left_out()),
    ]
    for (scores, _), label, groups in zip(_labels(found), found.schema.labels, found.groups, strict=True):
        parts.append(element("h3", f"Label {_name(label)}"))
        parts.append(element("div", *score_pictures(scores), class_="figures"))
        parts += group_pictures(groups)
    return together(parts)


def features(found: Findings) -> Html:
    """Shows what the model relies on, as far as it was measured."""
    explanation = found.explanation
    parts = []
    if not explanation:
        parts.append(element("p", "Not measured: the report was made with --examples=0."))
    if "importance" in explanation:
        parts.append(element("p", f"For label {explanation['label']}, on {explanation['split']} rows."))
    figures = plots.explanation(explanation)
    alts = {
        "importance": "Bars: how much worse the model is when the values of one feature are exchanged among examples",
        "interactions": "Squares: how strongly each pair of features acts together",
        "gates": "Bars: how much each label takes from each expert",
        "tables": "Histograms of the norms of the rows of each table, looked-up and dead rows apart",
    }
    for name, figure in figures.items():
        parts.append(picture(figure, alts[name]))
        parts += [_importance_table(explanation["importance"])] if name == "importance" else []
    if not {"importance", "interactions", "tables"} <= figures.keys():
        more = "tfrs-dlrm explain measures importance, interactions and the use of tables; a later report shows them."
        parts.append(element("p", more))
    return together(parts)


def export(found: Findings) -> Html:
    """Shows the checks of a bundle."""
    report = found.verification
    if report is None:
        return element("p", "No bundle was given; --bundle=DIRECTORY verifies one.")
    checks = [
        (check.name, element("span", check.status, class_=check.status), " ".join(check.message.split()))
        for check in report.checks
    ]
    verdict = "All checks passed." if report.passed else "Checks failed. Do not serve this bundle."
    parts = [
        element("p", verdict, class_="ok" if report.passed else "failed"),
        table(f"Checks of {report.path}.", ("check", "status", "finding"), checks),
    ]
    if report.latency:
        rows = [(x.signature, x.size, x.calls, x.p50, x.p95, x.p99) for x in report.latency]
        head = ("signature", "rows", "requests", "p50", "p95", "p99")
        parts.append(table("Latency in milliseconds, one request after the other.", head, rows))
    return together(parts)


def _labels(found: Findings) -> Iterator[tuple[Scores, str]]:
    """Yields the scores of each label, and what the names of its metrics end in."""
    scores = found.evaluation.scores
    yield scores, ""
    yield from ((more, f"_{name}") for name, more in scores.more.items())


def _label_rows(found: Findings) -> Iterator[tuple[Any, ...]]:
    metrics = found.evaluation.scores.metrics()
    for label, (_, suffix), mean in zip(found.schema.labels, _labels(found), found.mean_labels, strict=True):
        evaluated = metrics[f"examples{suffix}"], metrics.get(f"label_mean{suffix}")
        yield _name(label), label.column, label.task, mean.examples, mean.mean, *evaluated


def _name(label: Label) -> str:
    return label.name or label.column


def _dense(f: DenseFeature) -> tuple[str, str]:
    filled = "" if f.fill_value is None else f", missing: {f.fill_value}{' and an indicator' if f.indicator else ''}"
    days = "days of a time, " if f.time else ""
    kind = "number" if f.size is None else f"{'projected ' if f.projected else ''}vector of {f.size} numbers"
    return kind, days + (" and ".join(f.transforms) or "none") + filled


def _categorical(f: CategoricalFeature, schema: Schema) -> tuple[str, str, str, int | None, int]:
    of = schema.table_of(f)
    kind = f"{'values' if f.multi_valued else 'value'}{' with weights' if f.weights else ''}"
    said = (
        f"{f.encoding}{f' of {f.time.parts[0]}' if f.time else ''}{f' of {len(f.cross)} features' if f.cross else ''}"
    )
    return kind, said, of.name, of.vocabulary_size, of.dim


def _table_rows(found: Findings) -> Iterator[tuple[Any, ...]]:
    rows = found.checkpoint.rows
    size = {name: math.prod(entry.shape) * _BYTES[entry.dtype] / 1e6 for name, entry in rows.items()}
    for name, entry in rows.items():
        kind, _, of = name.partition("/")
        if kind == "tables":
            slots = sum(mb for other, mb in size.items() if other.startswith(f"slots/{of}/"))
            yield of, *entry.shape, entry.dtype, float(f"{size[name]:.3g}"), float(f"{slots:.3g}")


def _parameters(found: Findings) -> tuple[int, int]:
    """Returns the number of parameters in tables and in layers."""
    tables = [entry.shape for name, entry in found.checkpoint.rows.items() if name.startswith("tables/")]
    return sum(map(math.prod, tables)), sum(map(math.prod, found.layers.values()))


def _words(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Shows names and values of fields as words."""
    return {k.replace("_", " "): ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in fields.items()}


def _importance_table(importance: Mapping[str, Any]) -> Html:
    changes = [name.removesuffix("_spread") for name in importance["features"][0] if name.endswith("_spread")]
    heads = [f"{change} in {title(metric)}" for metric, _, change in (name.rpartition("_") for name in changes)]
    rows = [(f["feature"], *(f[name] for name in changes)) for f in importance["features"][:_FEATURES]]
    caption = f"The {len(rows)} most important of {len(importance['features'])} features."
    return table(caption, ("feature", *heads), rows)
