"""Experiments on images by their command lines: what they write, how they go on, and what they refuse."""

import json

import numpy as np
import pytest
import tiny
from PIL import Image, ImageSequence

from experiments import session

ITERATIONS, STEPS = 3, 12
SETTINGS = tiny.words(
    iterations=ITERATIONS,
    num_envs=2,
    rollout_length=STEPS,
    ppo__minibatches=2,
    ppo__epochs=1,
    labels__warmup=1,
    queries__segment_length=5,
    queries__candidates=1,
    reward__members=2,
    reward__batch_size=2,
)
LABELS = ["--labels", "6", "--seed", "3"]
GAME = "PongNoFrameskip-v4"
RUNS = {
    "moving_dot": ["moving_dot", "--seeds", "1", *LABELS, *SETTINGS],
    "minatar": ["minatar", "--seeds", "1", "--env", "Breakout-MinAtar", *LABELS, *SETTINGS],
    "atari": ["atari", "--seeds", "2", "--env", GAME, *LABELS, *SETTINGS],
}


@pytest.fixture(scope="module")
def runs(command_lines, tmp_path_factory):
    """The folder of a tiny run of each experiment, with what it wrote to standard output and error.

    That of Atari is stopped after the first iteration with labels, and resumed.
    """
    jobs, folder = {}, tmp_path_factory.mktemp("pixels")
    for name, (module, *arguments) in RUNS.items():
        arguments = [*arguments, "--out", name, *tiny.SHORT]
        jobs[name] = {"module": module, "arguments": arguments, "folder": str(folder)}
    jobs["stopped"] = jobs["atari"] | {"interrupt": "return (labels): labels_6"}
    jobs["atari"] |= {"arguments": ["--out", "atari", "--resume", *tiny.SHORT]}
    order = ["moving_dot", "minatar", "stopped", "atari"]
    done = dict(zip(order, command_lines([jobs[name] for name in order]), strict=True))
    for name, (status, _, err) in done.items():
        assert status == (name == "stopped"), f"{name}: {err[-2000:]}"
    return {name: (folder / name.replace("stopped", "atari"), out, err) for name, (_, out, err) in done.items()}


@pytest.mark.parametrize("name", RUNS)
def test_the_folder_is_that_of_figure_2(runs, name):
    folder, out, _ = runs[name]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["experiment"] == RUNS[name][0]
    seeds = [3, 4] if name == "atari" else [3]
    assert summary["seeds"] == seeds
    assert summary["env_steps_per_agent"] == ITERATIONS * 2 * STEPS
    assert list(summary["conditions"]) == ["true_reward", "labels_6"]
    assert [row["labels"] for row in summary["conditions"].values()] == [0, 6]
    assert all(len(row["eval_return"]) == len(seeds) for row in summary["conditions"].values())
    for condition in ("true_reward", "labels_6"):
        assert np.load(folder / condition / "returns.npy").shape == (len(seeds), ITERATIONS)
    assert "true_reward" in out and "summary.json" in out


@pytest.mark.parametrize("name", RUNS)
def test_pictures(runs, name):
    """Curves, and clips of both conditions."""
    folder, _, _ = runs[name]
    for file in ("returns.png", "predicted_returns.png", "labels.png"):
        assert Image.open(folder / file).size[0] > 600
    for condition in ("true_reward", "labels_6"):
        clip = Image.open(folder / f"{condition}.gif")
        # Equal frames in a row are one in the file, which lasts longer.
        shown = [(np.asarray(frame.convert("L")), frame.info["duration"]) for frame in ImageSequence.Iterator(clip)]
        assert sum(duration for _, duration in shown) > 500
        assert len(shown) > 1 and all(picture.std() > 1.0 for picture, _ in shown)


def test_only_moving_dot_tells_the_final_distance(runs):
    rows = {name: json.loads((runs[name][0] / "summary.json").read_text())["conditions"] for name in RUNS}
    for row in rows["moving_dot"].values():
        assert len(row["final_distance"]) == 1
        assert all(0 < distance < 132 for distance in row["final_distance"])
    assert all("final_distance" not in row for row in [*rows["minatar"].values(), *rows["atari"].values()])
    assert "final distance" in runs["moving_dot"][1]


def test_the_true_reward_is_a_program_without_a_buffer_or_an_ensemble(runs):
    config = json.loads((runs["moving_dot"][0] / "config.json").read_text())["conditions"]
    assert config["true_reward"]["labels"]["max_budget"] == 0
    assert config["labels_6"]["labels"]["max_budget"] == 6
    assert (config["true_reward"]["reward"]["members"], config["labels_6"]["reward"]["members"]) == (1, 2)


def test_a_stopped_run_of_atari_goes_on_in_new_games_and_says_so(runs):
    """What was trained is not trained again: all of the true reward, and an iteration with labels."""
    _, out, err = runs["stopped"]
    assert out == "" and err.endswith("go on with --out atari --resume\n")
    assert "stopped at iteration 1, which is saved" in err
    _, _, err = runs["atari"]
    assert err.count(session.GAMES_BEGIN_ANEW) == 1
    assert "the preference buffer of an agent takes" in err
    assert [f"iteration {i}/{ITERATIONS}" in err for i in (1, 2, 3)] == [False, True, True]


def test_the_benchmark_of_the_emulator_times_both_sides(command_lines, tmp_path):
    arguments = ["--env", GAME, "--games", "2", "--steps", "4", "--repeats", "2"]
    [[status, out, err]] = command_lines(
        [{"module": "benchmark_emulator", "arguments": arguments, "folder": str(tmp_path)}]
    )
    assert status == 0, err
    record = json.loads(out.splitlines()[-1])
    speed = record["steps_per_second"]
    assert record["env"] == GAME and [len(values) for values in (*speed.values(), record["ratio"])] == [2, 2, 2]
    np.testing.assert_allclose(record["ratio"], np.divide(speed["loop"], speed["emulator"]))
    assert not list(tmp_path.iterdir())


REFUSED = {
    "a game that is none": (["atari", "--env", "EnduroNoFramskip-v4"], "did you mean EnduroNoFrameskip-v4"),
    "a game to time": (["benchmark_emulator", "--env", "Enduro"], "did you mean EnduroNoFrameskip-v4"),
    "a game nearly": (["atari", "--env", "SeaqestNoFrameskip-v4"], "did you mean SeaquestNoFrameskip-v4"),
    "a game of others": (["minatar", "--env", "Tetris-MinAtar"], "Breakout-MinAtar"),
    "no label": (["moving_dot", "--labels", "0"], "positive whole numbers"),
    "an environment by --set": (["moving_dot", "--set", "env=Pendulum-v1"], "env has no say"),
    "labels for an untrained reward": (["minatar", "--set", "reward.frozen=true"], "reward.frozen has no say"),
    "dropout of all": (["moving_dot", "--set", "reward.dropout=1"], "below 1"),
    "dropout without images": (["pendulum", "--set", "reward.dropout=0.5"], "does not observe images"),
    "pooling without images": (["pendulum", "--set", "ppo.pooling=keypoints"], "does not observe images"),
    "another pooling": (["minatar", "--set", "reward.pooling=mean"], "none of none, keypoints, max"),
    "a buffer beyond all memory": (["moving_dot", "--labels", "100000000"], "free; ask for fewer --seeds"),
    "a resumed run with another game": (["atari", "--env", GAME, "--resume", "--out", "x"], "--env has no say"),
}


@pytest.fixture(scope="module")
def refused(command_lines, tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    jobs = [
        {"module": module, "arguments": arguments, "folder": str(folder)}
        for (module, *arguments), _ in REFUSED.values()
    ]
    return dict(zip(REFUSED, command_lines(jobs), strict=True)), folder


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line(refused, case):
    status, out, err = refused[0][case]
    last = err.strip().splitlines()[-1]
    assert status == 2, err
    assert REFUSED[case][1] in last
    assert out == ""
    assert not list(refused[1].iterdir())
