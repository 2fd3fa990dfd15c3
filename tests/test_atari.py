"""Atari games: Gymnasium's preprocessing and the bare emulator as peers, folded agents, ends of games, and blanks."""

import dataclasses
import subprocess
import sys

import ale_py
import cv2
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation
from jax.sharding import AbstractMesh, PartitionSpec

from rlhf_jax import segments
from rlhf_jax.environments import atari, atari_games

# Where the emulator keeps the score, by game.
SCORE_MEMORY = {
    "beam_rider": (9, 10, 11),
    "breakout": (76, 77),
    "enduro": (43, 44, 45),
    "pong": (13, 14),
    "qbert": (89, 90, 91),
    "seaquest": (56, 57, 58),
    "space_invaders": (102, 104),
}


@pytest.fixture(scope="module")
def pong():
    """Pong as it is played."""
    return atari.make("PongNoFrameskip-v4")


@pytest.fixture(scope="module")
def invaders():
    """Space Invaders, whose games always start alike."""
    env = atari.make("SpaceInvadersNoFrameskip-v4")
    return dataclasses.replace(env, noop_max=0, fire_reset=False)


def random_actions(env, *shape):
    """Returns actions of any game."""
    return np.random.default_rng(0).integers(0, env.action_size, shape)


def start(env, num_envs):
    """Returns a function of a key to new games."""
    return lambda key: env.reset_many(key, num_envs)


def going_on(env):
    """Returns a function of a state and `[T, N]` actions to the last state and the steps."""

    def play(state, actions):
        return jax.lax.scan(lambda state, action: env.step_many(jax.random.key(0), state, action), state, actions)

    return play


def played(env, key, actions):
    """Returns the first observations of new games, and the steps after `[T, N]` actions."""
    first, state = jax.jit(start(env, actions.shape[1]))(key)
    _, steps = jax.jit(going_on(env))(state, jnp.asarray(actions))
    return np.asarray(first), jax.tree.map(np.asarray, steps)


def bare_emulator(game):
    """Returns a game in the emulator, without anything around it."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    emulator = ale_py.ALEInterface()
    emulator.setFloat("repeat_action_probability", 0.0)
    emulator.loadROM(ale_py.roms.get_rom_path(game))
    return emulator


def test_observations_and_rewards_are_those_of_gymnasiums_preprocessing(pong):
    gymnasium.register_envs(ale_py)
    base = gymnasium.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0, full_action_space=False)
    peer = FrameStackObservation(AtariPreprocessing(base, noop_max=0, frame_skip=4), 4, padding_type="zero")
    env = dataclasses.replace(pong, noop_max=0, fire_reset=False)
    assert env.action_size == peer.action_space.n
    actions = random_actions(env, 500, 1)
    first, steps = played(env, jax.random.key(0), actions)
    theirs = [peer.reset(seed=0)[0]]
    rewards = []
    for action in actions[:, 0]:
        observation, reward, *_ = peer.step(action)
        theirs.append(observation)
        rewards.append(reward)
    theirs = np.moveaxis(np.stack(theirs), 1, -1).astype(int)
    ours = np.concatenate([first[None], steps.observation])[:, 0].astype(int)
    assert np.abs(ours - theirs)[:, 9:].max() <= 1  # Above is the score.
    assert sum(rewards) < -5
    np.testing.assert_array_equal(steps.reward[:, 0], rewards)


def test_agents_together_play_as_each_does_alone(pong):
    short = dataclasses.replace(pong, horizon=120)
    keys = jax.random.split(jax.random.key(1), 2)
    actions = jnp.asarray(random_actions(short, 2, 200, 2))
    first, state = jax.jit(jax.vmap(start(short, 2)))(keys)
    _, together = jax.jit(jax.vmap(going_on(short)))(state, actions)
    for agent in range(2):
        first_alone, alone = played(short, keys[agent], actions[agent])
        np.testing.assert_array_equal(first[agent], first_alone)
        jax.tree.map(lambda x, y, agent=agent: np.testing.assert_array_equal(x[agent], y), together, alone)
    assert (np.asarray(together.reward) != 0).any((1, 2)).all()
    assert np.asarray(together.truncated).sum((1, 2)).tolist() == [2, 2]
    assert (together.observation[0] != together.observation[1]).any()


def test_agents_that_are_told_the_same_still_play_their_own_games(invaders):
    env = dataclasses.replace(invaders, noop_max=30)
    actions = jnp.zeros((30, 1), jnp.int32)

    def play(key):
        _, state = env.reset_many(key, 1)
        return going_on(env)(state, actions)[1].observation[-1]

    keys = jax.random.split(jax.random.key(2), 2)
    together = np.asarray(jax.jit(jax.vmap(play))(keys))
    np.testing.assert_array_equal(together, np.stack([jax.jit(play)(key) for key in keys]))
    assert (together[0] != together[1]).any()


def test_nested_maps_fold_into_one_emulator(pong):
    keys = jax.random.split(jax.random.key(3), (2, 2))
    actions = jnp.asarray(random_actions(pong, 20, 1))

    def play(key):
        _, state = pong.reset_many(key, 1)
        return going_on(pong)(state, actions)[1].observation[-1]

    nested = jax.jit(jax.vmap(jax.vmap(play)))(keys)
    flat = jax.jit(jax.vmap(play))(keys.reshape(4))
    np.testing.assert_array_equal(nested.reshape(flat.shape), flat)


def test_the_return_is_the_score_and_the_end_is_a_truncation(invaders):
    actions = random_actions(invaders, 600, 1)
    first, steps = played(invaders, jax.random.key(0), actions)
    end = int(steps.truncated[:, 0].argmax()) - 1
    emulator = bare_emulator("space_invaders")
    codes = emulator.getMinimalActionSet()
    expected = [sum(emulator.act(codes[a]) for _ in range(4)) for a in actions[: end + 1, 0]]
    assert emulator.game_over()
    np.testing.assert_array_equal(steps.reward[: end + 1, 0], expected)
    # The score is on the screen in decimal digits, two per byte of memory.
    score = int(f"{emulator.getRAM()[102]:02x}{emulator.getRAM()[104]:02x}")
    assert steps.reward[: end + 1].sum() == score >= 50
    assert steps.reward.max() > 1

    assert not steps.terminated.any()
    np.testing.assert_array_equal(steps.observation, steps.final_observation)
    assert steps.observation[end, 0, ..., :3].any()
    # The last step of an episode ignores its action, earns nothing, and shows the first picture of the next game.
    assert steps.reward[end + 1, 0] == 0
    np.testing.assert_array_equal(steps.observation[end + 1], first)
    assert not first[..., :3].any() and first[..., 3].any()
    # So no segment shows two games.
    valid = np.flatnonzero(segments.valid_starts(steps.done[: end + 20], 5)[:, 0])
    assert not set(range(end - 2, end + 2)) & set(valid) and {end - 3, end + 2} <= set(valid)


def test_the_horizon_truncates(pong):
    short = dataclasses.replace(pong, horizon=5)
    _, steps = played(short, jax.random.key(0), random_actions(short, 12, 1))
    assert np.flatnonzero(steps.truncated[:, 0]).tolist() == [4, 9]
    assert pong.horizon * 4 == 108_000


def test_the_key_decides_the_games(invaders):
    env = dataclasses.replace(invaders, noop_max=30)
    actions = random_actions(env, 50, 2)
    _, steps = played(env, jax.random.key(0), actions)
    _, again = played(env, jax.random.key(0), actions)
    _, other = played(env, jax.random.key(1), actions)
    np.testing.assert_array_equal(steps.observation, again.observation)
    assert (steps.observation != other.observation).any((0, 2, 3, 4)).all()
    _, alike = played(env, jax.random.key(0), np.zeros((50, 2), int))
    assert (alike.observation[:, 0] != alike.observation[:, 1]).any()


def test_another_environment_leaves_running_games_alone(pong):
    key, actions = jax.random.key(0), random_actions(pong, 60, 1)
    _, whole = played(pong, key, actions)
    go_on = jax.jit(going_on(pong))
    _, state = jax.jit(start(pong, 1))(key)
    state, _ = go_on(state, jnp.asarray(actions[:30]))
    played(dataclasses.replace(pong), jax.random.key(1), actions)
    _, rest = go_on(state, jnp.asarray(actions[30:]))
    np.testing.assert_array_equal(rest.observation, whole.observation[30:])


@pytest.mark.parametrize("game", SCORE_MEMORY)
def test_no_digit_of_the_score_is_seen(game):
    emulator = bare_emulator(game)
    codes = emulator.getMinimalActionSet()
    for action in np.random.default_rng(0).integers(0, len(codes), 300):
        emulator.act(codes[action])
    before, pictures = emulator.cloneState(), []
    for score in (0, 8, 14) if game == "pong" else (0x00, 0x88, 0x14):
        emulator.restoreState(before)
        for _ in range(12):  # So many until Qbert's digits follow.
            for address in SCORE_MEMORY[game]:
                emulator.setRAM(address, score)
            emulator.act(0)
        pictures.append(cv2.resize(emulator.getScreenGrayscale(), (84, 84), interpolation=cv2.INTER_AREA))
    changed = (pictures[0] != pictures[1]) | (pictures[0] != pictures[2])
    assert changed.sum() > 50
    for rows, columns in atari_games.blanked(game):
        changed[rows, columns] = False
    assert not changed.any()


@pytest.mark.parametrize(("name", "seen"), [("Pong", slice(9, 84)), ("Enduro", slice(0, 62))])
def test_the_field_is_seen_and_the_rest_is_black(name, seen):
    env = dataclasses.replace(atari.make(f"{name}NoFrameskip-v4"), noop_max=0, fire_reset=False)
    assert env.blanked
    _, steps = played(env, jax.random.key(0), random_actions(env, 100, 1))
    newest = steps.observation[:, 0, ..., 3]
    emulator = ale_py.AtariVectorEnv(env.game, 1, noop_max=0, use_fire_reset=False)
    emulator.reset(seed=0)
    bare = np.stack([emulator.step(action)[0][0, 3] for action in random_actions(env, 100, 1)])
    np.testing.assert_array_equal(newest[:, seen], bare[:, seen])
    assert not np.delete(newest, seen, axis=1).any()
    assert (bare[0] != 0)[seen][:, 10:].all()


def test_a_game_without_an_entry_says_that_it_is_not_blanked(environment):
    env = atari.make("FreewayNoFrameskip-v4")
    assert not env.blanked
    _, steps = played(env, jax.random.key(0), random_actions(env, 2, 1))
    assert steps.observation[:, :, :9].any()
    # In a process of its own: flags of the experiments are defined once in each.
    code = "from experiments import run_flags; from rlhf_jax import presets; import sys; "
    code += "run_flags.check({name: presets.preset(name) for name in sys.argv[1:]})"
    command = [sys.executable, "-c", code, "FreewayNoFrameskip-v4", "PongNoFrameskip-v4"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stderr
    assert "FreewayNoFrameskip-v4: where the score stands is not known" in said and "Pong" not in said


def test_contract(pong):
    assert (pong.name, pong.game, pong.horizon, pong.action_size) == ("PongNoFrameskip-v4", "pong", 27_000, 6)
    assert pong.emulated and not pong.continuous and pong.action_shape == ()
    observation, state = jax.eval_shape(start(pong, 3), jax.random.key(0))
    assert (observation.shape, observation.dtype) == ((3, *pong.observation_shape), pong.observation_dtype)
    assert observation.shape == (3, 84, 84, 4) and observation.dtype == jnp.uint8
    assert pong.named_state(state) == {}
    for act in (lambda: pong.reset(jax.random.key(0)), lambda: pong.step(jax.random.key(0), state, 0)):
        with pytest.raises(ValueError, match=r"PongNoFrameskip-v4 is played many games at a time: call .*_many"):
            act()


def test_several_devices_are_refused(pong):
    mesh, spec = AbstractMesh((2,), ("agents",)), PartitionSpec("agents")
    spread = jax.shard_map(jax.vmap(start(pong, 1)), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    with pytest.raises(ValueError, match="PongNoFrameskip-v4 is played in one emulator, which 2 devices cannot share"):
        jax.eval_shape(spread, jax.random.split(jax.random.key(0), 2))
