"""A log on one HTML page, made of the parts of a report on a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from tfrs_dlrm import plots
from tfrs_dlrm.data.preparing.profiling.column_profile import Profile
from tfrs_dlrm.tools.profile.examine import LogReport
from tfrs_dlrm.tools.profile.text import column_rows, label_rows
from tfrs_dlrm.tools.report.html_page import html_page
from tfrs_dlrm.tools.report.markup import Html, element, facts, picture, table, together

_PANELS = 12  # of a picture
_VALUES = 10


def page(report: LogReport) -> str:
    """Returns a whole HTML file, which loads nothing from elsewhere."""
    shown = {"Suspicious": _findings(report), "Columns": _columns(report), "Values": _values(report)}
    return html_page(report.data, _head(report), shown)


def _head(report: LogReport) -> Html:
    others = [f"against {report.against}"] if report.against else []
    others += [f"against requests in {', '.join(report.requests)}"] if report.requests else []
    rows = {"Training rows": report.profile.rows, "Sampled rows": report.profile.sampled}
    rows |= {"Columns": len(report.profile.columns), "Suspicious": len(report.findings)}
    return together([element("p", ", ".join([report.data, *others])), facts(rows, "key")])


def _findings(report: LogReport) -> Html:
    if not report.findings:
        return element("p", "Nothing is suspicious.")
    rows = [(f.name, f.kind, f.number, f.limit, f"{_sentence(f.text)} {_sentence(f.advice)}") for f in report.findings]
    return table("What is suspicious, and what to do.", ("name", "kind", "number", "limit", "what"), rows)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _columns(report: LogReport) -> Html:
    labels, columns = label_rows(report), column_rows(report)
    parts = [table("Labels of all training rows.", labels[0], labels[1:])]
    what = "Moved and requests are population stability indexes. A plus says that only the sample was counted."
    parts.append(table(f"Columns. {what}", columns[0], columns[1:]))
    return together([*parts, *_pictures(report)])


def _pictures(report: LogReport) -> Iterator[Html]:
    other = report.before or report.served
    names = short_names(report.data, report.against) if report.against else (short_names(report.data)[0], "requests")
    every = _plain(report.profile)
    for i in range(0, len(every), _PANELS):
        part = every[i : i + _PANELS]
        figure = plots.log_columns(part, _plain(other) if other else (), names)
        yield picture(figure, f"Distributions of {', '.join(column['name'] for column in part)}")


def short_names(*paths: str) -> tuple[str, ...]:
    """Returns the ends of paths, with as few parts as tell them apart; whole paths if they are the same."""
    parts = [[part for part in path.split("/") if part] for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = tuple("/".join(part[-length:]) for part in parts)
        if len(set(names)) == len(paths):
            return names
    return paths


def _plain(profile: Profile) -> Sequence[dict[str, Any]]:
    return [dataclasses.asdict(column) for column in profile.columns]


def _values(report: LogReport) -> Html:
    """Shows the quantiles of numbers, and the most frequent values of each other column with their mean labels."""
    numbers = [(c.name, *c.quantiles.values()) for c in report.profile.columns if c.quantiles]
    parts = []
    if numbers:
        shares = [f"{float(q):.0%}" for q in next(c for c in report.profile.columns if c.quantiles).quantiles]
        parts.append(table("Quantiles of numbers, in the units of the log.", ("column", *shares), numbers))
    for c in report.profile.columns:
        if c.top.values:
            rows = list(zip(c.top.values, c.top.rows, c.top.label_mean, strict=True))[:_VALUES]
            which = f", the {_VALUES} most frequent" if len(c.top.values) > _VALUES else ""
            parts.append(table(f"By {c.name}{which}.", (c.name, "sampled rows", "mean label"), rows))
    return together(parts)
