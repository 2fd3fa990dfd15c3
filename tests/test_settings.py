"""Settings from text and JSON, and a table of what is refused and how."""

import dataclasses
import json

import pytest

import rlhf_jax
from rlhf_jax import settings
from rlhf_jax.config import TEACHER_PRESETS, Config

PENDULUM = rlhf_jax.make("Pendulum-v1")
# Numbers that the messages quote, whatever the defaults are.
BASE = settings.override(
    Config(),
    [
        "iterations=20",
        "num_envs=4",
        "rollout_length=100",
        "ppo.minibatches=8",
        "queries.segment_length=50",
        "labels.budget=30",
        "labels.max_budget=40",
        "labels.warmup=2",
        "labels.initial_fraction=0.5",
        "labels.half_life=50000",
        "reward.l2_low=1.1",
        "reward.l2_high=1.5",
        "reward.l2_adaptation=1.1",
    ],
)


@pytest.mark.parametrize(
    "assignment, expected",
    [
        ("iterations=30", 30),
        ("num_envs=1_000", 1000),
        ("ppo.learning_rate=3e-4", 3e-4),
        ("ppo.discount=0", 0.0),
        ("ppo.hidden=64,64", (64, 64)),
        ("ppo.hidden=(64, 32,)", (64, 32)),
        ("reward.hidden=7", (7,)),
        ("ppo.clip_value=true", True),
        ("ppo.clip_value=False", False),
        ("queries.selection=uniform", "uniform"),
        ("labels.capacity=500", 500),
        ("labels.capacity=None", None),
        (" labels.budget = 12 ", 12),
        ("env=CartPole-v1", "CartPole-v1"),
    ],
)
def test_override_parses_each_type(assignment, expected):
    start = dataclasses.replace(Config(), labels=dataclasses.replace(Config().labels, capacity=9))
    path = assignment.partition("=")[0].strip()
    flat = settings.to_dict(settings.override(start, [assignment]), flat=True)
    assert flat[path] == expected and type(flat[path]) is type(expected)
    before = settings.to_dict(start, flat=True)
    assert {key for key in flat if flat[key] != before[key]} <= {path}


def test_override_reaches_every_setting_and_the_last_one_wins():
    before = settings.to_dict(Config(), flat=True)
    assert settings.paths(Config()) == list(before)
    for path, value in before.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert settings.override(Config(), [f"{path}={text}"]) == Config()
    assert settings.override(Config(), ["labels.budget=5", "labels.budget=6"]).labels.budget == 6


@dataclasses.dataclass(frozen=True)
class Part:
    """Settings within settings."""

    share: float = 0.5
    sizes: tuple[int, ...] = (1, 2)


@dataclasses.dataclass(frozen=True)
class Other:
    """Settings that are not those of a run."""

    steps: int = 3
    part: Part = Part()


def test_override_of_other_settings():
    """Those of an experiment, which know their own names and no others."""
    changed = settings.override(Other(), ["steps=4", "part.share=1", "part.sizes=7,8"])
    assert changed == Other(steps=4, part=Part(share=1.0, sizes=(7, 8)))
    assert settings.paths(Other()) == ["steps", "part.share", "part.sizes"]
    with pytest.raises(ValueError, match=r"^unknown setting 'part.shar'; did you mean part.share\? All: steps, part"):
        settings.override(Other(), ["part.shar=1"])
    with pytest.raises(ValueError, match=r"unknown setting 'ppo.learning_rate'"):
        settings.override(Other(), ["ppo.learning_rate=1"])
    with pytest.raises(ValueError, match=r"^steps='many' is not of type int$"):
        settings.override(Other(), ["steps=many"])


@pytest.mark.parametrize(
    "path, nearest",
    [
        ("ppo.learning_rat", "ppo.learning_rate"),
        ("learning_rate", "ppo.learning_rate"),
        ("ppo.learning_rate.x", "ppo.learning_rate"),
        ("labels.bugdet", "labels.budget"),
        ("Iterations", "iterations"),
        ("reward.member", "reward.members"),
        ("ppo", "ppo."),
        ("xyz", ""),
        ("", ""),
    ],
)
def test_unknown_path_is_refused_with_the_nearest(path, nearest):
    with pytest.raises(ValueError) as error:
        settings.override(Config(), [f"{path}=1"])
    message = one_line(error)
    assert repr(path) in message
    assert f"did you mean {nearest}" in message
    assert all(known in message for known in ("iterations", "reward.l2_high"))


@pytest.mark.parametrize(
    "assignment, words",
    [
        ("iterations=2.5", ["iterations", "2.5", "int"]),
        ("iterations=1e3", ["iterations", "1e3", "int"]),
        ("iterations=", ["iterations", "''", "int"]),
        ("ppo.learning_rate=fast", ["ppo.learning_rate", "fast", "float"]),
        ("ppo.clip_value=yes", ["ppo.clip_value", "yes", "bool"]),
        ("ppo.clip_value=1", ["ppo.clip_value", "1", "bool"]),
        ("ppo.hidden=64,wide", ["ppo.hidden", "64,wide"]),
        ("ppo.hidden=64.5", ["ppo.hidden", "64.5"]),
        ("labels.capacity=all", ["labels.capacity", "all", "int"]),
        ("iterations", ["'iterations'", "path=value"]),
    ],
)
def test_wrong_type_is_refused(assignment, words):
    with pytest.raises(ValueError) as error:
        settings.override(Config(), [assignment])
    assert all(word in one_line(error) for word in words)


def test_settings_survive_the_round_trip_through_json():
    changes = ["ppo.hidden=3,5", "labels.capacity=40", "ppo.learning_rate=0.1", "use_true_reward=true"]
    config = settings.override(BASE, changes)
    text = json.dumps(settings.to_dict(config), allow_nan=False)
    assert settings.from_dict(json.loads(text)) == config
    assert settings.to_dict(config)["ppo"]["hidden"] == (3, 5)
    assert settings.from_dict(json.loads(json.dumps(settings.to_dict(Config())))) == Config()


@pytest.mark.parametrize("place", [(), ("ppo",), ("reward",)])
@pytest.mark.parametrize("change", ["unknown", "missing"])
def test_settings_of_another_version_are_refused(place, change):
    values = inner = settings.to_dict(Config())
    for name in place:
        inner = inner[name]
    name = "not_yet_invented" if change == "unknown" else list(inner)[-1]
    if change == "unknown":
        inner[name] = 1
    else:
        del inner[name]
    with pytest.raises(ValueError) as error:
        settings.from_dict(values)
    assert one_line(error).endswith(f": {'.'.join([*place, name])}")


def test_of_settings_of_another_experiment_three_are_named():
    """Such as those of CartPole's runs, which share hardly any."""
    others = dict.fromkeys("abcd") | settings.to_dict(Config())
    with pytest.raises(ValueError, match=r": a, b, c and 1 more$"):
        settings.from_dict(others)


def test_defaults_are_valid():
    settings.validate(Config(), PENDULUM)
    settings.validate(BASE, PENDULUM)
    on_true_reward = dataclasses.replace(BASE, use_true_reward=True, labels=dataclasses.replace(BASE.labels, budget=0))
    settings.validate(on_true_reward, PENDULUM)


# Assignments on top of BASE, and what the message must name: the setting, the value, what is allowed.
REFUSED = {
    "iterations=0": ["iterations = 0", "at least 1"],
    "num_envs=0": ["num_envs = 0", "at least 1"],
    "num_envs=-4": ["num_envs = -4", "at least 1"],
    "rollout_length=0": ["rollout_length = 0", "at least 1"],
    "ppo.epochs=0": ["ppo.epochs = 0", "at least 1"],
    "ppo.minibatches=0": ["ppo.minibatches = 0", "at least 1"],
    "ppo.minibatches=7": ["4 × 100 = 400", "divisible", "ppo.minibatches = 7"],
    "num_envs=3 rollout_length=50": ["3 × 50 = 150", "divisible", "ppo.minibatches = 8"],
    "ppo.hidden=()": ["ppo.hidden = ()", "at least one layer"],
    "ppo.hidden=32,0": ["ppo.hidden = (32, 0)", "at least 1 wide"],
    "ppo.initial_std=0": ["ppo.initial_std = 0.0", "positive"],
    "ppo.learning_rate=0": ["ppo.learning_rate = 0.0", "positive"],
    "ppo.learning_rate=-1e-3": ["ppo.learning_rate = -0.001", "positive"],
    "ppo.learning_rate=nan": ["ppo.learning_rate = nan", "finite"],
    "ppo.learning_rate_decay=1.5": ["ppo.learning_rate_decay = 1.5", "between 0 and 1"],
    "ppo.discount=1.01": ["ppo.discount = 1.01", "between 0 and 1"],
    "ppo.discount=nan": ["ppo.discount = nan", "finite"],
    "ppo.trace_decay=-0.1": ["ppo.trace_decay = -0.1", "between 0 and 1"],
    "ppo.clip=0": ["ppo.clip = 0.0", "positive"],
    "ppo.value_coefficient=-1": ["ppo.value_coefficient = -1.0", "not be negative"],
    "ppo.entropy_coefficient=-0.5": ["ppo.entropy_coefficient = -0.5", "not be negative"],
    "ppo.max_grad_norm=0": ["ppo.max_grad_norm = 0.0", "positive"],
    "queries.segment_length=0": ["queries.segment_length = 0", "at least 1"],
    "queries.segment_length=101": ["queries.segment_length = 101", "rollout_length = 100"],
    "queries.segment_length=201 rollout_length=400": ["queries.segment_length = 201", "200 steps"],
    "queries.candidates=0": ["queries.candidates = 0", "at least 1"],
    "queries.selection=random": ["queries.selection = 'random'", "one of uniform, disagreement, ", ", k_centre, "],
    "queries.random_share=2": ["queries.random_share = 2.0", "between 0 and 1"],
    "labels.budget=0": ["labels.budget = 0", "at least 1"],
    "labels.budget=-7": ["labels.budget = -7", "at least 1"],
    "labels.budget=41": ["labels.budget = 41", "labels.max_budget = 40"],
    "labels.max_budget=0": ["labels.max_budget = 0", "at least 1, or 0 on the true reward"],
    "labels.max_budget=-1 use_true_reward=true": ["labels.max_budget = -1", "at least 1, or 0 on the true reward"],
    "labels.capacity=9": ["labels.capacity = 9", "10 labels"],
    "labels.capacity=0": ["labels.capacity = 0", "10 labels"],
    "labels.initial_fraction=1.1": ["labels.initial_fraction = 1.1", "between 0 and 1"],
    "labels.warmup=0": ["labels.warmup = 0", "at least 1"],
    "labels.warmup=20": ["labels.warmup = 20", "iterations = 20"],
    "labels.schedule=linear": ["labels.schedule = 'linear'", "constant, hyperbolic, inverse_quadratic, exponential"],
    "labels.half_life=0": ["labels.half_life = 0.0", "positive"],
    "teacher.name=sage": ["teacher.name = 'sage'", "one of standard"],
    "teacher.temperature=-1": ["teacher.temperature = -1.0", "not be negative"],
    "teacher.mistake_rate=1.5": ["teacher.mistake_rate = 1.5", "between 0 and 1"],
    "teacher.error_rate=2": ["teacher.error_rate = 2.0", "between 0 and 1"],
    "teacher.tie_band=-0.5": ["teacher.tie_band = -0.5", "not be negative"],
    "teacher.silence_below=-inf": ["teacher.silence_below = -inf", "finite"],
    "teacher.discount=1.01": ["teacher.discount = 1.01", "between 0 and 1"],
    "reward.members=0": ["reward.members = 0", "at least 1"],
    "reward.hidden=-8": ["reward.hidden = (-8,)", "at least 1 wide"],
    "reward.fit_steps=0": ["reward.fit_steps = 0", "at least 1"],
    "reward.batch_size=0": ["reward.batch_size = 0", "at least 1"],
    "reward.reference_size=-1": ["reward.reference_size = -1", "at least 1"],
    "reward.learning_rate=0": ["reward.learning_rate = 0.0", "positive"],
    "reward.action_scale=-1": ["reward.action_scale = -1.0", "not be negative"],
    "reward.error_rate=-0.1": ["reward.error_rate = -0.1", "between 0 and 1"],
    "reward.l2=-1": ["reward.l2 = -1.0", "not be negative"],
    "reward.l2_low=1.6": ["reward.l2_low = 1.6", "l2_high = 1.5", "low ≤ high"],
    "reward.l2_adaptation=0.9": ["l2_adaptation = 0.9", "1"],
    # What is not finite would only be noticed hours later, or not at all.
    "ppo.learning_rate=inf": ["ppo.learning_rate = inf"],
    "ppo.initial_std=inf": ["ppo.initial_std = inf"],
    "ppo.entropy_coefficient=inf": ["ppo.entropy_coefficient = inf"],
    "labels.half_life=inf": ["labels.half_life = inf"],
    "reward.learning_rate=inf": ["reward.learning_rate = inf"],
    "reward.l2=inf": ["reward.l2 = inf"],
    "reward.l2_adaptation=nan": ["l2_adaptation = nan"],
    "reward.zero_median=true reward.normalise=false": ["reward.zero_median = True has no say", "reward.normalise"],
}


@pytest.mark.parametrize("assignments", REFUSED)
def test_bad_settings_are_refused_in_one_line(assignments):
    config = settings.override(BASE, assignments.split())
    with pytest.raises(ValueError) as error:
        settings.validate(config, PENDULUM)
    assert all(words in one_line(error) for words in REFUSED[assignments])


def test_largest_capacity_that_is_refused_is_one_less_than_the_busiest_iteration():
    # Half of 40 labels in 2 iterations of warm-up: 10 in each, and never as many later.
    settings.validate(settings.override(BASE, ["labels.capacity=10"]), PENDULUM)


@pytest.mark.parametrize("name", TEACHER_PRESETS)
def test_preset_teachers_are_valid(name):
    settings.validate(dataclasses.replace(BASE, teacher=TEACHER_PRESETS[name]), PENDULUM)


@pytest.mark.parametrize("changes", ["labels.initial_fraction=1", "queries.random_share=1", "teacher.discount=0"])
def test_ends_of_a_range_are_valid(changes):
    settings.validate(settings.override(BASE, [changes, "labels.capacity=40"]), PENDULUM)


def test_environment_of_matrices_is_refused():
    with pytest.raises(ValueError) as error:
        settings.validate(BASE, rlhf_jax.make("Catch-bsuite"))
    assert "Catch-bsuite" in one_line(error) and "(10, 5)" in one_line(error)


def test_what_is_not_measured_cannot_be_normalised():
    config = settings.override(BASE, ["env=MovingDot-v0", "normalise_observations=false"])
    with pytest.raises(ValueError, match=r"normalise_observations = False has no say: .* MovingDot-v0"):
        settings.validate(config, rlhf_jax.make("MovingDot-v0"))


def test_tiny_images_are_refused():
    env = dataclasses.replace(rlhf_jax.make("Breakout-MinAtar"), observation_shape=(10, 2, 4))
    with pytest.raises(ValueError) as error:
        settings.validate(BASE, env)
    assert "(10, 2, 4)" in one_line(error) and "3 × 3" in one_line(error)


@pytest.mark.parametrize(
    ("env", "setting", "value", "problem"),
    [
        ("Breakout-MinAtar", "reward.pooling", "mean", "is none of none, keypoints, max"),
        ("Breakout-MinAtar", "ppo.pooling", "mean", "is none of none, keypoints"),
        ("Breakout-MinAtar", "ppo.pooling", "max", "is none of none, keypoints"),
        ("Pendulum-v1", "reward.pooling", "max", "has no say: Pendulum-v1 does not observe images"),
        ("Pendulum-v1", "ppo.pooling", "keypoints", "has no say: Pendulum-v1 does not observe images"),
    ],
)
def test_pooling_is_a_known_one_and_of_images(env, setting, value, problem):
    with pytest.raises(ValueError) as error:
        settings.validate(settings.override(BASE, [f"{setting}={value}"]), rlhf_jax.make(env))
    assert one_line(error) == f"{setting} = {value} {problem}"


@pytest.mark.parametrize("setting", ["reward.pooling", "ppo.pooling"])
def test_images_without_places_have_no_keypoints(setting):
    """A kernel of three pixels fits once across three, and is always in the middle."""
    config, env = settings.override(BASE, [f"{setting}=keypoints"]), rlhf_jax.make("Breakout-MinAtar")
    settings.validate(config, dataclasses.replace(env, observation_shape=(10, 4, 4)))
    with pytest.raises(ValueError) as error:
        settings.validate(config, dataclasses.replace(env, observation_shape=(10, 3, 4)))
    assert f"{setting} = keypoints" in one_line(error) and "(10, 3, 4)" in one_line(error)


def one_line(error):
    """The message, which must be a line."""
    message = str(error.value)
    assert message.strip() and "\n" not in message
    return message
