"""Teachers who are silent, tie everything, or are broken, by the command lines that meet them."""

from contextlib import closing

import numpy as np
import pytest
import tiny

from rlhf_jax import run_folder
from rlhf_jax.labelling.label_store import LabelStore

TINY = tiny.words(num_envs=4, rollout_length=40, queries__segment_length=10)
ODD = ["--import", "odd_teachers", "--set"]
RUN = ["--labels", "12,6,3", "--seeds", "2", *tiny.STUDY, "--set"]  # one program with those of `test_studies`
JOBS = {
    "silent": ("gather", ["--labels", "16", *TINY, "--set", "teacher.silence_below=0"]),
    "nan": ("gather", ["--labels", "16", *TINY, *ODD, "teacher.name=sometimes_nan"]),
    "tied": ("pendulum", [*RUN, "teacher.tie_band=1000"]),
    "of_two": ("pendulum", [*RUN, "teacher.mistake_rate=0", *ODD, "teacher.name=of_two"]),
    "first_one": ("pendulum", [*RUN, "teacher.mistake_rate=0", *ODD, "queries.selection=first_one"]),
}


@pytest.fixture(scope="module")
def ran(command_lines, tmp_path_factory):
    """The folder of all runs, and what each command line said."""
    folder = tmp_path_factory.mktemp("fallible")
    jobs = [{"module": m, "arguments": [*w, "--out", name], "folder": str(folder)} for name, (m, w) in JOBS.items()]
    return folder, dict(zip(JOBS, command_lines(jobs), strict=True))


def test_silence_is_stored_as_such_and_not_learnt_from(ran):
    folder, said = ran
    assert said["silent"][0] == 0, said["silent"][2]
    with closing(LabelStore(folder / "silent" / run_folder.LABELS, read_only=True)) as store:
        answers, learnt = store.in_force(), store.learnt()
    silent = {pair for pair, answer in answers.items() if answer.answer == "cannot_tell"}
    assert len(answers) == 16 and 0 < len(silent) < 16
    assert sorted(learnt) == sorted(set(answers) - silent)
    _, state = run_folder.load_state(folder / "silent")
    data = state.preferences
    assert int(data.added) == len(learnt)
    labels = [answers[pair].label for pair in learnt]
    np.testing.assert_array_equal(np.asarray(data.label)[: len(learnt)], labels)


def test_a_teacher_that_becomes_nan_stops_the_gathering_before_anything_is_stored(ran):
    folder, said = ran
    status, out, err = said["nan"]
    assert status == 1 and not out and "NaN or infinite in round" in err.splitlines()[-1]
    with closing(LabelStore(folder / "nan" / run_folder.LABELS, read_only=True)) as store:
        assert store.num_pairs() == 0


def test_a_run_says_that_all_answers_are_ties(ran):
    status, _, err = ran[1]["tied"]
    assert status == 0
    lines = [line for line in err.splitlines() if "nothing to learn from so far" in line]
    (line, last) = [line for line in lines if "labels_6: " in line]
    assert line.startswith("labels_6: ") and "(12 ties, 0 queries without an answer)" in last  # of two agents


@pytest.mark.parametrize("name, words", [("of_two", "TypeError"), ("first_one", "[2] whole numbers")])
def test_what_does_not_work_is_refused_in_one_line(ran, name, words):
    folder, said = ran
    status, out, err = said[name]
    assert status == 2 and not out
    assert name in err.splitlines()[-1] and words in err.splitlines()[-1] and "Traceback" not in err
    assert not (folder / name).exists()
