"""Host only: the folder that a run writes, the same for every experiment.

config.json           what was run: settings of every condition, seeds, versions, device
metrics.jsonl         one line per iteration and condition, a list over seeds for each metric
summary.json          the result
table.csv             one line per agent: its settings where conditions differ, and what it reached
checkpoints/          the newest states of all agents; a folder for each program if there are several
labels.sqlite         what people or a stored teacher were asked, and said
report.html           made by experiments.report
token                 of a run with people, which lets other machines open its page
<condition>/*.npy     curves of one condition, [seeds, points]
"""

import dataclasses
import fcntl
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlhf_jax import checkpoint, environments, parallel, ppo, settings, train_state, training
from rlhf_jax.config import Config

_PACKAGES = ("rlhf_jax", "jax", "jaxlib", "flax", "optax", "gymnax", "chex", "orbax-checkpoint", "numpy", "ale-py")
LABELS = "labels.sqlite"


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run on disk.

    path: the folder.
    experiment: which experiment wrote it.
    conditions: name of each condition and its settings.
    seeds: of the agents; every condition has one agent for each.
    program: which of its programs this is a part of; empty if there is only one, or for the whole run.
    """

    path: Path
    experiment: str
    conditions: dict[str, Config]
    seeds: list[int]
    program: str = ""

    @property
    def config(self) -> Config:
        """Settings of the first condition, for what all have alike."""
        return next(iter(self.conditions.values()))

    @property
    def env(self) -> environments.Environment:
        """Its environment, to be asked for shapes."""
        return _made(self.config.env)

    @property
    def checkpoints(self) -> Path:
        """Where its checkpoints are."""
        return self.path / "checkpoints" / self.program

    def programs(self) -> list["RunFolder"]:
        """Splits it into runs whose conditions are lanes of one compiled program each."""
        groups = parallel.by_program(self.conditions)
        if len(groups) == 1:
            return [self]
        return [dataclasses.replace(self, conditions=lanes, program=f"program_{i}") for i, lanes in enumerate(groups)]

    @property
    def num_agents(self) -> int:
        """A: conditions × seeds, conditions first."""
        return len(self.conditions) * len(self.seeds)

    @property
    def emulated(self) -> bool:
        """Whether its environment is an emulator."""
        return self.env.emulated

    def by_condition(self, values: Any) -> dict[str, Any]:
        """Splits `[A, ...]` arrays into those of the conditions, `[seeds, ...]` each."""
        rows = len(self.seeds)
        return {
            name: jax.tree.map(lambda x, i=i: np.asarray(x[i * rows : (i + 1) * rows]), values)
            for i, name in enumerate(self.conditions)
        }

    def agent_name(self, agent: int) -> str:
        """Returns the condition and the seed of an agent, in words."""
        condition, seed = divmod(agent, len(self.seeds))
        return f"{list(self.conditions)[condition]}, seed {self.seeds[seed]}"


def create(path: Path, experiment: str, conditions: dict[str, Config], seeds: Sequence[int]) -> RunFolder:
    """Makes the folder of a new run and writes its `config.json`.

    Raises:
      ValueError: the folder cannot be written, or holds something already.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise ValueError(f"--out {path} is not empty; name another folder, or go on with its run by --resume")
        (path / "config.json").touch()
    except OSError as error:
        raise ValueError(f"--out {path} cannot be written: {error.strerror}") from error
    run = RunFolder(path, experiment, conditions, list(seeds))
    record = {
        "experiment": experiment,
        "seeds": run.seeds,
        "conditions": {name: settings.to_dict(config) for name, config in conditions.items()},
        "device": device(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }
    write_json(path / "config.json", record)
    return run


def load(path: Path) -> RunFolder:
    """Opens the folder of an earlier run.

    Raises:
      ValueError: there is none, or its `config.json` is not of this version.
    """
    file = path / "config.json"
    try:
        record = json.loads(file.read_text())
        conditions = {name: settings.from_dict(values) for name, values in record["conditions"].items()}
        run = RunFolder(path, record["experiment"], conditions, [int(seed) for seed in record["seeds"]])
    except FileNotFoundError:
        raise ValueError(f"{path} is not the folder of a run: it has no config.json") from None
    except (OSError, KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is damaged: {type(error).__name__}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}, of experiments.{record['experiment']}: {error}") from None
    if not run.num_agents:
        raise ValueError(f"{file} is damaged: it names no condition or no seed")
    return run


@contextmanager
def claim(run: RunFolder) -> Iterator[None]:
    """Keeps other processes from training in the folder meanwhile.

    Raises:
      ValueError: another one is.
    """
    with (run.path / "config.json").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{run.path} is in use by another process") from None
        yield


def abstract_states(run: RunFolder) -> train_state.TrainState:
    """Returns the shapes of the states of all agents, `[A, ...]`, without computing anything."""
    keys = jax.eval_shape(lambda: parallel.agent_keys(range(run.num_agents)))
    return jax.eval_shape(jax.vmap(lambda key: train_state.init(key, env=run.env, config=run.config)), keys)


def load_state(
    path: str | Path, condition: str | None = None, seed: int | None = None, *, preferences: bool = True
) -> tuple[Config, train_state.TrainState]:
    """Loads an agent from the newest checkpoint of a run.

    Args:
      path: the folder.
      condition: such as "true_reward" or "labels_700"; may be left out if there is only one.
      seed: of the agent; may be left out if there is only one.
      preferences: read them, too, which of images may be gigabytes; otherwise they are arrays without elements.

    Returns:
      The settings of the agent, and the agent.

    Raises:
      ValueError: there is no such run, condition, seed or checkpoint.
    """
    run = load(Path(path))
    condition = _only(f"{path} has", "condition", condition, list(run.conditions))
    seed = _only(f"{path} has", "seed", seed, run.seeds)
    run = next(part for part in run.programs() if condition in part.conditions)
    iteration = checkpoint.latest(run.checkpoints)
    if iteration is None:
        raise ValueError(f"{path} has no checkpoint")
    like = abstract_states(run)
    if not preferences:
        like = dataclasses.replace(like, preferences=jax.tree.map(lambda _: ..., like.preferences))
    unread = jax.tree.map(lambda _: ..., abstract_metrics(run, iteration))
    states = checkpoint.restore(run.checkpoints, iteration, {"states": like, "metrics": unread})["states"]
    row = list(run.conditions).index(condition) * len(run.seeds) + run.seeds.index(seed)
    return run.conditions[condition], jax.tree.map(lambda x: np.zeros(0) if x is ... else x[row], states)


def _only(whose: str, what: str, wanted: Any, known: list[Any]) -> Any:
    """Returns what is wanted, or the only one that there is; raises ValueError."""
    if wanted is None and len(known) == 1:
        return known[0]
    if wanted is None:
        raise ValueError(f"{whose} several {what}s, name one: {', '.join(map(str, known))}")
    if wanted not in known:
        raise ValueError(f"{whose} no {what} {wanted!r}; it has {', '.join(map(str, known))}")
    return wanted


def load_policy(
    path: str | Path, condition: str | None = None, seed: int | None = None
) -> Callable[[np.ndarray], np.ndarray]:
    """Loads a trained policy from the folder of a run; path, condition and seed are those of `load_state`.

    Returns:
      The deterministic policy: `[..., *observation]` to actions in the units of the environment, both NumPy. Images are
      those of `rlhf_jax.make`: of Atari the last four frames, `[84, 84, 4]` uint8, with the score blanked, and actions
      are indices into the game's minimal set. It raises ValueError for observations of another shape or kind.

    Raises:
      ValueError: there is no such run, condition, seed or checkpoint.

    Example:
      >>> act = load_policy("results/pendulum/2026-01-01-120000", "labels_700", seed=0)  # doctest: +SKIP
      >>> observation, reward, *_ = gymnasium_env.step(act(observation))  # doctest: +SKIP
    """
    config, state = load_state(path, condition, seed, preferences=False)
    env = environments.make(config.env)
    policy = ppo.deterministic_policy(state.agent, env=env, config=config.ppo)

    @jax.jit
    def act(observation: jax.Array) -> jax.Array:
        action, _ = policy(jax.random.key(0), observation)
        return env.native_action(action)

    return lambda observation: np.asarray(act(env.observations(observation)))


def abstract_metrics(run: RunFolder, iterations: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of the metrics of all agents after so many iterations, `[A, iterations]` each; none for 0."""
    if iterations == 0:
        return {}
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), abstract_states(run))
    _, metrics = jax.eval_shape(lambda state: training.iteration(state, env=run.env, config=run.config), one)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((run.num_agents, iterations), x.dtype), metrics)


def device() -> str:
    """Returns the devices in words."""
    devices = jax.devices()
    return f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform})"


def write_json(file: Path, record: Any) -> None:
    """Writes JSON that every reader accepts: NaN and infinities become null."""
    file.write_text(json.dumps(plain(record), indent=2) + "\n")


def plain(value: Any) -> Any:
    """Returns a value in the types of JSON."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def start(run: RunFolder, earlier: train_state.TrainState) -> None:
    """Writes the checkpoint that a new run starts from, where that is a reward that was learnt before.

    Args:
      run: a new one.
      earlier: the agent that has the reward, and the preferences that it was learnt from; see `train_state.inherit`.
    """

    # Not a constant of the program: the preferences may be gigabytes of images.
    @partial(jax.vmap, in_axes=(0, 0, None))
    def begin(key: jax.Array, config: Config, earlier: train_state.TrainState) -> train_state.TrainState:
        return train_state.inherit(train_state.init(key, env=run.env, config=config), earlier)

    for part in run.programs():
        lanes = parallel.lanes([config for config in part.conditions.values() for _ in part.seeds])
        keys = parallel.agent_keys(part.seeds * len(part.conditions))
        checkpoint.save(part.checkpoints, 0, {"states": jax.jit(begin)(keys, lanes, earlier), "metrics": {}})


# Only shapes are asked of it; whoever makes another emulator each time waits for seconds.
_made = functools.cache(environments.make)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
