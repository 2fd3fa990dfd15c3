"""Runs of several programs by their command lines: ablations, label efficiency, sweeps; and what they refuse."""

import csv
import json

import numpy as np
import pytest
import tiny

from experiments import seed_statistics
from rlhf_jax import checkpoint, run_folder, settings
from rlhf_jax.config import TEACHER_PRESETS

ITERATIONS = tiny.STUDY_ITERATIONS
L2 = ("0.1", "0.2", "0.3")
TINY = tiny.STUDY
CONDITIONS = {
    "ablations": [
        "full",
        "random_queries",
        "no_ensemble",
        "no_online_queries",
        "no_regularisation",
        "no_segments",
        "target",
    ],
    "label_efficiency": [
        *(f"labels_{n}" for n in (6, 12)),
        *(f"disagreement/person_90/labels_{n}" for n in (6, 12)),
    ],
    "pendulum": [
        *(f"true_reward/ppo.learning_rate={rate}" for rate in ("1e-3", "3e-3")),
        *(f"labels_12/ppo.learning_rate={r},reward.l2={l2}" for r in ("1e-3", "3e-3") for l2 in L2),
    ],
}


@pytest.fixture(scope="module")
def studies(command_lines, tmp_path_factory):
    """One small run of each study, the ablations interrupted in their second program and gone on with."""
    folder = tmp_path_factory.mktemp("studies")
    sweeps = ["--sweep", "ppo.learning_rate=1e-3,3e-3", "--sweep", f"reward.l2={','.join(L2)}"]
    arguments = {
        "ablations": ["--labels", "12", "--seeds", "2", *TINY],
        "label_efficiency": ["--labels", "12,6", "--rules", "disagreement", "--seeds", "2", *TINY],
        "pendulum": ["--labels", "12", "--seeds", "1", *sweeps, *TINY],
    }
    jobs = [
        {"module": name, "arguments": [*words, "--out", name], "folder": str(folder)}
        for name, words in arguments.items()
    ]
    jobs[0]["interrupt"] = "program 2 of 4"
    everything = ["--rules", "uniform", "--teachers", "all", "--out", "all"]
    jobs.append(
        {"module": "label_efficiency", "arguments": everything, "folder": str(folder), "interrupt": "compiling"}
    )
    resume = {
        "module": "ablations",
        "arguments": ["--out", "ablations", "--resume", *tiny.SHORT],
        "folder": str(folder),
    }
    stopped, *others, _ = command_lines(jobs)
    programs = {path.name: checkpoint.latest(path) for path in (folder / "ablations" / "checkpoints").iterdir()}
    [resumed] = command_lines([resume])
    return folder, dict(zip(arguments, [resumed, *others], strict=True)), (stopped, programs)


@pytest.mark.parametrize("name", CONDITIONS)
def test_summary_and_arrays_are_there_for_every_condition(studies, name):
    folder, results, _ = studies
    assert results[name][0] == 0, results[name][2]
    summary = json.loads((folder / name / "summary.json").read_text())
    assert list(summary["conditions"]) == CONDITIONS[name]
    for condition, row in summary["conditions"].items():
        arrays = folder / name / condition
        np.testing.assert_allclose(np.load(arrays / "eval_returns.npy"), row["eval_return"], rtol=1e-6)
        assert np.load(arrays / "labels.npy").shape == (len(row["eval_return"]), ITERATIONS)
        assert (arrays / "judgement.npz").exists() != condition.startswith("true_reward")
        if not condition.startswith("true_reward"):
            assert row["reward"].keys() == dict(np.load(arrays / "judgement.npz")).keys()


def test_an_interrupted_run_goes_on_with_the_program_that_it_was_in(studies):
    _, results, (stopped, programs) = studies
    assert stopped[0] == 1 and "--resume" in stopped[2]
    assert programs["program_0"] == ITERATIONS
    assert programs.get("program_1", 0) in (0, None) or programs["program_1"] < ITERATIONS
    assert "going on from iteration 12 of 12" in results["ablations"][2]
    assert results["ablations"][2].count("compiling") == 3


def test_metrics_have_every_iteration_of_every_condition_once(studies):
    folder, *_ = studies
    rows = [json.loads(line) for line in (folder / "ablations" / "metrics.jsonl").read_text().splitlines()]
    seen = [(row["condition"], row["iteration"]) for row in rows]
    assert sorted(seen) == sorted((name, i) for name in CONDITIONS["ablations"] for i in range(1, ITERATIONS + 1))


def test_label_efficiency_has_every_combination_but_the_defaults_once(studies):
    run = run_folder.load(studies[0] / "all")
    budgets = [25, 50, 100, 200, 350, 700, 1400]
    expected = [f"labels_{n}" for n in budgets]
    for rule in ("disagreement", "uniform"):
        teachers = [teacher for teacher in TEACHER_PRESETS if (rule, teacher) != ("disagreement", "oracle")]
        expected += [f"{rule}/{teacher}/labels_{n}" for teacher in teachers for n in budgets]
    assert list(run.conditions) == expected
    lane = run.conditions["uniform/person_90/labels_50"]
    assert (lane.queries.selection, lane.labels.budget, lane.labels.max_budget) == ("uniform", 50, 1400)
    assert (
        lane.teacher == TEACHER_PRESETS["person_90"]
        and run.conditions["labels_50"].teacher == TEACHER_PRESETS["oracle"]
    )


def test_ablations_are_what_they_are_called(studies):
    full, *others = run_folder.load(studies[0] / "ablations").conditions.values()
    flat = settings.to_dict(full, flat=True)
    changed = [{k: v for k, v in settings.to_dict(other, flat=True).items() if v != flat[k]} for other in others]
    assert changed == [
        {"queries.random_share": 1.0},
        {"queries.random_share": 1.0, "reward.members": 1, "reward.bootstrap": False},
        {"labels.initial_fraction": 1.0},
        {"reward.l2": 0.0, "reward.l2_adaptation": 1.0},
        {"queries.segment_length": 1},
        {"reward.targets": True},
    ]


def test_no_online_queries_asks_everything_before_training(studies):
    labels = {name: np.load(studies[0] / "ablations" / name / "labels.npy") for name in ("full", "no_online_queries")}
    assert (labels["no_online_queries"][:, 1] == 12).all()
    assert (labels["full"][:, 1] == 3).all() and (labels["full"][:, -1] == 12).all()


def test_ablations_say_how_often_each_is_better(studies):
    folder, results, _ = studies
    summary = json.loads((folder / "ablations" / "summary.json").read_text())["conditions"]
    assert summary["full"]["improvement"] is None
    for name, row in summary.items():
        if name != "full":
            better, *interval = seed_statistics.improvement(row["eval_return"], summary["full"]["eval_return"])
            assert row["improvement"] == pytest.approx(better)
            assert row["improvement_ci95"] == pytest.approx(interval)
            assert f"{better:.2f} [" in results["ablations"][1]
        returns = np.load(folder / "ablations" / name / "returns.npy")
        np.testing.assert_allclose(row["training_return"], np.nanmean(returns, 1), rtol=1e-6)


@pytest.mark.parametrize("name", CONDITIONS)
def test_table_has_a_line_for_every_agent(studies, name):
    folder = studies[0] / name
    run = run_folder.load(folder)
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["condition"], int(row["seed"])) for row in rows] == [(c, s) for c in run.conditions for s in run.seeds]
    summary = json.loads((folder / "summary.json").read_text())["conditions"]
    for row in rows:
        agent = run.seeds.index(int(row["seed"]))
        returns = np.load(folder / row["condition"] / "eval_returns.npy")
        assert float(row["eval_return"]) == pytest.approx(returns[agent], rel=1e-6)
        exploring = summary[row["condition"]]["exploring_return"][agent]
        assert float(row["exploring_return"]) == pytest.approx(exploring, rel=1e-6) != pytest.approx(returns[agent])


def test_swept_values_reach_their_agents(studies):
    with (studies[0] / "pendulum" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    learning = [(float(row["ppo.learning_rate"]), float(row["reward.l2"])) for row in rows if row["labels"] == "12"]
    assert learning == [(rate, float(l2)) for rate in (0.001, 0.003) for l2 in L2]
    assert len({row["eval_return"] for row in rows}) == len(rows)


def test_agents_of_any_program_can_be_loaded(studies):
    for condition in ("random_queries", "no_segments"):
        config, state = run_folder.load_state(studies[0] / "ablations", condition, 1)
        assert state.preferences.observation.shape[2] == config.queries.segment_length


@pytest.mark.parametrize("name, pictures", [("ablations", 2), ("label_efficiency", 1), ("pendulum", 1)])
def test_figures_are_drawn(studies, name, pictures):
    assert len(list((studies[0] / name).glob("*.png"))) == pictures


REFUSED = {
    "a setting that an ablation is about": ("ablations", ["--set", "reward.l2=0"], "reward.l2"),
    "no labels": ("ablations", ["--labels", "0"], "--labels"),
    "an unknown rule": ("label_efficiency", ["--rules", "guess"], "k_centre"),
    "an unknown teacher": ("label_efficiency", ["--teachers", "cat"], "person_90"),
    "a budget that is no number": ("label_efficiency", ["--labels", "many"], "many"),
    "a teacher by --set": ("label_efficiency", ["--set", "teacher.tie_band=1"], "--teachers"),
    "a sweep without values": ("pendulum", ["--sweep", "reward.l2"], "path=value,value"),
    "a sweep with a value twice": ("pendulum", ["--sweep", "reward.l2=1,1"], "twice"),
    "a sweep of an unknown setting": ("pendulum", ["--sweep", "reward.l3=1,2"], "reward.l2"),
    "a sweep of a wrong value": ("pendulum", ["--sweep", "reward.l2=1,-2"], "reward.l2 = -2"),
    "a sweep of what all share": ("pendulum", ["--sweep", "iterations=30,60"], "iterations"),
    "a setting swept and set": ("pendulum", ["--sweep", "reward.l2=1,2", "--set", "reward.l2=3"], "--set and --sweep"),
    "a setting swept twice": ("pendulum", ["--sweep", "reward.l2=1,2", "--sweep", "reward.l2=3,4"], "twice"),
    "a sweep that no agent would notice": ("train", ["--reward", "true", "--sweep", "reward.l2=1,2"], "reward.l2"),
    "an unknown selection": ("pendulum", ["--set", "queries.selection=guess"], "information_gain"),
    "an unknown schedule": ("pendulum", ["--set", "labels.schedule=never"], "inverse_quadratic"),
    "a sweep with --resume": ("pendulum", ["--sweep", "reward.l2=1,2", "--resume", "--out", "x"], "--sweep"),
}


@pytest.fixture(scope="module")
def refused(command_lines, tmp_path_factory):
    """What each of them says, and the folder that they were run in."""
    folder = tmp_path_factory.mktemp("refused")
    jobs = [{"module": name, "arguments": words, "folder": str(folder)} for name, words, _ in REFUSED.values()]
    return folder, dict(zip(REFUSED, command_lines(jobs), strict=True))


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_gets_one_line_and_writes_nothing(refused, case):
    folder, said = refused
    status, out, err = said[case]
    last = err.strip().splitlines()[-1]
    assert status == 2 and not out
    assert REFUSED[case][2] in last and "Traceback" not in err
    assert not list(folder.iterdir())
