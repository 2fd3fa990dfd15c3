"""Rewards from preferences between whole trajectories of suboptimal policies, on CartPole with 200 steps.

The claim: reinforcement learning on a reward that explains which of two trajectories is better does far better than the
best of the policies that they come from, where imitation cannot; and most of that is the variable horizon's doing,
which a constant reward shows, and which an absorbing state in place of early ends takes away.

    python -m experiments.cartpole --seeds 8
"""

import time

_STARTED = time.perf_counter()

import dataclasses  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from absl import flags  # noqa: E402

from experiments import (  # noqa: E402
    cartpole_answers,
    command_line,
    figures,
    offline_study,
    results,
    run_flags,
    seed_statistics,
    session,
)
from rlhf_jax import run_folder, settings  # noqa: E402
from rlhf_jax.offline import saved_rewards  # noqa: E402
from rlhf_jax.offline.config import ALGORITHMS, OfflineConfig, validate  # noqa: E402
from rlhf_jax.run_folder import RunFolder  # noqa: E402

CONDITIONS = (
    "best_checkpoint",
    "rlhf",
    "behavioural_cloning",
    "inverse_rl",
    "constant_reward",
    "constant_reward_fixed_horizon",
    "rlhf_fixed_horizon",
)
_PPO_CHECKPOINTS = 2
_VARIANTS = {"variable_horizon": "", "fixed_horizon": saved_rewards.FIXED_HORIZON}

flags.adopt_module_key_flags(run_flags)
_SEEDS = flags.DEFINE_integer("seeds", 8, "Agents per condition.", lower_bound=1)
_ALGORITHM = flags.DEFINE_enum("algorithm", ALGORITHMS[0], ALGORITHMS, "What agents learn by.")


@dataclasses.dataclass
class Found:
    """What the study found.

    curves: `[seeds, points]` arrays by condition and metric.
    evaluation: `[seeds]` arrays by condition or "untrained…", `return` and `deterministic`.
    data: what was learnt from, by variant.
    rewards: how well they fit, by condition; `[seeds, ...]` each.
    """

    curves: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    evaluation: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    data: dict[str, offline_study.Data] = dataclasses.field(default_factory=dict)
    rewards: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)


def conditions() -> dict[str, Any]:
    """Returns the settings of each condition, which are the same; raises ValueError."""
    run_flags.refuse_settings("algorithm")
    base = OfflineConfig(algorithm=_ALGORITHM.value)
    if base.algorithm == "ppo":  # After the ten epochs of the policy gradient it has nothing left to learn.
        base = dataclasses.replace(base, data=dataclasses.replace(base.data, checkpoints=_PPO_CHECKPOINTS))
    return dict.fromkeys(CONDITIONS, settings.override(base, run_flags.SET.value))


def check(lanes: dict[str, Any]) -> None:
    """Checks the settings; raises ValueError."""
    config = lanes[CONDITIONS[0]]
    if config.env != "CartPole-v1":
        raise ValueError(f"env = {config.env!r}; this experiment is about CartPole-v1")
    validate(config)


def study(run: RunFolder, config: OfflineConfig, clock: session.Clock) -> Found:
    """Does everything, in the environment as it is and in the one without early ends."""
    found, rewards = Found(), {}
    for variant, ending in _VARIANTS.items():
        with clock.phase("import", f"making {config.env} with {config.horizon} steps, {variant.replace('_', ' ')}"):
            env = saved_rewards.make(config.env, config.horizon, fixed_horizon=bool(ending))
            stages = offline_study.Stages(run, env, config, clock)
        names = {name: name + ending for name in ("best_checkpoint", "rlhf", "constant_reward", "untrained")}
        data = found.data[variant] = stages.gather(names["best_checkpoint"])
        actors = {names["untrained"]: stages.untrained(), names["best_checkpoint"]: data.best_checkpoint()}
        found.curves[names["best_checkpoint"]] = data.curves
        reward, fit = stages.fit(names["rlhf"], data)
        rewards[names["rlhf"]], found.rewards[names["rlhf"]] = reward, fit
        for name, source in ((names["rlhf"], reward), (names["constant_reward"], None)):
            actors[name], found.curves[name] = stages.learn(name, source)
        if not ending:
            name = "behavioural_cloning"
            actors[name], found.curves[name] = stages.clone(name, data)
            name = "inverse_rl"
            actors[name], rewards[name], found.curves[name] = stages.explain(name, data)
        found.evaluation |= stages.evaluate(actors)
    with clock.phase("save", "saving the rewards"):
        saved_rewards.save(run.path, rewards)
        _write_arrays(run, found)
    return found


def _write_arrays(run: RunFolder, found: Found) -> None:
    for name in CONDITIONS:
        folder = run.path / name
        folder.mkdir(exist_ok=True)
        np.save(folder / "eval_returns.npy", found.evaluation[name]["return"])
        for key, values in found.curves[name].items():
            np.save(folder / f"{key}.npy", values)
        for key in ("loss", "accuracy"):
            if name in found.rewards:
                np.save(folder / f"reward_{key}.npy", found.rewards[name][key])


def summarise(run: RunFolder, config: OfflineConfig, found: Found, clock: session.Clock) -> dict[str, Any]:
    """Returns what `summary.json` holds."""
    summary = results.outline(run, clock) | {
        "algorithm": config.algorithm,
        "horizon": config.horizon,
        "conditions": {name: _row(found.evaluation[name]) for name in CONDITIONS},
        "untrained": {variant: _row(found.evaluation["untrained" + end]) for variant, end in _VARIANTS.items()},
        "data": {variant: _data(found, variant, end) for variant, end in _VARIANTS.items()},
        "rewards": {
            name: {key: fit[key] for key in ("held_out_accuracy", "mean_reward", "share_positive")}
            | {"loss": fit["loss"][:, -1], "accuracy": fit["accuracy"][:, -1]}
            for name, fit in found.rewards.items()
        },
    }
    return summary | {"answers": cartpole_answers.answers(run_folder.plain(summary))}


def _row(evaluation: dict[str, np.ndarray]) -> dict[str, Any]:
    returns = evaluation["return"]
    return {
        "eval_return": returns,
        "mean": returns.mean(),
        "iqm": seed_statistics.interquartile_mean(returns),
        "ci95": list(seed_statistics.bootstrap_interval(returns)),
        "deterministic_mean": evaluation["deterministic"].mean(),
    }


def _data(found: Found, variant: str, ending: str) -> dict[str, Any]:
    data = found.data[variant]
    returns, labels = data.returns, np.asarray(data.pairs.label)
    return {
        "trajectories": int(returns[0].size),
        "pairs": int(labels.shape[1]),
        "ties": (labels == 0.5).mean(),
        "checkpoint_returns": returns.mean((0, 2)),
        "mean_return": returns.mean((1, 2)),
        "best_return": returns.max((1, 2)),
        "best_checkpoint": _row(found.evaluation["best_checkpoint" + ending]),
    }


def draw(run: RunFolder, config: OfflineConfig, found: Found) -> list[Path]:
    """Draws the learning curves, and what does not learn in epochs as level lines; returns the files."""
    epochs = np.arange(1, config.epochs + 1)
    words = {
        "rlhf": "preferences",
        "constant_reward": "constant reward",
        "rlhf_fixed_horizon": "preferences, fixed horizon",
        "constant_reward_fixed_horizon": "constant reward, fixed horizon",
        "inverse_rl": "inverse RL",
    }
    curves = {label: found.curves[name]["return"] for name, label in words.items()}
    for name, label in {"best_checkpoint": "best checkpoint", "behavioural_cloning": "behavioural cloning"}.items():
        curves[label] = np.repeat(found.evaluation[name]["return"][:, None], config.epochs, 1)
    figure = run.path / "cartpole.png"
    figures.learning_curves(
        figure,
        epochs,
        curves,
        optimum=float(config.horizon),
        title=f"CartPole from trajectories of {config.data.checkpoints} early policies",
        xlabel=f"epochs of {config.epoch_steps:,} steps",
        ylabel=f"true return of an episode\ninterquartile mean of {len(run.seeds)} seeds, 95 % interval",
    )
    return [figure]


def main() -> None:
    """Gathers, learns, evaluates, draws and reports."""
    clock = session.Clock(_STARTED)
    session.say("starting")
    if run_flags.RESUME.value:
        raise command_line.BadInput(
            "--resume: a run takes a minute or less and keeps nothing to go on from; start again"
        )
    run = run_flags.open_run("cartpole", conditions, check, seeds=_SEEDS.value, settled=())
    config: Any = run.conditions[CONDITIONS[0]]
    clock.phases["import"] = time.perf_counter() - _STARTED
    found = study(run, config, clock)
    with clock.phase("evaluate", "drawing"):
        files = draw(run, config, found)
    results.report(run, summarise(run, config, found, clock), files, cartpole_answers.table)


if __name__ == "__main__":
    command_line.run("cartpole", main)
