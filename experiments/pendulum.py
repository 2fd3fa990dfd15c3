"""Figure 2 of Christiano et al. 2017, in its style, on Gym's swing-up Pendulum-v1.

The claim: an agent that is told which of two short clips is better, 350, 700 or 1400 times, does nearly as well as
one that is given the true reward. All conditions and seeds are lanes of one compiled program.

    python -m experiments.pendulum --seeds 8
"""

import time

_STARTED = time.perf_counter()

import dataclasses  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from absl import flags  # noqa: E402

import rlhf_jax  # noqa: E402
from experiments import command_line, figures, study  # noqa: E402
from rlhf_jax import run_folder, settings  # noqa: E402
from rlhf_jax.environments import rendering  # noqa: E402

OPTIMUM = -137.8  # By dynamic programming over the reset distribution.
RANDOM = -1231.0  # Uniformly random actions.

_SEEDS = flags.DEFINE_integer("seeds", 8, "Agents per condition.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the first agent; the others follow.", lower_bound=0)
_LABELS = flags.DEFINE_list(
    "labels", ["350", "700", "1400"], "Label budgets, a condition each, beside the true reward."
)
_OUT = flags.DEFINE_string("out", None, "Folder of the run; results/pendulum/<time> if not given.")
_SET = flags.DEFINE_multi_string("set", [], "A setting, such as ppo.learning_rate=3e-4; may be repeated.")
_RESUME = flags.DEFINE_boolean("resume", False, "Go on with the run in --out from its newest checkpoint.")


def conditions(labels: list[str], assignments: list[str]) -> dict[str, rlhf_jax.Config]:
    """Returns the settings of each condition: the true reward, and every label budget.

    Raises:
      ValueError: a budget is not a positive whole number, or a setting is unknown or wrong.
    """
    if not labels or not all(text.isdecimal() and int(text) > 0 for text in labels):
        raise ValueError(f"--labels {','.join(labels)} must be positive whole numbers, such as 350,700,1400")
    budgets = sorted(int(text) for text in labels)
    if len(set(budgets)) < len(budgets):
        raise ValueError(f"--labels {','.join(labels)} names a budget twice")
    for name in ("labels.budget", "labels.max_budget", "use_true_reward"):
        if any(text.split("=")[0].strip() == name for text in assignments):
            raise ValueError(f"--set {name} has no say here: the conditions come from --labels")
    base = settings.override(rlhf_jax.Config(), assignments)
    lanes = {}
    for budget in [0, *budgets]:
        name = f"labels_{budget}" if budget else "true_reward"
        limits = dataclasses.replace(base.labels, budget=budget, max_budget=budgets[-1])
        lanes[name] = dataclasses.replace(base, use_true_reward=budget == 0, labels=limits)
    return lanes


def summarise(run: run_folder.RunFolder, result: study.Result, clock: study.Clock) -> dict:
    """Returns what `summary.json` holds."""
    rows = {}
    for name, config in run.conditions.items():
        evaluation = result.evaluation[name]
        returns = evaluation["return"]
        judged = not config.use_true_reward
        rows[name] = {
            "labels": int(result.metrics[name]["labels"][:, -1].max()),
            "eval_return": returns,
            "mean": returns.mean(),
            "iqm": figures.interquartile_mean(returns),
            "ci95": list(figures.bootstrap_interval(returns)),
            "normalised": (returns.mean() - RANDOM) / (OPTIMUM - RANDOM),
            "reward_accuracy": evaluation["accuracy"].mean() if judged else None,
            "reward_correlation": evaluation["correlation"].mean() if judged else None,
        }
    return {
        "experiment": "pendulum",
        "device": run_folder.device(),
        "seeds": run.seeds,
        "env_steps_per_agent": int(result.env_steps[-1]),
        "wall_seconds": clock.wall_seconds(),
        "cpu_seconds": study.cpu_seconds(),
        "optimum": OPTIMUM,
        "conditions": rows,
    }


def draw(run: run_folder.RunFolder, result: study.Result) -> list[Path]:
    """Draws the figure and a GIF of the agents on the true reward and on the most labels; returns the files."""
    figure = run.path / "figure2.png"
    figures.learning_curves(
        figure,
        result.env_steps,
        {name: metrics["return"] for name, metrics in result.metrics.items()},
        optimum=OPTIMUM,
        title="Pendulum-v1 from preferences",
        xlabel="environment steps",
        ylabel=f"true return of an episode\ninterquartile mean of {len(run.seeds)} seeds, 95 % interval",
    )
    files = [figure]
    for name in ("true_reward", list(run.conditions)[-1]):
        clips = zip(*(result.evaluation[name][key][0].swapaxes(0, 1) for key in ("observation", "action")), strict=True)
        env = run.conditions[name].env
        frames = figures.tile(np.stack([rendering.frames(env, *clip)[::2] for clip in clips]), columns=study.CLIPS)
        files.append(run.path / f"{name}.gif")
        figures.animation(files[-1], frames, fps=20)
    return files


def table(summary: dict) -> str:
    """Returns the result as text."""
    lines = ["condition      labels     mean      IQM   95 % interval      worst  normalised  accuracy  correlation"]
    for name, row in summary["conditions"].items():
        low, high = row["ci95"]
        judged = [
            f"{row[key]:.3f}" if row[key] is not None else "–" for key in ("reward_accuracy", "reward_correlation")
        ]
        lines.append(
            f"{name:<13}{row['labels']:>8}{row['mean']:>9.1f}{row['iqm']:>9.1f}   [{low:.1f}, {high:.1f}]"
            f"{min(row['eval_return']):>9.1f}{row['normalised']:>12.3f}{judged[0]:>10}{judged[1]:>13}"
        )
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in summary["wall_seconds"].items())
    lines.append(f"wall seconds: {seconds}; processor seconds: {summary['cpu_seconds']:.1f}")
    return "\n".join(lines)


def _open() -> run_folder.RunFolder:
    """Opens the folder of the run, new or resumed, after checking all that was asked for.

    Raises:
      ValueError: something of it is wrong.
    """
    if _RESUME.value:
        ignored = [name for name in ("seeds", "seed", "labels", "set") if flags.FLAGS[name].present]
        if ignored:
            raise ValueError(f"--{ignored[0]} has no say with --resume: the run's config.json has it")
        if _OUT.value is None:
            raise ValueError("--resume needs the run's folder as --out")
        run = run_folder.load(Path(_OUT.value))
        if run.experiment != "pendulum":
            raise ValueError(f"{run.path} is a run of experiments.{run.experiment}, not of experiments.pendulum")
        check(run.conditions)
        return run
    lanes = conditions(_LABELS.value, _SET.value)
    check(lanes)
    seeds = range(_SEED.value, _SEED.value + _SEEDS.value)
    if seeds[-1] >= 2**32:
        raise ValueError(f"--seed {_SEED.value} with {_SEEDS.value} seeds goes beyond {2**32 - 1}")
    out = Path(_OUT.value or f"results/pendulum/{time.strftime('%Y-%m-%d-%H%M%S')}")
    return run_folder.create(out, "pendulum", lanes, seeds)


def check(lanes: dict[str, rlhf_jax.Config]) -> None:
    """Checks the settings of every condition; raises ValueError."""
    for config in lanes.values():
        env = rlhf_jax.make(config.env)
        if config.env != "Pendulum-v1":
            raise ValueError(f"env = {config.env!r}; this experiment is about Pendulum-v1")
        settings.validate(config, env)


def main() -> None:
    """Trains, evaluates, draws and reports."""
    clock = study.Clock(_STARTED)
    study.say("starting")
    try:
        run = _open()
    except ValueError as error:
        raise command_line.BadInput(str(error)) from error
    env = rlhf_jax.make("Pendulum-v1")
    clock.phases["import"] = time.perf_counter() - _STARTED
    try:
        result = study.run_study(run, env, clock)
    except KeyboardInterrupt:
        raise command_line.Stopped(f"interrupted; go on with --out {run.path} --resume") from None
    with clock.phase("evaluate", "drawing"):
        files = draw(run, result)
    summary = run_folder.plain(summarise(run, result, clock))
    run_folder.write_json(run.path / "summary.json", summary)
    print(table(summary))
    for file in [*files, run.path / "summary.json", run.path]:
        print(file)


if __name__ == "__main__":
    command_line.run("pendulum", main)
