"""Atari 2600 games as Christiano et al. 2017 play them, in the emulator of ale-py, stepped from within compiled code.

An emulator plays a number of games at once, and compiled programs hold nothing of it but its address. What follows from
that is hidden here: the games of all agents that `jax.vmap` maps are folded into one emulator, with one address.
"""

import atexit
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import flax.struct
import jax
import jax.extend.backend
import jax.numpy as jnp
import numpy as np

from rlhf_jax.environments import atari_games
from rlhf_jax.environments.environment import Environment, Step

_FRAME_SKIP, _STACK = 4, 4
STEPS_PER_MINUTE = 60 * 60 // _FRAME_SKIP


@flax.struct.dataclass
class AtariState:
    """Where the emulator is that plays the games; it moves on when it is stepped, so that a state can be used once.

    handle: [8] the bytes of its address.
    over: [N] whether a game has ended, so that the next step only starts a new one.
    """

    handle: jax.Array
    over: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class AtariEnvironment(Environment):
    """An Atari game: 84×84 grey pictures, the last four of them, and four frames per step.

    Each object has emulators of its own, one per number of games; `reset_many` starts the games of that emulator anew,
    also for those who still hold a state of it. Who plays as many games beside others takes another object, from
    `dataclasses.replace(env)` or `make`. Emulators are kept until the process ends.

    The paper gives the agent no signal when a game ends or a life is lost. Here the last step of an episode is the one
    that begins the next game: it starts from the last picture of the old one, ignores the action, earns nothing, shows
    the first picture of the new game, and is `truncated` with that as its final observation. So the value of a last
    picture is learnt as that of the game to come, no segment goes from one game into another, and no step needs a mask:
    it says truthfully what happened, and whatever the policy did there was as good as anything else.

    game: the emulator's name of the game.
    noop_max: games start after fewer than so many frames without action, at random.
    fire_reset: whether FIRE is pressed for a frame at the start, where the game knows it, as some only start then.
    """

    game: str
    noop_max: int = 30
    fire_reset: bool = True

    emulated: ClassVar[bool] = True

    @property
    def blanked(self) -> bool:
        """Whether the score is known to be blanked in observations."""
        return bool(atari_games.blanked(self.game))

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """Raises ValueError: games are played many at a time."""
        raise ValueError(f"{self.name} is played many games at a time: call reset_many instead of reset")

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> tuple[Any, Step]:
        """Raises ValueError: games are played many at a time."""
        raise ValueError(f"{self.name} is played many games at a time: call step_many instead of step")

    def reset_many(self, key: jax.Array, num_envs: int) -> tuple[jax.Array, AtariState]:
        """Starts N games, which the key decides; it is consumed.

        Args:
          key: the same one gives the same games; agents that are mapped have one each.
          num_envs: N.

        Returns:
          `[N, 84, 84, 4]` first observations, the newest picture last and zeros before it, and the state.

        Raises:
          ValueError: ale-py is not installed, or this is to run on several devices at once.
        """
        self._refuse_devices()
        seeds = jax.random.randint(key, (num_envs,), 0, jnp.iinfo(jnp.int32).max)
        handle, (observation, over) = _over_agents(self._start)(None, seeds)
        return observation, AtariState(handle, over)

    def step_many(self, key: jax.Array, state: AtariState, action: jax.Array) -> tuple[AtariState, Step]:
        """Plays one step of N games.

        Args:
          key: unused: the emulator has no randomness after the start of a game.
          state: used up.
          action: `[N]` which of the game's actions, below `action_size`; the emulator hangs at others.

        Returns:
          The next state, and what the actions brought about; the true reward is the change of the score.

        Raises:
          ValueError: ale-py is not installed, or this is to run on several devices at once.
        """
        self._refuse_devices()
        # The emulator ignores the action where a game is over. Here it ties the action to this agent's games, so that
        # `vmap` does not take the step of agents that are all told the same for the step of one.
        action = jnp.where(state.over, 0, action)
        handle, (observation, score, over) = _over_agents(self._play)(state.handle, action)
        return AtariState(handle, over), Step(
            observation=observation,
            final_observation=observation,
            reward=score.astype(jnp.float32),
            terminated=jnp.zeros_like(over),
            truncated=state.over,
        )

    def named_state(self, state: AtariState) -> dict[str, jax.Array]:
        """Returns nothing: clips show the newest pictures of the observations."""
        return {}

    def _start(self, _: None, seeds: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        handle, reset, _ = _emulator(self, seeds.shape[0])
        after, (pictures, _) = reset(handle, seeds)
        return after, (self._seen(pictures), jnp.zeros(seeds.shape, jnp.bool))

    def _play(self, handle: jax.Array, action: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
        _, _, step = _emulator(self, action.shape[0])
        after, (pictures, score, terminated, truncated, _) = step(handle, action)
        return after, (self._seen(pictures), score, terminated | truncated)

    def _seen(self, pictures: jax.Array) -> jax.Array:
        """Returns `[G, 84, 84, 4]` what the agents see of `[G, 4, 84, 84]` pictures."""
        observation = jnp.moveaxis(pictures, 1, -1)
        for rows, columns in atari_games.blanked(self.game):
            observation = observation.at[:, rows, columns].set(0)
        return observation

    def _refuse_devices(self) -> None:
        count = jax.sharding.get_abstract_mesh().size
        if count > 1:
            raise ValueError(f"{self.name} is played in one emulator, which {count} devices cannot share")


def make(name: str) -> AtariEnvironment:
    """Makes an Atari environment, with emulators of its own.

    Episodes are cut off after 27,000 steps, half an hour of play.

    Args:
      name: such as "PongNoFrameskip-v4".

    Raises:
      ValueError: no game has this name, and the nearest ones are offered; or ale-py is not installed.
    """
    game = atari_games.find(name)
    return AtariEnvironment(
        name=name,
        base=None,
        params=None,
        horizon=30 * STEPS_PER_MINUTE,
        observation_shape=(atari_games.SIZE, atari_games.SIZE, _STACK),
        observation_dtype=jnp.dtype(jnp.uint8),
        continuous=False,
        action_size=_count_actions(game),
        game=game,
    )


def _count_actions(game: str) -> int:
    ale, _ = atari_games.ale(game)
    ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)
    interface = ale.ALEInterface()
    interface.loadROM(ale.roms.get_rom_path(game))
    return len(interface.getMinimalActionSet())


@functools.cache  # Without limit: states and compiled programs have but the address of what is kept here.
def _emulator(env: AtariEnvironment, num_games: int) -> tuple[np.ndarray, Any, Any]:
    """Returns the `[8]` address of the emulator of so many games, and what resets and steps it in compiled code."""
    _, vector_env = atari_games.ale(env.name)
    emulator = vector_env(
        env.game,
        num_games,
        max_num_frames_per_episode=_FRAME_SKIP * (env.horizon - 1),  # The last step begins the next game.
        repeat_action_probability=0.0,
        img_height=atari_games.SIZE,
        img_width=atari_games.SIZE,
        stack_num=_STACK,
        frameskip=_FRAME_SKIP,
        noop_max=env.noop_max,
        reward_clipping=False,
        episodic_life=False,
        use_fire_reset=env.fire_reset,
    )
    with jax.ensure_compile_time_eval():  # What is kept must not belong to the program that is traced just now.
        handle, reset, step = emulator.xla()
        return np.asarray(handle), reset, step


@atexit.register
def _close() -> None:
    """Frees the emulators, which otherwise complain at exit, once no program steps them; JAX then exits as it would."""
    if _emulator.cache_info().currsize:
        jax.extend.backend.clear_backends()
        _emulator.cache_clear()


def _over_agents(function: Callable) -> Callable:
    """Makes a function of one emulator one that `jax.vmap` maps to an emulator of the games of all agents.

    Args:
      function: of handle and `[G]` numbers, to handle and a pytree of `[G, ...]`.
    """
    folded = jax.custom_batching.custom_vmap(function)

    @folded.def_vmap
    def fold(num_agents: int, mapped: tuple[bool, bool], handle: Any, numbers: jax.Array) -> Any:
        handle_mapped, numbers_mapped = mapped
        if handle_mapped:  # A `vmap` that has ended in between gave every agent a copy of the one address.
            handle = handle[0]
        if not numbers_mapped:
            numbers = jnp.broadcast_to(numbers[None], (num_agents, *numbers.shape))
        handle, outcome = folded(handle, numbers.reshape(-1))
        outcome = jax.tree.map(lambda x: x.reshape(*numbers.shape, *x.shape[1:]), outcome)
        return (handle, outcome), (False, jax.tree.map(lambda _: True, outcome))

    return folded
