"""The frame of a page of sections: title, list of sections, style and date."""

from __future__ import annotations

import datetime
import html
import os
import string
from collections.abc import Mapping
from importlib import resources

from tfrs_dlrm.tools.report.markup import Html, element, together


def html_page(directory: str, head: Html, sections: Mapping[str, Html]) -> str:
    """Returns a whole HTML file, which loads nothing from elsewhere.

    Args:
      directory: what the page is about; its last part is the title.
      head: below the title.
      sections: by name, in their order.
    """
    title = os.path.basename(directory.rstrip("/")) or directory
    links = (element("li", element("a", name, href=f"#{name.lower()}")) for name in sections)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")
    body = [
        element("header", element("h1", title), head),
        element("nav", element("ul", *links), aria_label="Sections"),
        element("main", *(_section(name, content) for name, content in sections.items())),
        element("footer", element("p", f"Written by tfrs-dlrm on {now} UTC.")),
    ]
    template = string.Template(_file("page.html"))
    return template.substitute(title=html.escape(title), style=_file("page.css"), body=together(body))


def _section(name: str, content: Html) -> Html:
    heading = element("h2", name, id=f"{name.lower()}-title")
    return element("section", heading, content, id=name.lower(), aria_labelledby=f"{name.lower()}-title")


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
