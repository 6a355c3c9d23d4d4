"""What all figures share: how they are made and saved, and their colors."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfrs_dlrm.stores.files import whole_file

# Okabe and Ito's colors, which colour-blind readers can tell apart. The first is that of the model.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#7F8C99", "#000000")
BLUE, VERMILION, SLATE = COLORS[0], COLORS[5], COLORS[7]
GREY = "#8A8A8A"


class _NotebookFigure(Figure):
    """A figure that a notebook shows although pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """Makes an empty figure, in inches, of 100 pixels an inch."""
    figure = _NotebookFigure(figsize=(width, height), dpi=100, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=14, parse_math=False)  # a path may have a $
    return figure


def new_panel() -> tuple[Figure, Axes]:
    """Makes a figure of one panel."""
    figure = new_figure(5.5, 5)
    return figure, figure.subplots()


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a PNG; the file appears whole or not at all."""
    with whole_file(path, "wb") as f:
        figure.savefig(f, format="png")


def save_figures(figures: Mapping[str, Figure], directory: str) -> list[str]:
    """Writes each figure as `NAME.png` with `save_figure`; returns the paths."""
    paths = [os.path.join(directory, f"{name}.png") for name in figures]
    for figure, path in zip(figures.values(), paths, strict=True):
        save_figure(figure, path)
    return paths


def dress(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    """Writes the title and the names of the axes, without a box."""
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)


def say_undefined(axes: Axes, text: str) -> None:
    """Says why a panel is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, fontsize=12)
    axes.set(xticks=[], yticks=[])
