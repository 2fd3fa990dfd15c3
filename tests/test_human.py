"""`experiments.human` as people meet it: it is answered through HTTP, killed, stopped, and asked for what cannot be."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import scripted_labeller
import tiny

from rlhf_jax import checkpoint, run_folder
from rlhf_jax.labelling import labels_file
from rlhf_jax.labelling.client import Client
from rlhf_jax.labelling.label_store import LabelStore

TESTS = Path(__file__).parent
LABELS = 60


class Run:
    """A run in a process of its own."""

    def __init__(self, environment, *arguments):
        command = [sys.executable, "-m", "experiments.human", "--port", "0", *map(str, arguments)]
        self._folder = Path(tempfile.mkdtemp())
        with (self._folder / "out").open("w") as out, (self._folder / "err").open("w") as err:
            self.process = subprocess.Popen(command, cwd=TESTS.parent, env=environment, stdout=out, stderr=err)

    @property
    def said(self):
        """The lines of its standard error so far."""
        return (self._folder / "err").read_text().splitlines()

    def address(self):
        """Returns where its page is, once it is there."""
        deadline = time.monotonic() + 120
        while True:
            found = [line for line in self.said if line.startswith("label at ")]
            if found:
                return found[0].removeprefix("label at ")
            assert self.process.poll() is None and time.monotonic() < deadline, self.said
            time.sleep(0.05)

    def end(self):
        """Returns its exit status and what it printed, once it has ended."""
        status = self.process.wait(timeout=120)
        return status, (self._folder / "out").read_text()


@pytest.fixture(scope="module")
def taught(environment, tmp_path_factory):
    """The folder and the output of a run that a program answered by the true reward."""
    folder = tmp_path_factory.mktemp("human") / "run"
    run = Run(environment, "--labels", LABELS, "--out", folder, "--seed", "11", "--instruction", "keep it <upright>")
    address = run.address()
    scripted_labeller.label(address, LabelStore(folder / "labels.sqlite", read_only=True))
    status, out = run.end()
    assert status == 0, "\n".join(run.said)
    return folder, out, run.said


def test_answers_through_http_teach_the_pendulum(taught):
    folder, _, _ = taught
    summary = json.loads((folder / "summary.json").read_text())
    row = summary["conditions"][f"labels_{LABELS}"]
    assert row["labels"] == LABELS == sum(summary["answers"].values())
    # By hand, with 100 labels: −146 … −176 (seeds 0–3); an agent that has learnt nothing gets −1200.
    assert row["mean"] > -400 and row["reward_correlation"] > 0.8


def test_run_leaves_what_its_summary_and_figures_are_made_of(taught):
    folder, out, _ = taught
    for name in ("returns.png", "labels.png", "predicted_returns.png", f"labels_{LABELS}.gif", "labels.sqlite"):
        assert (folder / name).stat().st_size > 1000 and name in out
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["experiment"] == "human" and summary["labellers"] == {"program": LABELS}
    assert summary["repeats"]["shown"] == summary["repeats"]["agreed"]
    store = LabelStore(folder / "labels.sqlite")
    assert store.source.instruction == "keep it <upright>" and store.num_pairs() == LABELS
    assert len(np.load(folder / f"labels_{LABELS}" / "labels.npy")[0]) == 60


def test_run_says_what_it_waits_for(taught):
    said = "\n".join(taught[2])
    assert "15 answers are needed before training begins; then the agent trains on while people answer" in said
    assert re.search(r"Training begins after 15 initial labels: \d+ are missing", said)


def test_killed_eight_times_amid_answers_it_loses_none(environment, tmp_path):
    command = [sys.executable, TESTS / "killed_runs.py", tmp_path / "run", "8"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    log = tmp_path / "output.txt"
    assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")
    result = json.loads(done.stdout)
    assert result["killed"] == 8 and result["confirmed"] >= tiny.PEOPLE_LABELS
    assert result["lost"] == 0 and result["answered_twice"] == 0
    assert result["pairs"] == tiny.PEOPLE_LABELS and result["exit_status"] == 0


def test_interrupted_run_keeps_everything_and_says_how_to_go_on(environment, tmp_path):
    folder = tmp_path / "run"
    run = Run(environment, *tiny.PEOPLE, "--out", folder)  # whose programs `killed_runs` compiled
    address = run.address()
    answered = _answer(address, lambda status: status["iteration"] > 0)
    second = Run(environment, "--resume", "--out", folder)
    assert second.end()[0] == 2 and second.said[-1] == f"experiments.human: {folder} is in use by another process"
    page = Client(address)
    run.process.send_signal(signal.SIGINT)
    phases = set()
    while run.process.poll() is None and "stopped" not in phases:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            phases.add(json.loads(page.get("/api/status"))["phase"])
        time.sleep(0.9)  # as often as an open page asks
    assert "stopped" in phases
    status, _ = run.end()
    assert status == 1
    assert re.fullmatch(
        rf"experiments.human: stopped at iteration \d; all answers are kept; go on with --out {folder} --resume",
        run.said[-1],
    )
    assert LabelStore(folder / "labels.sqlite").in_force().keys() == answered
    assert checkpoint.latest(folder / "checkpoints") >= 1
    run = Run(environment, "--resume", "--out", folder)
    answered |= _answer(run.address(), lambda status: status["phase"] == "finished")
    assert run.end()[0] == 0, run.said
    count = tiny.PEOPLE_LABELS
    assert len(answered) == count
    assert json.loads((folder / "summary.json").read_text())["conditions"][f"labels_{count}"]["labels"] == count


@pytest.mark.parametrize(
    ("env", "actions"), [("PongNoFrameskip-v4", [1, 4, 5]), ("MovingDot-v0", [1, 2]), ("Breakout-MinAtar", [2])]
)
def test_people_teach_by_pictures(environment, tmp_path, env, actions):
    """Clips are shown, answers that are not about the score are learnt from, and labels and returns are drawn."""
    folder, settings = tmp_path / "run", {"iterations": 3, "num_envs": 2, "rollout_length": 20, "ppo__epochs": 1}
    settings |= {"labels__warmup": 1, "queries__segment_length": 5, "queries__candidates": 1, "reward__members": 2}
    short = [*tiny.SHORT, *tiny.words(**settings)]
    run = Run(environment, "--env", env, "--labels", 4, "--out", folder, *short)
    address = run.address()
    store = LabelStore(folder / "labels.sqlite", read_only=True)
    assert scripted_labeller.label(address, store, liked=actions) == 4
    status, out = run.end()
    assert status == 0, "\n".join(run.said)
    assert json.loads((folder / "summary.json").read_text())["conditions"]["labels_4"]["labels"] == 4
    labels = labels_file.load(folder)
    liked = np.isin(labels.records["action"], actions).sum(-1)
    np.testing.assert_array_equal(labels.label, 0.5 + 0.5 * np.sign(liked[:, 0] - liked[:, 1]))
    _, state = run_folder.load_state(folder, condition="labels_4", seed=0)
    learnt = np.asarray(state.preferences.label)[np.asarray(state.preferences.filled)]
    np.testing.assert_array_equal(np.sort(learnt), np.sort(labels.label))
    for name in ("returns.png", "labels.png", "labels_4.gif"):
        assert (folder / name).stat().st_size > 1000 and name in out


def _answer(address, until):
    """Answers, after a look at the first pair only, until this is true of the run's status; returns which pairs."""
    client, pairs, deadline = Client(address), set(), time.monotonic() + 120
    reply = client.pair()
    while not until(reply["status"]):
        assert time.monotonic() < deadline, reply["status"]
        if reply["pair"] and not pairs:
            assert all(client.get(reply["pair"][side]) for side in ("left", "right"))
        if reply["pair"] is None:
            time.sleep(0.02)
            reply = client.pair()
        else:
            pairs.add(reply["pair"]["id"])
            reply = client.answer(reply["status"], reply["pair"], "left")
    return pairs
