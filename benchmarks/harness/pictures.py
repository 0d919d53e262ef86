"""Panels of measurements, below each other, so that their letters can be read at a phone's width."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

WIDTH_INCHES, PANEL_INCHES = 6.0, 3.2


def panels(
    count: int,
    *,
    columns: int = 1,
    panel_inches: float = PANEL_INCHES,
    heights: Sequence[float] | None = None,
    share_x: bool = False,
) -> tuple[Figure, list[Any]]:
    """Return a picture of ``count`` panels, row by row."""
    rows = -(-count // columns)
    picture = Figure(figsize=(WIDTH_INCHES, panel_inches * rows), layout="constrained")
    found = picture.subplots(rows, columns, squeeze=False, sharex=share_x, height_ratios=heights)
    return picture, list(found.flat[:count])


def logarithmic(axes: Axes) -> None:
    """Make the vertical axis logarithmic, with plain numbers at 1, 2 and 5 times the powers of ten."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def common_legend(picture: Figure, axes: Axes, columns: int) -> None:
    """Put the legend of one panel above all of them."""
    picture.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=columns, fontsize=9)


def save(picture: Figure, path: Path) -> None:
    """Write a picture as SVG, whose bytes depend on the numbers alone."""
    picture.savefig(path, metadata={"Date": None})
