"""How much memory the agents of a run take, said before it starts; what cannot fit is refused."""

import math
import os
from pathlib import Path

import jax

import rlhf_jax
from experiments import evaluation, session
from rlhf_jax import parallel, preferences
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment

_WORTH_SAYING = 2**28  # bytes
_MEMORY, _CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")  # of Linux


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
    return 2 * _observation_bytes(env) * config.rollout_length * config.num_envs


def evaluation_bytes(env: Environment) -> int:
    """Returns the bytes of the observations and states that are kept of one agent's evaluation."""
    plan = evaluation.plan(env)
    # Clips of an emulator show observations.
    state = 0 if env.emulated else _bytes(jax.eval_shape(env.reset, jax.random.key(0))[1])
    return (2 * _observation_bytes(env) + state) * plan.steps * (plan.starts + 2 * plan.episodes)


def check(conditions: dict[str, Config], num_seeds: int) -> None:
    """Says what the agents of a run need, if they see images or it is much; raises ValueError if it does not fit.

    Programs run one after the other, so the largest counts.

    Args:
      conditions: settings of each condition, all for one environment.
      num_seeds: agents of each.
    """
    if not conditions:
        return
    env = rlhf_jax.make(next(iter(conditions.values())).env)
    programs = [(list(lanes.values()), num_seeds * len(lanes)) for lanes in parallel.by_program(conditions)]
    total = max(_program_bytes(env, lanes[0], agents) for lanes, agents in programs)
    if total < _WORTH_SAYING and len(env.observation_shape) < 3:
        return
    buffer = max(buffer_bytes(env, lanes[0]) for lanes, _ in programs)
    needed = f"the preference buffer of an agent takes {_words(buffer)}, all agents with their rollouts {_words(total)}"
    available = min(_available(agents, env) for _, agents in programs)
    if total > available:
        free = f"there is {_words(available)} free"
        fewer = "fewer --seeds or labels" if num_seeds > 1 else "fewer labels"
        raise ValueError(f"{needed}, but {free}; ask for {fewer}, or shorter segments")
    session.say(needed)


def _program_bytes(env: Environment, config: Config, agents: int) -> int:
    """Returns the bytes of all agents of a program with what they do: an iteration, or their evaluation.

    An iteration has the buffers before and after it. What is done meanwhile is there for one agent on each device, or
    for all where agents run abreast.
    """
    abreast = env.emulated or jax.default_backend() != "cpu"
    acting = agents if abreast else min(agents, jax.device_count())
    buffer, meanwhile = buffer_bytes(env, config), 2 * rollout_bytes(env, config)
    if acting < agents:  # Those that wait for their turn are one array, which the one that acts is cut out of.
        meanwhile += buffer
    if config.labels.max_budget and "k_centre" in config.queries.selection:
        meanwhile += _features_bytes(env, config)
    return max(2 * agents * buffer + acting * meanwhile, agents * buffer + acting * evaluation_bytes(env))


def _features_bytes(env: Environment, config: Config) -> int:
    """Returns the bytes of what rules compare pairs by, in 32 bits a number.

    First those of all answered steps are there twice, on their way to means over segments; then those of the rollout,
    their sums from the first step on, and the windows'. Beside them, of each answer the means of both segments, and
    these added and subtracted.
    """
    answers, size = config.labels.kept, math.prod(env.observation_shape) + env.action_size
    answered = 2 * answers * 2 * config.queries.segment_length
    return 4 * size * (max(answered, 3 * config.rollout_length * config.num_envs) + 4 * answers)


def _available(agents: int, env: Environment) -> int:
    """Returns the free bytes of the devices that so many agents use, or of this machine where these are its cores.

    Where a machine does not say what is free, it is all that it has; in a container that is limited, no more than that.
    """
    devices = parallel.agent_devices(agents, env.emulated)
    stats = devices[0].memory_stats()
    if stats:
        return len(devices) * (stats["bytes_limit"] - stats["bytes_in_use"])
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if _MEMORY.exists():
        free = 1024 * int(_MEMORY.read_text().split("MemAvailable:")[1].split()[0])
    limit, used = _CONTAINER / "memory.max", _CONTAINER / "memory.current"
    if limit.exists() and limit.read_text().strip().isdecimal():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free


def _observation_bytes(env: Environment) -> int:
    return math.prod(env.observation_shape) * jax.numpy.dtype(env.observation_dtype).itemsize


def _bytes(tree: object) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _words(count: int) -> str:
    if count < 2**20:
        return f"{count / 2**10:.0f} KiB"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
