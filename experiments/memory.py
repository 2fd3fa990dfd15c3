"""How much memory the agents of a run take, said before it starts; what cannot fit is refused."""

import math
import os
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

    All agents of a program are held at once, before and after an iteration; rollouts are there for one agent on each
    device, or for all where they run abreast. Several programs run one after the other.
    """
    needs = {}
    for name, config in conditions.items():
        env = rlhf_jax.make(config.env)
        buffers = 2 * num_seeds * buffer_bytes(env, config)
        abreast = env.emulated or jax.default_backend() != "cpu"
        agents = num_seeds if abreast else min(num_seeds, jax.device_count())
        needs[name] = buffers, 2 * agents * rollout_bytes(env, config)
    programs: dict[object, int] = {}
    for name, config in conditions.items():
        structure = jax.tree.structure(config)
        programs[structure] = programs.get(structure, 0) + needs[name][0]
    total = max(programs.values()) + max(rollouts for _, rollouts in needs.values())
    if total < _WORTH_SAYING:
        return
    buffer = max(buffer_bytes(rlhf_jax.make(config.env), config) for config in conditions.values())
    words = (
        f"the preference buffer of an agent takes {_words(buffer)}, and all agents with their rollouts {_words(total)}"
    )
    available = _available()
    if total > available:
        raise ValueError(
            f"{words}, but {_words(available)} are free; ask for fewer --seeds or labels, or shorter segments"
        )
    session.say(words)


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
