"""Figures that compare conditions: where they end, and what a label is worth. Host only."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from experiments import figure_style, seed_statistics

_TICKS = (-1.0, 0.0, 0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 1.0)
_MISSING = 0.004  # What is missing is not measured closer than this, so that 1 has a place.
_MOST_BANDS = 5


def _magnify(values: np.ndarray) -> np.ndarray:
    return -np.log(np.maximum(1.0 - values, 0.0) + _MISSING)


def _reduce(values: np.ndarray) -> np.ndarray:
    return 1.0 - (np.exp(-values) - _MISSING)


def intervals(
    path: str | os.PathLike, values: Mapping[str, np.ndarray], *, baseline: str, title: str, xlabel: str
) -> None:
    """Draws one row for each condition: interquartile mean, its 95 % interval, a dot per seed, as a PNG.

    At the right stands how often a condition is better than the baseline. Seeds far below the rest are drawn as a
    triangle at the edge, so that one of them does not press all others together.

    Args:
      path: of the PNG to write.
      values: `[S]` by the name of the condition.
      baseline: the condition to compare with.
      title, xlabel: words over and under the figure.
    """
    figure = Figure(figsize=(7.4, 0.9 + 0.42 * len(values)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    everything = np.concatenate([np.asarray(v, float) for v in values.values()])
    high = everything.max()
    middle, spread = np.median(everything), high - np.median(everything)
    floor = max(everything.min(), middle - max(6.0 * spread, 0.5 * abs(middle)))
    for row, (name, returns) in enumerate(values.items()):
        returns = np.asarray(returns, float)
        colour = figure_style.COLOURS[0] if name == baseline else figure_style.INK
        low_end, high_end = seed_statistics.bootstrap_interval(returns)
        inside = returns >= floor
        axes.plot(
            returns[inside], np.full(inside.sum(), row + 0.16), "o", color=colour, alpha=0.35, markersize=4, mew=0
        )
        axes.plot(
            np.full((~inside).sum(), floor), np.full((~inside).sum(), row + 0.16), "<", color=colour, markersize=5
        )
        axes.plot(np.maximum([low_end, high_end], floor), [row - 0.1, row - 0.1], color=colour, linewidth=2.2)
        axes.plot(max(seed_statistics.interquartile_mean(returns), floor), row - 0.1, "D", color=colour, markersize=6)
        if name != baseline:
            better, low, up = seed_statistics.improvement(returns, values[baseline])
            words = f"{better:.2f} [{low:.2f}, {up:.2f}]"
            axes.text(1.02, row, words, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)
    place: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 8.5, "color": figure_style.MUTED, "va": "bottom"}
    axes.text(1.02, 1.01, f"P(better than {baseline})", **place)
    figure_style.decorate(axes, title=title, xlabel=xlabel)
    axes.set_yticks(range(len(values)), list(values), color=figure_style.INK)
    axes.set_ylim(len(values) - 0.5, -0.5)
    margin = 0.03 * (high - floor) or 1.0
    axes.set_xlim(floor - margin, high + margin)
    figure_style.save(figure, path)


def label_efficiency(
    path: str | os.PathLike,
    panels: Mapping[str, Mapping[str, Mapping[int, np.ndarray]]],
    *,
    title: str,
    ylabel: str,
) -> None:
    """Draws what so many labels lead to: a panel for each teacher, a line for each query rule, as a PNG.

    Lines are means over seeds, not interquartile ones: with few labels it is the agent that fails who matters. The
    axis is magnified near 1, by the logarithm of what is missing. Bands, 95 % bootstrap intervals, are left out where
    many lines would bury each other under them.

    Args:
      path: of the PNG to write.
      panels: `[S]` normalised returns by the name of the panel, the name of the line, and the number of labels.
      title: words over the figure.
      ylabel: what the values are.
    """
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(1.6 + 3.1 * columns, 0.8 + 2.7 * rows), dpi=150, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    budgets = sorted({budget for lines in panels.values() for line in lines.values() for budget in line})
    floor = _lowest_end(panels)
    for axes, (panel, lines) in zip(grid, panels.items(), strict=False):
        for name, line in lines.items():
            _draw_line(axes, name, names.index(name), line, band=len(names) <= _MOST_BANDS)
        figure_style.decorate(axes)
        axes.set_title(panel, loc="left", fontsize=9.5, color=figure_style.INK)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(budgets))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(budgets, [str(budget) for budget in budgets])
        axes.set_yscale("function", functions=(_magnify, _reduce))
        axes.set_yticks([tick for tick in _TICKS if tick > floor], [f"{tick:g}" for tick in _TICKS if tick > floor])
        axes.set_ylim(floor, 1.0)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    handles = {handle.get_label(): handle for axes in grid for handle in axes.get_legend_handles_labels()[0]}
    figure.legend(handles=[handles[name] for name in names], loc="outside right center", frameon=False, fontsize=8.5)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=figure_style.INK)
    figure.supxlabel("labels", fontsize=9.5, color=figure_style.INK)
    figure.supylabel(ylabel, fontsize=9.5, color=figure_style.INK)
    figure_style.save(figure, path)


def _draw_line(axes: Axes, name: str, look: int, line: Mapping[int, np.ndarray], *, band: bool) -> None:
    labels = sorted(line)
    style: dict[str, Any] = {
        "color": figure_style.COLOURS[look % len(figure_style.COLOURS)],
        "linestyle": figure_style.STYLES[look % len(figure_style.STYLES)],
        "marker": figure_style.MARKERS[look % len(figure_style.MARKERS)],
    }
    if band:
        ends = np.array([seed_statistics.bootstrap_interval(line[n], _mean) for n in labels]).T
        axes.fill_between(labels, *ends, color=style["color"], alpha=0.1, linewidth=0)
    axes.plot(labels, [line[n].mean() for n in labels], linewidth=1.6, markersize=4, label=name, **style)


def _lowest_end(panels: Mapping[str, Mapping[str, Mapping[int, np.ndarray]]]) -> float:
    """Returns where the vertical axis begins: under the lowest mean, whatever the intervals."""
    means = [float(values.mean()) for lines in panels.values() for line in lines.values() for values in line.values()]
    return min(means) - 0.15 * (1.0 - min(means)) - 0.01


def _mean(values: np.ndarray) -> np.ndarray:
    return values.mean(0)
