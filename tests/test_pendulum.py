"""The main experiment by its command line: what it writes and refuses, how it stops and goes on."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from gymnasium_pendulum import pendulums, play
from PIL import Image

import rlhf_jax
from experiments import seed_statistics
from rlhf_jax import checkpoint, run_folder, settings

ROOT = Path(__file__).parents[1]
ITERATIONS, CHUNK = 24, 2  # of a run, and between two lines of progress
STEPS = 4 * 40  # of an iteration
STOP = 6  # the iteration after which a run is interrupted
CONDITIONS = {"true_reward": 0, "labels_6": 6, "labels_12": 12}
SEEDS = [5, 6]
SETTINGS = {
    "iterations": ITERATIONS,
    "num_envs": 4,
    "rollout_length": 40,
    "labels.warmup": 3,
    "queries.segment_length": 10,
    "queries.candidates": 2,
    "ppo.hidden": 8,
    "ppo.epochs": 1,
    "ppo.minibatches": 2,
    "reward.hidden": 8,
    "reward.fit_steps": 2,
    "reward.batch_size": 4,
    "reward.reference_size": 8,
}
TINY = ["--seeds", "2", "--seed", "5", "--labels", "12,6"] + [
    word for path, value in SETTINGS.items() for word in ("--set", f"{path}={value}")
]
ARRAYS = ["returns", "predicted_returns", "labels", "env_steps", "eval_returns"]


def snapshot(folder):
    """Everything under a folder: names and contents."""
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


def strict_json(text):
    """The value of a JSON text without NaN and infinities, which JSON does not have."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def tiny_run(environment, tmp_path_factory):
    """A whole run of few iterations and small networks: its folder and the finished process."""
    out = tmp_path_factory.mktemp("tiny") / "run"
    command = [sys.executable, "-m", "experiments.pendulum", *TINY, "--out", str(out)]
    all_devices = {name: value for name, value in environment.items() if name != "JAX_NUM_CPU_DEVICES"}
    done = subprocess.run(command, cwd=ROOT, env=all_devices, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return out, done


@pytest.fixture(scope="module")
def stopped_runs(tiny_run, command_lines, tmp_path_factory):
    """A tiny run interrupted and gone on with, one interrupted early, one that overflows: folders and results."""
    folder = tmp_path_factory.mktemp("stopped")
    jobs = {
        "interrupted": {"arguments": TINY, "interrupt": f"iteration {STOP}/"},
        "early": {"arguments": [*TINY, "--out=early"], "interrupt": "compiling"},
        "overflow": {"arguments": [*TINY, "--set=ppo.learning_rate=1e30", "--out=overflow"]},
    }
    shared = {"module": "pendulum", "folder": str(folder), "all_devices": True}
    done = command_lines([job | shared for job in jobs.values()])
    results = dict(zip(jobs, done, strict=True))
    (out,) = (folder / "results" / "pendulum").iterdir()
    shutil.copytree(out, folder / "as_interrupted")
    [results["resumed"]] = command_lines([shared | {"arguments": ["--out", str(out), "--resume"]}])
    return {"interrupted": folder / "as_interrupted", "resumed": out, "overflow": folder / "overflow"}, results


def test_run_folder_holds_every_file(tiny_run):
    out, _ = tiny_run
    expected = {"figure2.png", "true_reward.gif", "labels_12.gif", "config.json", "metrics.jsonl", "summary.json"}
    expected.add("table.csv")
    assert expected <= {path.name for path in out.iterdir() if path.is_file()}
    assert {path.name for path in out.iterdir() if path.is_dir()} == {*CONDITIONS, "checkpoints"}
    assert checkpoint.latest(out / "checkpoints") == ITERATIONS
    for name in CONDITIONS:
        arrays = {path.stem: np.load(path) for path in (out / name).glob("*.npy")}
        assert set(ARRAYS) < set(arrays)
        assert any(key.startswith("reward_") for key in arrays)
        judged = {key: arrays.pop(key).shape for key in ("reliability", "reward_map") if key in arrays}
        given = name == "true_reward"
        assert judged == ({} if given else {"reliability": (len(SEEDS), 10, 3), "reward_map": (len(SEEDS), 65, 65)})
        for key, array in arrays.items():
            seeds = () if key == "env_steps" else (len(SEEDS),)
            points = () if key == "eval_returns" else (ITERATIONS,)
            assert array.shape == seeds + points, key


def test_arrays_say_what_happened(tiny_run):
    out, _ = tiny_run
    for name, budget in CONDITIONS.items():
        arrays = {key: np.load(out / name / f"{key}.npy") for key in ARRAYS}
        np.testing.assert_array_equal(arrays["env_steps"], STEPS * np.arange(1, ITERATIONS + 1))
        assert (arrays["labels"][:, -1] == budget).all() and (np.diff(arrays["labels"]) >= 0).all()
        # Episodes of 200 steps end in every fifth rollout of 40; in between there is no return.
        ended = np.arange(1, ITERATIONS + 1) % 5 == 0
        np.testing.assert_array_equal(np.isnan(arrays["returns"]), np.tile(~ended, (2, 1)))
        assert (arrays["returns"][:, ended] < -100).all() and (arrays["returns"][:, ended] > -2000).all()
        assert np.isfinite(arrays["predicted_returns"]).all()
        assert arrays["eval_returns"][0] != arrays["eval_returns"][1]


def test_summary_has_exactly_the_documented_keys(tiny_run):
    summary = strict_json((tiny_run[0] / "summary.json").read_text())
    keys = "experiment device seeds env_steps_per_agent wall_seconds cpu_seconds optimum conditions"
    assert set(summary) == set(keys.split())
    assert set(summary["wall_seconds"]) == {"import", "compile", "train", "evaluate", "total"}
    assert list(summary["conditions"]) == list(CONDITIONS)
    keys = {
        "labels",
        "eval_return",
        "exploring_return",
        "mean",
        "iqm",
        "ci95",
        "normalised",
        "reward_accuracy",
        "reward_correlation",
        "reward",
        "tie_rate",
        "silence_rate",
        "alarms",
    }
    assert all(set(row) == keys for row in summary["conditions"].values())


def test_summary_adds_up(tiny_run):
    out, _ = tiny_run
    summary = json.loads((out / "summary.json").read_text())
    assert summary["experiment"] == "pendulum" and summary["seeds"] == SEEDS and "cpu" in summary["device"]
    assert summary["env_steps_per_agent"] == STEPS * ITERATIONS and summary["optimum"] == -137.8
    seconds = summary["wall_seconds"]
    assert all(value > 0 for value in seconds.values()) and summary["cpu_seconds"] > 0
    assert seconds["total"] >= sum(seconds.values()) - seconds["total"]
    for name, row in summary["conditions"].items():
        returns = np.load(out / name / "eval_returns.npy")
        np.testing.assert_allclose(row["eval_return"], returns, rtol=1e-6)
        assert row["labels"] == CONDITIONS[name]
        assert row["mean"] == pytest.approx(returns.mean(), rel=1e-6)
        assert row["iqm"] == pytest.approx(seed_statistics.interquartile_mean(returns), rel=1e-6)
        assert returns.min() - 0.01 <= row["ci95"][0] <= row["ci95"][1] <= returns.max() + 0.01
        assert row["normalised"] == pytest.approx((row["mean"] + 1231) / (1231 - 137.8), rel=1e-6)
        judged = row["reward_accuracy"], row["reward_correlation"]
        if name == "true_reward":
            assert judged == (None, None)
        else:
            assert 0 <= judged[0] <= 1 and -1 <= judged[1] <= 1


def test_metrics_are_a_line_of_strict_json_for_each_iteration_and_condition(tiny_run):
    out, _ = tiny_run
    rows = [strict_json(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == ITERATIONS * len(CONDITIONS)
    for name in CONDITIONS:
        mine = [row for row in rows if row["condition"] == name]
        assert [row["iteration"] for row in mine] == list(range(1, ITERATIONS + 1))
        for key, file in (("return", "returns"), ("labels", "labels"), ("predicted_return", "predicted_returns")):
            values = np.array([row[key] for row in mine], float).T  # None becomes NaN
            np.testing.assert_allclose(values, np.load(out / name / f"{file}.npy"), rtol=1e-6)
        assert all(len(value) == 2 for row in mine for value in row.values() if isinstance(value, list))


def test_pictures_open(tiny_run):
    out, _ = tiny_run
    with Image.open(out / "figure2.png") as figure:
        assert figure.format == "PNG" and min(figure.size) >= 400
        colours = np.unique(np.asarray(figure.convert("RGB")).reshape(-1, 3), axis=0)
        assert len(colours) > 20
    for name in ("true_reward", "labels_12"):
        with Image.open(out / f"{name}.gif") as clip:
            assert clip.format == "GIF" and clip.n_frames >= 50 and min(clip.size) >= 64
            first = np.asarray(clip.convert("RGB")).astype(int)
            clip.seek(clip.n_frames // 2)
            assert np.abs(np.asarray(clip.convert("RGB")) - first).max() > 50
    assert (out / "true_reward.gif").read_bytes() != (out / "labels_12.gif").read_bytes()


def test_config_holds_every_value_in_force(tiny_run):
    record = strict_json((tiny_run[0] / "config.json").read_text())
    assert record["seeds"] == SEEDS and "cpu" in record["device"] and record["packages"]["jax"] == jax.__version__
    run = run_folder.load(tiny_run[0])
    for name, budget in CONDITIONS.items():
        flat = settings.to_dict(run.conditions[name], flat=True)
        assert set(flat) == set(settings.paths(rlhf_jax.Config()))
        assert flat["use_true_reward"] == (budget == 0)
        assert flat["labels.budget"] == budget and flat["labels.max_budget"] == 12
        for path, value in SETTINGS.items():
            assert flat[path] == ((value,) if path.endswith("hidden") else value)


def test_output_ends_with_the_table_and_the_paths(tiny_run):
    out, done = tiny_run
    summary = json.loads((out / "summary.json").read_text())
    lines = done.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("condition"))
    for line, (name, row) in zip(lines[start + 1 :], summary["conditions"].items(), strict=False):
        cells = line.replace("[", " ").replace(",", " ").replace("]", " ").split()
        assert cells[:3] == [name, str(row["labels"]), f"{row['mean']:.1f}"]
        for value in (row["iqm"], *row["ci95"], min(row["eval_return"])):
            assert f"{value:.1f}" in cells
        assert f"{np.mean(row['exploring_return']):.3f}" in cells
    paths = [Path(line) for line in lines[-5:]]
    files = {"figure2.png", "true_reward.gif", "labels_12.gif", "summary.json"}
    assert set(paths) == {out, *(out / name for name in files)}


def test_says_at_once_what_it_is_doing_and_nothing_else(tiny_run):
    _, done = tiny_run
    lines = done.stderr.splitlines()
    progress = [line for line in lines if "iteration " in line and "left" in line]
    assert len(progress) == ITERATIONS // CHUNK
    for i, line in enumerate(progress, 1):
        assert f"iteration {CHUNK * i}/{ITERATIONS}" in line and all(name in line for name in CONDITIONS)
    assert "labels_12" in progress[-1] and "(12)" in progress[-1]
    others = [line for line in lines if line not in progress]
    for word in ("compiling", "training", "evaluating"):
        assert any(word in line for line in others)
    assert len(others) <= 6, others  # one for each phase; no warnings of libraries


def test_interrupted_run_saves_and_says_how_to_go_on(stopped_runs):
    folders, results = stopped_runs
    status, out, err = results["interrupted"]
    assert status == 1 and out == ""
    last = err.splitlines()[-1]
    assert f"iteration {STOP}" in last and "--resume" in last
    named = last.partition("--out ")[2].split()[0]
    assert folders["resumed"].name == Path(named).name
    assert "Traceback" not in err
    assert checkpoint.latest(folders["interrupted"] / "checkpoints") == STOP
    assert not (folders["interrupted"] / "summary.json").exists()


def test_run_interrupted_before_its_first_checkpoint_says_how_to_go_on(stopped_runs):
    status, out, err = stopped_runs[1]["early"]
    assert status == 1 and out == "" and "Traceback" not in err
    assert "--out early --resume" in err.splitlines()[-1]


def test_resumed_run_ends_in_the_same_arrays_bit_for_bit(stopped_runs, tiny_run):
    folders, results = stopped_runs
    status, out, err = results["resumed"]
    assert status == 0, err
    assert f"iteration {STOP} of {ITERATIONS}" in err and "labels_12" in out
    for name in CONDITIONS:
        for file in sorted((tiny_run[0] / name).glob("*.npy")):
            assert (folders["resumed"] / name / file.name).read_bytes() == file.read_bytes(), file
    whole, parts = ((folder / "metrics.jsonl").read_text() for folder in (tiny_run[0], folders["resumed"]))
    assert whole == parts
    before, after = ((folders[name] / "config.json").read_text() for name in ("interrupted", "resumed"))
    assert before == after
    whole, parts = (json.loads((folder / "summary.json").read_text()) for folder in (tiny_run[0], folders["resumed"]))
    assert whole["conditions"] == parts["conditions"]


def test_overflow_stops_the_run_with_iteration_and_agent(stopped_runs):
    folders, results = stopped_runs
    status, out, err = results["overflow"]
    assert status == 1 and out == "" and "Traceback" not in err
    last = err.splitlines()[-1]
    # The policy is first improved in iteration 4, the second of its chunk; all agents overflow at once.
    assert "iteration 4" in last and "true_reward, seed 5" in last and "NaN" in last
    assert "checkpoint is iteration 2" in last
    assert checkpoint.latest(folders["overflow"] / "checkpoints") == 2
    act = run_folder.load_policy(folders["overflow"], "labels_12", 6)
    assert np.isfinite(act(np.eye(3, dtype=np.float32))).all()


# Arguments after those of a tiny run, or alone to resume, and what the one line must name. `prepare` makes the folders.
REFUSED = {
    "--seeds=0": ["--seeds", "0"],
    "--seeds=-3": ["--seeds", "-3"],
    "--seeds=many": ["--seeds", "many"],
    "--seed=-1": ["--seed", "-1"],
    "--seed=4294967295": ["--seed", "4294967295"],
    "--labels=0": ["--labels 0", "positive"],
    "--labels=-350": ["--labels -350", "positive"],
    "--labels=350,few": ["350,few", "positive"],
    "--labels=350,,700": ["350,,700", "positive"],
    "--labels=": ["--labels", "positive"],
    "--labels=3.5": ["3.5", "positive"],
    "--learning_rate=3": ["learning_rate"],
    "fast": ["'fast'", "--help"],
    "--set=ppo.learning_rat=1": ["'ppo.learning_rat'", "ppo.learning_rate"],
    "--set=ppo.learning_rate=fast": ["ppo.learning_rate", "'fast'", "float"],
    "--set=ppo.learning_rate": ["'ppo.learning_rate'", "path=value"],
    "--set=iterations=0": ["iterations = 0", "at least 1"],
    "--set=ppo.minibatches=7": ["160", "divisible", "7"],
    "--set=queries.segment_length=500": ["queries.segment_length = 500", "200"],
    "--set=labels.warmup=24": ["labels.warmup = 24", "iterations = 24"],
    "--set=labels.half_life=inf": ["labels.half_life = inf"],
    "--set=labels.budget=5": ["labels.budget", "has no say"],
    "--set=reward.frozen=true": ["reward.frozen", "has no say"],
    "--set=use_true_reward=true": ["use_true_reward"],
    "--set=env=Pendulum-v9": ["'Pendulum-v9'", "Pendulum-v1"],
    "--set=env=Breakout-MinAtar": ["Breakout-MinAtar", "Pendulum-v1"],
    "--out=file": ["--out file", "cannot be written"],
    "--out=file/run": ["--out file/run", "cannot be written"],
    "--out=taken": ["--out taken", "not empty"],
    "--resume": ["--resume", "--out"],
    "--resume --out=missing": ["missing", "config.json"],
    "--resume --out=taken": ["taken", "config.json"],
    "--resume --out=garbled": ["garbled", "config.json"],
    "--resume --out=older": ["older, of experiments.pendulum", "members"],
    "--resume --out=damaged": ["checkpoint 24", "damaged"],
    "--resume --out=foreign": ["checkpoint 24", "another program"],
}


def prepare(folder, finished):
    """Fills a folder with things that a run must not overwrite or cannot go on with."""
    (folder / "file").write_text("precious")
    (folder / "taken").mkdir()
    (folder / "taken" / "notes.txt").write_text("precious")
    (folder / "garbled").mkdir()
    (folder / "garbled" / "config.json").write_text('{"conditions": ')
    for name in ("older", "damaged", "foreign"):
        shutil.copytree(finished, folder / name)
    record = json.loads((finished / "config.json").read_text())
    for conditions in record["conditions"].values():
        conditions["ppo"]["hidden"] = [9]
    (folder / "foreign" / "config.json").write_text(json.dumps(record))
    del record["conditions"]["labels_6"]["reward"]["members"]
    (folder / "older" / "config.json").write_text(json.dumps(record))
    largest = max((folder / "damaged" / "checkpoints").rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])


@pytest.fixture(scope="module")
def refusals(tiny_run, command_lines, tmp_path_factory):
    """For each line, and for --help: its result, and everything in its folder before and after."""
    jobs, before = [], []
    for line in (*REFUSED, "--help"):
        folder = tmp_path_factory.mktemp("refused")
        prepare(folder, tiny_run[0])
        alone = line.startswith(("--resume", "--help"))
        arguments = line.split() if alone else [*TINY, *line.split()]
        jobs.append({"module": "pendulum", "arguments": arguments, "folder": str(folder)})
        before.append(snapshot(folder))
    results = command_lines(jobs)
    after = [snapshot(Path(job["folder"])) for job in jobs]
    return {line: case for line, *case in zip((*REFUSED, "--help"), results, before, after, strict=True)}


@pytest.mark.parametrize("line", REFUSED)
def test_bad_input_is_refused_in_one_line_before_anything_is_compiled_or_written(line, refusals):
    (status, out, err), before, after = refusals[line]
    assert after == before
    assert out == ""
    # What is being started is said first; absl adds where to find help.
    said = [text for text in err.splitlines() if text != "starting" and not text.startswith("Pass --help")]
    assert len(said) == 1, err
    assert all(word in said[0] for word in REFUSED[line])
    assert status == 2


def test_help_explains_every_flag(refusals):
    (_, out, _), before, after = refusals["--help"]
    assert after == before
    for flag in ("--seeds", "--labels", "--out", "--set", "--seed", "--[no]resume"):
        explanation = out.partition(f"{flag}:")[2].strip().splitlines()[0]
        assert len(explanation.split()) >= 3, flag


@pytest.mark.parametrize("condition", ["true_reward", "labels_12"])
def test_policy_of_a_run_acts_in_gymnasium_as_in_the_evaluation(condition, tiny_run):
    out, _ = tiny_run
    act = run_folder.load_policy(out, condition, 6)
    returns = play(act, *pendulums(8))
    expected = np.load(out / condition / "eval_returns.npy")[1]
    # Returns of an untrained policy scatter by about 300; 8 episodes against the mean of 512.
    assert abs(returns.mean() - expected) < 4 * returns.std(ddof=1) / np.sqrt(8)
