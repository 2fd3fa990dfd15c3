"""The method piece by piece, by command lines: gather, export, import, fit, train, replay, show; what they refuse."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
import pytest
import scripted_labeller
import tiny
from PIL import Image

import rlhf_jax
from rlhf_jax import bradley_terry, ppo, reward_ensemble, run_folder
from rlhf_jax.labelling import labels_file, pairs
from rlhf_jax.labelling.label_store import LabelStore

ROOT = Path(__file__).parents[1]
TINY = {
    "num_envs": 4,
    "rollout_length": 40,
    "queries.segment_length": 10,
    "queries.candidates": 2,
    "ppo.hidden": 8,
    "ppo.minibatches": 2,
    "reward.hidden": 8,
    "reward.fit_steps": 2,
    "reward.batch_size": 4,
    "reward.reference_size": 8,
}
LABELS, MORE, ITERATIONS = 20, 6, 8


def words(*names, **more):
    """Settings as arguments; all of the tiny ones, or those of these names."""
    chosen = {name: value for name, value in TINY.items() if not names or name in names} | more
    return [word for path, value in chosen.items() for word in ("--set", f"{path}={value}")]


GATHER = words(**{"labels.warmup": 2})
FIT = [*words("num_envs", "rollout_length", "ppo.hidden", "ppo.minibatches", "reward.hidden"), "--rounds", "24"]
TRAIN = words(*(name for name in TINY if name not in ("queries.segment_length", "reward.hidden")))
TRAIN += ["--set", f"iterations={ITERATIONS}", "--set", "labels.warmup=1", "--seeds", "2", "--seed", "5"]

ERRING = ["--set", "teacher.error_rate=1"]

CHAIN = {
    "gather": ["gather", "--labels", str(LABELS), *GATHER, "--out", "gathered"],
    "cart": ["gather", "--env", "CartPole-v1", *ERRING, "--labels", str(LABELS), *GATHER, "--out", "cart"],
    "export": ["labels", "export", "gathered", "labels.npz"],
    "import": ["labels", "import", "labels.npz", "imported"],
    "again": ["labels", "import", "labels.npz", "imported"],
    "fit": ["fit", "imported", "labels.npz", *FIT, "--out", "fitted"],
    "frozen": ["train", "--reward", "fitted", *TRAIN, *tiny.SHORT, "--out", "frozen"],
    "stopped": ["train", "--reward", "fitted", "--nofrozen", "--labels", str(MORE), *TRAIN, *tiny.SHORT, "--out", "on"],
    "on": ["train", "--out", "on", "--resume", *tiny.SHORT],
    "true": ["train", "--env", "CartPole-v1", *TRAIN, *tiny.SHORT, "--set", "reward.hidden=8", "--out", "true"],
    "replay": ["replay", "on", "--seed", "6", "--episodes", "2", "--steps", "30"],
    "cartpole": ["replay", "true", "--seed", "5"],
    "show": ["labels", "show", "fitted", "--pairs", "1,3-5"],
    "imported": ["labels", "show", "imported", "--pairs", "2", "--out", "two.gif"],
}


def job(folder, line):
    """A command line in a folder, for `command_lines`."""
    return {"module": line[0], "arguments": line[1:], "folder": str(folder)}


@pytest.fixture(scope="module")
def chain(command_lines, tmp_path_factory):
    """All the pieces, one after the other: their folder and their results."""
    folder = tmp_path_factory.mktemp("pieces")
    jobs = {name: job(folder, line) for name, line in CHAIN.items()}
    # What is gathered is compared with what this process makes of the same keys.
    jobs["gather"]["xla_flags"] = tiny.SOME_OPTIMISATION
    jobs["stopped"]["interrupt"] = "compiling"
    results = dict(zip(CHAIN, command_lines(list(jobs.values())), strict=True))
    for name, (status, _, err) in results.items():
        assert status == (name == "stopped"), f"{name}: {err}"
    return folder, results


def test_gathered_labels_are_those_of_the_true_reward(chain):
    folder, results = chain
    labels = labels_file.load(folder / "gathered")
    assert len(labels.records) == LABELS and labels.source.env == "Pendulum-v1"
    returns = labels.records["true_reward"].sum(-1)
    np.testing.assert_array_equal(labels.label, 0.5 + 0.5 * np.sign(returns[:, 0] - returns[:, 1]))
    assert {answer.labeller for answer in labels.answers} == {"synthetic"} and 0 < labels.swapped.sum() < LABELS
    assert labels.iteration.tolist() == [0] * 10 + [1] * 10
    assert [answer.probability is None for answer in labels.answers] == [True] * 10 + [False] * 10
    assert f"{LABELS} answers: " in results["gather"][1]
    # A pole that stands is worth as much at any step, so without errors these would all be ties.
    assert set(labels_file.load(folder / "cart").label) == {0.0, 1.0}


def test_gathering_is_the_beginning_of_the_compiled_training(chain):
    folder, _ = chain
    config, state = run_folder.load_state(folder / "gathered")
    env = rlhf_jax.make(config.env)
    begin = lambda key: rlhf_jax.init(key, env=env, config=config)  # noqa: E731
    whole = jax.jit(lambda key: rlhf_jax.advance(begin(key), 2, env=env, config=config))
    expected, _ = whole(jax.random.key(0))
    for name in ("observation", "action", "label", "filled", "multiplicity", "added"):
        np.testing.assert_array_equal(getattr(state.preferences, name), getattr(expected.preferences, name))
    assert int(state.iteration) == 2
    records = labels_file.load(folder / "gathered").records
    np.testing.assert_array_equal(records["observation"], state.preferences.observation)


def test_exported_labels_arrive_elsewhere(chain):
    folder, results = chain
    first, second = (labels_file.load(folder / name) for name in ("gathered", "imported"))
    assert first.records.tobytes() == second.records.tobytes() and first.source.run != second.source.run
    assert first.answers == second.answers
    assert f"{LABELS} of {LABELS} rows" in results["import"][1] and f"0 of {LABELS} rows" in results["again"][1]


def test_fit_holds_the_labels_and_has_learnt_from_them(chain):
    folder, results = chain
    config, state = run_folder.load_state(folder / "fitted")
    labels = labels_file.load(folder / "fitted")
    assert len(labels.records) == LABELS == config.labels.max_budget  # though it was given them twice
    assert int(state.iteration) == 0 and int(state.preferences.added) == LABELS
    np.testing.assert_array_equal(state.preferences.label, labels.label)
    np.testing.assert_array_equal(state.preferences.observation, labels.records["observation"])
    steps = labels.records["observation"].reshape(-1, 3)
    for moments in (state.agent.observation, state.ensemble.observation):
        np.testing.assert_allclose(moments.mean, steps.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(moments.std, steps.std(0), rtol=1e-4)
    with closing(LabelStore(folder / "fitted" / "labels.sqlite")) as store:
        assert store.learnt() == list(range(1, LABELS + 1))
    rows = [json.loads(line) for line in (folder / "fitted" / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == list(range(1, 25))
    summary = json.loads((folder / "fitted" / "summary.json").read_text())
    assert summary["labels"] == LABELS and summary["rounds"] == 24
    assert summary["fit"]["train_loss"] == pytest.approx(np.mean([row["train_loss"] for row in rows[-20:]]), rel=1e-5)
    assert f"{LABELS} labels" in results["fit"][1] and "accuracy" in results["fit"][1]


@pytest.mark.parametrize("name, labels", [("frozen", LABELS), ("on", LABELS + MORE)])
def test_training_starts_with_the_stored_reward_which_stays_or_learns_on(name, labels, chain):
    folder, _ = chain
    _, before = run_folder.load_state(folder / "fitted")
    for seed in (5, 6):
        config, after = run_folder.load_state(folder / name, f"labels_{labels}", seed)
        assert int(after.iteration) == ITERATIONS and config.reward.frozen == (name == "frozen")
        assert int(after.preferences.added) == labels == after.preferences.label.shape[0]
        known = before.preferences.label.shape[0]
        np.testing.assert_array_equal(after.preferences.observation[:known], before.preferences.observation)
        np.testing.assert_array_equal(after.preferences.multiplicity[:, :known], before.preferences.multiplicity)
        same = [
            np.array_equal(a, b)
            for a, b in zip(jax.tree.leaves(before.ensemble), jax.tree.leaves(after.ensemble), strict=True)
        ]
        assert not any(same) if name == "on" else all(same)
        assert not np.array_equal(
            after.agent.actor["params"]["Dense_0"]["kernel"], before.agent.actor["params"]["Dense_0"]["kernel"]
        )
    summary = json.loads((folder / name / "summary.json").read_text())
    assert summary["conditions"][f"labels_{labels}"]["labels"] == labels and summary["seeds"] == [5, 6]


def test_training_interrupted_before_it_began_goes_on_with_the_stored_reward(chain):
    """What it goes on from is asked by `test_training_starts_with_the_stored_reward_which_stays_or_learns_on`."""
    _, results = chain
    status, out, err = results["stopped"]
    assert (status, out) == (1, "") and err.splitlines()[-1].endswith("--out on --resume")
    assert "starting with the reward of fitted" in err and "iteration 1/" not in err


def test_true_reward_is_trained_on_any_environment(chain):
    folder, results = chain
    config, state = run_folder.load_state(folder / "true", "true_reward", 5)
    assert config.use_true_reward and config.env == "CartPole-v1" and int(state.preferences.added) == 0
    assert "true_reward" in results["true"][1]
    assert {path.name for path in (folder / "true").glob("*.*")} >= {"returns.png", "true_reward.gif", "summary.json"}
    assert not (folder / "true" / "labels.png").exists()


def test_replay_draws_the_policy_and_says_what_the_rewards_are(chain):
    folder, results = chain
    out = results["replay"][1]
    assert re.findall(r"episode (\d): 30 steps, true return −\d+\.\d", out) == ["1", "2"]
    correlations = [float(text.replace("−", "-")) for text in re.findall(r"correlation (−?\d\.\d\d)", out)]
    config, state = run_folder.load_state(folder / "on", None, 6)
    env, policy = rlhf_jax.make(config.env), None
    policy = ppo.deterministic_policy(state.agent, env=env, config=config.ppo)
    key, _ = jax.random.split(jax.random.key(1))
    for start, expected in zip(jax.random.split(key, 2), correlations, strict=True):
        observation, simulated = env.reset(start)
        rewards = []
        for t in range(30):
            action, _ = policy(jax.random.key(t), observation)
            predicted = reward_ensemble.predict(state.ensemble, observation, action, env=env, config=config.reward)
            simulated, step = env.step(jax.random.key(t), simulated, action)
            rewards.append((float(predicted), float(step.reward)))
            observation = step.observation
        assert np.corrcoef(np.array(rewards).T)[0, 1] == pytest.approx(expected, abs=0.006)
    with Image.open(folder / "on" / "replay.gif") as clip:
        assert clip.format == "GIF" and clip.size[0] > 2 * 200 and clip.n_frames > 10


def test_replay_of_an_agent_on_the_true_reward_ends_with_the_episode(chain):
    _, results = chain
    out = results["cartpole"][1]
    steps, total = re.search(r"episode 1: (\d+) steps, true return (\d+)\.0", out).groups()
    assert steps == total and int(steps) < 500 and "predicted" not in out


def test_pairs_are_shown_as_they_were_answered(chain):
    folder, results = chain
    lines = results["show"][1].splitlines()
    assert lines[0].split()[:5] == ["pair", "iteration", "slots", "answer", "labeller"]
    config, state = run_folder.load_state(folder / "fitted")
    env, labels = rlhf_jax.make(config.env), labels_file.load(folder / "fitted")
    returns = reward_ensemble.member_rewards(
        state.ensemble, state.preferences.observation, state.preferences.action, env=env, config=config.reward
    ).sum(-1)
    first = np.asarray(bradley_terry.preference_probability(returns)).mean(0)
    for line, number in zip(lines[1:5], (1, 3, 4, 5), strict=True):
        row = number - 1
        left = labels.label[row] != labels.swapped[row]
        cells = line.split()
        assert cells[:2] == [str(number), str(labels.iteration[row] + 1)]  # as metrics.jsonl counts them
        assert ("1 | 0" in line) == labels.swapped[row]
        assert f"{'left' if left else 'right'} is better" in line and "synthetic" in line
        now = 1.0 - first[row] if labels.swapped[row] else first[row]
        assert float(cells[-1]) == pytest.approx(now, abs=0.006)
    for file, count in ((folder / "fitted" / "pairs.gif", 4), (folder / "two.gif", 1)):
        assert str(file.relative_to(folder)) in results["show" if count == 4 else "imported"][1]
        with Image.open(file) as clip:
            assert clip.n_frames > 5 and clip.size[0] > 250 * min(count, 2)
    assert results["imported"][1].splitlines()[1].split()[-2:] == ["–", "–"]  # a folder without a model


def test_people_can_be_asked_for_the_initial_labels_and_for_more(chain, environment):
    """By the page: gather, and then human, which starts with what was gathered."""
    folder, _ = chain
    settings = [*words("num_envs", "rollout_length", "ppo.hidden", "ppo.minibatches"), "--port", "0"]
    lines = {
        "people": ["gather", "--teacher", "human", "--labels", "6", *GATHER, "--port", "0", "--instruction", "swing"],
        "more": ["human", "--reward", "people", "--labels", "4", *settings, "--set", "iterations=6"],
    }
    for out, line in lines.items():
        command = [sys.executable, "-m", f"experiments.{line[0]}", *line[1:], "--out", out]
        with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
            address = next(line.split()[-1] for line in process.stderr if line.startswith("label at "))
            with closing(LabelStore(folder / out / "labels.sqlite", read_only=True)) as store:
                count = 6 if out == "people" else 4
                assert scripted_labeller.label(address, store, count) == count
            errors = process.stderr.read()
            assert process.wait() == 0, errors
    people, more = (labels_file.load(folder / name) for name in lines)
    assert len(people.records) == 6 and more.source.instruction == "swing" and len(more.records) == 10
    assert more.records[:6].tobytes() == people.records.tobytes()
    _, state = run_folder.load_state(folder / "more")
    with closing(LabelStore(folder / "more" / "labels.sqlite")) as store:
        learnt = store.learnt()
        assert sorted(learnt) == list(range(1, 11)) and learnt[:6] == list(range(1, 7))
        np.testing.assert_array_equal(state.preferences.observation, store.segments(learnt)["observation"])
        np.testing.assert_array_equal(state.preferences.label, [store.in_force()[pair].label for pair in learnt])


# What the one line must name. `prepare` makes what is not in the chain's folder.
REFUSED = {
    "gather --env Pendulum-v9": ["'Pendulum-v9'", "Pendulum-v1"],
    "gather --env Catch-bsuite": ["Catch-bsuite", "vectors"],
    "gather --env DiscountingChain-bsuite --teacher human --set queries.segment_length=5": ["cannot draw"],
    "gather --labels 0": ["--labels=0", "positive"],
    "gather --teacher oracle": ["oracle", "synthetic|human"],
    "gather --set iterations=9": ["iterations", "decides"],
    "gather --set labels.initial_fraction=0.5": ["labels.initial_fraction"],
    "gather --set reward.frozen=true": ["reward.frozen", "decides"],
    "gather --out gathered": ["--out gathered", "not empty"],
    "gather --resume --out gathered --teacher human": ["--teacher human", "gathered"],
    "gather --resume --out fitted": ["experiments.fit", "experiments.gather"],
    "labels": ["nothing", "'export RUN FILE'", "'show RUN'"],
    "labels export gathered": ["'export gathered'", "'export RUN FILE'"],
    "labels throw gathered": ["'throw gathered'", "'show RUN'"],
    "labels export gathered labels.npz": ["labels.npz", "written over"],
    "labels export gathered missing/labels.npz": ["missing/labels.npz", "cannot be written"],
    "labels export missing new.npz": ["missing", "does not exist"],
    "labels export frozen new.npz": ["frozen/labels.sqlite", "does not exist"],
    "labels export gathered new.npz --pairs 1": ["--pairs", "export"],
    "labels import labels.npz begun": ["begun", "not finished", "--reward"],
    "gather --instruction stay --labels 4": ["--instruction", "synthetic"],
    "gather --host 0.0.0.0 --labels 4": ["--host", "synthetic"],
    "gather --teacher human --synchronous --labels 4": ["--synchronous", "human"],
    "human --resume --out begun": ["begun", "before it began"],
    "labels import missing.npz new": ["missing.npz", "does not exist"],
    "labels import garbled.npz new": ["garbled.npz", "damaged"],
    "labels import pickled.npz new": ["pickled.npz", "damaged"],
    "labels import newer.npz new": ["version 2", "version 1"],
    "labels import labels.npz cart": ["cart is about CartPole-v1", "Pendulum-v1"],
    "labels import longer.npz imported": ["segment length = 10", "7"],
    "labels import labels.npz taken": ["taken", "config.json"],
    "labels import labels.npz labels.npz": ["labels.npz", "config.json"],
    "labels show imported --pairs 0": ["--pairs 0", f"1 to {LABELS}"],
    "labels show imported --pairs 4-99": ["--pairs 4-99", f"1 to {LABELS}"],
    "labels show imported --pairs some": ["--pairs some", "1-8"],
    "labels show imported --out labels.npz": ["labels.npz", "written over"],
    "labels show missing": ["missing", "does not exist"],
    "fit": ["nothing", "RUN_OR_FILE"],
    "fit gathered cart": ["cart", "env = "],
    "fit longer.npz gathered": ["segment length"],
    "fit gathered --rounds 0": ["--rounds=0", "positive"],
    "fit gathered --set reward.members=0": ["reward.members = 0", "at least 1"],
    "fit gathered --set queries.segment_length=5": ["queries.segment_length"],
    "fit gathered --out fitted": ["--out fitted", "not empty"],
    "fit gathered --out new --resume": ["--resume"],
    "fit unanswered": ["nothing to learn from", "unanswered"],
    "fit blind.npz": ["blind.npz", "observation", "NaN"],
    "train --reward missing": ["missing", "config.json"],
    "train --reward true --labels 9": ["--labels", "true"],
    "train --reward true --nofrozen": ["--[no]frozen", "true"],
    "train --reward true --env Pendulum": ["'Pendulum'", "Pendulum-v1"],
    "train --reward fitted --env CartPole-v1": ["CartPole-v1", "fitted", "Pendulum-v1"],
    "train --reward fitted --labels 9": ["--labels 9", "frozen"],
    "train --reward fitted --nofrozen": ["--labels 0", "--nofrozen"],
    "train --reward fitted --set reward.members=4": ["reward.members=4", "5", "fitted"],
    "train --reward fitted --set reward.hidden=9": ["reward.hidden=(9,)", "(8,)"],
    "train --reward fitted --set queries.segment_length=12": ["queries.segment_length=12", "10"],
    "train --reward fitted --set reward.frozen=false": ["reward.frozen"],
    "train --reward true --reward_seed 1": ["--reward_seed", "true"],
    "train --reward on": ["several seeds", "5, 6"],
    "train --reward on --reward_seed 7": ["no seed 7", "5, 6"],
    "train --reward on --reward_seed 5 --condition labels_9": ["'labels_9'", f"labels_{LABELS + MORE}"],
    "train --reward true_reward": ["no reward", "the true one"],
    "train --resume --out nothing": ["nothing", "another folder"],
    "train --resume --out frozen --nofrozen": ["--frozen", "--resume"],
    "human --set reward.frozen=true": ["reward.frozen", "decides"],
    "human --reward frozen --reward_seed 5": ["frozen/labels.sqlite", "does not exist"],
    "human --reward fitted --env CartPole-v1": ["CartPole-v1", "Pendulum-v1"],
    "replay": ["nothing", "'RUN'"],
    "replay missing": ["missing", "config.json"],
    "replay nothing --seed 5": ["nothing", "no checkpoint"],
    "replay on": ["several seeds", "5, 6"],
    "replay on --seed 6 --out on/replay.gif": ["on/replay.gif", "written over"],
    "replay gathered --episodes 0": ["--episodes=0"],
    "replay gathered --steps 1": ["--steps=1"],
    "replay gathered --out missing/x.gif": ["missing/x.gif", "not a folder"],
    "replay undrawable": ["cannot draw", "register_renderer"],
}


def edited_config(folder, name, **changes):
    """A copy of a run with other settings in its `config.json`."""
    shutil.copytree(folder / "gathered", folder / name)
    file = folder / name / "config.json"
    record = json.loads(file.read_text())
    for condition in record["conditions"].values():
        condition |= changes
    file.write_text(json.dumps(record))


@pytest.fixture(scope="module")
def refusals(chain, command_lines):
    """The result of each line, and all files before and after."""
    folder, _ = chain
    (folder / "garbled.npz").write_bytes((folder / "labels.npz").read_bytes()[:-100])
    np.savez(folder / "pickled.npz", objects=np.array([object()]))
    labels = labels_file.read(folder / "labels.npz")
    with np.load(folder / "labels.npz") as arrays:
        np.savez(folder / "newer.npz", **dict(arrays) | {"version": 2})
        blind = {"pairs.observation": np.full_like(arrays["pairs.observation"], np.nan)}
        np.savez(folder / "blind.npz", **dict(arrays) | blind)
    env = rlhf_jax.make("Pendulum-v1")
    source = dataclasses.replace(labels.source, layout=pairs.layout(env, 7))
    records = np.zeros(LABELS, source.layout)
    labels_file.write(folder / "longer.npz", dataclasses.replace(labels, source=source, records=records))
    (folder / "taken").mkdir()
    (folder / "taken" / "notes.txt").write_text("precious")
    (folder / "unanswered").mkdir()
    with closing(LabelStore.create(folder / "unanswered" / "labels.sqlite", labels.source)) as store:
        store.ask(labels.records, 0, [False] * LABELS)
    shutil.copytree(folder / "frozen", folder / "nothing", ignore=shutil.ignore_patterns("checkpoints"))
    (folder / "begun").mkdir()
    record = json.loads((folder / "gathered" / "config.json").read_text()) | {"experiment": "human"}
    (folder / "begun" / "config.json").write_text(json.dumps(record))
    edited_config(folder, "true_reward", use_true_reward=True)
    edited_config(folder, "undrawable", env="DiscountingChain-bsuite")

    def snapshot():
        files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal")))
        return {str(path): path.read_bytes() for path in files}

    before = snapshot()
    results = command_lines([job(folder, line.split()) for line in REFUSED])
    return dict(zip(REFUSED, results, strict=True)), before, snapshot()


@pytest.mark.parametrize("line", REFUSED)
def test_bad_input_is_refused_in_one_line(line, refusals):
    status, out, err = refusals[0][line]
    command, told = line.split()[0], ("starting", "loading ", "reading ", "Pass --help")
    said = [text for text in err.splitlines() if not text.startswith(told)]
    assert len(said) == 1, err
    assert said[0].startswith(f"experiments.{command}: ") and all(word in said[0] for word in REFUSED[line]), said
    assert (status, out) == (2, "")


def test_refused_lines_leave_everything_as_it_was(refusals):
    _, before, after = refusals
    assert after.keys() == before.keys()
    assert after == before


HELP = {
    "gather": ["--env", "--labels", "--teacher", "--instruction", "--seed", "--set", "--out"],
    "labels": ["--pairs", "--out", "labels export", "labels import", "labels show"],
    "fit": ["--rounds", "--set", "--out", "--seed"],
    "train": [
        "--env",
        "--reward",
        "--[no]frozen",
        "--labels",
        "--seeds",
        "--condition",
        "--reward_seed",
        "--[no]resume",
    ],
    "replay": ["--condition", "--seed", "--episodes", "--steps", "--out"],
    "human": ["--env", "--labels", "--reward", "--instruction", "--[no]synchronous", "--host", "--port"],
}


def test_help_explains_every_flag(command_lines, tmp_path):
    results = command_lines([job(tmp_path, [name, "--help"]) for name in HELP])
    for (name, flags), (_, out, err) in zip(HELP.items(), results, strict=True):
        assert f"python -m experiments.{name}" in out and err == ""
        for flag in flags:
            assert flag in out, (name, flag)
