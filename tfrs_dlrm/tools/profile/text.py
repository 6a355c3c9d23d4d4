"""A log as a table in the terminal, and what is suspicious in sentences."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from tfrs_dlrm.data.preparing.profiling.column_profile import ColumnProfile, Profile
from tfrs_dlrm.messages.aligned import aligned
from tfrs_dlrm.tools.profile.examine import LogReport
from tfrs_dlrm.tools.profile.finding import Finding
from tfrs_dlrm.tools.profile.stability import stability

_LONGEST = 24
_WIDTH = 118


def text(report: LogReport) -> str:
    """Returns the labels, a line for each column, and the findings; without a newline at the end."""
    lines = [f"{report.data}: {report.profile.rows:,} training rows, {report.profile.sampled:,} of them sampled"]
    if report.before is not None:
        lines.append(f"against {report.against}: {report.before.rows:,} training rows")
    if report.served is not None:
        lines.append(f"against {report.served.rows:,} rows of {', '.join(report.requests)}")
    lines += ["", *_table(label_rows(report)), "", *_table(column_rows(report)), "", *finding_lines(report.findings)]
    return "\n".join(lines)


def label_rows(report: LogReport) -> list[list[str]]:
    """Returns a head and a row for each label."""
    before = {label.column: label for label in report.before.labels} if report.before else {}
    rows = [["label", "rows", "mean", *(["before"] if before else [])]]
    for label in report.profile.labels:
        old = [f"{before[label.column].mean:.6g}" if label.column in before else "-"] if before else []
        rows.append([label.column, f"{label.rows:,}", f"{label.mean:.6g}", *old])
    return rows


def column_rows(report: LogReport) -> list[list[str]]:
    """Returns a head and a row for each column of the log."""
    others = [x for x in ((report.before, "moved"), (report.served, "requests")) if x[0] is not None]
    rows = [["column", "kind", "missing", "distinct", "AUC", "no row", *(name for _, name in others), "values"]]
    for c in report.profile.columns:
        cells = [c.name, c.kind, f"{c.missing:.2%}", distinct(c, report.profile)]
        cells += ["-" if c.auc is None else f"{c.auc:.4f}"]
        cells += ["-" if c.out_of_vocabulary is None else f"{c.out_of_vocabulary:.2%}"]
        for profile, _ in others:
            old = profile.column(c.name) if profile else None
            moved = stability(c, old) if old else None
            cells.append("-" if moved is None else f"{moved.index:.3f}")
        rows.append([*cells, examples(c)])
    return rows


def distinct(column: ColumnProfile, profile: Profile) -> str:
    """Returns how many distinct values there are; at least so many if only a sample was counted."""
    return f"{column.distinct:,}" if column.exact or profile.sampled == profile.rows else f"{column.distinct:,}+"


def examples(column: ColumnProfile) -> str:
    """Returns the range of numbers and their median, or the most frequent values."""
    q = column.quantiles
    if q:
        return f"{q['0']:g} to {q['1']:g}, median {q['0.5']:g}"
    total = max(1, column.top.among)
    pairs = list(zip(column.top.values, column.top.rows, strict=True))[:3]
    return ", ".join(f"{_short(value)} {rows / total:.1%}" for value, rows in pairs)


def finding_lines(findings: Sequence[Finding]) -> list[str]:
    """Returns the findings: each with its number and limit, and with what to do in a line of its own."""
    if not findings:
        return ["Nothing is suspicious."]
    lines = [f"Suspicious ({len(findings)}):"]
    for f in findings:
        words = f"{f.kind}: {f.name}: {f.text} ({f.number:.4g}; limit {f.limit:.4g})."
        lines += textwrap.wrap(words, _WIDTH, initial_indent="  ", subsequent_indent="    ")
        advice = f"{f.advice[:1].upper()}{f.advice[1:]}."
        lines += textwrap.wrap(advice, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return lines


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines up rows below a head, words to the left and numbers to the right."""
    return aligned(rows, left=[i for i, name in enumerate(rows[0]) if name in ("label", "column", "kind", "values")])


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."
