"""The page of a report."""

from __future__ import annotations

import datetime
import html
import os
import string
from importlib import resources

from tfrs_dlrm.tools.report import sections
from tfrs_dlrm.tools.report.findings import Findings
from tfrs_dlrm.tools.report.markup import Html, element, together


def page(found: Findings) -> str:
    """Returns a whole HTML file, which loads nothing from elsewhere."""
    title = os.path.basename(found.workdir.rstrip("/")) or found.workdir
    shown = {
        "Evaluation": sections.evaluation(found),
        "Training": sections.training(found),
        "Features": sections.features(found),
        "Data": sections.data(found),
        "Model": sections.model(found),
        "Export": sections.export(found),
    }
    links = (element("li", element("a", name, href=f"#{name.lower()}")) for name in shown)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")
    body = [
        element("header", element("h1", title), sections.head(found)),
        element("nav", element("ul", *links), aria_label="Sections"),
        element("main", *(_section(name, content) for name, content in shown.items())),
        element("footer", element("p", f"Written by tfrs-dlrm on {now} UTC.")),
    ]
    template = string.Template(_file("page.html"))
    return template.substitute(title=html.escape(title), style=_file("page.css"), body=together(body))


def _section(name: str, content: Html) -> Html:
    heading = element("h2", name, id=f"{name.lower()}-title")
    return element("section", heading, content, id=name.lower(), aria_labelledby=f"{name.lower()}-title")


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
