"""The folder of a run that nobody ran: every number in it is chosen, so that what is said of it is known."""

import json

import numpy as np

from experiments.reward_map import PLANES

SEEDS, ITERATIONS = 4, 40
SETTINGS = {
    "env": "Pendulum-v1",
    "iterations": ITERATIONS,
    "num_envs": 32,
    "rollout_length": 200,
    "use_true_reward": False,
    "labels": {"budget": 100},
    "reward": {"l2_low": 1.1, "l2_high": 1.5, "targets": False},
}
PLANE = PLANES["Pendulum-v1"]
JUDGED = {
    "accuracy": [0.90, 0.91, 0.92, 0.93],
    "teacher_accuracy": [0.93, 0.93, 0.93, 0.93],
    "log_likelihood": [-0.30, -0.30, -0.28, -0.28],
    "teacher_log_likelihood": [-0.20, -0.20, -0.20, -0.20],
    "calibration_error": [0.150, 0.150, 0.150, 0.150],
    "correlation": [0.90, 0.92, 0.94, 0.96],
    "rank_correlation": [0.91, 0.93, 0.95, 0.97],
    "segment_correlation": [0.95, 0.96, 0.97, 0.98],
    "segment_rank_correlation": [0.96, 0.97, 0.98, 0.99],
    "spread": [0.3, 0.3, 0.3, 0.3],
    "epic": [0.20, 0.22, 0.24, 0.26],
    "dard": [0.10, 0.12, 0.14, 0.16],
}


def wiggle(scale):
    """`[SEEDS, ITERATIONS]` noise."""
    return np.random.default_rng(0).normal(0.0, scale, (SEEDS, ITERATIONS))


def exploited():
    """`[SEEDS, ITERATIONS]` true return that rises to iteration 20 and then falls in the last two seeds."""
    time = np.arange(ITERATIONS)
    rising = -1200.0 + 20.0 * time
    falling = np.where(time < 20, rising, -800.0 - 30.0 * (time - 20))
    return np.stack([rising, rising, falling, falling]) + wiggle(4.0)


def metrics():
    """`[SEEDS, ITERATIONS]` of every metric of a learnt reward."""
    flat = np.ones((SEEDS, ITERATIONS))
    return {
        "return": exploited(),
        "predicted_return": 2.0 * np.arange(ITERATIONS) + wiggle(1.0),
        "labels": np.minimum(3 * np.arange(1, ITERATIONS + 1), 100) * flat,
        "answers": 2.5 * flat,
        "ties": 0.125 * flat,  # 5 of the 100 answers
        "silences": 0.0 * flat,
        "heldout_accuracy": 0.91 - 0.4 * np.exp(-np.arange(ITERATIONS) / 5) * flat,
        "teacher_accuracy": 0.93 * flat,
        "heldout_log_likelihood": -0.29 - np.exp(-np.arange(ITERATIONS) / 5) * flat,
        "teacher_log_likelihood": -0.20 * flat,
        "calibration_error": 0.15 * flat,
        "correlation": 0.93 * flat,
        "rank_correlation": 0.93 * flat,
        "segment_correlation": 0.96 * flat,
        "segment_rank_correlation": 0.96 * flat,
        "spread": 0.3 * flat,
        "train_loss": 0.20 * flat,
        "validation_loss": 0.26 * flat,
        "accuracy": 0.88 * flat,
        "l2": 1e-4 * flat,
        "policy_loss": 0.0 * flat,
        "value_loss": 0.0 * flat,
        "entropy": np.linspace(2.0, 0.5, ITERATIONS) * flat,
        "kl": 0.004 * flat,
    }


def reliability(sharpness):
    """`[SEEDS, 10, 3]` bins of 1000 pairs each whose answers are p where the model says p pulled apart so often."""
    predicted = np.linspace(0.05, 0.95, 10)
    observed = 1.0 / (1.0 + (1.0 / predicted - 1.0) ** (1.0 / sharpness))
    return np.tile(np.stack([predicted, observed, np.full(10, 100.0)], -1), (SEEDS, 1, 1))


def maps():
    """`[SEEDS, H, W]` true reward on another scale, and leaning to one side in the last seed."""
    truth = np.tile(0.2 * PLANE.reward + 3.0, (SEEDS, 1, 1))
    truth[-1] += 1.5 * np.sin(PLANE.across.values)[None]
    return truth


def write_metrics(folder, conditions, iterations=ITERATIONS):
    """Writes metrics.jsonl, null where a number is NaN."""
    lines = []
    for point in range(iterations):
        for name, values in conditions.items():
            row = {
                key: [None if np.isnan(x) else x for x in column[:, point].tolist()] for key, column in values.items()
            }
            lines.append(json.dumps({"iteration": point + 1, "condition": name, **row}))
    (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))


def write_config(folder, conditions):
    """Writes config.json."""
    record = {"experiment": "pendulum", "seeds": list(range(SEEDS)), "conditions": conditions, "device": "1 × <cpu>"}
    (folder / "config.json").write_text(json.dumps(record))


def write_run(folder):
    """Writes a whole run, on the true reward and on 100 labels; returns the folder."""
    folder.mkdir()
    names = {"true_reward": SETTINGS | {"use_true_reward": True}, "labels_100": SETTINGS}
    write_config(folder, names)
    learnt = metrics()
    unknown = np.full((SEEDS, ITERATIONS), np.nan)
    given = {key: unknown if "loss" in key or key in ("accuracy", "l2") else values for key, values in learnt.items()}
    write_metrics(folder, {"true_reward": given | {"labels": np.zeros((SEEDS, ITERATIONS))}, "labels_100": learnt})
    returns = {"true_reward": [-150.0, -150.0, -160.0, -160.0], "labels_100": [-200.0, -210.0, -220.0, -230.0]}
    rows = {name: {"eval_return": values, "normalised": 0.95} for name, values in returns.items()}
    (folder / "summary.json").write_text(json.dumps({"conditions": rows, "optimum": -137.8}))
    part = folder / "labels_100"
    part.mkdir()
    judged = {
        f"{states}.{key}": np.array(x) for states in ("random", "on_policy", "expert") for key, x in JUDGED.items()
    }
    judged["expert.correlation"] = np.array([0.3, 0.4, 0.5, 0.6])
    np.savez(part / "judgement.npz", **judged)
    np.save(part / "reliability.npy", reliability(3.0))
    np.save(part / "reward_map.npy", maps())
    np.save(part / "eval_returns.npy", np.array(returns["labels_100"]))
    return folder
