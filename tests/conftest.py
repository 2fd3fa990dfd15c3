"""Settings that every test runs under."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]

# Programs of a few steps run as fast with less optimisation, and compile in half the time. JAX reads this when it
# computes for the first time. Without any, loops that are compiled in pieces are no longer the whole bit for bit.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=1"
if jax.__version_info__ < (0, 11):  # Later ones do not know this flag, and end the process.
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
# The library must never rely on implicit broadcasting between ranks.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Where JAX_COMPILATION_CACHE_DIR is set, keep the many small programs too: a second run is four times faster.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


# Files that take longest, which go first, so that no worker is left with one of them at the end.
LONGEST = (
    "pixels",
    "pieces",
    "studies",
    "human",
    "benchmark",
    "pendulum",
    "readme",
    "swing_up",
    "fallible",
    "cartpole",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One more than there are cores, because workers wait for pages and for processes."""
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") or len(os.sched_getaffinity(0)) + 1)


def pytest_collection_modifyitems(items):
    """Sorts tests by file, the longest first."""
    rank = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Environment variables of processes: programs are not optimised, are shared, and kept if pytest's own are."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # All workers share it.
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(base / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_backend_optimization_level=0",
        # A program for several devices takes half as long again to compile. Those of `test_pendulum` are.
        "JAX_NUM_CPU_DEVICES": "1",
    }


@pytest.fixture(scope="session")
def command_lines(environment):
    """Runs command lines by `command_lines.py`."""
    command = [sys.executable, str(ROOT / "tests" / "command_lines.py")]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def run(jobs):
            print(json.dumps(jobs), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


@pytest.fixture(scope="module")
def chromium():
    """One browser for all tests of a module."""
    import browser

    with browser.chromium() as started:
        yield started


@pytest.fixture
def visit(chromium, tmp_path):
    """Runs, and the pages in a browser that show them."""
    import browser

    with browser.visit(chromium, tmp_path) as made:
        yield made
