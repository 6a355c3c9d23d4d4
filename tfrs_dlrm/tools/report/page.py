"""The page of a report."""

from __future__ import annotations

from tfrs_dlrm.tools.report import sections
from tfrs_dlrm.tools.report.findings import Findings
from tfrs_dlrm.tools.report.html_page import html_page


def page(found: Findings) -> str:
    """Returns a whole HTML file, which loads nothing from elsewhere."""
    shown = {
        "Evaluation": sections.evaluation(found),
        "Training": sections.training(found),
        "Features": sections.features(found),
        "Data": sections.data(found),
        "Model": sections.model(found),
        "Export": sections.export(found),
    }
    return html_page(found.workdir, sections.head(found), shown)
