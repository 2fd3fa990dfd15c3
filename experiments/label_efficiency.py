"""What a label is worth: the return that so many labels lead to, by query rule and teacher, on Pendulum-v1.

The default settings are run with every number of labels; the other rules and teachers with every combination. A program
is compiled for each rule; labels and teachers are its lanes.

    python -m experiments.label_efficiency --seeds 8
    python -m experiments.label_efficiency --rules all --teachers oracle --labels 50,100
"""

import time

_STARTED = time.perf_counter()

import dataclasses  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from absl import flags  # noqa: E402

import rlhf_jax  # noqa: E402
from experiments import (  # noqa: E402
    command_line,
    pendulum_return,
    results,
    run_flags,
    session,
    study,
    study_figures,
)
from rlhf_jax import query_rules, settings  # noqa: E402
from rlhf_jax.config import TEACHER_PRESETS  # noqa: E402
from rlhf_jax.run_folder import RunFolder  # noqa: E402

ORACLE = "oracle"
ALL = "all"

for module in (run_flags, command_line):
    flags.adopt_module_key_flags(module)
_SEEDS = flags.DEFINE_integer("seeds", 8, "Agents per condition.", lower_bound=1)
_LABELS = flags.DEFINE_list("labels", ["25", "50", "100", "200", "350", "700", "1400"], "Numbers of labels.")
_RULES = flags.DEFINE_list(
    "rules", ["uniform", "information_gain", "k_centre"], "Query rules beside the default one, or all."
)
_TEACHERS = flags.DEFINE_list(
    "teachers",
    [ORACLE, "person_90"],
    f"Teachers, or all: {', '.join(TEACHER_PRESETS)}. The defaults have the {ORACLE}.",
)


def conditions() -> run_flags.Conditions:
    """Returns the settings of each condition: the defaults as labels_N, the rest as RULE/TEACHER/labels_N.

    Raises:
      ValueError: a number of labels, rule or teacher is none, or a setting is unknown or wrong.
    """
    decided = "env use_true_reward labels.budget labels.max_budget queries.selection reward.targets reward.frozen"
    run_flags.refuse_settings(*decided.split())
    if any(text.strip().startswith("teacher.") for text in run_flags.SET.value):
        raise ValueError("--set teacher… has no say here: the teachers come from --teachers")
    budgets = run_flags.label_budgets(_LABELS.value)
    base = settings.override(rlhf_jax.Config(), run_flags.SET.value)
    usual = base.queries.selection
    rules = _named("rules", _RULES.value, list(query_rules.RULES))
    lanes = {f"labels_{budget}": _lane(base, usual, ORACLE, budget, budgets[-1]) for budget in budgets}
    for rule in dict.fromkeys([usual, *rules]):
        for teacher in _named("teachers", _TEACHERS.value, list(TEACHER_PRESETS)):
            for budget in budgets:
                if (rule, teacher) != (usual, ORACLE):
                    name = f"{rule}/{teacher}/labels_{budget}"
                    lanes[name] = _lane(base, rule, teacher, budget, budgets[-1])
    return lanes


def _named(flag: str, names: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    if list(names) == [ALL]:
        return known
    for name in names:
        if name not in known:
            raise ValueError(f"--{flag} {name} is not one of {', '.join(known)}, or {ALL}")
    return list(dict.fromkeys(names))


def _lane(base: rlhf_jax.Config, rule: str, teacher: str, budget: int, largest: int) -> rlhf_jax.Config:
    return dataclasses.replace(
        base,
        queries=dataclasses.replace(base.queries, selection=rule),
        teacher=TEACHER_PRESETS[teacher],
        labels=dataclasses.replace(base.labels, budget=budget, max_budget=largest),
    )


def draw(run: RunFolder, result: results.Result) -> list[Path]:
    """Draws the normalised returns against the labels, a panel for each teacher; returns the file."""
    panels: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    for name, config in run.conditions.items():
        teacher = next(key for key, settings_of in TEACHER_PRESETS.items() if settings_of == config.teacher)
        lines = panels.setdefault(f"teacher: {teacher}", {})
        returns = pendulum_return.normalise(result.evaluation[name]["return"])
        lines.setdefault(config.queries.selection, {})[config.labels.budget] = returns
    file = run.path / "label_efficiency.png"
    words = f"normalised return,\nmean of {len(run.seeds)} seeds"
    study_figures.label_efficiency(file, panels, title="Pendulum-v1: what a label is worth", ylabel=words)
    return [file]


def main() -> None:
    """Trains, evaluates, draws and reports."""
    clock = session.Clock(_STARTED)
    session.say("starting")
    settled = ("seeds", "labels", "rules", "teachers")
    run = run_flags.open_run("label_efficiency", conditions, run_flags.check, seeds=_SEEDS.value, settled=settled)
    study.conduct(run, clock, draw, pendulum_return.summarise)


if __name__ == "__main__":
    command_line.run("label_efficiency", main)
