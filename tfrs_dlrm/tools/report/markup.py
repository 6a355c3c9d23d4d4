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
    """Makes a table whose first column names the rows; numbers are aligned to the right."""
    lines = [element("tr", *(element("th", name, scope="col") for name in head))]
    body = [element("tr", element("th", _text(name), scope="row"), *map(_cell, cells)) for name, *cells in rows]
    whole = element("table", element("caption", caption), element("thead", *lines), element("tbody", *body))
    return element("div", whole, class_="wide")


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


def _cell(value: Any) -> Html:
    value = value.item() if isinstance(value, np.generic) else value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return element("td", _text(value), **({"class_": "number"} if is_number else {}))


def _text(value: Any) -> str:
    if value is None or value != value:  # nan
        return "-"
    if isinstance(value, Html):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.6g}"
