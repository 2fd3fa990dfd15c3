"""How much memory the agents of a run take, said before it starts; what cannot fit is refused."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import jax

import rlhf_jax
from experiments import session
from rlhf_jax import preferences
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment

_WORTH_SAYING = 2**28  # bytes


def buffer_bytes(env: Environment, config: Config) -> int:
    """Returns the bytes of the preference buffer of one agent."""
    shapes = jax.eval_shape(
        lambda: preferences.init(
            env=env,
            capacity=config.labels.kept,
            length=config.queries.segment_length,
            members=config.reward.members,
        )
    )
    return _bytes(shapes)


def rollout_bytes(env: Environment, config: Config) -> int:
    """Returns the bytes of the observations in a rollout of one agent: of each step, and of what it led to."""
    one = math.prod(env.observation_shape) * jax.numpy.dtype(env.observation_dtype).itemsize
    return 2 * one * config.rollout_length * config.num_envs


def check(conditions: dict[str, Config], num_seeds: int) -> None:
    """Says what the agents of a run need, if it is much; raises ValueError if it is more than there is.

    Programs run one after the other, so the largest counts.

    Args:
      conditions: settings of each condition, all for one environment.
      num_seeds: agents of each.
    """
    programs: dict[object, list[Config]] = {}
    for config in conditions.values():
        programs.setdefault(jax.tree.structure(config), []).append(config)
    total = max((_program_bytes(lanes, num_seeds) for lanes in programs.values()), default=0)
    if total < _WORTH_SAYING:
        return
    buffer = max(buffer_bytes(rlhf_jax.make(config.env), config) for config in conditions.values())
    needed = f"the preference buffer of an agent takes {_words(buffer)}, all agents with their rollouts {_words(total)}"
    available = _available()
    if total > available:
        free = f"{_words(available)} are free"
        raise ValueError(f"{needed}, but {free}; ask for fewer --seeds or labels, or shorter segments")
    session.say(needed)


def _program_bytes(lanes: Sequence[Config], num_seeds: int) -> int:
    """Returns the bytes of all agents of a program, before and after an iteration, and of the rollouts meanwhile.

    Rollouts are there for one agent on each device, or for all where agents run abreast.
    """
    env, agents = rlhf_jax.make(lanes[0].env), num_seeds * len(lanes)
    abreast = env.emulated or jax.default_backend() != "cpu"
    acting = agents if abreast else min(agents, jax.device_count())
    return 2 * agents * buffer_bytes(env, lanes[0]) + 2 * acting * rollout_bytes(env, lanes[0])


def _available() -> int:
    """Returns the free bytes of the device, or of this machine where the device is its processor."""
    stats = jax.devices()[0].memory_stats()
    if stats:
        return stats["bytes_limit"] - stats["bytes_in_use"]
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _bytes(tree: object) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _words(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
