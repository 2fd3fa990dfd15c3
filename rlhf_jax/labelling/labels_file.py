"""The labels of a run in one NumPy file, for other runs, machines and programs.

It is an .npz archive without pickled objects: `numpy.load(path)` reads it. P pairs, A rows of answers, L steps.

format, version      "rlhf_jax labels" and 1
library, created     version of the library that wrote it, and when
run                  random name of the store that it was written from
env, env_params      name of the environment, and its parameters as JSON
segment_length       L
instruction          the question in words, or ""
pairs.observation    [P, 2, L, ...] what the agent saw in both segments, slot 0 and slot 1
pairs.action         [P, 2, L, ...] what it did: in [−1, 1] if continuous, an integer if discrete
pairs.true_reward    [P, 2, L] for synthetic teachers and for comparison
pairs.state.<name>   [P, 2, L, ...] the parts of the environment's own state, from which clips are drawn
pairs.iteration      [P] of the training that asked, from 0
pairs.swapped        [P] whether slot 1 is shown on the left
pairs.label          [P] share of the preference that goes to slot 0: 1, ½ or 0; NaN where no answer is in force. It
                     follows from the answers, and is there for programs that want no history
answers.pair         [A] which pair, the first is 0; oldest answers first, the newest of a pair is in force
answers.<name>       [A] the other columns, see `label_store.Answer`; `probability` is NaN before the first fit
"""

import dataclasses
import datetime
import json
import os
import secrets
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_jax import environments, run_folder
from rlhf_jax.labelling import pairs
from rlhf_jax.labelling.label_store import ANSWERS, MAX_NAME, Answer, LabelStore, Source, new_source

FORMAT, VERSION = "rlhf_jax labels", 1

_ABOUT_PAIRS = ("iteration", "swapped", "label")
_KINDS = {bool: "b", int: "iu", float: "f", float | None: "f", str: "U"}
_COLUMNS = {field.name: _KINDS[field.type] for field in dataclasses.fields(Answer) if field.name != "id"}  # type: ignore


@dataclasses.dataclass(frozen=True)
class Labels:
    """Everything that a store holds.

    source: what the pairs are about.
    records: [P] the pairs.
    iteration: [P] of the training that asked, from 0.
    swapped: [P] whether slot 1 is shown on the left.
    label: [P] share of the preference that goes to slot 0; NaN where no answer is in force.
    answers: every row, oldest first; pairs are numbered from 1.
    """

    source: Source
    records: np.ndarray
    iteration: np.ndarray
    swapped: np.ndarray
    label: np.ndarray
    answers: list[Answer]


def collect(store: LabelStore) -> Labels:
    """Returns everything that a store holds."""
    numbers, in_force = range(1, store.num_pairs() + 1), store.in_force()
    labels = [in_force[i].label if i in in_force else None for i in numbers]
    return Labels(
        source=store.source,
        records=store.segments(numbers),
        iteration=np.array([store.iteration(i) for i in numbers], np.int64),
        swapped=np.array([store.swapped(i) for i in numbers], bool),
        label=np.array(labels, np.float64),
        answers=store.answers(),
    )


def load(path: Path) -> Labels:
    """Returns the labels of a run's folder, or of a file that `write` wrote.

    Raises:
      ValueError: there are none, or they are damaged.
    """
    if not path.is_dir():
        return read(path)
    with closing(LabelStore(path / run_folder.LABELS, read_only=True)) as store:
        return collect(store)


def source_for(labels: Labels) -> Source:
    """Returns the source of a new store that these labels can be merged into, under a name of its own.

    Raises:
      ValueError: this version of the library has no such environment, or another one of that name.
    """
    env = environments.make(labels.source.env)
    layout = pairs.layout(env, pairs.segment_length(labels.source.layout))
    source = new_source(env, layout, labels.source.instruction)
    check_alike(f"this version's {env.name}", source, labels.source)
    return source


def write(path: Path, labels: Labels) -> None:
    """Writes a file, whole or not at all.

    Raises:
      ValueError: it exists, or cannot be written.
    """
    if path.exists():
        raise ValueError(f"{path} exists already; labels are never written over")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with part.open("xb") as file:
            np.savez_compressed(file, allow_pickle=False, **_arrays(labels))
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def _arrays(labels: Labels) -> dict[str, Any]:
    source = labels.source
    about = {name: labels.records[name] for name in source.layout.names or ()}
    about |= {name: getattr(labels, name) for name in _ABOUT_PAIRS}
    columns = {name: [getattr(answer, name) for answer in labels.answers] for name in _COLUMNS}
    # Where no probability is known, None becomes NaN.
    types: dict[str, type] = {"b": bool, "iu": np.int64, "f": np.float64, "U": np.str_}
    answers: dict[str, Any] = {name: np.array(columns[name], types[kind]) for name, kind in _COLUMNS.items()}
    answers["pair"] -= 1
    return {
        "format": FORMAT,
        "version": VERSION,
        "library": metadata.version("rlhf_jax"),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "run": source.run,
        "env": source.env,
        "env_params": json.dumps(source.env_params),
        "segment_length": pairs.segment_length(source.layout),
        "instruction": source.instruction,
        **{f"pairs.{name}": values for name, values in about.items()},
        **{f"answers.{name}": values for name, values in answers.items()},
    }


def read(path: Path) -> Labels:
    """Reads a file that `write` or another program wrote.

    Raises:
      ValueError: there is none, or it is damaged, or of another kind or version.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a file of labels")
    if not path.is_file():
        raise ValueError(f"there are no labels: {path} does not exist")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception:  # NumPy raises a dozen kinds, by what exactly is damaged, with advice that is unsafe here.
        raise ValueError(f"{path} is damaged or not a file of labels") from None
    if "format" not in arrays or arrays["format"].tolist() != FORMAT or "version" not in arrays:
        raise ValueError(f"{path} is not a file of labels: it does not say that its format is {FORMAT!r}")
    if arrays["version"].tolist() != VERSION:
        raise ValueError(f"{path} has labels of version {arrays['version']}; this is version {VERSION}")
    try:
        return _labels(arrays)
    except KeyError as error:
        raise ValueError(f"{path} is damaged: it has no {error.args[0]}") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _labels(arrays: dict[str, np.ndarray]) -> Labels:
    """Returns what the arrays say; raises KeyError or ValueError if something is missing or wrong."""
    names = [name.removeprefix("pairs.") for name in arrays if name.startswith("pairs.")]
    count, length = len(arrays["pairs.label"]), int(arrays["segment_length"])
    # Another machine may have another order of bytes.
    parts = {name: _native(arrays[f"pairs.{name}"]) for name in names if name not in _ABOUT_PAIRS}
    for name in ("observation", "action", "true_reward"):
        if name not in parts:
            raise KeyError(f"pairs.{name}")
    for name, part in parts.items():
        _expect(f"pairs.{name}", part, "biuf", (count, 2, length))
    records = np.zeros(count, [(name, part.dtype, part.shape[1:]) for name, part in parts.items()])
    for name, part in parts.items():
        records[name] = part
    about = {name: arrays[f"pairs.{name}"] for name in _ABOUT_PAIRS}
    for name, kinds in zip(_ABOUT_PAIRS, ("iu", "b", "f"), strict=True):
        _expect(f"pairs.{name}", about[name], kinds, (count,))
    text = {name: str(arrays[name]) for name in ("run", "env", "env_params", "instruction")}
    source = Source(**text | {"env_params": json.loads(text["env_params"]), "layout": records.dtype})  # type: ignore
    answers = _answers(arrays, count)
    if count and not answers:
        raise ValueError("it has pairs, but no answers to them")
    return Labels(source, records, **about, answers=answers)


def _answers(arrays: dict[str, np.ndarray], num_pairs: int) -> list[Answer]:
    columns = {name: arrays[f"answers.{name}"] for name in _COLUMNS}
    for name, kinds in _COLUMNS.items():
        _expect(f"answers.{name}", columns[name], kinds, (len(columns["token"]),))
    pair, probability = columns["pair"], columns["probability"]
    if ((pair < 0) | (pair >= num_pairs)).any():
        raise ValueError(f"answers.pair goes from {pair.min()} to {pair.max()}, but there are {num_pairs} pairs")
    if unknown := set(columns["answer"].tolist()) - set(ANSWERS):
        raise ValueError(f"answers.answer has {min(unknown)!r}; it must be one of {', '.join(ANSWERS)}")
    if len(set(columns["token"].tolist())) < len(pair):
        raise ValueError("answers.token has the same name twice")
    for name in {*columns["labeller"].tolist()}:
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise ValueError(f"answers.labeller has {name[:60]!r}; it must be of 1 to {MAX_NAME} printable characters")
    values = {name: column.tolist() for name, column in columns.items()}
    values["pair"] = (pair + 1).tolist()
    values["probability"] = [None if np.isnan(p) else float(p) for p in probability]
    return [Answer(**dict(zip(values, row, strict=True))) for row in zip(*values.values(), strict=True)]


def _expect(name: str, array: np.ndarray, kinds: str, shape: tuple[int, ...]) -> None:
    if array.dtype.kind not in kinds or array.shape[: len(shape)] != shape:
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, not of {list(shape)} and kind {kinds}")


def _native(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def merge(store: LabelStore, labels: Labels) -> tuple[dict[int, int], int]:
    """Adds labels to a store, each row of answers once, however often it is merged. Pairs without any are left out.

    Args:
      store: where to.
      labels: from another store or a file.

    Returns:
      The number in the store of each pair, by its number in `labels`; and how many rows of answers were new.

    Raises:
      ValueError: they are about another environment or of another layout.
    """
    check_alike(str(store.path), store.source, labels.source)
    known = {answer.token: answer.pair for answer in store.answers()}
    numbers = {answer.pair: known[answer.token] for answer in labels.answers if answer.token in known}
    fresh = sorted({answer.pair for answer in labels.answers} - numbers.keys())
    numbers |= {pair: number for number, pair in enumerate(fresh, store.num_pairs() + 1)}
    answers = [dataclasses.replace(a, pair=numbers[a.pair]) for a in labels.answers if a.token not in known]
    rows = np.array(fresh, np.int64) - 1
    store.add(labels.records[rows], labels.iteration[rows].tolist(), labels.swapped[rows].tolist(), answers)
    return numbers, len(answers)


def check_alike(where: str, mine: Source, other: Source) -> None:
    """Raises ValueError unless pairs of both sources can be in one store; `where` is that of `mine`."""
    ours, theirs = _facts(mine), _facts(other)
    for fact in ours | theirs:
        mine_is, other_is = (facts.get(fact, "nothing") for facts in (ours, theirs))
        if mine_is != other_is:
            raise ValueError(f"{where} has {fact} = {mine_is}, the labels have {other_is}")


def _facts(source: Source) -> dict[str, Any]:
    fields = {f"type of {name}": source.layout[name] for name in source.layout.names or ()}
    facts = {"env": source.env, "segment length": pairs.segment_length(source.layout)}
    return facts | {f"env_params.{name}": value for name, value in source.env_params.items()} | fields
