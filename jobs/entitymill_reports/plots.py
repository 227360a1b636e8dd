"""Draw plots as SVG. Colors are CSS variables of the report page, so that a plot fits both light and dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

WIDTH, HEIGHT = 352, 190
"""Size of a plot in CSS pixels. A plot has this width on all screens, so the text of all plots has the same size."""
COLOR_COUNT = 8
"""Number of colors for the series of a plot; if a plot has more series, the rest share the last color."""
_PER_INCH = 72
# Placeholders: colors that occur nowhere else, and that `_render_svg` replaces by the page's CSS variables.
_INK, _MUTED, _LINE, _BAD = "#010101", "#010102", "#010103", "#010104"
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    _BAD: "var(--bad)",
    **{f"#0102{number:02x}": f"var(--s{number})" for number in range(COLOR_COUNT)},
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label may contain dollar signs
    "font.family": ["sans-serif"],
    "font.size": 11,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "grid.color": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.linewidth": 0.8,
    "figure.dpi": _PER_INCH,
}
# Ids that matplotlib gives to elements. They are removed, because several plots on one page would have the same ids.
_IDS = re.compile(
    r' id="(?:figure|axes|patch|line2d|matplotlib\.axis|xtick|ytick|text|legend|Poly\w*|Path\w*|Line\w*)_?\d*"'
)


def choose_color(number: int) -> str:
    """Return the placeholder color of series `number` (from 0); `_render_svg` replaces the placeholder by a CSS variable."""
    return f"#0102{min(number, COLOR_COUNT - 1):02x}"


def draw_bars(rows: Sequence[tuple[str, float, int]], title: str) -> str:
    """Return a plot of horizontal bars as SVG.

    Args:
        rows: name, value and color number (see `choose_color`) of each bar. The value is printed as a whole number, and the
            name is cut to 14 characters.
        title: description for screen readers.
    """

    def add_bars(axes: Axes) -> None:
        positions = range(len(rows))[::-1]
        colors = [choose_color(number) for *_, number in rows]
        axes.barh(list(positions), [value for _, value, _ in rows], color=colors, height=0.62)
        axes.set_yticks(list(positions), [_shorten(name) for name, *_ in rows])
        axes.tick_params(axis="y", labelcolor=_INK)
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        axes.set_xticks([])
        largest = max((value for _, value, _ in rows), default=1) or 1
        axes.set_xlim(0, largest * 1.22)
        for position, (_, value, _) in zip(positions, rows, strict=True):
            axes.text(value + largest * 0.02, position, f"{value:,.0f}", va="center", color=_INK)

    return _render_svg(add_bars, title, height=max(90, 26 * len(rows) + 16))


def draw_stacked_bars(
    names: Sequence[str], series: Mapping[str, Sequence[float]], title: str, *, about: str = "", seconds: bool = False
) -> str:
    """Return a plot of stacked vertical bars as SVG.

    Args:
        names: labels below the bars; labels for which there is no room are left out.
        series: a dict from the name of a series to its values, one for each bar. If there are two or more series, a legend
            shows their names, cut to 14 characters.
        title: description for screen readers.
        about: what `names` are, such as "unit"; written below the horizontal axis.
        seconds: whether the values are seconds; otherwise they are counts.
    """

    def add_stacked_bars(axes: Axes) -> None:
        below = [0.0] * len(names)
        # If there are only a few bars, keep them narrow.
        width = 0.86 if len(names) > 8 else 0.1 * len(names)
        for number, (name, values) in enumerate(series.items()):
            axes.bar(range(len(names)), values, width, below, color=choose_color(number), label=_shorten(name), linewidth=0)
            below = [low + value for low, value in zip(below, values, strict=True)]
        axes.set_xlim(-0.6, max(len(names), 4) - 0.4)
        _set_up_axes(axes, names, series, about, unit=" s" * seconds, integer=not seconds)

    return _render_svg(add_stacked_bars, title)


def draw_lines(names: Sequence[str], series: Mapping[str, Sequence[float | None]], title: str, *, about: str = "") -> str:
    """Return a plot of lines as SVG; the vertical axis begins at zero.

    The arguments have the same meaning as in `draw_stacked_bars`. A value of None leaves a gap in the line.
    """

    def add_lines(axes: Axes) -> None:
        for number, (name, values) in enumerate(series.items()):
            found = [float("nan") if value is None else value for value in values]
            line = axes.plot(range(len(names)), found, "o-", color=choose_color(number), label=_shorten(name))[0]
            line.set(markersize=3.5, linewidth=1.6, clip_on=False)  # otherwise half of a line along zero is cut off
        axes.set_ylim(bottom=0)
        axes.margins(x=0.04)
        _set_up_axes(axes, names, series, about)

    return _render_svg(add_lines, title)


def _add_legend(axes: Axes, count: int) -> None:
    """Add a legend above the plot if `count`, the number of series, is more than 1."""
    if count > 1:
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=4, frameon=False, handlelength=0.9, handleheight=0.9,
            columnspacing=1.1, handletextpad=0.4, borderpad=0, labelcolor=_INK,
        )  # fmt: skip


def _label_horizontal_axis(axes: Axes, names: Sequence[str]) -> None:
    """Write names below the horizontal axis: all of them or, if there is no room for all, every n-th name."""
    room = max(1, int((WIDTH - 50) / (8 + 6.6 * max((len(name) for name in names), default=1))))
    step = -(-len(names) // room)
    positions = list(range(0, len(names), max(1, step)))
    axes.set_xticks(positions, [names[position] for position in positions])


def _shorten(name: str) -> str:
    """Return a name, cut to 14 characters with an ellipsis at its end if it is longer."""
    return name if len(name) <= 14 else f"{name[:13]}…"


def _format_value(value: float) -> str:
    """Return a number as text with up to three significant digits and, from 1,000 on, a suffix: `1.5 k`, `2 M`, `3 G`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _set_up_axes(
    axes: Axes, names: Sequence[str], series: Mapping[str, object], about: str, *, unit: str = "", integer: bool = False
) -> None:
    """Label both axes, and add a legend if there are several series.

    `names` and then `about` are written below the horizontal axis, and `unit` after each number on the vertical axis. With
    `integer`, these numbers are whole.
    """
    _label_horizontal_axis(axes, names)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _format_value(value) + unit))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=integer))
    axes.set_xlabel(about)
    _add_legend(axes, len(series))


def _render_svg(draw: Callable[[Axes], None], title: str, height: int = HEIGHT) -> str:
    """Return a plot as an <svg> element for the report page; `height` is in CSS pixels.

    `draw` is called with empty axes, and must draw the plot on them. Matplotlib escapes the text that it draws. `title`, the
    description for screen readers, is not escaped, so the caller must pass a constant of this program.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}):  # a fixed salt: the same plot has the same bytes
        figure = Figure(figsize=(WIDTH / _PER_INCH, height / _PER_INCH), layout="constrained")
        FigureCanvasSVG(figure)
        axes: Any = figure.add_subplot()
        draw(axes)
        written = io.StringIO()
        figure.savefig(
            written, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = written.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    for drawn, variable in _VARIABLES.items():
        text = text.replace(drawn, variable)
    text = _IDS.sub("", text)
    return re.sub(r"<svg [^>]*>", f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">', text, count=1)
