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


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Environment variables of processes: programs are not optimised, are shared, and kept if pytest's own are."""
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(tmp_path_factory.mktemp("cache"))
    flags = os.environ["XLA_FLAGS"] + " --xla_backend_optimization_level=0"
    return {**os.environ, "PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": cache, "XLA_FLAGS": flags}


@pytest.fixture(scope="session")
def command_lines(environment):
    """Runs command lines by `command_lines.py`."""

    def run(jobs):
        command, text = [sys.executable, str(ROOT / "tests" / "command_lines.py")], json.dumps(jobs)
        done = subprocess.run(command, input=text, env=environment, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


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
