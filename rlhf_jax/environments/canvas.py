"""Shapes with smooth edges, for the pictures of environments.

A point is a complex number in units of the picture's side: x to the right plus i·y upwards, 0 in the lower left corner
and 1 + i in the upper right. Multiplying by `exp(1j * angle)` turns counter-clockwise. Every shape is a polygon. All
are drawn four times too large and scaled down, which smooths their edges.
"""

import cmath
import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

PAPER: Colour = (245, 246, 249)
GUIDE: Colour = (220, 224, 232)
BODY: Colour = (45, 84, 140)
INK: Colour = (33, 41, 56)
ACTION: Colour = (233, 120, 20)
GOAL: Colour = (52, 152, 128)

_SUPERSAMPLING = 4
_CIRCLE = np.exp(2j * math.pi * np.arange(48) / 48)
_ARC = np.linspace(0.0, 1.0, 12)
_CAP = np.exp(1j * np.linspace(0.5, 1.5, 13) * math.pi)
_CORNERS = np.exp(1j * (np.linspace(0.0, 0.5, 5) + 0.5 * np.arange(4)[:, None]) * math.pi)


class Background(NamedTuple):
    """What never moves, drawn once.

    image: drawn too large.
    pixels: `[size, size, 3]` uint8, scaled down.
    """

    image: Image.Image
    pixels: np.ndarray


class Canvas:
    """Collects shapes, the later ones over the earlier ones."""

    def __init__(self) -> None:
        self._shapes: list[np.ndarray] = []
        self._colours: list[Colour] = []

    def background(self, size: int) -> Background:
        """Draws the shapes on paper."""
        scale = size * _SUPERSAMPLING
        image = Image.new("RGB", (scale, scale), PAPER)
        self._draw(image, self._places(size))
        return Background(image, np.array(image.reduce(_SUPERSAMPLING)))

    def over(self, background: Background) -> np.ndarray:
        """Returns the `[size, size, 3]` uint8 picture of the shapes over a background.

        Only the box around the shapes is drawn: copying and scaling the whole took about half of the time.
        """
        pixels = background.pixels.copy()
        size = len(pixels)
        places = self._places(size)
        if not len(places):
            return pixels
        # Plain numbers: np.clip of so few takes longer than a shape.
        left, top = (max(0, int(place // _SUPERSAMPLING)) for place in places.min(0).tolist())
        right, bottom = (min(size, int(place // _SUPERSAMPLING) + 1) for place in places.max(0).tolist())
        if left < right and top < bottom:
            x, y = left * _SUPERSAMPLING, top * _SUPERSAMPLING
            image = background.image.crop((x, y, right * _SUPERSAMPLING, bottom * _SUPERSAMPLING))
            self._draw(image, places - (x, y))
            # The average of each 4 × 4 block is the covered area.
            pixels[top:bottom, left:right] = image.reduce(_SUPERSAMPLING)
        return pixels

    def polygon(self, points: np.ndarray, colour: Colour) -> None:
        """Adds the area inside `[K]` points."""
        self._shapes.append(points)
        self._colours.append(colour)

    def disc(self, centre: complex, radius: float, colour: Colour) -> None:
        """Adds a filled circle."""
        self.polygon(centre + radius * _CIRCLE, colour)

    def rod(self, start: complex, end: complex, half_width: float, colour: Colour) -> None:
        """Adds a bar with round ends; the two points must differ."""
        cap = _CAP * (half_width * (end - start) / abs(end - start))
        self.polygon(np.concatenate([start + cap, end - cap]), colour)

    def curve(self, points: np.ndarray, half_width: float, colour: Colour) -> None:
        """Adds a line through `[K]` points, with flat ends."""
        along = np.gradient(points)
        side = 1j * half_width * along / np.abs(along)
        self.polygon(np.concatenate([points + side, (points - side)[::-1]]), colour)

    def box(self, centre: complex, half_size: complex, radius: float, colour: Colour, turn: complex = 1.0) -> None:
        """Adds a rectangle with round corners.

        Args:
          half_size: half the width plus i times half the height.
          radius: of the corners.
          turn: `exp(1j * angle)` by which it is turned.
        """
        inner = half_size - radius * (1 + 1j)
        centres = np.array([inner, -inner.conjugate(), -inner, inner.conjugate()])
        self.polygon(centre + turn * (centres[:, None] + radius * _CORNERS).ravel(), colour)

    def arrow(self, tail: complex, vector: complex, head: float) -> None:
        """Adds the arrow of an action.

        Args:
          vector: from the tail to the tip; if zero, there is no arrow.
          head: half the width of the head, less if the arrow is shorter than it would be.
        """
        length = abs(vector)
        if length == 0.0:
            return
        head = min(head, length / 1.2)
        along = vector / length
        neck, across = tail + vector - 1.2 * head * along, 1j * head * along
        shaft = [tail - 0.4 * across, neck - 0.4 * across, neck + 0.4 * across, tail + 0.4 * across]
        self.polygon(np.array([*shaft[:2], neck - across, tail + vector, neck + across, *shaft[2:]]), ACTION)

    def arc_arrow(self, centre: complex, radius: float, heading: float, amount: float, clearance: float) -> None:
        """Adds the arrow of a torque along a circle, counter-clockwise if it is positive.

        Args:
          centre: of the circle.
          radius: of the circle.
          heading: where it begins, in radians counter-clockwise from the right.
          amount: in [−1, 1]; the arrow spans 80° at ±1.
          clearance: what of its beginning a rod covers that is drawn over it.
        """
        if amount == 0.0:
            return
        sign = math.copysign(1.0, amount)
        sweep = math.radians(80.0) * abs(amount)
        start = clearance / radius
        head_sweep = min(sweep, math.radians(30.0))
        head = 0.30 * radius * head_sweep / math.radians(30.0)
        half = min(0.102 * radius, 0.5 * head)
        neck = start + sweep - head_sweep
        # The shaft ends inside the head.
        spine = np.exp(1j * (heading + sign * (neck + 0.3 * head_sweep) * _ARC))
        self.polygon(centre + np.concatenate([(radius + half) * spine, (radius - half) * spine[::-1]]), ACTION)
        base = centre + cmath.rect(radius, heading + sign * neck)
        tip = centre + cmath.rect(radius, heading + sign * (neck + head_sweep))
        outwards = cmath.rect(head, heading + sign * (neck + 0.5 * head_sweep))
        self.polygon(np.array([base + outwards, tip, base - outwards]), ACTION)

    def _places(self, size: int) -> np.ndarray:
        """Returns the `[K, 2]` columns and rows of the points of all shapes in the large image."""
        points = np.concatenate(self._shapes) if self._shapes else np.empty(0, complex)
        places = np.stack([points.real, 1.0 - points.imag], 1) * (size * _SUPERSAMPLING)
        # Half a place less, because Pillow's whole numbers are the middles of places. Rounded, because it truncates,
        # which would move every shape up and to the left.
        return np.rint(places - 0.5)

    def _draw(self, image: Image.Image, places: np.ndarray) -> None:
        draw = ImageDraw.Draw(image)
        flat, end = places.ravel().tolist(), 0
        for shape, colour in zip(self._shapes, self._colours, strict=True):
            begin, end = end, end + 2 * len(shape)
            draw.polygon(flat[begin:end], fill=colour)
