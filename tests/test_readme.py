"""The examples of the README and of the public entry point run as they stand."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

import rlhf_jax
from rlhf_jax import training

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_python_blocks_of_the_readme_run_in_order(environment, tmp_path):
    """In a process of their own, because they register a teacher and a rule."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    # Of the last block: the reader's own environment, trained.
    blocks.append("assert env.name == 'Homing' and metrics['labels'][-1] == 40")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_example_of_train():
    (example,) = doctest.DocTestFinder(recurse=False).find(
        training.train, "train", globs={"jax": jax, "jnp": jnp, "rlhf_jax": rlhf_jax}
    )
    assert len(example.examples) == 5
    assert doctest.DocTestRunner().run(example).failed == 0
