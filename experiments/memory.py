"""How much memory the agents of a run take, said before it starts; what cannot fit is refused."""

import math
import os
from pathlib import Path

import jax

import rlhf_jax
from experiments import evaluation, session
from rlhf_jax import parallel, preferences, queries
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment

_WORTH_SAYING = 2**28  # bytes
_MEMORY, _CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")  # of Linux
# Of either version of its control groups: the limit, what is used of it, and what the system would give up of that.
_LIMITS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


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


def query_bytes(env: Environment, config: Config) -> int:
    """Returns the bytes of the pairs that the busiest iteration of one agent asks about."""
    return queries.slots(config) * buffer_bytes(env, config) // config.labels.kept


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

    Programs run one after the other, so the one that is shortest of memory counts.

    Args:
      conditions: settings of each condition, all for one environment.
      num_seeds: agents of each.
    """
    if not conditions:
        return
    env = rlhf_jax.make(next(iter(conditions.values())).env)
    programs = [(next(iter(lanes.values())), num_seeds * len(lanes)) for lanes in parallel.by_program(conditions)]
    needs = [(_program_bytes(env, config, agents), config, agents) for config, agents in programs]
    if max(max(need.values()) for need, *_ in needs) < _WORTH_SAYING and len(env.observation_shape) < 3:
        return
    need, config, agents = max(needs, key=lambda one: max(one[0].values()) / max(_available(one[2], env), 1))
    doing, total = max(need.items(), key=lambda item: item[1])
    buffer = _words(buffer_bytes(env, config))
    needed = f"the preference buffer of an agent takes {buffer}, all agents with their {doing} {_words(total)}"
    available = _available(agents, env)
    if total > available:
        fewer = ["fewer --seeds"] * (num_seeds > 1) + ["fewer labels"] * bool(config.labels.max_budget)
        smaller = ["shorter segments"] * bool(config.labels.max_budget) + ["a smaller num_envs"]
        advice = ", ".join(fewer + smaller * (doing == "rollouts")) or "a machine with more"
        raise ValueError(f"{needed}, but there is {_words(available)} free; ask for {advice}")
    session.say(needed)


def _program_bytes(env: Environment, config: Config, agents: int) -> dict[str, int]:
    """Returns the bytes of all agents of a program with their rollouts, and with their evaluation.

    An iteration has the buffers before and after it. What is done meanwhile is there for one agent on each device, or
    for all where agents run abreast.
    """
    abreast = env.emulated or jax.default_backend() != "cpu"
    acting = agents if abreast else len(parallel.agent_devices(agents))
    buffer, meanwhile = buffer_bytes(env, config), 2 * rollout_bytes(env, config)
    if acting < agents:  # Those that wait for their turn are one array, which the one that acts is cut out of.
        meanwhile += buffer
    if config.labels.max_budget:
        meanwhile += query_bytes(env, config)
        meanwhile += _features_bytes(env, config) if "k_centre" in config.queries.selection else 0
    return {
        "rollouts": 2 * agents * buffer + acting * meanwhile,
        "evaluation": agents * buffer + acting * evaluation_bytes(env),
    }


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

    Where a machine does not say what is free, it is all that it has; in a container, no more than that may still take.
    """
    devices = parallel.agent_devices(agents, env.emulated)
    stats = devices[0].memory_stats()
    if stats:
        return len(devices) * (stats["bytes_limit"] - stats["bytes_in_use"])
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if _MEMORY.exists():
        free = 1024 * int(_MEMORY.read_text().split("MemAvailable:")[1].split()[0])
    for names in _LIMITS:
        limit, used, stat = (_CONTAINER / name for name in names[:3])
        if limit.exists() and limit.read_text().strip().isdecimal():
            given_up = dict(line.split() for line in stat.read_text().splitlines())[names[3]]
            free = min(free, int(limit.read_text()) - int(used.read_text()) + int(given_up))
    return free


def _observation_bytes(env: Environment) -> int:
    return math.prod(env.observation_shape) * jax.numpy.dtype(env.observation_dtype).itemsize


def _bytes(tree: object) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _words(count: int) -> str:
    if count < 2**20:
        return f"{count / 2**10:.0f} KiB"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
