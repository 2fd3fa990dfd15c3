"""Words and curves under clips."""

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rlhf_jax.environments.canvas import ACTION, BODY, GUIDE, PAPER, Colour

TRUE, PREDICTED = BODY, ACTION
"""Colours of the true and of the predicted reward."""

_SUPERSAMPLING = 3
_LINE = 16  # pixels
_MARGIN = 5


@functools.cache
def _font(bold: bool) -> ImageFont.FreeTypeFont:
    # Matplotlib brings its own, so that pictures are the same everywhere.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), 11)


def words(lines: Sequence[Sequence[tuple[str, Colour]]], width: int, *, bold_first: bool = False) -> np.ndarray:
    """Writes lines of text.

    Args:
      lines: each of parts with a colour of their own; what is wider than the picture is cut off.
      width: of the picture in pixels.
      bold_first: write the first line in bold.

    Returns:
      `[h, width, 3]` uint8 RGB.
    """
    image = Image.new("RGB", (width, _LINE * len(lines) + 2 * _MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(lines):
        font, x = _font(bold_first and i == 0), float(_MARGIN)
        for text, colour in line:
            draw.text((x, _MARGIN + _LINE * i), text, colour, font)
            x += font.getlength(text)
    return np.asarray(image)


def curves(series: Sequence[tuple[np.ndarray, Colour]], width: int, height: int) -> np.ndarray:
    """Draws curves that grow.

    Args:
      series: `[T]` values, from 0 at the bottom to 1 at the top, and a colour; the later ones cover the earlier ones.
      width: of the picture in pixels.
      height: of the picture in pixels.

    Returns:
      `[T, height, width, 3]` uint8 RGB: picture t has the values up to t.
    """
    steps, scale = len(series[0][0]), _SUPERSAMPLING
    image = Image.new("RGB", (width * scale, height * scale), PAPER)
    draw = ImageDraw.Draw(image)
    draw.line([(0, 0), (width * scale, 0)], GUIDE, scale)
    lines = [(_places(values, width * scale, height * scale), colour) for values, colour in series]
    pictures = np.empty((steps, height, width, 3), np.uint8)
    for t in range(steps):
        for places, colour in lines:
            draw.line(places[max(t - 1, 0) : t + 1], colour, 2 * scale, joint="curve")
        pictures[t] = _with_dots(image, [(places[t], colour) for places, colour in lines])
    return pictures


def _places(values: np.ndarray, width: int, height: int) -> list[tuple[float, float]]:
    margin = 2 * _MARGIN * _SUPERSAMPLING
    x = np.linspace(margin, width - margin, len(values))
    y = height - margin - values * (height - 2 * margin)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _with_dots(image: Image.Image, dots: Sequence[tuple[tuple[float, float], Colour]]) -> np.ndarray:
    image = image.copy()
    draw, radius = ImageDraw.Draw(image), 3 * _SUPERSAMPLING
    for (x, y), colour in dots:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)
    return np.asarray(image.reduce(_SUPERSAMPLING))


def under(clip: np.ndarray, *captions: np.ndarray) -> np.ndarray:
    """Puts captions under a clip.

    Args:
      clip: `[T, h, w, 3]` uint8 RGB.
      captions: `[k, w, 3]` for all frames, or `[T, k, w, 3]`.

    Returns:
      `[T, H, w, 3]` uint8 RGB.
    """
    parts = [np.broadcast_to(part, (len(clip), *part.shape[-3:])) for part in (clip, *captions)]
    return np.concatenate(parts, axis=1)


def framed(clip: np.ndarray, colour: Colour) -> np.ndarray:
    """Returns a `[T, h, w, 3]` clip with a frame drawn on its edge."""
    clip, thickness = clip.copy(), math.ceil(clip.shape[2] / 50)
    for edge in (np.s_[:, :thickness], np.s_[:, -thickness:], np.s_[:, :, :thickness], np.s_[:, :, -thickness:]):
        clip[edge] = colour
    return clip


def minus(text: str) -> str:
    """Returns a number with a minus sign in place of a hyphen."""
    return text.replace("-", "−")
