"""A matplotlib figure to inline SVG that follows the page: its colours are CSS variables, its text is text, its bytes repeat.

with drawing():
    fig, axes = panels(1, NARROW, 200)
    ...
    picture = to_svg(fig, "Loss per step")
"""

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from ncdemo.report.garbage import no_collection
from ncdemo.report.show import tick

NARROW, WIDE = 440, 900
"""Widths in SVG units, which are CSS pixels at scale 1: half a page, and a whole one."""
# Stand-in colours while matplotlib draws; page.css gives each variable a light and a dark value.
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
ALARM = "#040505"
SERIES = tuple(f"#0501{i:02x}" for i in range(8))
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", PAPER: "var(--paper)", ALARM: "var(--bad)"} | {
    colour: f"var(--s{i})" for i, colour in enumerate(SERIES)
}
STEPS = (1, 2, 2.5, 5, 10)
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ncdemo",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.titley": 1.0,  # where it would be anyway: with nothing above the axes, looking for it takes a seventh of the drawing
    "axes.titlecolor": INK,
    "axes.labelsize": 10,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.5,
}


@dataclass(frozen=True)
class Plot:
    """A figure of the page; `narrow` is drawn for small screens where `svg` would be unreadable there."""

    caption: str
    svg: str
    narrow: str | None = None


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with our style alone, whatever matplotlibrc says; the browser has glyphs that matplotlib's font lacks."""
    with matplotlib.rc_context(), warnings.catch_warnings(), no_collection():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def panels(
    count: int, width: float, height: float, gap: float = 34, columns: int = 1, left: float = 50, bottom: float = 40
) -> tuple[Figure, list[Axes]]:
    """Return `count` axes of `height` units each in a grid with fixed margins, so that panels line up between figures."""
    rows = -(-count // columns)
    top, right = 26, 14
    total = top + rows * height + (rows - 1) * gap + bottom
    fig = Figure(figsize=(width / 72, total / 72), dpi=72)
    cell = (width - columns * (left + right)) / columns
    axes = []
    for i in range(count):
        row, column = divmod(i, columns)
        x = left + column * (cell + left + right)
        y = bottom + (rows - 1 - row) * (height + gap)
        axes.append(fig.add_axes((x / width, y / total, cell / width, height / total)))
        axes[-1].xaxis.set_major_locator(MaxNLocator(6 if width <= NARROW else 11, steps=STEPS))
        axes[-1].yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
        for axis in (axes[-1].xaxis, axes[-1].yaxis):
            axis.set_major_formatter(FuncFormatter(tick))
            axis.set_minor_formatter(NullFormatter())
        axes[-1].tick_params(length=0, which="both")
    return fig, axes


def to_svg(fig: Figure, description: str) -> str:
    """Return the figure as an <svg> element for HTML: described for screen readers, ids unique, numbers short."""
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    raw = buffer.getvalue()
    body = raw[raw.index("<svg") : raw.rindex("</svg>")]
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href", "href").replace("'DejaVu Sans'", "inherit")
    body = re.sub(r"\n\s*", " ", body)
    body = re.sub(r"<[^>]+>", lambda tag: _tidy(tag[0]), body)
    prefix = hashlib.sha256(body.encode()).hexdigest()[:8]
    body = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>f{prefix}-", body)
    width, height = (round(side * 72, 1) for side in fig.get_size_inches())
    label = escape(description)
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}"><title>{label}</title>{body}</svg>'


def _tidy(tag: str) -> str:
    """Shorten coordinates and name colours by variable; only inside a tag, so that no printed number is rounded."""
    tag = re.sub(r"\d+\.\d{2,}", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), tag)
    return re.sub("|".join(VARIABLES), lambda found: VARIABLES[found[0]], tag)
