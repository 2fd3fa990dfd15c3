"""Figures of the experiments: learning curves and small animations. Host only."""

import itertools
import os
import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from PIL import Image

from experiments import figure_style
from experiments.seed_statistics import bootstrap_interval, held, interquartile_mean

_GIF_COLOURS = 128
_GAP = 4  # pixels


class Curve(NamedTuple):
    """One condition at the points where no seed is NaN, and the keywords that draw its line."""

    name: str
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    style: dict


def learning_curves(
    path: str | os.PathLike,
    env_steps: np.ndarray,
    curves: Mapping[str, np.ndarray | None],
    *,
    optimum: float | None,
    title: str,
    xlabel: str,
    ylabel: str,
) -> None:
    """Draws one curve for each condition: interquartile mean over seeds with its 95 % bootstrap band, as a PNG.

    Where a seed is NaN between two values (no episode ended) the former counts; points before its first and after its
    last value are left out. What lies far under the 5th percentile of a curve and under its end is cut off at the
    bottom, so that one bad iteration does not flatten the rest; the figure tells how far down it would go.

    Args:
      path: of the PNG to write.
      env_steps: `[P]` where the points lie on the horizontal axis.
      curves: `[S, P]` values by the name of the condition; the numbers of seeds may differ. One that is None is not
        drawn, so that the others look as in figures that have it.
      optimum: the best that can be reached, drawn as a thin line; None for no line.
      title, xlabel, ylabel: words over the figure, under its horizontal and beside its vertical axis.

    Raises:
      ValueError: there is no curve, or one has another number of points than `env_steps`.
    """
    if all(values is None for values in curves.values()):
        raise ValueError("there are no curves to draw")
    for name, values in curves.items():
        if values is not None and (np.ndim(values) != 2 or np.shape(values)[1] != len(env_steps)):
            raise ValueError(f"curve {name!r} has shape {np.shape(values)}, not (seeds, {len(env_steps)})")
    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    drawn = draw_curves(axes, env_steps, curves)
    set_limits(axes, env_steps, drawn, optimum)
    _decorate(axes, title, xlabel, ylabel, optimum)
    label_ends(axes, drawn)
    figure_style.save(figure, path)


def draw_curves(axes: Axes, env_steps: np.ndarray, curves: Mapping[str, np.ndarray | None]) -> list[Curve]:
    """Draws the interquartile mean of each `[S, P]` curve with its 95 % bootstrap band; nothing where it is None."""
    drawn = []
    looks = zip(itertools.cycle(figure_style.COLOURS), itertools.cycle(figure_style.STYLES), strict=False)
    for (name, values), (colour, dashes) in zip(curves.items(), looks, strict=False):
        if values is None:
            continue
        whole = held(values)
        mean, (low, high) = interquartile_mean(whole), bootstrap_interval(whole, samples=500)
        known = ~np.isnan(mean)
        marker = "o" if known.sum() == 1 else None  # a single point has no line to be seen by
        style: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1.7, "marker": marker}
        axes.fill_between(env_steps, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(env_steps, mean, **style)
        drawn.append(Curve(name, mean[known], low[known], high[known], style))
    return drawn


def set_limits(axes: Axes, env_steps: np.ndarray, curves: list[Curve], optimum: float | None) -> None:
    """Frames everything, but for what lies far under both the 5th percentile and the end of the lowest curve.

    The figure tells how far down the lowest curve would go.
    """
    curves, marks = [curve for curve in curves if curve.mean.size], [] if optimum is None else [optimum]
    ceiling = max([curve.high.max() for curve in curves] + marks, default=1.0)
    floor = min(marks, default=ceiling)
    for curve in curves:
        usual = min(np.quantile(curve.mean, 0.05), curve.low[-1])
        reach = ceiling - usual
        floor = min(floor, curve.low.min() if curve.low.min() > usual - 0.5 * reach else usual - 0.1 * reach)
    span = (ceiling - floor) or 1.0
    bottom = floor - 0.05 * span
    axes.set_ylim(bottom, ceiling + 0.09 * span)
    if len(env_steps) > 1:
        axes.set_xlim(np.min(env_steps), np.max(env_steps))
    lowest = min([curve.mean.min() for curve in curves], default=bottom)
    if lowest < bottom:
        _tell_what_is_cut_off(axes, lowest)


def _tell_what_is_cut_off(axes: Axes, lowest: float) -> None:
    """Writes at the bottom how far down a curve goes; on the right, where few curves are."""
    value = f"{lowest:,.0f}" if abs(lowest) >= 100.0 else f"{lowest:.2g}"
    place: dict[str, Any] = {"xy": (1, 0), "xytext": (-3, 3), "textcoords": "offset points", "ha": "right"}
    words = f"cut off: down to {value}".replace("-", "−")
    axes.annotate(words, xycoords="axes fraction", fontsize=8, color=figure_style.MUTED, **place)


def _decorate(axes: Axes, title: str, xlabel: str, ylabel: str, optimum: float | None) -> None:
    figure_style.decorate(axes, title=title, xlabel=xlabel, ylabel=ylabel)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    if optimum is not None:
        axes.axhline(optimum, color=figure_style.MUTED, linewidth=0.9, zorder=1)
        place: dict[str, Any] = {"xy": (0, optimum), "xytext": (2, 3), "textcoords": "offset points", "va": "bottom"}
        label = f"optimum {optimum:g}".replace("-", "−")
        axes.annotate(label, xycoords=axes.get_yaxis_transform(), fontsize=8, color=figure_style.MUTED, **place)


def label_ends(axes: Axes, curves: list[Curve]) -> None:
    """Writes each name beside the end of its curve with a sample of the line, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    ends = [(curve.mean[-1] - low) / (high - low) if curve.mean.size else 0.0 for curve in curves]
    order = sorted(range(len(curves)), key=lambda i: -ends[i])
    texts = [textwrap.fill(curves[i].name + ("" if curves[i].mean.size else " (no data)"), 18) for i in order]
    places = _spread([ends[i] for i in order], [0.018 + 0.043 * len(text.split("\n")) for text in texts])
    for i, text, y in zip(order, texts, places, strict=True):
        style = curves[i].style
        outside: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
        if curves[i].mean.size:
            axes.plot([1.0, 1.035], [ends[i], y], color=style["color"], linewidth=0.6, **outside)
        axes.plot([1.04, 1.13], [y, y], **style, **outside)
        axes.text(
            1.15, y, text, transform=axes.transAxes, fontsize=8.5, color=figure_style.INK, va="center", linespacing=1.05
        )


def _spread(wanted: list[float], heights: list[float]) -> list[float]:
    """Returns centres from the top down, near the wanted ones but without overlap, within [0, 1] where they fit."""
    centres, half, room = list(wanted), [0.5 * height for height in heights], 1.0
    for i in range(len(centres)):
        centres[i] = min(centres[i], room - half[i])
        room = centres[i] - half[i]
    room = 0.0
    for i in reversed(range(len(centres))):
        centres[i] = max(centres[i], room + half[i])
        room = centres[i] + half[i]
    return centres


def animation(path: str | os.PathLike, frames: np.ndarray, *, fps: float) -> None:
    """Writes a small GIF that loops for ever.

    All frames share one palette of 128 colours taken from the whole clip, without dithering. A GIF counts time
    in 1/100 s: some frames are shown 1/100 s longer than others, so that the clip as a whole keeps its speed. Equal
    neighbours are stored once, for the time of both.

    Args:
      path: of the GIF to write.
      frames: `[T, h, w, 3]` uint8 RGB.
      fps: frames per second, at most 50: viewers slow down what is faster.

    Raises:
      ValueError: `frames` has another shape or type or is empty, or `fps` is not in (0, 50].
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or frames.size == 0:
        raise ValueError(f"frames are {frames.dtype} {list(frames.shape)}, not uint8 [T, h, w, 3] with T of at least 1")
    if not 0.0 < fps <= 50.0:
        raise ValueError(f"fps = {fps} is not in (0, 50]")
    sample = frames[np.unique(np.linspace(0, len(frames) - 1, 32).astype(int))]
    palette = Image.fromarray(sample.reshape(-1, sample.shape[2], 3)).quantize(_GIF_COLOURS)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    durations = 10 * np.diff(np.round(np.arange(len(frames) + 1) * 100.0 / fps)).astype(int)
    timing = {"duration": durations.tolist(), "loop": 0, "disposal": 1}
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], optimize=True, **timing)


def tile(clips: np.ndarray, columns: int) -> np.ndarray:
    """Places clips side by side in a grid, row by row, with a small white gap.

    Args:
      clips: `[K, T, h, w, 3]` uint8 RGB.
      columns: of the grid.

    Returns:
      `[T, H, W, 3]` uint8 RGB; the empty places of the last row are white.

    Raises:
      ValueError: there is no clip, or `columns` is below 1.
    """
    clips = np.asarray(clips)
    if clips.ndim != 5 or len(clips) == 0 or columns < 1:
        raise ValueError(f"cannot place clips of shape {list(clips.shape)} in {columns} columns")
    count, steps, height, width, _ = clips.shape
    rows = -(-count // columns)
    grid = np.full((steps, rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for i, clip in enumerate(clips):
        y, x = np.array(divmod(i, columns)) * (height + _GAP, width + _GAP)
        grid[:, y : y + height, x : x + width] = clip
    return grid
