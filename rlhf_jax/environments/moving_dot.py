"""MovingDot: a white dot to be moved to the middle of a black frame, the smallest environment seen as pictures.

Its frames are those of an Atari game, 210 × 160 in colour, so that whatever learns from Atari's can be tried on it in
minutes. The raw environment shows them as they are; the other one shows what agents are given of Atari, which is drawn
from the places of the dot, without drawing whole frames and scaling them down.

Importing this module imports gymnax, which takes seconds.

Episodes start anywhere in the frame, or at its origin, where a quarter of the dot is seen:

    env = StackedDot()
    environments.wrap(env, env.default_params.replace(random_start=False))

Reference: Rahtz, gym-moving-dot, of which the frames, the actions, the rewards and the time limit are.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from gymnax.environments import environment, spaces

HEIGHT, WIDTH = 210, 160
"""Of a raw frame, in pixels."""

CENTRE_X, CENTRE_Y = WIDTH // 2, HEIGHT // 2

X_LIMITS, Y_LIMITS = (2, 157), (2, 207)
"""The smallest and the largest x, and y, of the dot once it has moved: where all of it is seen."""

ACTIONS = ("noop", "down", "right", "up", "left")
"""What each action is called."""

SCREEN, STACK, REPEAT = 84, 4, 4
"""Side of a preprocessed frame, how many are seen at once, and how many raw steps one action lasts."""

_HALF = 2  # Half the side of the dot.


@flax.struct.dataclass
class MovingDotParams:
    """Parameters of both environments.

    max_steps_in_episode: steps of the agent after which an episode is truncated.
    random_start: whether the dot starts anywhere, uniformly, rather than in the upper left corner.
    """

    max_steps_in_episode: int = 1000
    random_start: bool = True


@flax.struct.dataclass
class MovingDotState:
    """State of the raw environment.

    x: [] int32 column of the dot, in pixels.
    y: [] int32 row of the dot, downwards.
    time: [] int32 steps of the agent since the reset.
    """

    x: jax.Array
    y: jax.Array
    time: jax.Array


@flax.struct.dataclass
class StackedDotState(MovingDotState):
    """State of the preprocessed environment.

    edges: [4, 4] uint8 white rectangle of each frame that is seen, the newest last: first row, row after the last,
      first column, column after the last, in raw pixels.
    """

    edges: jax.Array


def distance(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the distance of the dot to the middle of the frame.

    Args:
      x: `[...]` column of the dot, in pixels.
      y: `[...]` its row.

    Returns:
      `[...]` float32 pixels.
    """
    return jnp.sqrt(_squared_distance(x, y).astype(jnp.float32))


class MovingDot(environment.Environment[Any, MovingDotParams]):
    """The raw environment: five actions, each of which moves the dot by at most one pixel.

    The dot, 4 × 4 pixels, stops at the limits; one that starts beyond them is within them after its first step,
    whatever the action. The reward is 1 if it came nearer to the middle, −1 if it went away from it, and 0 if its
    distance is as before. Episodes never terminate; they are truncated after 1,000 steps.

    Observation: `[210, 160, 3]` uint8, 255 where the dot is and 0 elsewhere.
    """

    @property
    def name(self) -> str:
        """Name under which it is made."""
        return "MovingDotNoFrameskip-v0"

    @property
    def default_params(self) -> MovingDotParams:
        """Episodes of 1,000 steps that start anywhere."""
        return MovingDotParams()

    @property
    def num_actions(self) -> int:
        """Number of actions."""
        return len(ACTIONS)

    def action_space(self, params: MovingDotParams | None = None) -> spaces.Discrete:
        """Returns the space of the actions, in the order of `ACTIONS`."""
        del params
        return spaces.Discrete(len(ACTIONS))

    def observation_space(self, params: MovingDotParams) -> spaces.Box:
        """Returns the space of the observations."""
        del params
        return spaces.Box(0, 255, (HEIGHT, WIDTH, 3), jnp.uint8)

    def is_terminated(self, state: Any, params: MovingDotParams) -> jax.Array:
        """Returns `[]` False: no episode ends by itself."""
        del state, params
        return jnp.zeros((), bool)

    def get_obs(self, state: Any, params: Any = None, key: Any = None) -> jax.Array:
        """Returns the observation of a state."""
        del params, key
        # A row at a time, colours beside each other: twice as fast as to repeat every pixel three times.
        rows, columns = jnp.arange(HEIGHT)[:, None], jnp.arange(3 * WIDTH)[None] // 3
        white = (rows >= state.y - _HALF) & (rows < state.y + _HALF)
        white &= (columns >= state.x - _HALF) & (columns < state.x + _HALF)
        return jnp.where(white, jnp.uint8(255), jnp.uint8(0)).reshape(HEIGHT, WIDTH, 3)

    def reset_env(self, key: jax.Array, params: MovingDotParams) -> tuple[jax.Array, MovingDotState]:
        """Returns the first observation and state of an episode; the key is consumed."""
        x, y = _start(key, params)
        state = MovingDotState(x, y, jnp.zeros((), jnp.int32))
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: Any, action: int | float | jax.Array, params: MovingDotParams
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[Any, Any]]:
        """Returns observation, state, reward, whether it terminated (never), and an empty info; no key is needed."""
        del key
        x, y, reward = move(state.x, state.y, action, 1)
        state = MovingDotState(x[-1], y[-1], state.time + 1)
        return self.get_obs(state), state, reward, self.is_terminated(state, params), {}


class StackedDot(MovingDot):
    """The environment as agents are given Atari's: an action lasts four raw steps, whose rewards are added.

    A frame is the larger value, at each pixel, of the last two raw frames, in grey, scaled to 84 × 84 by the mean of
    the area that each pixel covers, as OpenCV's INTER_AREA does. The last four such frames are seen, the newest last;
    after a reset all four are the first one. Episodes are truncated after 250 steps, 1,000 raw ones.

    Observation: `[84, 84, 4]` uint8 shades of grey.

    Reference: Mnih et al. 2015, Human-level control through deep reinforcement learning, methods, preprocessing.
    """

    @property
    def name(self) -> str:
        """Name under which it is made."""
        return "MovingDot-v0"

    @property
    def default_params(self) -> MovingDotParams:
        """Episodes of 250 steps that start anywhere."""
        return MovingDotParams(max_steps_in_episode=1000 // REPEAT)

    def observation_space(self, params: MovingDotParams) -> spaces.Box:
        """Returns the space of the observations."""
        del params
        return spaces.Box(0, 255, (SCREEN, SCREEN, STACK), jnp.uint8)

    def get_obs(self, state: Any, params: Any = None, key: Any = None) -> jax.Array:
        """Returns the observation of a state."""
        del params, key
        top, bottom, left, right = state.edges.astype(jnp.int32).T
        rows, columns = _covered(top, bottom, HEIGHT), _covered(left, right, WIDTH)
        return jnp.rint(255.0 * rows[:, None] * columns[None]).astype(jnp.uint8)

    def reset_env(self, key: jax.Array, params: MovingDotParams) -> tuple[jax.Array, StackedDotState]:
        """Returns the first observation and state of an episode; the key is consumed."""
        x, y = _start(key, params)
        edges = jnp.broadcast_to(_edges(x[None], y[None]), (STACK, 4))
        state = StackedDotState(x, y, jnp.zeros((), jnp.int32), edges)
        return self.get_obs(state), state

    def step_env(
        self, key: jax.Array, state: Any, action: int | float | jax.Array, params: MovingDotParams
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[Any, Any]]:
        """Returns observation, state, reward, whether it terminated (never), and an empty info; no key is needed."""
        del key
        x, y, reward = move(state.x, state.y, action, REPEAT)
        edges = jnp.concatenate([state.edges[1:], _edges(x[-2:], y[-2:])[None]])
        state = StackedDotState(x[-1], y[-1], state.time + 1, edges)
        return self.get_obs(state), state, reward, self.is_terminated(state, params), {}


def _start(key: jax.Array, params: MovingDotParams) -> tuple[jax.Array, jax.Array]:
    """Returns x and y, `[]` int32 each, at the start of an episode."""
    key_x, key_y = jax.random.split(key)
    anywhere = jax.random.randint(key_x, (), 0, WIDTH, jnp.int32), jax.random.randint(key_y, (), 0, HEIGHT, jnp.int32)
    x, y = (jnp.where(params.random_start, place, jnp.int32(0)) for place in anywhere)
    return x, y


def move(x: jax.Array, y: jax.Array, action: Any, steps: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Repeats an action.

    Args:
      x: `[]` int32 column of the dot, in pixels.
      y: `[]` int32 row of the dot.
      action: `[]` index into `ACTIONS`.
      steps: raw steps, S.

    Returns:
      x and y, `[S + 1]` int32 each, before and after every raw step, and the `[]` sum of the rewards.
    """
    right = jnp.asarray(action == 2, jnp.int32) - jnp.asarray(action == 4, jnp.int32)
    down = jnp.asarray(action == 1, jnp.int32) - jnp.asarray(action == 3, jnp.int32)
    x, y = _along(x, right, steps, *X_LIMITS), _along(y, down, steps, *Y_LIMITS)
    # Squares are whole numbers, which are compared without rounding.
    nearer = jnp.sign(-jnp.diff(_squared_distance(x, y)))
    return x, y, nearer.sum().astype(jnp.float32)


def _along(start: jax.Array, step: jax.Array, steps: int, low: int, high: int) -> jax.Array:
    """Returns `[steps + 1]` places on an axis, from the start on, which alone may lie beyond the limits."""
    first = jnp.clip(start + step, low, high)
    # The direction stays the same, so to stop at the limit once is to stop there at every step.
    after = jnp.clip(first + step * jnp.arange(steps, dtype=jnp.int32), low, high)
    return jnp.concatenate([start[None], after])


def _squared_distance(x: jax.Array, y: jax.Array) -> jax.Array:
    return (x - CENTRE_X) ** 2 + (y - CENTRE_Y) ** 2


def _edges(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns `[4]` uint8 edges of the rectangle that is white in the maximum of raw frames with the dot at `[K]` x, y.

    It is a rectangle because the places differ along one axis at most, by less than the side of the dot. Of a dot that
    starts at the border it is the part within the frame.
    """
    rows, columns = (jnp.stack([axis.min() - _HALF, axis.max() + _HALF]) for axis in (y, x))
    return jnp.concatenate([rows.clip(0, HEIGHT), columns.clip(0, WIDTH)]).astype(jnp.uint8)


def _covered(first: jax.Array, end: jax.Array, length: int) -> jax.Array:
    """Returns `[84, K]` the fraction of each of 84 equal parts of an axis that `[K]` intervals cover.

    The intervals, from `first` to `end`, and the length of the axis are in raw pixels.
    """
    # In units of 1/84 of a raw pixel the ends of all are whole numbers.
    begins = length * jnp.arange(SCREEN, dtype=jnp.int32)[:, None]
    overlap = jnp.minimum(SCREEN * end[None], begins + length) - jnp.maximum(SCREEN * first[None], begins)
    return jnp.maximum(overlap, 0).astype(jnp.float32) / length
