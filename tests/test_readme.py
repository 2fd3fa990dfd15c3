"""The examples of the README and of the public entry point run as they stand."""

import doctest
import re
from pathlib import Path

import jax
import jax.numpy as jnp

import rlhf_jax
from rlhf_jax import query_rules, teacher, training

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_python_blocks_of_the_readme_run_in_order(monkeypatch):
    monkeypatch.setattr(teacher, "TEACHERS", dict(teacher.TEACHERS))
    monkeypatch.setattr(query_rules, "RULES", dict(query_rules.RULES))
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["env"].name == "Homing"
    assert names["metrics"]["labels"][-1] == 40  # of the last block: the reader's own environment, trained


def test_example_of_train():
    (example,) = doctest.DocTestFinder(recurse=False).find(
        training.train, "train", globs={"jax": jax, "jnp": jnp, "rlhf_jax": rlhf_jax}
    )
    assert len(example.examples) == 5
    assert doctest.DocTestRunner().run(example).failed == 0
