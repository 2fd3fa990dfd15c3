"""MovingDot: its rules against a version in NumPy, and what agents see of it against OpenCV's scaling."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlhf_jax
from experiments import benchmark_pixels_peer
from rlhf_jax.environments import moving_dot

# Column and row that each action adds, by its name in the description of the environment.
MOVES = {"noop": (0, 0), "down": (0, 1), "right": (1, 0), "up": (0, -1), "left": (-1, 0)}


class PlainDot:
    """The raw environment, one step at a time in Python."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def step(self, action):
        """Moves the dot, and returns the reward."""
        before = np.hypot(self.x - 80, self.y - 105)
        right, down = list(MOVES.values())[action]
        self.x, self.y = min(max(self.x + right, 2), 157), min(max(self.y + down, 2), 207)
        after = np.hypot(self.x - 80, self.y - 105)
        return int(after < before) - int(after > before)

    def frame(self):
        """Draws the `[210, 160, 3]` frame."""
        frame = np.zeros((210, 160, 3), np.uint8)
        frame[max(self.y - 2, 0) : self.y + 2, max(self.x - 2, 0) : self.x + 2] = 255
        return frame


def preprocessed(frames):
    """Returns the `[84, 84]` picture of the last two of some raw frames."""
    grey = cv2.cvtColor(np.max(frames[-2:], axis=0), cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (84, 84), interpolation=cv2.INTER_AREA)


@functools.cache
def player(kind):
    """A compiled function from a start and `[T]` actions to `[T]` states, and what the actions brought about."""
    env = rlhf_jax.wrap(kind())

    def step(state, action):
        state, step = env.step(jax.random.key(7), state, action)
        return state, (state, step)

    return jax.jit(lambda state, actions: jax.lax.scan(step, state, actions)[1])


def placed(kind, x, y):
    """The state of an episode that starts at a place."""
    _, state = rlhf_jax.wrap(kind()).reset(jax.random.key(0))
    state = state.replace(x=jnp.int32(x), y=jnp.int32(y))
    if kind is moving_dot.StackedDot:
        edges = jnp.array([max(y - 2, 0), min(y + 2, 210), max(x - 2, 0), min(x + 2, 160)], jnp.uint8)
        state = state.replace(edges=jnp.tile(edges, (4, 1)))
    return state


def steady_actions(count, seed):
    """Random actions, each held for a while: a walk that gets from border to border."""
    generator = np.random.default_rng(seed)
    return np.repeat(generator.integers(0, 5, count), generator.integers(1, 150, count))[:count]


def test_names_limits_and_actions():
    raw, stacked = moving_dot.MovingDot(), moving_dot.StackedDot()
    assert (raw.name, raw.default_params.max_steps_in_episode) == ("MovingDotNoFrameskip-v0", 1000)
    assert (stacked.name, stacked.default_params.max_steps_in_episode) == ("MovingDot-v0", 250)
    assert raw.num_actions == stacked.num_actions == 5
    assert tuple(MOVES) == moving_dot.ACTIONS


@pytest.mark.parametrize(
    ("place", "action", "after", "reward"),
    [
        ((10, 20), 0, (10, 20), 0),
        ((10, 20), 1, (10, 21), 1),
        ((10, 20), 2, (11, 20), 1),
        ((10, 20), 3, (10, 19), -1),
        ((10, 20), 4, (9, 20), -1),
        ((80, 105), 2, (81, 105), -1),
        ((81, 105), 4, (80, 105), 1),
        # At the limits it stays, and its distance with it.
        ((2, 2), 4, (2, 2), 0),
        ((2, 2), 3, (2, 2), 0),
        ((157, 207), 2, (157, 207), 0),
        ((157, 207), 1, (157, 207), 0),
        # From the border it comes within them, and nearer, even when it does nothing.
        ((0, 0), 0, (2, 2), 1),
        ((159, 105), 2, (157, 105), 1),
        ((80, 209), 3, (80, 207), 1),
        ((1, 105), 2, (2, 105), 1),
    ],
)
def test_one_step(place, action, after, reward):
    states, step = player(moving_dot.MovingDot)(placed(moving_dot.MovingDot, *place), jnp.array([action]))
    assert (int(states.x[0]), int(states.y[0]), float(step.reward[0])) == (*after, reward)


@pytest.mark.parametrize(
    ("place", "action", "after", "reward"),
    [
        ((10, 20), 1, (10, 24), 4),
        ((10, 20), 4, (6, 20), -4),
        ((79, 105), 2, (83, 105), 1 - 3),
        ((82, 105), 4, (78, 105), 2 - 2),
        ((4, 50), 4, (2, 50), -2),
        ((10, 20), 0, (10, 20), 0),
        # From the border to the limits, and three pixels on.
        ((0, 0), 2, (5, 2), 4),
        ((159, 209), 4, (154, 207), 4),
        ((159, 209), 2, (157, 207), 1),
    ],
)
def test_one_action_lasts_four_steps(place, action, after, reward):
    states, step = player(moving_dot.StackedDot)(placed(moving_dot.StackedDot, *place), jnp.array([action]))
    assert (int(states.x[0]), int(states.y[0]), float(step.reward[0])) == (*after, reward)


def test_raw_environment_is_that_of_numpy():
    """Two thousand transitions: two whole episodes, with a new start after each. Every fortieth frame is compared."""
    actions = steady_actions(2000, seed=1).reshape(50, 40)
    state, dot, seen, paid = placed(moving_dot.MovingDot, 30, 40), PlainDot(30, 40), [], set()
    for part in range(50):
        states, step = player(moving_dot.MovingDot)(state, jnp.asarray(actions[part]))
        state = jax.tree.map(lambda leaf: leaf[-1], states)
        expected = [(dot.step(action), dot.x, dot.y) for action in actions[part]]
        np.testing.assert_array_equal(step.final_observation[-1], dot.frame())
        if part in (24, 49):
            dot = PlainDot(int(state.x), int(state.y))
            expected[-1] = (expected[-1][0], dot.x, dot.y)
        np.testing.assert_array_equal(step.observation[-1], dot.frame())
        np.testing.assert_array_equal(np.stack([step.reward, states.x, states.y], 1), expected)
        np.testing.assert_array_equal(step.truncated, np.arange(40 * part, 40 * part + 40) % 1000 == 999)
        assert not step.terminated.any()
        seen += [(x, y) for _, x, y in expected]
        paid |= {reward for reward, _, _ in expected}
    # The walk was worth comparing: every limit was met, and every reward was paid.
    assert [*np.min(seen, 0), *np.max(seen, 0)] == [2, 2, 157, 207]
    assert paid == {-1, 0, 1}


@pytest.mark.parametrize("place", [(4, 5), (159, 200), (80, 105), (0, 209)])
def test_stacked_environment_is_the_raw_one_preprocessed(place):
    actions = steady_actions(300, seed=sum(place))
    states, step = player(moving_dot.StackedDot)(placed(moving_dot.StackedDot, *place), jnp.asarray(actions))
    final, first, rewards = np.asarray(step.final_observation).astype(int), np.asarray(step.observation).astype(int), []
    dot = PlainDot(*place)
    stack = [preprocessed([dot.frame()])] * 4
    for t in range(300):
        raw = [(dot.step(actions[t]), dot.frame()) for _ in range(4)]
        rewards.append(sum(reward for reward, _ in raw))
        stack = [*stack[1:], preprocessed([frame for _, frame in raw])]
        # OpenCV adds areas in float32: it may round a half to the other side.
        assert np.abs(final[t] - np.stack(stack, axis=-1)).max() <= 1
        if t == 249:
            assert step.truncated[t]
            dot = PlainDot(int(states.x[t]), int(states.y[t]))
            stack = [preprocessed([dot.frame()])] * 4
        assert np.abs(first[t] - np.stack(stack, axis=-1)).max() <= 1
        assert (states.x[t], states.y[t]) == (dot.x, dot.y)
    np.testing.assert_array_equal(step.reward, rewards)
    np.testing.assert_array_equal(step.truncated, np.arange(300) == 249)
    assert not step.terminated.any()


def test_stacked_observation_in_numbers():
    """A dot at rest in raw rows 40 to 43 and columns 38 to 41; pixels are 2.5 raw rows high, 1.905 columns wide."""
    _, step = player(moving_dot.StackedDot)(placed(moving_dot.StackedDot, 40, 42), jnp.array([0]))
    assert step.observation.shape == (1, 84, 84, 4) and step.observation.dtype == np.uint8
    for frame in np.moveaxis(np.asarray(step.observation[0]), -1, 0):
        # 38 / 1.905 = 19.95: one twentieth of column 19 is covered, and columns 20 and 21 are wholly.
        assert frame[15:19, 18:24].tolist() == [
            [0, 0, 0, 0, 0, 0],
            [0, 13, 255, 255, 13, 0],
            [0, 8, 153, 153, 8, 0],
            [0, 0, 0, 0, 0, 0],
        ]
        assert frame.sum() == 2 * (13 + 255) + 2 * (8 + 153)


def test_frames_are_stacked_newest_last():
    """Four steps to the right: the middle of the dot moves on by as much in every frame."""
    start = placed(moving_dot.StackedDot, 40, 42)
    observations = player(moving_dot.StackedDot)(start, jnp.array([2, 2, 2, 2]))[1].observation
    place = np.tensordot(np.asarray(observations, float).sum(1), np.arange(84), (1, 0)) / observations.sum((1, 2))
    np.testing.assert_array_equal(place[0, :3], place[0, 0])
    np.testing.assert_allclose(np.diff(place[3]), 4 * 84 / 160, atol=0.03)
    np.testing.assert_array_equal(observations[1, :, :, :3], observations[0, :, :, 1:])


@pytest.mark.parametrize("kind", [moving_dot.MovingDot, moving_dot.StackedDot])
def test_starts_are_uniform_over_the_frame(kind):
    reset = jax.vmap(rlhf_jax.wrap(kind()).reset)
    starts = jax.jit(lambda keys: reset(keys)[1])(jax.random.split(jax.random.key(3), 6000))
    for values, side in ((starts.x, 160), (starts.y, 210)):
        counts = np.bincount(values, minlength=side)
        assert len(counts) == side and counts.all()
        np.testing.assert_allclose(np.mean(values), 0.5 * (side - 1), atol=3.0)
    assert abs(np.corrcoef(starts.x, starts.y)[0, 1]) < 0.05


@pytest.mark.parametrize("kind", [moving_dot.MovingDot, moving_dot.StackedDot])
def test_start_at_the_origin(kind):
    """A quarter of the dot is seen."""
    params = kind().default_params.replace(random_start=False)
    env = rlhf_jax.wrap(kind(), params)
    observation, state = env.reset(jax.random.key(1))
    assert (int(state.x), int(state.y), int(state.time)) == (0, 0, 0)
    whole = 1.0 if kind is moving_dot.MovingDot else 160 / 84 * 2.5
    np.testing.assert_allclose(np.asarray(observation, float).sum((0, 1)) * whole, 255 * 4, rtol=0.01)


def test_distance():
    x, y = jnp.array([80, 83, 2]), jnp.array([105, 101, 2])
    np.testing.assert_allclose(moving_dot.distance(x, y), [0.0, 5.0, 129.20140], rtol=1e-6)
    assert moving_dot.distance(jnp.int32(80), jnp.int32(106)) == 1.0


@pytest.mark.parametrize("kind", [moving_dot.MovingDot, moving_dot.StackedDot])
def test_state_is_small_and_its_types_are_fixed(kind):
    """It is kept with every step of a rollout."""
    env = rlhf_jax.wrap(kind())
    start = jax.eval_shape(env.reset, jax.random.key(0))[1]
    after = jax.eval_shape(env.step, jax.random.key(0), start, jnp.int32(0))[0]
    for leaf, stepped in zip(jax.tree.leaves(start), jax.tree.leaves(after), strict=True):
        assert (leaf.shape, leaf.dtype, leaf.weak_type) == (stepped.shape, stepped.dtype, stepped.weak_type)
        assert not leaf.weak_type
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(start)) <= 28


def test_the_peer_of_the_benchmark_sees_and_earns_the_same():
    env, peer = rlhf_jax.make("MovingDot-v0"), benchmark_pixels_peer.make_env()
    observation, state = env.reset(jax.random.key(3))
    peer.reset(seed=0)
    peer.x, peer.y = int(state.x), int(state.y)
    peer.frames = np.repeat(peer.draw([(peer.x, peer.y)])[..., None], 4, -1)
    step = jax.jit(env.step)
    np.testing.assert_allclose(observation.astype(int), peer.frames.astype(int), atol=1)
    for action in np.random.default_rng(0).integers(0, 5, 60):
        state, outcome = step(jax.random.key(0), state, jnp.int32(action))
        seen, reward, _, _, info = peer.step(action)
        np.testing.assert_allclose(outcome.observation.astype(int), seen.astype(int), atol=1)
        assert outcome.reward == reward
        assert info["distance"] == pytest.approx(float(moving_dot.distance(state.x, state.y)), rel=1e-6)
