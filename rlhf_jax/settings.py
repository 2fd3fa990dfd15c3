"""Settings as text: overrides from a command line, JSON, and what each may be."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from rlhf_jax import convolution, queries, query_rules, teacher
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment

Settings = TypeVar("Settings")


def override(config: Settings, assignments: Sequence[str]) -> Settings:
    """Applies settings of the form `path=value`, such as `ppo.learning_rate=3e-4`.

    Args:
      config: the settings to start from, a dataclass that may hold others.
      assignments: values are written as in Python, without quotes; tuples as `64,64`.

    Raises:
      ValueError: the path is unknown, or the value does not fit its type.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"--set {assignment!r} is not of the form path=value, such as ppo.learning_rate=3e-4")
        path = path.strip()
        known = paths(config)
        if path not in known:
            nearest = difflib.get_close_matches(path, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown setting {path!r}; did you mean {nearest}? All: {', '.join(known)}")
        config = _replace(config, path.split("."), text.strip(), path)
    return config


def paths(config: Any) -> list[str]:
    """Returns the path of every setting."""
    return list(to_dict(config, flat=True))


def to_dict(config: Any, flat: bool = False) -> dict[str, Any]:
    """Returns the settings as nested dictionaries, or as one with paths for keys."""
    out: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not dataclasses.is_dataclass(value):
            out[field.name] = value
        elif flat:
            out |= {f"{field.name}.{key}": inner for key, inner in to_dict(value, flat=True).items()}
        else:
            out[field.name] = to_dict(value)
    return out


def from_dict(values: dict[str, Any]) -> Config:
    """Returns the settings that `to_dict` wrote.

    Raises:
      ValueError: a setting is unknown or missing.
    """
    return _from_dict(Config, values, "")


def _from_dict(kind: type, values: dict[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    if names != set(values):
        others = [prefix + name for name in sorted(names ^ set(values))]
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise ValueError(f"the settings are of another version or kind of experiment: {', '.join(others[:3])}{more}")
    parts = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            value = _from_dict(hints[name], value, f"{prefix}{name}.")
        parts[name] = tuple(value) if isinstance(value, list) else value
    return kind(**parts)


def _replace(config: Any, names: list[str], text: str, path: str) -> Any:
    if len(names) > 1:
        return dataclasses.replace(config, **{names[0]: _replace(getattr(config, names[0]), names[1:], text, path)})
    return dataclasses.replace(config, **{names[0]: _parse(typing.get_type_hints(type(config))[names[0]], text, path)})


def _parse(kind: Any, text: str, path: str) -> Any:
    if isinstance(kind, types.UnionType):
        kinds = [k for k in typing.get_args(kind) if k is not types.NoneType]
        return None if text == "None" else _parse(kinds[0], text, path)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if typing.get_origin(kind) is tuple:
            return tuple(int(part) for part in text.strip("()").split(",") if part.strip())
        return kind(text)
    except (ValueError, KeyError):
        name = getattr(kind, "__name__", str(kind))
        raise ValueError(f"{path}={text!r} is not of type {name}") from None


def _problems(config: Config, env: Environment) -> Iterator[str]:
    """Yields what is wrong, each with the numbers and what is allowed."""
    flat = to_dict(config, flat=True)
    for path, value in flat.items():
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{path} = {value}; it must be finite"
    at_least_one = (
        "iterations num_envs rollout_length ppo.epochs ppo.minibatches queries.segment_length queries.candidates "
        "labels.warmup reward.members reward.fit_steps reward.batch_size reward.reference_size"
    )
    for path in at_least_one.split():
        if flat[path] < 1:
            yield f"{path} = {flat[path]}; it must be at least 1"
    positive = "ppo.initial_std ppo.learning_rate ppo.clip ppo.max_grad_norm labels.half_life reward.learning_rate"
    for path in positive.split():
        if not flat[path] > 0:
            yield f"{path} = {flat[path]}; it must be positive"
    if not 0 <= flat["reward.dropout"] < 1:
        yield f"reward.dropout = {flat['reward.dropout']}; it must be at least 0 and below 1"
    shares = (
        "ppo.discount ppo.trace_decay ppo.learning_rate_decay queries.random_share labels.initial_fraction "
        "teacher.mistake_rate teacher.error_rate teacher.discount reward.error_rate"
    )
    for path in shares.split():
        if not 0 <= flat[path] <= 1:
            yield f"{path} = {flat[path]}; it must be between 0 and 1"
    if flat["ppo.discount"] == 1:
        yield "ppo.discount = 1; it must be below 1, because rewards are scaled by 1 − discount"
    not_negative = (
        "ppo.value_coefficient ppo.entropy_coefficient teacher.temperature teacher.tie_band reward.sparsity reward.l2 "
        "reward.action_scale"
    )
    for path in not_negative.split():
        if not flat[path] >= 0:
            yield f"{path} = {flat[path]}; it must not be negative"
    for path in ("ppo.hidden", "reward.hidden"):
        if not flat[path] or min(flat[path]) < 1:
            yield f"{path} = {flat[path]}; it must name at least one layer, each at least 1 wide"
    yield from _contradictions(config, env)


def _contradictions(config: Config, env: Environment) -> Iterator[str]:
    steps, length = config.num_envs * config.rollout_length, config.queries.segment_length
    if config.ppo.minibatches > 0 and steps % config.ppo.minibatches:
        yield (
            f"num_envs × rollout_length = {config.num_envs} × {config.rollout_length} = {steps} is not divisible by "
            f"ppo.minibatches = {config.ppo.minibatches}"
        )
    if length > min(env.horizon, config.rollout_length):
        yield (
            f"queries.segment_length = {length} is longer than the episode of {env.horizon} steps or "
            f"rollout_length = {config.rollout_length}"
        )
    query_rules.check(config.queries.selection)
    teacher.check(config.teacher)
    yield from _label_contradictions(config)
    if not 0 <= config.reward.l2_low <= config.reward.l2_high or config.reward.l2_adaptation < 1:
        yield (
            f"reward.l2_low = {config.reward.l2_low}, l2_high = {config.reward.l2_high}, "
            f"l2_adaptation = {config.reward.l2_adaptation}; 0 ≤ low ≤ high and factor ≥ 1 are needed"
        )
    if config.reward.zero_median and not config.reward.normalise:
        yield "reward.zero_median = True has no say where reward.normalise = False"
    yield from _observation_contradictions(config, env)


def _label_contradictions(config: Config) -> Iterator[str]:
    labels = config.labels
    if labels.schedule not in queries.SCHEDULES:
        yield f"labels.schedule = {labels.schedule!r}; it must be one of {', '.join(queries.SCHEDULES)}"
        return
    if labels.warmup >= config.iterations:
        yield f"labels.warmup = {labels.warmup} leaves nothing of iterations = {config.iterations} to train in"
        return
    if labels.max_budget < (0 if config.use_true_reward else 1):
        yield f"labels.max_budget = {labels.max_budget}; it must be at least 1, or 0 on the true reward"
    if not config.use_true_reward and not config.reward.frozen and labels.budget < 1:
        yield f"labels.budget = {labels.budget}; it must be at least 1"
    if labels.budget > labels.max_budget:
        yield f"labels.budget = {labels.budget} is more than labels.max_budget = {labels.max_budget}"
    if labels.capacity is not None and labels.half_life > 0 and labels.capacity < queries.slots(config):
        yield (
            f"labels.capacity = {labels.capacity} is less than the {queries.slots(config)} labels "
            f"of the busiest iteration"
        )


def _observation_contradictions(config: Config, env: Environment) -> Iterator[str]:
    if len(env.observation_shape) not in (1, 3):
        yield f"{env.name} observes arrays of shape {env.observation_shape}; vectors and images are supported"
    if len(env.observation_shape) == 3 and min(env.observation_shape[:2]) < 3:
        yield f"{env.name} observes images of shape {env.observation_shape}; at least 3 × 3 pixels are needed"
    if config.reward.dropout and len(env.observation_shape) != 3:
        yield f"reward.dropout = {config.reward.dropout} has no say: {env.name} does not observe images"
    every, of_places = convolution.POOLINGS, convolution.POOLINGS[:2]  # A policy must know where things are.
    poolings = [("reward.pooling", config.reward.pooling, every), ("ppo.pooling", config.ppo.pooling, of_places)]
    for path, pooling, known in poolings:
        if pooling not in known:
            yield f"{path} = {pooling} is none of {', '.join(known)}"
        elif pooling != "none" and len(env.observation_shape) != 3:
            yield f"{path} = {pooling} has no say: {env.name} does not observe images"
        elif pooling == "keypoints" and convolution.is_one_place(env.observation_shape):
            yield f"{path} = {pooling}: images of shape {env.observation_shape} are too small to have places"
    if not config.normalise_observations and not env.measured:
        yield f"normalise_observations = False has no say: the scale of what {env.name} observes is known"


def validate(config: Config, env: Environment) -> None:
    """Checks the settings before anything compiles.

    Args:
      config: concrete settings, not traced ones.
      env: the environment that they are for.

    Raises:
      ValueError: the first thing that is wrong, in one line.
    """
    for problem in _problems(config, env):
        raise ValueError(problem)
