"""The report of a run whose numbers were chosen: the page itself, what it says, and what it refuses."""

import base64
import html.parser
import io
import json
import re
import shutil

import numpy as np
import pytest
import synthetic_runs
from PIL import Image

from experiments import report
from experiments.reporting import page as report_page
from experiments.reporting import record
from experiments.reporting.verdicts import Verdict

VOID = {"meta", "link", "img"}


class Page(html.parser.HTMLParser):
    """A page of HTML, taken apart."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, "an element is left open"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data.replace("\xa0", " ")

    def all(self, tag):
        """The attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run."""
    return synthetic_runs.write_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def page(run):
    """Its report."""
    return Page(report.html(record.read(run)))


def test_page_needs_nothing_else(page):
    pictures = page.all("img")
    for picture in pictures:
        kind, data = picture["src"].split(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.width * 4 // 5 == int(picture["width"]) and image.height * 4 // 5 == int(picture["height"])
    # Returns, held-out accuracy, reliability; and three about the condition.
    assert len(pictures) == 6
    assert not page.all("script") and {link["href"] for link in page.all("link")} == {"data:,"}
    targets = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {link["href"].removeprefix("#") for link in page.all("a")} == targets


def test_page_can_be_read_without_seeing_it(page):
    assert all(len(picture["alt"]) > 20 for picture in page.all("img"))
    assert page.all("html") == [{"lang": "en"}] and len(page.all("h1")) == 1 and len(page.all("main")) == 1
    assert len(page.all("caption")) == len(page.all("table")) == 2
    assert len(page.all("figcaption")) == len(page.all("img"))
    assert all(cell["scope"] in ("col", "row") for cell in page.all("th"))


def test_page_says_what_the_numbers_mean(page):
    assert "Pendulum-v1, 2 conditions × 4 seeds, 40 iterations of 6,400 environment steps, on 1 × <cpu>." in page.text
    assert "true_reward: return −155.0 [−160.0, −150.0]." in page.text
    overview = page.text[page.text.index("labels_100: return") :].split("\n")[0]
    assert overview.startswith(
        "labels_100: return −215.0 [−230.0, −200.0]; accuracy 0.91 of a possible 0.93; over-conf"
    )
    assert 21 < int(re.search(r"fell from iteration (\d+) in 2 of 4 seeds\.", overview)[1]) < 40
    for words in (
        "That is 60.0 less than true_reward; the 95 % interval of the difference is [−70.0, −50.0].",
        "Labels: 100. 5.0 % of the answers were ties. Every query got an answer.",
        "log-likelihood of −0.29 nats per pair of a possible −0.20",
        "under the trained policy 0.45 [0.30, 0.60] per step",
        "EPIC 0.23 [0.20, 0.26] under random actions",
        "it correlates 1.00 [0.57, 1.00] with the true reward",
        "a ratio of 1.30. Against the band of 1.1 to 1.5 that an adaptive L2 aims at: 4 of 4 seeds within.",
        "This condition is given the true reward, so there is no learnt reward to judge.",
    ):
        assert words in page.text, words
    assert "Left out" not in page.text and "not finished" not in page.text and "nan" not in page.text


def test_a_condition_looks_alike_in_all_figures(run, monkeypatch):
    """Where the true reward has no accuracy it is passed over, and the others keep their places."""
    drawn = []

    def draw(path, steps, curves, **words):
        drawn.append({name: values is not None for name, values in curves.items()})
        path.write_bytes(b"")

    monkeypatch.setattr("experiments.figures.learning_curves", draw)
    report.html(record.read(run))
    returns, accuracies = drawn
    assert list(returns) == list(accuracies) and all(returns.values())
    assert [name for name, shown in accuracies.items() if not shown] == ["true_reward"]


def test_page_escapes_what_it_is_told():
    evil = "<b>&\"'"
    sections = [
        report_page.Section(evil, [evil, report_page.Bullets([(evil, evil)])]),
        report_page.Section("", [report_page.Verdicts([Verdict(evil, evil), Verdict(evil, evil, notable=True)])]),
        report_page.Section("", [report_page.Table(evil, [evil], [[evil, evil]])]),
        report_page.Section("", [report_page.Picture(b"\0" * 24, evil, evil)]),
    ]
    made = Page(report_page.page(evil, [evil], sections))
    # One element in bold is the mark of what is worth a look.
    assert len(made.all("b")) == 1 and made.text.count(evil) == 17
    assert made.all("img")[0]["alt"] == evil and made.all("div")[-1]["aria-label"] == evil


@pytest.mark.parametrize("experiment", ["human", "pendulum"])
def test_that_people_are_not_the_teacher_is_said_first(tmp_path, experiment):
    synthetic_runs.write_config(tmp_path, {"labels_100": synthetic_runs.SETTINGS})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"experiment": experiment}))
    synthetic_runs.write_metrics(tmp_path, {"labels_100": synthetic_runs.metrics()}, iterations=8)
    text = Page(report.html(record.read(tmp_path))).text
    first = text[text.index("In short") : text.index("labels_100: ")]
    assert ("People answered. The teacher that" in first) == (experiment == "human")


def test_an_older_run_is_reported_by_what_it_recorded(tmp_path):
    old = ("return", "predicted_return", "labels", "train_loss", "validation_loss", "accuracy", "l2", "correlation")
    learnt = {key: values for key, values in synthetic_runs.metrics().items() if key in old}
    synthetic_runs.write_config(tmp_path, {"labels_100": synthetic_runs.SETTINGS})
    synthetic_runs.write_metrics(tmp_path, {"labels_100": learnt}, iterations=8)
    text = Page(report.html(record.read(tmp_path))).text
    assert "This run is not finished: it has done 8 of 40 iterations" in text
    assert "In training, exploring, the policy earns a true return of" in text
    assert "8 iterations are too few to tell; 20 are needed." in text
    assert (
        "did not record what is needed: accuracy, log-likelihood, calibration, distance, map, ensemble, policy. "
        "Of images no distance is taken." in text
    )
    assert "Correlation with the true reward on the last rollouts of training: 0.93 (high)." in text


def test_what_is_being_written_is_not_read(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:3]) + lines[3][:50])
    read = record.read(tmp_path / "run")
    assert [condition.points for condition in read.conditions] == [2, 1]
    np.testing.assert_allclose(read.conditions[1].metrics["heldout_accuracy"], 0.51)
    assert np.isnan(read.conditions[0].metrics["train_loss"]).all()


def test_conditions_that_only_have_a_result_are_reported(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    summary["conditions"]["best_checkpoint"] = {"eval_return": [-300.0] * 4, "deterministic_mean": -250.0}
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    read = record.read(tmp_path / "run")
    last = read.conditions[-1]
    assert last.name == "best_checkpoint" and last.points == 0 and not last.learns_reward
    assert "The trained policy, exploring as in training, earns a true return of −300.0" in report.html(read)
    np.testing.assert_array_equal(last.eval_returns, [-300.0] * 4)


def test_epochs_and_agents_that_only_make_data_are_read(tmp_path):
    synthetic_runs.write_config(tmp_path, {"rlhf": {}})
    synthetic_runs.write_metrics(tmp_path, {"data": {"return": synthetic_runs.exploited()}}, iterations=3)
    change(tmp_path, "metrics.jsonl", lambda text: text.replace("iteration", "epoch"))
    assert {part.name: part.points for part in record.read(tmp_path).conditions} == {"rlhf": 0, "data": 3}


def change(folder, file, edit):
    """Changes the text of a file of a run."""
    (folder / file).write_text(edit((folder / file).read_text()))


DAMAGES = {
    "config.json is damaged": lambda run: change(run, "config.json", lambda text: text[:-9]),
    "config.json is damaged: KeyError": lambda run: change(run, "config.json", lambda text: text.replace("seeds", "s")),
    "summary.json is damaged": lambda run: change(run, "summary.json", lambda text: "[]"),
    "metrics.jsonl is damaged in line 3": lambda run: change(
        run, "metrics.jsonl", lambda text: text.replace('{"iteration": 2', "{iteration: 2", 1)
    ),
    "metrics.jsonl is damaged in line 5": lambda run: change(
        run, "metrics.jsonl", lambda text: text.replace('"iteration": 3', '"iteration": 4', 1)
    ),
    "metrics.jsonl is damaged in line 1: KeyError": lambda run: change(
        run, "metrics.jsonl", lambda text: text.replace('"condition"', '"other"', 1)
    ),
    "metrics.jsonl is damaged in line 1: ValueError": lambda run: change(
        run, "metrics.jsonl", lambda text: text.replace("[0.0, ", "[", 1)
    ),
    "judgement.npz is damaged": lambda run: (run / "labels_100" / "judgement.npz").write_bytes(b"PK"),
    r"reliability.npy is damaged: it has shape \[3, 10, 3\] for 4 seeds": lambda run: np.save(
        run / "labels_100" / "reliability.npy", np.zeros((3, 10, 3))
    ),
    "reward_map.npy is damaged": lambda run: (run / "labels_100" / "reward_map.npy").write_text(""),
    "has no metrics yet": lambda run: (run / "metrics.jsonl").write_text(""),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_what_is_damaged_is_named(run, tmp_path, message):
    shutil.copytree(run, tmp_path / "run")
    DAMAGES[message](tmp_path / "run")
    with pytest.raises(ValueError, match=message) as refusal:
        record.read(tmp_path / "run")
    assert "\n" not in str(refusal.value)


def test_command_writes_the_page_and_refuses_the_rest(command_lines, tmp_path):
    for name in ("good", "empty", "blocked"):
        folder = tmp_path / name
        folder.mkdir()
        synthetic_runs.write_config(folder, {"true_reward": {"use_true_reward": True}})
        columns = {"return": synthetic_runs.exploited()}
        synthetic_runs.write_metrics(folder, {"true_reward": columns}, iterations=0 if name == "empty" else 3)
    (tmp_path / "good" / "report.html").write_text("old")
    (tmp_path / "there.html").write_text("mine")
    (tmp_path / "blocked" / "report.html").mkdir()
    refused = {
        "none": "none is not the folder of a run: it has no config.json",
        "empty": "empty has no metrics yet; wait for its first iterations",
        "blocked": "blocked/report.html cannot be written: Is a directory",
        "good --out there.html": "there.html exists already and is not written over; name another file by --out",
        "good --out none/page.html": "none/page.html cannot be written: none is not a folder",
        "": "the arguments must be 'RUN', not nothing; see --help",
    }
    lines = ["good", "good --out page.html", *refused]
    jobs = [{"module": "report", "arguments": line.split(), "folder": str(tmp_path)} for line in lines]
    done = command_lines(jobs)
    assert [status for status, _, _ in done] == [0, 0, 2, 2, 2, 2, 2, 2], done
    assert [out for _, out, _ in done] == ["good/report.html\n", "page.html\n"] + [""] * 6
    for (_, _, error), message in zip(done[2:], refused.values(), strict=True):
        assert error.splitlines()[-1] == f"experiments.report: {message}"
    written = (tmp_path / "good" / "report.html").read_text()
    assert written == (tmp_path / "page.html").read_text() and Page(written).all("img")
    assert (tmp_path / "there.html").read_text() == "mine"
