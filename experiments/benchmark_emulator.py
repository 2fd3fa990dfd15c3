"""How fast Atari steps inside a compiled loop, beside its emulator alone.

    python -m experiments.benchmark_emulator --env PongNoFrameskip-v4

The same games, number of games and steps on both sides, by random actions; the loop keeps all of every step, as for an
agent, but no network looks at it. Both are timed in turn. The last line is a JSON object.
"""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import command_line, session, tables, timing
from rlhf_jax import reward_distances, rollout, run_folder
from rlhf_jax.environments import atari

_ENV = flags.DEFINE_string("env", "PongNoFrameskip-v4", "The game.")
_GAMES = flags.DEFINE_integer("games", 16, "Games at a time.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 256, "Steps of each game in one timing.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 7, "Timings of each side.", lower_bound=1)


def bare(env: atari.AtariEnvironment, games: int, steps: int) -> Callable[[], Any]:
    """Returns what starts the games and steps them in Python, with nothing around the emulator."""
    from ale_py.vector_env import AtariVectorEnv

    emulator = AtariVectorEnv(env.game, games, repeat_action_probability=0.0, reward_clipping=False)
    actions = np.random.default_rng(0).integers(env.action_size, size=(steps, games))

    def play() -> None:
        emulator.reset(seed=0)
        for action in actions:
            emulator.step(action)

    return play


def compiled(env: atari.AtariEnvironment, games: int, steps: int) -> Callable[[], Any]:
    """Returns what starts the games and steps them in one compiled program, which gives back the whole rollout."""

    def policy(key: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        return reward_distances.uniform_actions(key, games, env=env), jnp.zeros(games)

    @jax.jit
    def play(key: jax.Array) -> rollout.Rollout:
        key_start, key_steps = jax.random.split(key)
        state = rollout.init(key_start, env=env, num_envs=games)
        return rollout.rollout(key_steps, state, policy, env=env, num_steps=steps)[1]

    return lambda: play(jax.random.key(0))


def main() -> None:
    """Measures and reports."""
    with command_line.refusing():
        env = atari.make(_ENV.value)
    sizes = env, _GAMES.value, _STEPS.value
    session.say(f"{_REPEATS.value} times {_STEPS.value} steps of {_GAMES.value} games on each side")
    samples = timing.in_turn({"emulator": bare(*sizes), "loop": compiled(*sizes)}, _REPEATS.value)
    speed = {name: [_GAMES.value * _STEPS.value / sample.wall for sample in taken] for name, taken in samples.items()}
    ratios = [ours / alone for ours, alone in zip(speed["loop"], speed["emulator"], strict=True)]
    rows = [
        [name, *(f"{value:,.0f}" for value in np.quantile(values, [0.5, 0.0, 1.0]))] for name, values in speed.items()
    ]
    rows.append(["loop / emulator", *(f"{value:.2f}" for value in np.quantile(ratios, [0.5, 0.0, 1.0]))])
    print("\n".join(tables.columns([["agent steps a second", "median", "least", "most"], *rows])))
    record = {"env": env.name, "device": run_folder.device(), "steps_per_second": speed, "ratio": ratios}
    print(json.dumps(record))


if __name__ == "__main__":
    command_line.run("benchmark_emulator", main)
