"""People in place of the teacher: serves a page on which they choose between clips, and trains on what they say.

    python -m experiments.human --env Pendulum-v1 --labels 200 --instruction "keep it upright"

The address of the page is printed. An answer is in labels.sqlite, in the run's folder, before the page confirms it.
"""

import time

_STARTED = time.perf_counter()

import dataclasses  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from absl import flags  # noqa: E402

import rlhf_jax  # noqa: E402
from experiments import command_line, figures, results, run_flags, session  # noqa: E402
from experiments.labelling_session import LabellingSession  # noqa: E402
from rlhf_jax import run_folder, settings  # noqa: E402
from rlhf_jax.environments import rendering  # noqa: E402
from rlhf_jax.run_folder import RunFolder  # noqa: E402

_ENV = flags.DEFINE_string("env", "Pendulum-v1", "Name of the environment; it must have a renderer.")
_LABELS = flags.DEFINE_integer("labels", 200, "Answers that are wanted in all.", lower_bound=1)


def conditions() -> run_flags.Conditions:
    """Returns the settings of the run.

    Raises:
      ValueError: a setting is unknown or wrong.
    """
    run_flags.refuse_settings("env", "labels.budget", "labels.max_budget", "use_true_reward")
    config = settings.override(rlhf_jax.Config(env=_ENV.value), run_flags.SET.value)
    labels = dataclasses.replace(config.labels, budget=_LABELS.value, max_budget=_LABELS.value)
    return {f"labels_{_LABELS.value}": dataclasses.replace(config, labels=labels)}


def check(lanes: run_flags.Conditions) -> None:
    """Checks the settings; raises ValueError."""
    for config in lanes.values():
        settings.validate(config, rlhf_jax.make(config.env))
        rendering.require(config.env)


def draw(run: RunFolder, result: results.Result) -> list[Path]:
    """Draws the returns, the number of labels, and the trained agent; returns the files."""
    ((name, metrics),) = result.metrics.items()
    env = run.conditions[name].env
    curves = {"returns": {"true return": metrics["return"]}, "labels": {"labels": metrics["labels"].astype(float)}}
    curves["predicted_returns"] = {"predicted return": metrics["predicted_return"]}
    files = []
    for file, values in curves.items():
        files.append(run.path / f"{file}.png")
        title = f"{env} from {int(metrics['labels'].max())} human labels"
        axes = {"xlabel": "environment steps", "ylabel": next(iter(values))}
        figures.learning_curves(files[-1], result.env_steps, values, optimum=None, title=title, **axes)
    return [*files, results.animate(run, result, name)]


def main() -> None:
    """Serves the page, trains, evaluates, draws and reports."""
    clock = session.Clock(_STARTED)
    session.say("starting")
    run = run_flags.open_run("human", conditions, check, seeds=1, settled=("env", "labels", "instruction"))
    with LabellingSession(run) as labelling:
        clock.phases["import"] = time.perf_counter() - _STARTED
        states, metrics = labelling.train(clock)
        labelling.say("finished", "Training is done, thank you. The agent is being evaluated.")
        result = results.conclude(run, states, metrics, labelling.lanes, labelling.env, clock)
        with clock.phase("evaluate", "drawing"):
            files = draw(run, result)
        summary: dict[str, Any] = results.summarise(run, result, clock) | labelling.summary()
        run_folder.write_json(run.path / "summary.json", summary)
    print(results.table(run_folder.plain(summary)))
    for file in [*files, run.path / "labels.sqlite", run.path / "summary.json", run.path]:
        print(file)


if __name__ == "__main__":
    command_line.run("human", main)
