"""The study of whole trajectories by its command line: what it writes and refuses, and the rewards that it leaves."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlhf_jax.offline.saved_rewards import load_reward

ROOT = Path(__file__).parents[1]
SEEDS, HORIZON, EPOCHS, CHECKPOINTS, FIT_STEPS = [5, 6], 20, 4, 2, 3
SETTINGS = {
    "horizon": HORIZON,
    "epochs": EPOCHS,
    "num_envs": 4,
    "epoch_steps": 40,
    "policy_gradient.hidden": 4,
    "data.checkpoints": CHECKPOINTS,
    "data.trajectories": 3,
    "data.pairs": 20,
    "reward.hidden": 4,
    "reward.fit_steps": FIT_STEPS,
    "cloning.fit_steps": FIT_STEPS,
}
TINY = ["--seeds", "2", "--seed", "5"] + [
    word for path, value in SETTINGS.items() for word in ("--set", f"{path}={value}")
]
# Each condition and how many points its curves have.
CONDITIONS = {
    "best_checkpoint": CHECKPOINTS,
    "rlhf": EPOCHS,
    "behavioural_cloning": FIT_STEPS,
    "inverse_rl": EPOCHS,
    "constant_reward": EPOCHS,
    "constant_reward_fixed_horizon": EPOCHS,
    "rlhf_fixed_horizon": EPOCHS,
}
LEARNT = {"rlhf": 4, "rlhf_fixed_horizon": 5, "inverse_rl": 4}  # and how many numbers are observed


@pytest.fixture(scope="module")
def tiny_run(environment, tmp_path_factory):
    """A whole run of short episodes: its folder and the finished process."""
    out = tmp_path_factory.mktemp("tiny") / "run"
    command = [sys.executable, "-m", "experiments.cartpole", *TINY, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return out, done


@pytest.fixture(scope="module")
def summary(tiny_run):
    return json.loads((tiny_run[0] / "summary.json").read_text())


def test_run_folder_holds_every_file(tiny_run):
    out, _ = tiny_run
    files = {path.name for path in out.iterdir() if path.is_file()}
    assert files == {"cartpole.png", "config.json", "metrics.jsonl", "summary.json"}
    assert {path.name for path in out.iterdir() if path.is_dir()} == {*CONDITIONS, "rewards"}
    assert Image.open(out / "cartpole.png").size == (900, 600)
    for name, points in CONDITIONS.items():
        arrays = {path.stem: np.load(path) for path in (out / name).glob("*.npy")}
        assert arrays.pop("eval_returns").shape == (2,)
        for key in ("reward_loss", "reward_accuracy"):
            assert (key in arrays) == name.startswith("rlhf")
            assert arrays.pop(key, np.zeros((2, FIT_STEPS))).shape == (2, FIT_STEPS)
        curves = {"loss"} if name == "behavioural_cloning" else {"return", "predicted_return", "length"}
        assert set(arrays) == curves
        assert all(array.shape == (2, points) and np.isfinite(array).all() for array in arrays.values())


def test_config_holds_every_value_in_force(tiny_run):
    config = json.loads((tiny_run[0] / "config.json").read_text())
    assert config["seeds"] == SEEDS and set(config["conditions"]) == set(CONDITIONS)
    settings = config["conditions"]["rlhf"]
    assert (settings["horizon"], settings["data"]["pairs"], settings["reward"]["hidden"]) == (HORIZON, 20, [4])
    assert (settings["algorithm"], settings["policy_gradient"]["learning_rate"]) == ("policy_gradient", 0.01)
    assert {"jax", "rlhf_jax"} <= set(config["packages"]) and config["device"]


def test_metrics_have_a_line_for_each_epoch_and_condition(tiny_run):
    lines = [json.loads(line) for line in (tiny_run[0] / "metrics.jsonl").read_text().splitlines()]
    for name, points in CONDITIONS.items():
        rows = [line for line in lines if line["condition"] == name]
        if name == "behavioural_cloning":
            assert rows == []
            continue
        assert [row["epoch"] for row in rows] == list(range(1, points + 1))
        curve = np.load(tiny_run[0] / name / "return.npy")
        np.testing.assert_allclose([row["return"] for row in rows], curve.T, rtol=1e-6)


def test_summary_says_how_good_each_condition_is(tiny_run, summary):
    assert list(summary["conditions"]) == list(CONDITIONS)
    for name, row in summary["conditions"].items():
        assert set(row) == {"eval_return", "mean", "iqm", "ci95", "deterministic_mean"}
        np.testing.assert_allclose(row["eval_return"], np.load(tiny_run[0] / name / "eval_returns.npy"))
        np.testing.assert_allclose(row["mean"], np.mean(row["eval_return"]))
        assert row["ci95"][0] <= row["iqm"] <= row["ci95"][1] <= HORIZON
        assert min(row["eval_return"]) > 8  # the fastest fall takes 8 steps


def test_curves_of_the_controls_are_what_they_are_called(tiny_run):
    """A constant reward pays the length; where all episodes last as long, it pays the horizon whatever is done."""
    arrays = {
        name: {key: np.load(tiny_run[0] / name / f"{key}.npy") for key in ("return", "predicted_return", "length")}
        for name in ("constant_reward", "constant_reward_fixed_horizon", "best_checkpoint", "rlhf")
    }
    for name in ("constant_reward", "best_checkpoint"):
        np.testing.assert_allclose(arrays[name]["predicted_return"], arrays[name]["length"], rtol=1e-5)
        np.testing.assert_allclose(arrays[name]["return"], arrays[name]["length"], rtol=1e-5)
    fixed = arrays["constant_reward_fixed_horizon"]
    np.testing.assert_allclose(fixed["predicted_return"], HORIZON)
    assert (fixed["length"] == HORIZON).all() and (fixed["return"] < HORIZON).all()
    assert (np.abs(arrays["rlhf"]["predicted_return"] - arrays["rlhf"]["return"]) > 0.1).any()


def test_constant_reward_leaves_the_policy_untrained_where_all_episodes_last_as_long(summary):
    untrained = summary["untrained"]
    fixed, variable = (summary["conditions"][f"constant_reward{end}"] for end in ("_fixed_horizon", ""))
    assert fixed["eval_return"] == untrained["fixed_horizon"]["eval_return"]
    assert variable["eval_return"] != untrained["variable_horizon"]["eval_return"]


def test_what_was_learnt_from_is_told(summary):
    for data in summary["data"].values():
        assert (data["trajectories"], data["pairs"], len(data["checkpoint_returns"])) == (
            CHECKPOINTS * 3,
            20,
            CHECKPOINTS,
        )
        assert (np.array(data["mean_return"]) < data["best_return"]).all() and max(data["best_return"]) <= HORIZON
        np.testing.assert_allclose(np.mean(data["checkpoint_returns"]), np.mean(data["mean_return"]))
        assert 0 <= data["ties"] < 1
    assert set(summary["rewards"]) == {"rlhf", "rlhf_fixed_horizon"}
    assert all(0 <= value <= 1 for fit in summary["rewards"].values() for value in fit["held_out_accuracy"])


def test_table_has_every_condition_and_five_answers_with_their_numbers(tiny_run, summary):
    out, done = tiny_run
    for name, row in summary["conditions"].items():
        line = next(line for line in done.stdout.splitlines() if line.startswith(f"{name} "))
        assert f"{row['mean']:.1f}" in line
    assert len(summary["answers"]) == 5
    assert all(answer in done.stdout for answer in summary["answers"])
    assert f"{summary['conditions']['behavioural_cloning']['mean']:.1f}" in summary["answers"][1]
    assert done.stdout.splitlines()[-1] == str(out)


def test_says_what_it_is_doing(tiny_run):
    lines = tiny_run[1].stderr.splitlines()
    for name in CONDITIONS:
        assert any(line.startswith(f"{name}: ") or f" {name}" in line for line in lines), name
    assert sum(line.startswith("rlhf: epoch ") for line in lines) == EPOCHS // CHECKPOINTS
    assert any("NaN" in line or "Warning" in line for line in lines) is False


@pytest.mark.parametrize(("condition", "size"), LEARNT.items())
def test_rewards_are_loaded(condition, size, tiny_run):
    rng = np.random.default_rng(0)
    observations, actions = rng.normal(size=(7, 3, size)), rng.integers(0, 2, (7, 3))
    first, second = (load_reward(tiny_run[0], seed, condition) for seed in SEEDS)
    assert first(observations, actions).shape == (7, 3)
    assert np.isfinite(first(observations, actions)).all()
    assert (first(observations, actions) != second(observations, actions)).any()
    assert (first(observations, actions) != first(observations, 1 - actions)).any()
    np.testing.assert_allclose(first(observations[2, 1], actions[2, 1]), first(observations, actions)[2, 1], rtol=1e-5)


def test_loaded_reward_is_the_one_that_was_learnt_from(tiny_run, summary):
    """Its mean over steps is of the size that the run reports; another seed's or an untrained one's need not be."""
    reward = load_reward(tiny_run[0], 5)
    assert (reward(np.zeros((2, 4)), np.array([0, 1])) > 0).all() == (summary["rewards"]["rlhf"]["mean_reward"][0] > 0)


@pytest.mark.parametrize(("shape", "actions"), [((7, 5), (7,)), ((7, 4), (6,)), ((4,), (1,)), ((7, 4), ())])
def test_what_does_not_fit_a_reward_is_refused(shape, actions, tiny_run):
    with pytest.raises(ValueError, match="do not fit: for CartPole-v1 they are"):
        load_reward(tiny_run[0], 5)(np.zeros(shape), np.zeros(actions, int))


def test_rewards_that_are_not_there_are_refused(tiny_run, tmp_path):
    out, _ = tiny_run
    for arguments, words in [
        ((tmp_path / "none", 5), "none is not the folder of a run"),
        ((out, 7), "has no seed 7; it has 5, 6"),
        ((out,), "has several seeds, name one: 5, 6"),
        ((out, 5, "constant_reward"), "no reward of condition 'constant_reward'; it has inverse_rl, rlhf, rlhf_fixed"),
    ]:
        with pytest.raises(ValueError, match=words):
            load_reward(*arguments)
    damaged = shutil.copytree(out, tmp_path / "damaged")
    files = [path for path in (damaged / "rewards" / "rlhf").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:20])
    with pytest.raises(ValueError, match="damaged"):
        load_reward(damaged, 5)
    (damaged / "config.json").write_text('{"seeds": [5]}')
    with pytest.raises(ValueError, match="names no seeds or conditions"):
        load_reward(damaged, 5)


# Arguments after those of a tiny run, what the one line must name, and the exit status.
REFUSED = {
    "--seeds=0": (["--seeds", "0"], 2),
    "--algorithm=sarsa": (["--algorithm", "sarsa", "policy_gradient|ppo"], 2),
    "--resume": (["--resume", "start again"], 2),
    "--set=algorithm=ppo": (["--set algorithm", "decides"], 2),
    "--set=env=Pendulum-v1": (["'Pendulum-v1'", "CartPole-v1"], 2),
    "--set=data.trajectory=3": (["'data.trajectory'", "data.trajectories"], 2),
    "--set=epochs=0": (["epochs = 0", "at least 1"], 2),
    "--set=num_envs=7": (["epoch_steps = 40", "num_envs = 7"], 2),
    "--set=reward.l2=inf": (["reward.l2 = inf"], 2),
    "--out=taken": (["--out taken", "not empty"], 2),
    # Found out on the way.
    "--set=policy_gradient.learning_rate=1e38": (["best_checkpoint, seed 5", "NaN or infinite in epoch"], 1),
}


@pytest.fixture(scope="module")
def refusals(command_lines, tmp_path_factory):
    jobs = []
    for line in REFUSED:
        folder = tmp_path_factory.mktemp("refused")
        (folder / "taken").mkdir()
        (folder / "taken" / "notes.txt").write_text("precious")
        jobs.append({"module": "cartpole", "arguments": [*TINY, line], "folder": str(folder)})
    return dict(zip(REFUSED, zip(jobs, command_lines(jobs), strict=True), strict=True))


@pytest.mark.parametrize("line", REFUSED)
def test_bad_input_is_refused_in_one_line(line, refusals):
    job, (status, out, err) = refusals[line]
    words, expected = REFUSED[line]
    assert (status, out) == (expected, "")
    assert "Traceback" not in err
    said = [text for text in err.splitlines() if text.startswith("experiments.cartpole: ")]
    assert len(said) == 1 and all(word in said[0] for word in words), err
    if expected == 2:
        assert [path.name for path in Path(job["folder"]).rglob("*")] == ["taken", "notes.txt"]
