"""What the CartPole study says, in words: the table of its conditions, and five answers with its numbers in them."""

from typing import Any

from experiments import results, tables


def answers(summary: dict[str, Any]) -> list[str]:
    """Returns why preferences can beat their data, how that differs from imitation, and what the controls show."""
    means = {name: f"{row['mean']:.1f}" for name, row in summary["conditions"].items()}
    untrained = f"{summary['untrained']['fixed_horizon']['mean']:.1f}"
    data, horizon = summary["data"]["variable_horizon"], summary["horizon"]
    average = f"{sum(data['mean_return']) / len(data['mean_return']):.1f}"
    return [
        f"Why RLHF can beat its data: it returns {means['rlhf']}, the best policy behind the data "
        f"{means['best_checkpoint']}. A preference says which way is better, not how good is good enough; the reward "
        "that explains it sets the few long episodes above the many short ones, and reinforcement learning makes the "
        "exception the rule.",
        f"Behavioural cloning returns {means['behavioural_cloning']}, the trajectories {average} on average: it copies "
        "what was done, good and bad alike, and has no notion of better.",
        f"Inverse RL returns {means['inverse_rl']}: it takes all trajectories for what is wanted, looks for the reward "
        "under which they are the likeliest, and its policy goes where they go. No comparison enters.",
        f"A constant reward, without any preference, returns {means['constant_reward']}: where a fall ends the "
        "episode, the horizon tells what to do, and a good policy is no proof that a reward was learnt.",
        f"Where all episodes last {horizon} steps, a constant reward returns {means['constant_reward_fixed_horizon']}, "
        f"an untrained policy {untrained}, and preferences {means['rlhf_fixed_horizon']}: that is what these teach by "
        "themselves.",
    ]


def table(summary: dict[str, Any]) -> str:
    """Returns the result as text."""
    rows = [["condition", "mean", "IQM", "95 % interval", "worst", "without exploring"]]
    data = summary["data"]["fixed_horizon"]
    extra = {f"untrained, {variant.replace('_', ' ')}": row for variant, row in summary["untrained"].items()}
    extra["best checkpoint, fixed horizon"] = data["best_checkpoint"]
    for name, row in (summary["conditions"] | extra).items():
        values = [row["mean"], row["iqm"], min(row["eval_return"]), row["deterministic_mean"]]
        mean, iqm, worst, deterministic = (f"{value:.1f}" for value in values)
        rows.append([name, mean, iqm, tables.interval(row), worst, deterministic])
    return "\n".join(
        [
            *tables.columns(rows),
            *(_about(name, fit, summary) for name, fit in summary["rewards"].items()),
            *summary["answers"],
            results.seconds(summary),
        ]
    )


def _about(name: str, fit: dict[str, list[float]], summary: dict[str, Any]) -> str:
    """Returns a line about a reward and what it was learnt from."""
    data = summary["data"]["fixed_horizon" if name.endswith("fixed_horizon") else "variable_horizon"]
    accuracy, positive = (100.0 * sum(fit[key]) / len(fit[key]) for key in ("held_out_accuracy", "share_positive"))
    average = sum(data["mean_return"]) / len(data["mean_return"])
    return (
        f"reward of {name}: {data['pairs']} preferences between {data['trajectories']} trajectories of return "
        f"{average:.0f} on average and {max(data['best_return']):.0f} at most; orders {accuracy:.0f} % of other pairs "
        f"right; positive in {positive:.0f} % of their steps"
    )
