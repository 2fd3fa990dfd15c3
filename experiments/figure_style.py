"""How all figures look: colours, lines, letters, and the PNG that they end as. Host only."""

import os

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

INK = "#212938"
MUTED = "#6b7484"
GRID = "#e6e9ef"
# Okabe and Ito's colours without the yellow, which is too pale for a line. In print without colour the dashes tell.
COLOURS = ("#0072B2", "#D55E00", "#000000", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
STYLES = ("solid", (0, (5, 2)), (0, (1, 1.3)), (0, (6, 1.6, 1.2, 1.6)), (0, (9, 2)), (0, (3, 1.4, 1, 1.4, 1, 1.4)))
MARKERS = "osD^vPX*<>"  # one more than there are colours, and some, so that both together tell lines apart


def decorate(axes: Axes, *, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """Gives axes their words, a quiet grid, and no frame but the line at the bottom."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=10)
    axes.set_xlabel(xlabel, fontsize=9.5, color=INK)
    axes.set_ylabel(ylabel, fontsize=9.5, color=INK)
    axes.tick_params(colors=MUTED, labelsize=8.5, length=0)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#c3c9d4")


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes a PNG with a palette, a third as large as in full colour."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(256, kmeans=1).save(path, "PNG", optimize=True)
