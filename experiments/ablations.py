"""Figure 5 of Christiano et al. 2017, in its style, on Gym's swing-up Pendulum-v1: which part of the method matters.

Every condition leaves one part out, or changes it, and is given as many labels:

    full                the method
    random_queries      pairs are drawn uniformly, not chosen by disagreement
    no_ensemble         one reward network, and therefore random queries
    no_online_queries   all labels are about the untrained policy
    no_regularisation   no L2
    no_segments         segments of a single step
    target              the teacher tells the return of a segment, and the network learns it by squared error

    python -m experiments.ablations --seeds 8
"""

import time

_STARTED = time.perf_counter()

import dataclasses  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from absl import flags  # noqa: E402

import rlhf_jax  # noqa: E402
from experiments import (  # noqa: E402
    command_line,
    figures,
    pendulum_return,
    results,
    run_flags,
    seed_statistics,
    session,
    study,
    study_figures,
    tables,
)
from rlhf_jax import settings  # noqa: E402
from rlhf_jax.run_folder import RunFolder  # noqa: E402

FULL = "full"
CHANGES = {
    FULL: [],
    "random_queries": ["queries.random_share=1"],
    "no_ensemble": ["reward.members=1", "reward.bootstrap=false", "queries.random_share=1"],
    "no_online_queries": ["labels.initial_fraction=1"],
    "no_regularisation": ["reward.l2=0", "reward.l2_adaptation=1"],
    "no_segments": ["queries.segment_length=1"],
    "target": ["reward.targets=true"],
}

flags.adopt_module_key_flags(run_flags)
_SEEDS = flags.DEFINE_integer("seeds", 8, "Agents per condition.", lower_bound=1)
_LABELS = flags.DEFINE_integer("labels", 700, "Labels of each agent.", lower_bound=1)


def conditions() -> run_flags.Conditions:
    """Returns the settings of each condition.

    Raises:
      ValueError: a setting is unknown or wrong, or one that a condition is about.
    """
    about = [text.split("=")[0] for changes in CHANGES.values() for text in changes]
    run_flags.refuse_settings("env", "use_true_reward", "labels.budget", "labels.max_budget", "reward.frozen", *about)
    base = settings.override(rlhf_jax.Config(), run_flags.SET.value)
    labels = dataclasses.replace(base.labels, budget=_LABELS.value, max_budget=_LABELS.value)
    base = dataclasses.replace(base, labels=labels)
    return {name: settings.override(base, changes) for name, changes in CHANGES.items()}


def summarise(run: RunFolder, result: results.Result, clock: session.Clock) -> dict[str, Any]:
    """Returns what `summary.json` holds: beside each condition's row how often it is better than the full method.

    `improvement` is about the trained policies, and `training_improvement` about the mean return over all of the
    training, `training_return`: how soon they got there. Both have 95 % intervals.
    """
    summary = pendulum_return.summarise(run, result, clock)
    ends = {name: found["return"] for name, found in result.evaluation.items()}
    courses = {name: np.nanmean(metrics["return"], 1) for name, metrics in result.metrics.items()}
    for name, row in summary["conditions"].items():
        row["training_return"] = courses[name]
        for key, values in {"improvement": ends, "training_improvement": courses}.items():
            better, *interval = seed_statistics.improvement(values[name], values[FULL])
            row[key], row[f"{key}_ci95"] = (None, None) if name == FULL else (better, interval)
    return summary


def describe(summary: dict[str, Any]) -> str:
    """Returns the result as text."""
    rows = [["condition", "mean", "IQM", "95 % interval", "worst", "accuracy", "P(better than full)", "P(sooner)"]]
    for name, row in summary["conditions"].items():
        returns = [f"{row['mean']:.1f}", f"{row['iqm']:.1f}", tables.interval(row)]
        both = [tables.probability(row, key) for key in ("improvement", "training_improvement")]
        rows.append([name, *returns, f"{min(row['eval_return']):.1f}", f"{row['reward_accuracy']:.3f}", *both])
    return "\n".join([*tables.columns(rows), results.seconds(summary)])


def draw(run: RunFolder, result: results.Result) -> list[Path]:
    """Draws the curves, and the returns in the end with their intervals; returns the files."""
    curves, ends = run.path / "ablations.png", run.path / "intervals.png"
    title = f"Pendulum-v1, {run.config.labels.budget} labels"
    figures.learning_curves(
        curves,
        result.env_steps,
        {name: metrics["return"] for name, metrics in result.metrics.items()},
        optimum=pendulum_return.OPTIMUM,
        title=title,
        xlabel="environment steps",
        ylabel=f"true return of an episode\ninterquartile mean of {len(run.seeds)} seeds, 95 % interval",
    )
    study_figures.intervals(
        ends,
        {name: found["return"] for name, found in result.evaluation.items()},
        baseline=FULL,
        title=title,
        xlabel="true return of the trained policy, a dot for each seed",
    )
    return [curves, ends]


def main() -> None:
    """Trains, evaluates, draws and reports."""
    clock = session.Clock(_STARTED)
    session.say("starting")
    run = run_flags.open_run("ablations", conditions, run_flags.check, seeds=_SEEDS.value, settled=("seeds", "labels"))
    study.conduct(run, clock, draw, summarise, describe)


if __name__ == "__main__":
    command_line.run("ablations", main)
