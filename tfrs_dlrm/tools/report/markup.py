"""HTML in which every text is escaped, and pictures are part of the file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

# Pictures that are larger as SVG are PNG, which the number of points does not make larger.
_MOST_SVG_BYTES = 150_000
# Elements without content.
_EMPTY = ("img",)


class Html(str):
    """Markup, which is not escaped again."""


def element(tag: str, *content: str, **attributes: str) -> Html:
    """Makes an element; content that is no `Html` is escaped.

    Args:
      tag: the name of the element.
      content: texts and elements.
      attributes: `class_` stands for class, and `aria_label` for aria-label.
    """
    names = {key: key.rstrip("_").replace("_", "-") for key in attributes}
    words = "".join(f' {names[key]}="{html.escape(value)}"' for key, value in attributes.items())
    inside = "".join(part if isinstance(part, Html) else html.escape(part) for part in content)
    return Html(f"<{tag}{words}>" + ("" if tag in _EMPTY else f"{inside}</{tag}>"))


def together(parts: Iterable[Html]) -> Html:
    """Joins elements, one a line."""
    return Html("\n".join(parts))


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Html:
    """Makes a table whose first column names the rows; columns of numbers are aligned to the right."""
    lines = [[value.item() if isinstance(value, np.generic) else value for value in row] for row in rows]
    right = [{"class_": "number"} if all(map(_is_number, column)) else {} for column in zip(*lines, strict=True)]
    right = right or [{}] * len(head)
    names = [element("th", name, scope="col", **kind) for name, kind in zip(head, right, strict=True)]
    body = []
    for first, *others in lines:
        cells = [element("td", _text(value), **kind) for value, kind in zip(others, right[1:], strict=True)]
        body.append(element("tr", element("th", _text(first), scope="row"), *cells))
    parts = [element("caption", caption), element("thead", element("tr", *names)), element("tbody", *body)]
    return element("div", element("table", *parts), class_="wide")


def facts(pairs: Mapping[str, Any], class_: str = "facts") -> Html:
    """Makes a list of names and values."""
    return element(
        "dl",
        *(element("div", element("dt", name), element("dd", _text(value))) for name, value in pairs.items()),
        class_=class_,
    )


def picture(figure: Figure, alt: str) -> Html:
    """Puts a figure into the page, as SVG if it is small and as PNG if not, described by `alt`."""
    kind, data = "svg+xml", _image(figure, "svg")
    if len(data) > _MOST_SVG_BYTES:
        kind, data = "png", _image(figure, "png")
    width, height = (str(round(96 * inches)) for inches in figure.get_size_inches())
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return element("figure", element("img", src=source, alt=alt, width=width, height=height))


def _image(figure: Figure, kind: str) -> bytes:
    file = io.BytesIO()
    # Without the date and random names, equal figures are equal files.
    with mpl.rc_context({"svg.hashsalt": "tfrs-dlrm"}):
        figure.savefig(file, format=kind, dpi=144, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


def _is_number(value: Any) -> bool:
    """Whether a cell is a number, or lacks one."""
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _text(value: Any) -> str:
    if value is None or value != value:  # nan
        return "-"
    if isinstance(value, Html):
        return value
    if not _is_number(value):
        return str(value)
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1e5 else f"{value:.6g}"
