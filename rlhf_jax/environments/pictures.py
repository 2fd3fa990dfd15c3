"""Pictures of environments that are seen as images: MovingDot, gymnax's grids, and Atari's games.

A grid has one layer per kind of thing, each of which has a colour of its own here. The colours differ in lightness as
well as in hue, so that they can be told apart by people who do not see red and green as most do.
"""

import functools
from collections.abc import Mapping

import numpy as np
from PIL import Image

from rlhf_jax.environments.canvas import INK, PAPER, Background, Canvas, Colour
from rlhf_jax.environments.drawings import Moment, Renderer

_WHITE: Colour = (255, 255, 255)
_MARK: Colour = (104, 112, 132)

# MovingDot's frame. What it is has its own module, which is not imported: that would load gymnax.
_ROWS, _COLUMNS, _CENTRE = 210, 160, (80, 105)
_MOVES = (0.0, -1j, 1.0, 1j, -1.0)
_PIXEL = 0.82 / _ROWS
_DOT = 0.024


def moving_dot(moment: Moment, size: int) -> np.ndarray:
    """Draws both MovingDot environments: the frame, a cross in its middle, and the dot, larger than to scale.

    The arrow is the direction in which the action moves the dot.

    Args:
      moment: action `[]` 0 none, 1 down, 2 right, 3 up, 4 left; state "x" and "y" `[]` in raw pixels, y downwards.
      size: height and width in pixels.

    Returns:
      `[size, size, 3]` uint8 RGB.

    Raises:
      ValueError: the state was not kept.
    """
    if "x" not in moment.state or "y" not in moment.state:
        raise ValueError("MovingDot cannot be drawn without its state, which has x and y")
    dot, move = _place(moment.state["x"].item(), moment.state["y"].item()), _MOVES[int(moment.action)]
    canvas = Canvas()
    # It begins inside the dot, which is drawn over it.
    canvas.arrow(dot, 0.1 * move, 0.034)
    canvas.box(dot, _DOT * (1 + 1j), 0.0, _WHITE)
    return canvas.over(_moving_dot_background(size))


@functools.lru_cache(maxsize=8)
def _moving_dot_background(size: int) -> Background:
    """Draws the frame, with room for the larger dot at its limits, and the cross."""
    canvas = Canvas()
    half_size = complex(_COLUMNS, _ROWS) * _PIXEL / 2 + (1 + 1j) * _DOT
    canvas.box(0.5 + 0.5j, half_size, 0.0, INK)
    centre = _place(*_CENTRE)
    for arm in (0.05, 0.05j):
        canvas.rod(centre - arm, centre + arm, 0.006, _MARK)
    return canvas.background(size)


def _place(x: float, y: float) -> complex:
    """Returns the place in the picture of a point of the frame."""
    return 0.5 + 0.5j + _PIXEL * complex(x - _COLUMNS / 2, _ROWS / 2 - y)


_EMPTY: Colour = (36, 40, 50)
_GAP: Colour = (22, 25, 32)
_YOU = _WHITE
_YOURS: Colour = (240, 222, 60)
_DIM: Colour = (118, 106, 40)
_ENEMY: Colour = (226, 88, 20)
_SKY: Colour = (86, 180, 233)

GRIDS: dict[str, dict[int, Colour]] = {
    "Breakout-MinAtar": {2: _DIM, 3: _SKY, 1: _YOURS, 0: _YOU},
    "Asterix-MinAtar": {2: (110, 84, 76), 3: _YOURS, 1: _ENEMY, 0: _YOU},
    "Freeway-MinAtar": {
        6: (34, 62, 96),
        5: (44, 96, 148),
        4: (64, 140, 200),
        3: (118, 182, 232),
        2: (186, 222, 250),
        1: _ENEMY,
        0: _YOU,
    },
    # Every alien is also in one of the two layers of their direction, which hide the layer of all of them.
    "SpaceInvaders-MinAtar": {1: (0, 158, 115), 2: _SKY, 3: (196, 92, 170), 5: _ENEMY, 4: _YOURS, 0: _YOU},
    "Seaquest-MinAtar": {
        3: (84, 88, 100),
        7: (44, 110, 190),
        8: (0, 132, 100),
        9: (60, 200, 150),
        5: (250, 170, 110),
        6: _ENEMY,
        4: (214, 110, 190),
        2: _YOURS,
        1: (170, 174, 184),
        0: _YOU,
    },
    "Pong-misc": {2: _DIM, 0: _YOU, 1: _YOURS},
}
"""Colour of each layer of each grid, by the number of the layer, those behind first."""


def grid(colours: Mapping[int, Colour]) -> Renderer:
    """Returns a renderer of grids, with cells as large as fit, square and sharp.

    Args:
      colours: of each layer, by its number, those behind first.

    Returns:
      Renderer of observations `[H, W, C]`, in which anything above zero is seen.
    """

    def draw(moment: Moment, size: int) -> np.ndarray:
        height, width, _ = moment.observation.shape
        cells = np.full((height, width, 3), _EMPTY, np.uint8)
        for layer, colour in colours.items():
            cells[moment.observation[:, :, layer] > 0] = colour
        scale = size / max(height, width)
        picture = _enlarged(cells, round(height * scale), round(width * scale))
        return _on_paper(picture, size)

    return draw


def _enlarged(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns `[height, width, 3]` the nearest of `[H, W, 3]` cells, with gaps between them if there is room."""
    rows, columns = np.arange(height) * len(cells) // height, np.arange(width) * cells.shape[1] // width
    picture = cells[rows[:, None], columns]
    if height >= 8 * len(cells):
        picture[1:][rows[1:] != rows[:-1]] = _GAP
        picture[:, 1:][:, columns[1:] != columns[:-1]] = _GAP
    return picture


def newest_frame(moment: Moment, size: int) -> np.ndarray:
    """Draws the newest frame that an Atari agent sees, as wide for its height as the game's own picture.

    Args:
      moment: observation `[H, W, C]` uint8 grey frames, the newest last.
      size: height and width in pixels.

    Returns:
      `[size, size, 3]` uint8 RGB.
    """
    newest = Image.fromarray(np.ascontiguousarray(moment.observation[:, :, -1]))
    wide = newest.resize((round(size * _COLUMNS / _ROWS), size), Image.Resampling.BICUBIC)
    return _on_paper(np.asarray(wide.convert("RGB")), size)


def _on_paper(picture: np.ndarray, size: int) -> np.ndarray:
    """Returns `[size, size, 3]` a picture in the middle of a square of paper."""
    height, width, _ = picture.shape
    square = np.full((size, size, 3), PAPER, np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = picture
    return square


BUILT_IN: dict[str, Renderer] = {
    "MovingDot-v0": moving_dot,
    "MovingDotNoFrameskip-v0": moving_dot,
    **{name: grid(colours) for name, colours in GRIDS.items()},
}
"""Renderer of each environment seen as images that can be drawn without adding one, by name, but for Atari's."""

_DOT_LEGEND = (
    "The white square is the dot, and the grey cross the middle of its frame. "
    "The orange arrow is what the agent does: the way it moves the dot."
)

LEGENDS: dict[str, str] = {
    "MovingDot-v0": _DOT_LEGEND,
    "MovingDotNoFrameskip-v0": _DOT_LEGEND,
    "Breakout-MinAtar": (
        "White: the paddle, which the agent moves left and right. Yellow: the ball; dark yellow: where it was before. "
        "Blue: bricks to be hit."
    ),
    "Asterix-MinAtar": (
        "White: the player, whom the agent moves in four directions. Yellow: treasure to be collected. "
        "Orange: enemies to be avoided. Brown: where treasure and enemies come from."
    ),
    "Freeway-MinAtar": (
        "White: the chicken, which the agent moves up and down; it is to reach the top. Orange: cars, which send it "
        "back. Blue: the trail of a car, the lighter the faster it drives."
    ),
    "SpaceInvaders-MinAtar": (
        "White: the cannon, which the agent moves left and right and fires. Yellow: its bullets. Aliens to be shot: "
        "blue while they move left, pink while they move right. Orange: their bullets."
    ),
    "Seaquest-MinAtar": (
        "White with light grey behind it: the submarine, which the agent steers in four directions and fires. Yellow: "
        "its bullets. Green: divers to be rescued. Enemies: fish are light orange, submarines dark orange, their "
        "bullets pink. Dark grey: trails. Bottom row: oxygen left (blue), divers on board (dark green)."
    ),
    "Pong-misc": (
        "White: paddles; the agent moves the left one up and down. Yellow: the ball; dark yellow: where it was before."
    ),
}
"""What people need to know to read these pictures, by name of the environment."""

ATARI_LEGEND = "The newest frame of the game as the agent sees it, in grey."
"""What people need to know to read `newest_frame`."""
