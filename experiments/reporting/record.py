"""What a run wrote, read back without its program: also of runs that are older, unfinished, or of other experiments."""

import dataclasses
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class ConditionRecord:
    """What is known about the agents of one condition; what the run did not record is empty or None.

    name: of the condition.
    settings: by their full names, such as "reward.l2_low".
    metrics: `[seeds, points]` of each metric, a point for each iteration; NaN where unknown.
    judgement: `[seeds]` of each "<states>.<metric>" at the end.
    reliability: `[seeds, bins, 3]` mean predicted probability, mean answer and weight of each bin.
    reward_map: `[seeds, H, W]` learnt reward on the plane of the environment.
    eval_returns: `[seeds]` return of the policy at the end.
    explores: whether the policy explored there, too; where it did, the run says what it earns without.
    normalised: mean of the same, 0 for random actions and 1 for the optimum.
    """

    name: str
    settings: dict[str, Any]
    metrics: dict[str, np.ndarray]
    judgement: dict[str, np.ndarray]
    reliability: np.ndarray | None = None
    reward_map: np.ndarray | None = None
    eval_returns: np.ndarray | None = None
    explores: bool = False
    normalised: float | None = None

    @property
    def learns_reward(self) -> bool:
        """Whether its agents learn from a learnt reward, which can be judged."""
        given = self.settings.get("use_true_reward", False)
        return not given and (bool(self.judgement) or "train_loss" in self.metrics)

    @property
    def points(self) -> int:
        """How many iterations it has done."""
        return next((values.shape[1] for values in self.metrics.values()), 0)


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """What a run wrote.

    path: its folder.
    experiment: which one wrote it.
    device: on which it ran, in words.
    seeds: of the agents of each condition.
    finished: whether it has a result.
    optimum: return that is the best possible, if known.
    conditions: in their order.
    """

    path: Path
    experiment: str
    device: str
    seeds: list[int]
    finished: bool
    optimum: float | None
    conditions: list[ConditionRecord]


def read(path: Path) -> RunRecord:
    """Reads the folder of a run.

    Raises:
      ValueError: it is none, it is damaged, or there are no metrics in it yet.
    """
    if not (path / "config.json").is_file():
        raise ValueError(f"{path} is not the folder of a run: it has no config.json")
    config = _read_json(path / "config.json")
    summary = _read_json(path / "summary.json") if (path / "summary.json").exists() else {}
    try:
        seeds, settings = [int(seed) for seed in config["seeds"]], config["conditions"]
        experiment, device = str(config["experiment"]), str(config.get("device", "an unknown device"))
        rows: dict[str, dict] = {name: {} for name in settings} | summary.get("conditions", {})
        settings = {name: dict(_flat(settings.get(name, {}))) for name in rows}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path / 'config.json'} is damaged: {type(error).__name__}: {error}") from None
    metrics = _read_metrics(path / "metrics.jsonl", len(seeds))
    if not metrics:
        raise ValueError(f"{path} has no metrics yet; wait for its first iterations")
    # Some agents only make data, and are in the metrics alone.
    conditions = [
        _read_condition(
            path / name, name, settings.get(name, {}), metrics.get(name, {}), rows.get(name, {}), len(seeds)
        )
        for name in rows | metrics
    ]
    return RunRecord(path, experiment, device, seeds, bool(summary), summary.get("optimum"), conditions)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is damaged: {type(error).__name__}: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{file} is damaged: it holds no record")
    return record


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _read_metrics(file: Path, num_seeds: int) -> dict[str, dict[str, np.ndarray]]:
    """Returns the `[seeds, points]` metrics of each condition."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        text = ""
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is damaged: {type(error).__name__}: {error}") from None
    rows: dict[str, list[dict[str, np.ndarray]]] = {}
    # What stands after the last end of a line is being written at this moment.
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            row = json.loads(line)
            condition = rows.setdefault(str(row.pop("condition")), [])
            iteration = row.pop("epoch" if "epoch" in row else "iteration")
            values = {key: np.array(value, float) for key, value in row.items()}
            if iteration != len(condition) + 1 or any(value.shape != (num_seeds,) for value in values.values()):
                raise ValueError("an iteration is left out or twice there, or it has another number of seeds")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is damaged in line {number}: {type(error).__name__}: {error}") from None
        condition.append(values)
    return {name: _columns(condition, num_seeds) for name, condition in rows.items()}


def _columns(rows: list[dict[str, np.ndarray]], num_seeds: int) -> dict[str, np.ndarray]:
    unknown = np.full(num_seeds, np.nan)
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: np.stack([row.get(key, unknown) for row in rows], 1) for key in keys}


def _read_condition(
    folder: Path, name: str, settings: dict[str, Any], metrics: dict[str, np.ndarray], row: dict, num_seeds: int
) -> ConditionRecord:
    judgement = _load(folder / "judgement.npz")
    returns = _load(folder / "eval_returns.npy")
    if returns is None and row.get("eval_return"):
        returns = np.array(row["eval_return"], float)
    record = ConditionRecord(
        name=name,
        settings=settings,
        metrics=metrics,
        judgement=judgement or {},
        reliability=_load(folder / "reliability.npy"),
        reward_map=_load(folder / "reward_map.npy"),
        eval_returns=returns,
        explores="deterministic_mean" in row,
        normalised=row.get("normalised"),
    )
    arrays = {"reliability.npy": (record.reliability, 3), "reward_map.npy": (record.reward_map, 3)}
    arrays |= {f"judgement.npz: {key}": (value, 1) for key, value in record.judgement.items()}
    arrays |= {"eval_returns.npy": (record.eval_returns, 1)}
    for file, (values, rank) in arrays.items():
        if values is not None and (values.ndim != rank or values.shape[0] != num_seeds):
            raise ValueError(f"{folder / file} is damaged: it has shape {list(values.shape)} for {num_seeds} seeds")
    return record


def _load(file: Path) -> Any:
    """Returns what a NumPy file holds, or None if there is none."""
    if not file.exists():
        return None
    try:
        loaded = np.load(file, allow_pickle=False)
        return (
            {key: np.asarray(loaded[key], float) for key in loaded} if file.suffix == ".npz" else loaded.astype(float)
        )
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is damaged: {type(error).__name__}: {error}") from None
