"""Figures of learnt rewards: against the true one, against what its teacher allows, against chance. Host only.

They look like those of `experiments.figures`, and like them can be read without colour.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from experiments import figure_style, figures, reward_map
from experiments.reward_map import Plane

CHANCE_ACCURACY = 0.5
CHANCE_LOG_LIKELIHOOD = -float(np.log(2.0))
SAME = 0.98
"""Correlation above which the maps of two seeds are not worth two pictures."""

_COLUMNS = 3  # panels of the reliability diagram side by side
_BLUE, _VERMILION = figure_style.COLOURS[:2]
_LEVELS = 6  # contour lines, at most


def held_out(
    path: str | os.PathLike, iterations: np.ndarray, panels: Mapping[str, tuple[np.ndarray, np.ndarray]], *, title: str
) -> None:
    """Draws how good the learnt reward is on pairs that it has not learnt from, beside what its teacher allows.

    Args:
      path: of the PNG to write.
      iterations: `[P]`.
      panels: "accuracy" or "log-likelihood", or both, each with the `[S, P]` values of the learnt reward and of a
        perfect model of the teacher.
      title: in words.
    """
    chance = {"accuracy": CHANCE_ACCURACY, "log-likelihood": CHANCE_LOG_LIKELIHOOD}
    ylabels = {"accuracy": "accuracy", "log-likelihood": "log-likelihood\nnats per pair"}
    figure, rows = _stack(len(panels))
    for axes, (name, (values, ceiling)) in zip(rows, panels.items(), strict=True):
        drawn = figures.draw_curves(axes, iterations, {"learnt reward": values, "possible": ceiling})
        figures.set_limits(axes, iterations, drawn, chance[name])
        figure_style.decorate(axes, ylabel=ylabels[name])
        axes.axhline(chance[name], color=figure_style.MUTED, linewidth=0.9, zorder=1)
        _note(axes, chance[name], "chance")
        figures.label_ends(axes, drawn)
    _finish(figure, rows, path, title)


def proxy_and_truth(
    path: str | os.PathLike,
    iterations: np.ndarray,
    *,
    proxy: np.ndarray,
    truth: np.ndarray,
    alarm: np.ndarray,
    title: str,
) -> None:
    """Draws what the policy earns above what its learnt reward thinks of it, and where the two part.

    Each has a scale of its own. Where seeds give the alarm it is hatched, the darker the more of them.

    Args:
      path: of the PNG to write.
      iterations: `[P]`.
      proxy: `[S, P]` predicted return.
      truth: `[S, P]` true return.
      alarm: `[S, P]` of `rlhf_jax.diagnostics.over_optimisation`.
      title: in words.
    """
    figure, rows = _stack(2)
    parts = {"true return": truth, "proxy": proxy}
    ylabels = ("true return\nof an episode", "proxy: return by\nthe learnt reward")
    for axes, (name, values), ylabel in zip(rows, parts.items(), ylabels, strict=True):
        drawn = figures.draw_curves(axes, iterations, {name: values})
        figures.set_limits(axes, iterations, drawn, None)
        figure_style.decorate(axes, ylabel=ylabel)
        _mark(axes, iterations, alarm)
        figures.label_ends(axes, drawn)
    share = alarm.mean(0)
    if share.any():
        first = iterations[np.argmax(share > 0)]
        words = f"hatched: alarm, from iteration {first:g} on, in up to {alarm.sum(0).max()} of {len(alarm)} seeds"
        rows[1].text(0, -0.34, words, transform=rows[1].transAxes, fontsize=8, color=figure_style.MUTED)
    _finish(figure, rows, path, title)


def reliability_diagram(path: str | os.PathLike, conditions: Mapping[str, np.ndarray], *, title: str) -> None:
    """Draws how often answers came out as a learnt reward said, a panel for each condition.

    A perfect model lies on the diagonal, whatever its teacher: also one that errs. Marks are as large as their bin has
    pairs, all seeds together; thin lines are single seeds.

    Args:
      path: of the PNG to write.
      conditions: by name, `[S, B, 3]`: mean probability of each bin, mean answer, and weight; see
        `rlhf_jax.diagnostics.Reliability`.
      title: in words.

    Raises:
      ValueError: there is nothing to draw.
    """
    if not conditions:
        raise ValueError("there is no reliability to draw")
    columns = min(_COLUMNS, len(conditions))
    rows = -(-len(conditions) // columns)
    figure = Figure(figsize=(0.7 + 2.5 * columns, 0.8 + 2.6 * rows), dpi=150, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (name, bins) in zip(grid, conditions.items(), strict=False):
        figure_style.decorate(axes)
        _draw_reliability(axes, bins)
        axes.set_title(name, fontsize=9.5, color=figure_style.INK)
    for axes in grid[len(conditions) :]:
        axes.remove()
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=figure_style.INK)
    label: dict[str, Any] = {"fontsize": 9.5, "color": figure_style.INK}
    figure.supxlabel("predicted probability", **label)
    figure.supylabel("mean answer", **label)
    figure_style.save(figure, path)


def pooled(bins: np.ndarray) -> np.ndarray:
    """Returns the `[B, 3]` reliability of all seeds together, of `[S, B, 3]`; NaN in an empty bin."""
    weight = np.nan_to_num(bins[..., 2])
    total = weight.sum(0)
    means = (np.nan_to_num(bins[..., :2]) * weight[..., None]).sum(0)
    means = np.divide(means, total[:, None], out=np.full_like(means, np.nan), where=total[:, None] > 0)
    return np.concatenate([means, total[:, None]], 1)


def reward_maps(path: str | os.PathLike, plane: Plane, maps: np.ndarray, *, title: str) -> None:
    """Draws the true reward beside the learnt one, each seed's brought to the true scale first, and then their mean.

    Where a seed differs from that mean, the one that is the least like the truth gets a panel of its own. Lines of
    equal reward are the same in all panels.

    Args:
      path: of the PNG to write.
      plane: where the maps lie.
      maps: `[S, H, W]` learnt rewards.
      title: in words.
    """
    panels = _map_panels(plane, maps)
    figure = Figure(figsize=(1.4 + 2.75 * len(panels), 3.5), dpi=150, layout="constrained")
    row = figure.subplots(1, len(panels), sharex=True, sharey=True)
    for axes, (name, values) in zip(row, panels.items(), strict=True):
        mesh = _draw_map(axes, plane, values)
        _decorate_map(axes, plane, name)
    row[0].set_ylabel(plane.up.label, fontsize=9.5, color=figure_style.INK)
    drawn, (low, high) = np.stack(list(panels.values())), mesh.get_clim()
    beyond = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    slack = 0.01 * (high - low)
    extend = beyond[bool(drawn.min() < low - slack), bool(drawn.max() > high + slack)]
    bar = figure.colorbar(mesh, ax=list(row), extend=extend, aspect=28)
    bar.set_label("reward of a step, on the true scale", fontsize=9, color=figure_style.INK)
    bar.ax.tick_params(colors=figure_style.MUTED, labelsize=8.5, length=0)
    bar.outline.set_visible(False)  # type: ignore[operator]
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=figure_style.INK)
    # With so many colours, figure_style.save would take seconds to find the best palette.
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    image.quantize(256, dither=Image.Dither.NONE).save(path, "PNG", optimize=True)


def _map_panels(plane: Plane, maps: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the `[H, W]` rewards of each panel by its title."""
    fitted = np.stack([reward_map.on_true_scale(plane, rewards) for rewards in maps])
    mean = fitted.mean(0)
    if len(maps) == 1:
        return {"true reward": plane.reward, "learnt reward": mean}
    panels = {"true reward": plane.reward, f"learnt, mean of {len(maps)} seeds": mean}
    if min(_alike(rewards, mean) for rewards in fitted) < SAME:
        agreement = np.nan_to_num(reward_map.agreement(plane, maps), nan=-1.0)
        panels["learnt, the seed least like it"] = fitted[np.argmin(agreement)]
    return panels


def _draw_map(axes: Axes, plane: Plane, values: np.ndarray) -> QuadMesh:
    low, high = plane.reward.min(), plane.reward.max()
    where = plane.across.values, plane.up.values
    image = axes.pcolormesh(*where, values, vmin=low, vmax=high, cmap="viridis", shading="gouraud")
    levels = MaxNLocator(_LEVELS).tick_values(low, high)
    levels = [level for level in levels if low < level < high]
    # White is seen on the dark half of the colours, ink on the bright one.
    colours = [figure_style.INK if level > (low + high) / 2 else "white" for level in levels]
    lines = axes.contour(*where, values, levels=levels, colors=colours, linewidths=0.7, linestyles="solid")
    axes.clabel(lines, fontsize=6.5, fmt=lambda level: f"{level:.0f}".replace("-", "−"))
    return image


def _alike(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() == 0 or b.std() == 0:
        return float(a.std() == b.std())
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def _draw_reliability(axes: Axes, bins: np.ndarray) -> None:
    axes.plot([0, 1], [0, 1], color=figure_style.MUTED, linewidth=0.9, zorder=1)
    for seed in bins if len(bins) > 1 else []:
        known = seed[:, 2] > 0
        axes.plot(seed[known, 0], seed[known, 1], color=_BLUE, linewidth=0.6, alpha=0.35)
    together = pooled(bins)
    together = together[together[:, 2] > 0]
    axes.plot(together[:, 0], together[:, 1], color=_BLUE, linewidth=1.4)
    sizes = 6 + 300 * together[:, 2] / together[:, 2].sum()
    style: dict[str, Any] = {"color": _BLUE, "edgecolor": "white", "linewidth": 0.6, "clip_on": False, "zorder": 3}
    axes.scatter(together[:, 0], together[:, 1], s=sizes, **style)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
    axes.text(0.98, 0.03, "over-confident", ha="right", va="bottom", fontsize=7.5, color=figure_style.MUTED)


def _decorate_map(axes: Axes, plane: Plane, name: str) -> None:
    axes.set_title(name, fontsize=9.5, color=figure_style.INK)
    axes.set_xlabel(plane.across.label, fontsize=9.5, color=figure_style.INK)
    axes.tick_params(colors=figure_style.MUTED, labelsize=8.5, length=0)
    axes.spines[:].set_visible(False)
    for axis, side in ((axes.xaxis, plane.across), (axes.yaxis, plane.up)):
        if side.ticks:
            axis.set_ticks(list(side.ticks), list(side.ticks.values()))


def _stack(count: int) -> tuple[Figure, list[Axes]]:
    """Returns a figure of panels above each other."""
    figure = Figure(figsize=(6, 0.7 + 2.1 * count), dpi=150, layout="constrained")
    return figure, list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])


def _note(axes: Axes, y: float, words: str) -> None:
    place: dict[str, Any] = {"xy": (0, y), "xytext": (2, 3), "textcoords": "offset points", "va": "bottom"}
    axes.annotate(words, xycoords=axes.get_yaxis_transform(), fontsize=8, color=figure_style.MUTED, **place)


def _mark(axes: Axes, iterations: np.ndarray, alarm: np.ndarray) -> None:
    """Hatches the iterations with an alarm."""
    share = alarm.mean(0)
    low, high = axes.get_xlim()
    for point in np.flatnonzero(share):
        left, right = max(iterations[point] - 0.5, low), min(iterations[point] + 0.5, high)
        axes.axvspan(left, right, color=_VERMILION, alpha=0.1 + 0.25 * share[point], linewidth=0, zorder=0)
        axes.axvspan(
            left, right, facecolor="none", edgecolor=_VERMILION, alpha=0.5, hatch="////", linewidth=0, zorder=0
        )


def _finish(figure: Figure, rows: Sequence[Axes], path: str | os.PathLike, title: str) -> None:
    rows[0].set_title(title, loc="left", fontsize=11, fontweight="bold", color=figure_style.INK, pad=10)
    rows[-1].set_xlabel("iteration", fontsize=9.5, color=figure_style.INK)
    figure_style.save(figure, path)
