"""Settings of runs that are over in seconds."""

import functools

import jax

NETWORKS = {
    "queries.candidates": 2,
    "labels.warmup": 2,
    "ppo.hidden": 4,
    "ppo.minibatches": 2,
    "reward.hidden": 4,
    "reward.fit_steps": 2,
    "reward.batch_size": 4,
    "reward.reference_size": 8,
}

SOME_OPTIMISATION = "--xla_backend_optimization_level=1"
"""As in pytest's own processes: for runs that equal what is computed there."""


quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""`jax.jit` for what runs for less time than it compiles, and is not compared bit for bit."""


def words(**settings):
    """Returns them and others, whose dots are written `__`, as words of a command line."""
    named = {name.replace("__", "."): value for name, value in settings.items()}
    return [word for path, value in {**NETWORKS, **named}.items() for word in ("--set", f"{path}={value}")]


SHORT = ["--import", "short_evaluation"]
"""Words of runs whose agents are evaluated on few games."""

STUDY_ITERATIONS = 12
STUDY = [*SHORT, *words(iterations=STUDY_ITERATIONS, num_envs=2, rollout_length=60)]
"""Words of runs of eight agents with up to 12 labels, which are one program and compiled once."""

PEOPLE_LABELS = 80
PEOPLE = [
    *("--labels", str(PEOPLE_LABELS), "--seed", "3"),
    *words(
        iterations=8,
        num_envs=4,
        rollout_length=40,
        queries__segment_length=10,
        labels__initial_fraction=0.75,
        labels__warmup=1,
    ),
]
"""Words of runs with people, of which three quarters of the labels are asked for before the training."""
