"""Many agents at once: lanes of one compiled program, spread over the devices."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlhf_jax.config import Config


def prepare_machine(cache: Path | None = None) -> None:
    """Sets up JAX for this library; call it before anything is computed.

    A CPU is presented as one device per core, because agents on separate devices use the cores better than the threads
    of one matrix product do. Compiled programs are kept, so that a second start is quick. What the environment
    variables XLA_FLAGS, JAX_NUM_CPU_DEVICES, JAX_COMPILATION_CACHE_DIR and JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS
    already say is left alone.

    Args:
      cache: folder for compiled programs; `rlhf_jax` in the user's cache directory if None.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    if not os.environ.get("JAX_NUM_CPU_DEVICES"):
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # Linux only.
        jax.config.update("jax_num_cpu_devices", allowed or 1)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(cache or Path(home) / "rlhf_jax"))
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def lanes(configs: Sequence[Config]) -> Config:
    """Stacks settings into one whose numbers are arrays `[A]`.

    Args:
      configs: settings that differ in numbers only.

    Raises:
      ValueError: they differ in something that shapes the compiled program.
    """
    shapes = {jax.tree.structure(config): config for config in configs}
    if len(shapes) > 1:
        first, second, *_ = shapes.values()
        raise ValueError(f"lanes of one program differ in a static setting: {first} and {second}")
    return jax.tree.map(lambda *leaves: jnp.asarray(leaves), *configs)


def by_program(conditions: dict[str, Config]) -> list[dict[str, Config]]:
    """Groups conditions that differ in numbers only: the lanes of one compiled program each."""
    groups: dict[Any, dict[str, Config]] = {}
    for name, config in conditions.items():
        groups.setdefault(jax.tree.structure(config), {})[name] = config
    return list(groups.values())


def agent_devices(num_agents: int, abreast: bool = False) -> list[Any]:
    """Returns the devices that the agents are spread over: as many as share them evenly, or one if they go abreast."""
    devices = jax.devices()[:1] if abreast else jax.devices()
    count = max(n for n in range(1, len(devices) + 1) if num_agents % n == 0)
    return devices[:count]


def over_agents(function: Callable, num_agents: int, abreast: bool = False) -> jax.stages.Wrapped:
    """Maps a function of one agent over a leading axis of agents, sharded over the devices, and jits it.

    On a GPU the agents of a device run abreast, in a `vmap`. On a CPU they run in turn, in a loop of the same compiled
    program: the working set of one agent stays in the cache, and what one agent need not do is not done.

    Args:
      function: of any number of pytrees.
      num_agents: A.
      abreast: run all in one `vmap` on one device, as agents must that share an emulator.

    Returns:
      The function of the same pytrees with a leading axis `[A]`.
    """
    devices = agent_devices(num_agents, abreast)
    if devices[0].platform == "cpu" and not abreast:

        def mapped(*args: Any) -> Any:
            return jax.lax.map(lambda one: function(*one), args)

    else:
        mapped = jax.vmap(function)
    mesh, spec = _over(devices)
    # The checker of varying axes wants every constant in a loop's carry annotated; nothing here crosses agents.
    sharded = jax.shard_map(mapped, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    return jax.jit(sharded)


def place(tree: Any, num_agents: int, abreast: bool = False) -> Any:
    """Puts `[A, ...]` arrays where `over_agents` has them: each agent on its device."""
    mesh, spec = _over(agent_devices(num_agents, abreast))
    return jax.device_put(tree, NamedSharding(mesh, spec))


def _over(devices: list[Any]) -> tuple[Mesh, PartitionSpec]:
    return Mesh(np.asarray(devices), ("agents",)), PartitionSpec("agents")


def agent_keys(seeds: Sequence[int]) -> jax.Array:
    """Returns `[A]` keys, one per seed."""
    return jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
