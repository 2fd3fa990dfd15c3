"""Exports, imports and shows stored preferences.

    python -m experiments.labels export results/human/<time> labels.npz
    python -m experiments.labels import labels.npz results/another
    python -m experiments.labels show results/human/<time> --pairs 1-8

An exported file is one NumPy archive, which rlhf_jax/labelling/labels_file.py describes; it is never written over. What
is imported twice is there once. A folder that does not exist yet is made, for experiments.fit. Shown are the answers in
force, and a GIF of the pairs as they were shown.
"""

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import rlhf_jax
from experiments import captions, command_line, figures, session, tables
from rlhf_jax import checkpoint, reward_ensemble, run_folder
from rlhf_jax.environments import rendering
from rlhf_jax.environments.canvas import GOAL, INK
from rlhf_jax.labelling import clips, labels_file, pairs
from rlhf_jax.labelling.desk import Desk
from rlhf_jax.labelling.label_store import Answer, LabelStore
from rlhf_jax.labelling.labels_file import Labels
from rlhf_jax.run_folder import RunFolder

flags.adopt_module_key_flags(command_line)
_PAIRS = flags.DEFINE_string("pairs", None, "Which pairs to show, such as 1-8 or 3,5-9; the first eight if not given.")
_OUT = flags.DEFINE_string(
    "out", None, "The GIF of show, a new file; pairs.gif in the run's folder, or pairs_2.gif and so on, if not given."
)

_SHOWN = 8  # pairs, if nothing else is said
_DRAWN = 64  # pairs, at most
_FPS = 15.0
_WORDS = {
    "left": "left is better",
    "right": "right is better",
    "tie": "both are as good",
    "cannot_tell": "cannot tell",
    None: "no answer",
}


@dataclasses.dataclass(frozen=True)
class Shown:
    """A pair and what is known about it.

    number: of the pair.
    record: the pair.
    iteration: of the training that asked, from 0.
    swapped: whether slot 1 is shown on the left.
    answer: the one in force, if any.
    then: probability that the left one is better, as the model saw it when it was answered; NaN if unknown.
    now: the same, as the model of the newest checkpoint sees it; NaN if there is none.
    """

    number: int
    record: np.ndarray
    iteration: int
    swapped: bool
    answer: Answer | None
    then: float
    now: float


def export_labels(path: str, file: str) -> None:
    """Writes the labels of a run to a new file."""
    with command_line.refusing():
        labels = labels_file.load(Path(path))
        labels_file.write(Path(file), labels)
    print(f"{len(labels.records)} pairs and {len(labels.answers)} rows of answers are in {file}")


def import_labels(file: str, path: str) -> None:
    """Adds the labels of a file to those of a run, or to a new folder."""
    folder = Path(path)
    with command_line.refusing(), ExitStack() as stack:
        labels = labels_file.read(Path(file))
        if (folder / "config.json").exists():
            run = run_folder.load(folder)
            stack.enter_context(run_folder.claim(run))
            _check_about(run, labels)
            if not (folder / "summary.json").exists():
                raise ValueError(
                    f"{path} is not finished, and its budget is for answers of its own; put them together with "
                    f"experiments.fit, and go on from there with experiments.human --reward"
                )
        elif folder.exists() and not (folder / run_folder.LABELS).exists():
            raise ValueError(f"{path} is not the folder of a run: it has no config.json")
        store = stack.enter_context(closing(_store(folder, labels)))
        numbers, new = labels_file.merge(store, labels)
        count = store.num_pairs()
    about = f"{len(labels.answers)} rows of answers about {len(numbers)} pairs"
    print(f"{new} of {about} were new; {path} has {count} pairs now")


def _check_about(run: RunFolder, labels: Labels) -> None:
    """Raises ValueError unless the labels are about what the run is about."""
    theirs = f"{labels.source.env} and segments of {pairs.segment_length(labels.source.layout)} steps"
    for config in run.conditions.values():
        ours = f"{config.env} and segments of {config.queries.segment_length} steps"
        if ours != theirs:
            raise ValueError(f"{run.path} is about {ours}, the labels are about {theirs}")


def _store(folder: Path, labels: Labels) -> LabelStore:
    file = folder / run_folder.LABELS
    if file.exists():
        return LabelStore(file)
    source = labels_file.source_for(labels)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error.strerror}") from None
    return LabelStore.create(file, source)


def show(path: str) -> None:
    """Prints a table of pairs, and draws them."""
    folder = Path(path)
    with command_line.refusing(), closing(LabelStore(folder / run_folder.LABELS, read_only=True)) as store:
        numbers = parse_numbers(_PAIRS.value, store.num_pairs())
        env = store.source.env
        if _OUT.value:
            rendering.require(env)
        drawn = rendering.can_draw(env) and len(numbers) <= _DRAWN
        file = command_line.picture(_OUT.value, folder / "pairs.gif") if drawn else None
        shown = look_up(folder, store, numbers)
        again, alike = Desk(store).agreement()
    print("\n".join(table(shown)))
    if again:
        print(f"{again} pairs were shown again; {alike} of them were answered alike")
    if file is None:
        print(f"not drawn: {env} has no renderer, or there are more than {_DRAWN} pairs")
    else:
        session.say(f"drawing {len(shown)} pairs")
        draw(file, env, shown)
        print(file)


def parse_numbers(text: str | None, count: int) -> list[int]:
    """Returns the numbers that a text such as "3,5-9" names, of 1 to `count`; the first few for None.

    Raises:
      ValueError: it names none, or others.
    """
    if count == 0:
        raise ValueError("there are no pairs to show yet")
    numbers: dict[int, None] = {}
    for part in (text or f"1-{min(count, _SHOWN)}").split(","):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else True)):
            raise ValueError(f"--pairs {text} must be numbers such as 1-8 or 3,5-9")
        if not 1 <= int(first) <= int(last or first) <= count:
            raise ValueError(f"--pairs {text} goes beyond the pairs that there are, 1 to {count}")
        numbers |= dict.fromkeys(range(int(first), int(last or first) + 1))
    return list(numbers)


def look_up(folder: Path, store: LabelStore, numbers: list[int]) -> list[Shown]:
    """Returns these pairs and all that is known about them."""
    records, in_force = store.segments(numbers), store.in_force()
    now = probabilities_now(folder, records)
    shown = []
    for i, number in enumerate(numbers):
        answer, swapped = in_force.get(number), store.swapped(number)
        then = np.nan if answer is None or answer.probability is None else answer.probability
        sides = [1.0 - p if swapped else p for p in (then, float(now[i]))]
        shown.append(Shown(number, records[i], store.iteration(number), swapped, answer, *sides))
    return shown


def probabilities_now(folder: Path, records: np.ndarray) -> np.ndarray:
    """Returns the `[P]` probability of slot 0 as the model of the newest checkpoint sees it; NaN if there is none."""
    if checkpoint.latest(folder / "checkpoints") is None:
        return np.full(len(records), np.nan)
    config, state = run_folder.load_state(folder, preferences=False)
    env = rlhf_jax.make(config.env)
    judge = jax.jit(partial(reward_ensemble.preference_probability, env=env, config=config.reward))
    return np.asarray(judge(state.ensemble, jnp.asarray(records["observation"]), jnp.asarray(records["action"])))


def table(shown: list[Shown]) -> list[str]:
    """Returns the pairs as lines of text."""
    rows = [["pair", "iteration", "slots", "answer", "labeller", "seconds", "P(left) then", "P(left) now"]]
    for pair in shown:
        slots = "1 | 0" if pair.swapped else "0 | 1"
        said = ["no answer", "–", "–"]
        if pair.answer is not None:
            seconds = f"{pair.answer.answered - pair.answer.shown:.1f}"
            said = [_WORDS[pair.answer.answer], pair.answer.labeller, seconds]
        model = ["–" if np.isnan(p) else f"{p:.2f}" for p in (pair.then, pair.now)]
        rows.append([str(pair.number), str(pair.iteration + 1), slots, *said, *model])
    return tables.columns(rows)


def draw(file: Path, env: str, shown: list[Shown]) -> None:
    """Draws the pairs as they were shown; the clip that was preferred has a frame, and after a tie both have."""
    tiles = []
    for pair in shown:
        answer = None if pair.answer is None else pair.answer.answer
        slots = (1, 0) if pair.swapped else (0, 1)
        sides = [rendering.frames(env, clips.moments(pair.record, slot)) for slot in slots]
        for i, side in enumerate(("left", "right")):
            if answer in (side, "tie"):
                sides[i] = captions.framed(sides[i], GOAL)
        both = figures.tile(np.stack(sides), columns=2)
        model = [f"{p:.0%} {when}" for p, when in ((pair.then, "then"), (pair.now, "now")) if not np.isnan(p)]
        lines = [
            f"pair {pair.number}: {_WORDS[answer]}",
            f"model: left {', '.join(model)}" if model else "no model yet",
        ]
        words = captions.words([[(line, INK)] for line in lines], both.shape[2], bold_first=True)
        tiles.append(captions.under(both, words))
    figures.animation(file, figures.tile(np.stack(tiles), columns=min(2, len(tiles))), fps=_FPS)


def main(command: str, *paths: str) -> None:
    """Does one of the three."""
    for flag in (_PAIRS, _OUT):
        if flag.present and command != "show":
            raise command_line.BadInput(f"--{flag.name} has no say in {command}")
    commands: dict[str, Callable[..., None]] = {"export": export_labels, "import": import_labels, "show": show}
    commands[command](*paths)


if __name__ == "__main__":
    command_line.run("labels", main, "export RUN FILE", "import FILE RUN", "show RUN")
