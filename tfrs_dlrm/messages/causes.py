"""Finds the line of an error that names its cause, which TensorFlow wraps in several ways."""

from __future__ import annotations

import re

# Where in a graph an error was noticed, which helps nobody who did not write the graph.
_WHERE = re.compile(
    r"Graph execution error|Detected at node |<stack traces unavailable>|Node: '|\d+ root error\(s\) found"
    r"|Traceback \(most recent call last\)|in user code:|Exception encountered when calling "
)
_WRAPPED = re.compile(r"\{\{|^in user code:|Graph execution error|Traceback \(most|Exception encountered when calling ")
_PREFIXES = re.compile(
    r"^(?:\s*\(\d+\)\s+[A-Z_]+:"  # of several root errors
    r"|\s*\{\{[^}]*\}\}(?: failed with)?"
    r"|Collective ops is aborted by:|Error in user-defined function[^:]*:"
    r"|\s*(?:[A-Za-z_]+\.)*[A-Za-z_]*(?:Error|Exception|Invalid|Warning|Interrupted)(?= ?: \S):)\s*"
)
_FRAME = re.compile(r"\s\s(?!\(\d+\) )|\t|\s?File ")
_SUFFIX = re.compile(r"\s*\[Op:\w+\](?: name: ?\S*)?$|\s*\[\[\{\{.*$")


def cause(error: BaseException) -> str:
    """Returns what an error says; of an error that TensorFlow has wrapped, the first line that names the cause.

    Errors of Python in an input pipeline or a traced function reach the program inside a text that first says where in
    the graph they were noticed, and ends with a traceback.
    """
    text = str(error).strip()
    foreign = type(error).__module__.startswith(("tensorflow", "duckdb", "_duckdb"))
    if not (foreign or _WRAPPED.search(text)):
        return text
    # Code and frames of tracebacks are indented. TensorFlow indents all of a text "in user code", but its last part.
    begin = text.rfind("\n\n    ") if text.startswith("in user code:") else 0
    lines = [line.strip() if begin else line.rstrip() for line in text[begin:].splitlines()]
    found = (_stripped(line) for line in lines if line and not _FRAME.match(line))
    return next((line for line in found if line), text.split("\n", 1)[0])


def _stripped(line: str) -> str:
    """Returns a line without what TensorFlow puts around it; empty if it only says where an error was noticed."""
    while (match := _PREFIXES.match(line)) and match.end():
        line = line[match.end() :]
    return "" if _WHERE.match(line) else _SUFFIX.sub("", line).strip()
