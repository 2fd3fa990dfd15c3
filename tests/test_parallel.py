"""Lanes of one program, and how they are spread over devices: several of these only in a process of its own."""

import dataclasses
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import parallel
from rlhf_jax.config import Config, LabelConfig, PPOConfig, QueryConfig

ROOT = Path(__file__).parents[1]


def budget(number, **changes):
    """Settings with this label budget."""
    return dataclasses.replace(Config(labels=LabelConfig(budget=number)), **changes)


def walk(key, numbers):
    """A function of one agent: a matrix product in a loop with noise, and parts that only some agents need."""

    def step(x, key):
        x = jnp.tanh(x @ jnp.sin(jnp.arange(16.0)).reshape(4, 4)) + numbers["scale"] * jax.random.normal(key, x.shape)
        return jax.lax.cond(numbers["flip"], lambda: -x, lambda: x), x.sum()

    x, sums = jax.lax.scan(step, jnp.ones((3, 4)), jax.random.split(key, 5))
    return {"x": x, "sums": sums, "key": jax.random.fold_in(key, 1)}


def inputs(count):
    """A key and numbers for each agent."""
    numbers = {"scale": jnp.linspace(0.1, 2.0, count), "flip": jnp.arange(count) % 2 == 0}
    return parallel.agent_keys(range(count)), numbers


def assert_equals_loop(count):
    """`over_agents` of all agents is, bit for bit, one after the other; returns where the result lies."""
    keys, numbers = inputs(count)
    together = parallel.over_agents(walk, count)(keys, numbers)
    alone = jax.jit(walk)
    for i in range(count):
        one = alone(keys[i], jax.tree.map(lambda x, i=i: x[i], numbers))
        assert together["key"].dtype == keys.dtype
        for name in ("x", "sums"):
            np.testing.assert_array_equal(together[name][i], one[name])
        np.testing.assert_array_equal(jax.random.key_data(together["key"][i]), jax.random.key_data(one["key"]))
    assert len({tuple(np.asarray(x).ravel()) for x in together["x"]}) == count
    return together["x"].sharding


def python(code, **environment):
    """What a fresh process prints as JSON; a variable that is None is removed."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    variables = {name: value for name, value in variables.items() if value is not None}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT / "tests", env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_lanes_stack_the_numbers():
    ppo = PPOConfig(learning_rate=0.25)
    stacked = parallel.lanes([budget(350), budget(700, ppo=ppo), budget(1400, use_true_reward=True)])
    np.testing.assert_array_equal(stacked.labels.budget, [350, 700, 1400])
    np.testing.assert_array_equal(stacked.use_true_reward, [False, False, True])
    np.testing.assert_allclose(stacked.ppo.learning_rate[1], 0.25)
    assert stacked.ppo.learning_rate.dtype == jnp.float32 and stacked.labels.budget.dtype == jnp.int32
    assert stacked.iterations == Config().iterations  # static: not stacked
    assert all(leaf.shape == (3,) for leaf in jax.tree.leaves(stacked))


def test_one_lane_is_a_row_of_one():
    assert parallel.lanes([budget(5)]).labels.budget.tolist() == [5]


@pytest.mark.parametrize(
    "other",
    [
        budget(700, iterations=Config().iterations + 1),
        budget(700, env="CartPole-v1"),
        budget(700, ppo=PPOConfig(hidden=(7,))),
        budget(700, queries=QueryConfig(selection="uniform")),
    ],
)
def test_lanes_refuse_different_static_settings(other):
    with pytest.raises(ValueError, match="static setting") as error:
        parallel.lanes([budget(700), budget(700), other])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("count, expected", [(1, 1), (2, 2), (3, 3), (4, 4), (5, 1), (6, 3), (7, 1), (8, 4), (32, 4)])
def test_agents_are_spread_over_the_most_devices_that_share_them_evenly(count, expected, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: list("abcd"))
    assert parallel.agent_devices(count) == list("abcd")[:expected]


def test_keys_are_those_of_the_seeds():
    keys = parallel.agent_keys([0, 7, 2**32 - 1])
    for key, seed in zip(keys, [0, 7, 2**32 - 1], strict=True):
        np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(jax.random.key(np.uint32(seed))))


def test_placed_arrays_keep_their_values():
    keys, numbers = inputs(3)
    placed = parallel.place({"keys": keys, **numbers}, 3)
    np.testing.assert_array_equal(jax.random.key_data(placed["keys"]), jax.random.key_data(keys))
    np.testing.assert_array_equal(placed["scale"], numbers["scale"])
    assert placed["flip"].sharding.spec == parallel.PartitionSpec("agents")


@pytest.mark.parametrize("count", [1, 3])
def test_agents_in_one_program_equal_a_loop(count):
    assert_equals_loop(count)


def test_agents_abreast_agree_with_a_loop(monkeypatch):
    # What a GPU does, on this CPU: a `vmap`, whose products are batched and so agree up to rounding only.
    class Gpu:
        platform = "gpu"

    mesh = parallel.Mesh
    cpu = jax.devices()[:1]
    monkeypatch.setattr(parallel, "agent_devices", lambda count, abreast: [Gpu()])
    monkeypatch.setattr(parallel, "Mesh", lambda devices, axes: mesh(np.asarray(cpu), axes))
    keys, numbers = inputs(3)
    together = parallel.over_agents(walk, 3)(keys, numbers)
    for i in range(3):
        one = jax.jit(walk)(keys[i], jax.tree.map(lambda x, i=i: x[i], numbers))
        np.testing.assert_allclose(together["x"][i], one["x"], rtol=1e-5, atol=1e-6)


def test_agents_that_share_an_emulator_are_mapped_on_one_device():
    seen = []

    def watched(key):
        seen.append(isinstance(key, jax.core.Tracer) and "BatchTracer" in type(key).__name__)
        return key

    keys, _ = inputs(4)
    together = parallel.over_agents(watched, 4, abreast=True)(keys)
    assert seen == [True]
    assert len(together.sharding.device_set) == 1
    assert parallel.agent_devices(4, abreast=True) == jax.devices()[:1]


def test_agents_on_two_devices_equal_a_loop():
    found = python(
        "import json, jax\n"
        "jax.config.update('jax_num_cpu_devices', 2)\n"
        "import test_parallel\n"
        "places = [test_parallel.assert_equals_loop(count) for count in (4, 3)]  # 3 do not share 2 devices\n"
        "places.append(test_parallel.parallel.place(jax.numpy.arange(6), 6).sharding)\n"
        "print(json.dumps([[len(p.device_set), list(p.spec)] for p in places]))"
    )
    assert found == [[2, ["agents"]], [1, []], [2, ["agents"]]]


REPORT = (
    "import json, os\n"
    "from pathlib import Path\n"
    "from rlhf_jax import parallel\n"
    "parallel.prepare_machine({argument})\n"
    "import jax\n"
    "print(json.dumps({{'flags': os.environ['XLA_FLAGS'], 'cache': jax.config.jax_compilation_cache_dir, "
    "'devices': len(jax.devices()), 'cores': len(os.sched_getaffinity(0))}}))"
)


def test_machine_is_prepared(tmp_path):
    nothing = {"XLA_FLAGS": None, "JAX_COMPILATION_CACHE_DIR": None, "JAX_NUM_CPU_DEVICES": None}
    found = python(REPORT.format(argument=""), **nothing, XDG_CACHE_HOME=str(tmp_path))
    assert found["flags"] == "--xla_cpu_multi_thread_eigen=false"
    assert found["cache"] == str(tmp_path / "rlhf_jax")
    assert found["devices"] == found["cores"]
    found = python(REPORT.format(argument="Path('/tmp/elsewhere')"), **nothing)
    assert found["cache"] == "/tmp/elsewhere"


def test_where_a_system_does_not_tell_the_allowed_cores_all_are_used(monkeypatch):
    """Linux tells; macOS does not."""
    asked = {}
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    config = types.SimpleNamespace(update=asked.__setitem__)
    monkeypatch.setattr(parallel, "jax", types.SimpleNamespace(config=config))
    parallel.prepare_machine()
    assert asked["jax_num_cpu_devices"] == 3


def test_settings_of_the_machine_that_are_there_already_are_left_alone(tmp_path):
    mine = "--xla_cpu_enable_fast_math=false --xla_cpu_multi_thread_eigen=true"
    cores = len(os.sched_getaffinity(0))
    found = python(
        REPORT.format(argument=""),
        XLA_FLAGS=mine,
        JAX_COMPILATION_CACHE_DIR=str(tmp_path),
        JAX_NUM_CPU_DEVICES=str(cores + 1),
    )
    assert found["flags"] == mine
    assert found["cache"] == str(tmp_path)
    assert found["devices"] == cores + 1
    found = python(REPORT.format(argument="Path('/tmp/elsewhere')"), XLA_FLAGS="--xla_cpu_enable_fast_math=false")
    assert set(found["flags"].split()) == {"--xla_cpu_enable_fast_math=false", "--xla_cpu_multi_thread_eigen=false"}
