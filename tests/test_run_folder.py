"""The folder of a run: what it refuses, what JSON holds, and the policy that is loaded from it."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlhf_jax
from rlhf_jax import checkpoint, run_folder, settings

CONFIG = rlhf_jax.Config(
    iterations=3,
    num_envs=2,
    rollout_length=10,
    ppo=rlhf_jax.PPOConfig(minibatches=2, hidden=(6, 5)),
    queries=rlhf_jax.QueryConfig(segment_length=5, candidates=2),
    labels=rlhf_jax.LabelConfig(budget=4, max_budget=4, warmup=1),
    reward=rlhf_jax.RewardConfig(hidden=(4,), fit_steps=1, batch_size=2, reference_size=4),
)
CONDITIONS = {"true_reward": dataclasses.replace(CONFIG, use_true_reward=True), "labels_4": CONFIG}
SEEDS = [5, 6]


def snapshot(folder):
    """Everything under a folder: names and contents."""
    return {str(path.relative_to(folder)): path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


def refused(function, *args, **kwargs):
    """The one line with which a call is refused."""
    with pytest.raises(ValueError) as error:
        function(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def noise(run):
    """Numbers of the shapes of the run's states: policies that act all over the place, at the bounds as well."""
    rng = np.random.default_rng(0)

    def draw(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.split(jax.random.key(0), x.shape)
        return jnp.asarray(np.abs(rng.normal(size=x.shape)) if x.ndim < 2 else rng.normal(size=x.shape), x.dtype)

    states = jax.tree.map(draw, run_folder.abstract_states(run))
    moments = states.agent.observation
    moments = dataclasses.replace(moments, count=moments.count + 9.0, m2=50.0 * jnp.square(moments.m2) + 1.0)
    return dataclasses.replace(states, agent=dataclasses.replace(states.agent, observation=moments))


def saved(path, conditions):
    """The folder of a run with a checkpoint after two iterations, and the states in that."""
    run = run_folder.create(path, "pendulum", conditions, SEEDS)
    states = noise(run)
    metrics = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), run_folder.abstract_metrics(run, 2))
    checkpoint.save(run.checkpoints, 2, {"states": states, "metrics": metrics})
    return run, states


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    """A run on Pendulum and its states."""
    return saved(tmp_path_factory.mktemp("pendulum") / "run", CONDITIONS)


def test_created_folder_loads_as_it_was(tmp_path):
    run = run_folder.create(tmp_path / "new" / "run", "pendulum", CONDITIONS, range(5, 7))
    assert run_folder.load(tmp_path / "new" / "run") == run
    assert list(run.conditions) == ["true_reward", "labels_4"] and run.seeds == SEEDS and run.num_agents == 4
    record = json.loads((run.path / "config.json").read_text())
    assert record["experiment"] == "pendulum"
    assert record["conditions"]["labels_4"] == json.loads(json.dumps(settings.to_dict(CONFIG)))
    assert record["packages"]["jax"] == jax.__version__
    assert record["packages"]["numpy"] == np.__version__
    assert set(record["packages"]) >= {"rlhf_jax", "jaxlib", "flax", "optax", "gymnax"}
    assert jax.devices()[0].platform in record["device"]


def test_empty_folder_will_do(tmp_path):
    assert run_folder.create(tmp_path, "pendulum", CONDITIONS, SEEDS).path == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize("content", ["notes.txt", "config.json", "checkpoints/7/data"])
def test_create_refuses_a_folder_that_holds_something_and_leaves_it_alone(content, tmp_path):
    (tmp_path / content).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / content).write_text("precious")
    before = snapshot(tmp_path)
    message = refused(run_folder.create, tmp_path, "pendulum", CONDITIONS, SEEDS)
    assert str(tmp_path) in message and "not empty" in message and "--resume" in message
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("out", ["file", "file/run", "file/deeper/run"])
def test_create_refuses_what_cannot_be_a_folder(out, tmp_path):
    (tmp_path / "file").write_text("precious")
    before = snapshot(tmp_path)
    message = refused(run_folder.create, tmp_path / out, "pendulum", CONDITIONS, SEEDS)
    assert str(tmp_path / out) in message and "cannot be written" in message
    assert snapshot(tmp_path) == before


def test_agents_are_split_by_condition_and_named(tmp_path):
    run = run_folder.RunFolder(tmp_path, "x", CONDITIONS, SEEDS)
    split = run.by_condition({"a": np.arange(12).reshape(4, 3)})
    assert list(split) == ["true_reward", "labels_4"]
    assert split["labels_4"]["a"].tolist() == [[6, 7, 8], [9, 10, 11]]
    names = ["true_reward, seed 5", "true_reward, seed 6", "labels_4, seed 5", "labels_4, seed 6"]
    assert [run.agent_name(i) for i in range(4)] == names


def damaged(text):
    """A damaged `config.json` and what the message must name."""
    record = json.loads(text)
    other = json.loads(text)
    other["conditions"]["labels_4"]["ppo"]["momentum"] = 0.9
    older = json.loads(text)
    del older["conditions"]["true_reward"]["reward"]["members"]
    return {
        "truncated": (text[: len(text) // 2], "damaged"),
        "empty": ("", "damaged"),
        "another type": ("[1, 2]", "damaged"),
        "nothing": ("null", "damaged"),
        "no seeds": (json.dumps({key: record[key] for key in record if key != "seeds"}), "seeds"),
        "no conditions": (json.dumps(record | {"conditions": {}}), "config.json"),
        "conditions of another type": (json.dumps(record | {"conditions": [1]}), "damaged"),
        "newer": (json.dumps(other), "momentum"),
        "older": (json.dumps(older), "members"),
        "not text": (b"\xff\xfe\x00{", "config.json"),
    }


WHOLE = {name: settings.to_dict(config) for name, config in CONDITIONS.items()}


@pytest.mark.parametrize("kind", damaged(json.dumps({"conditions": WHOLE})))
def test_load_refuses_what_it_cannot_read(kind, tmp_path):
    file = run_folder.create(tmp_path, "pendulum", CONDITIONS, SEEDS).path / "config.json"
    text, words = damaged(file.read_text())[kind]
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert words in refused(run_folder.load, tmp_path)


def test_load_refuses_other_folders(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        assert str(path) in refused(run_folder.load, path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_json_is_strict(tmp_path):
    value = {
        "nan": float("nan"),
        "nested": [1.5, (np.inf, -np.inf), {"x": np.float32("nan")}],
        "array": np.array([[1.0, np.nan], [2.0, 3.0]]),
        "device": jnp.array([jnp.inf, 0.25]),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "none": None,
        "text": "95 %",
    }
    run_folder.write_json(tmp_path / "x.json", value)

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse) == {
        "nan": None,
        "nested": [1.5, [None, None], {"x": None}],
        "array": [[1.0, None], [2.0, 3.0]],
        "device": [None, 0.25],
        "count": 3,
        "flag": True,
        "none": None,
        "text": "95 %",
    }


def test_abstract_states_and_metrics_are_those_of_training(pendulum):
    run, states = pendulum
    abstract = run_folder.abstract_states(run)
    assert jax.tree.structure(abstract) == jax.tree.structure(states)
    for a, b in zip(jax.tree.leaves(abstract), jax.tree.leaves(states), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    metrics = run_folder.abstract_metrics(run, 7)
    assert {"return", "labels", "finite", "kl", "train_loss"} <= set(metrics)
    assert {x.shape for x in metrics.values()} == {(4, 7)}


def reference_actor(agent, observation):
    """The output of an agent's network, by NumPy alone."""
    moments = agent.observation
    x = (observation - np.asarray(moments.mean)) / np.sqrt(np.asarray(moments.m2) / np.asarray(moments.count))
    x = np.clip(x, -10.0, 10.0)
    layers = agent.actor["params"]
    for i in range(3):
        x = x @ np.asarray(layers[f"Dense_{i}"]["kernel"]) + np.asarray(layers[f"Dense_{i}"]["bias"])
        x = np.maximum(x, 0.0) if i < 2 else x
    return x


@pytest.mark.parametrize("row", range(4))
def test_loaded_policy_is_that_of_its_condition_and_seed(row, pendulum):
    run, states = pendulum
    act = run_folder.load_policy(str(run.path), list(CONDITIONS)[row // 2], SEEDS[row % 2])
    angle, speed = np.random.default_rng(0).uniform([-np.pi, -8.0], [np.pi, 8.0], (50, 2)).T
    observation = np.stack([np.cos(angle), np.sin(angle), speed], -1).astype(np.float32)
    agent = jax.tree.map(lambda x: x[row], states.agent)
    action = act(observation)
    assert type(action) is np.ndarray and action.shape == (50, 1)
    expected = 2.0 * np.clip(reference_actor(agent, observation), -1.0, 1.0)
    np.testing.assert_allclose(action, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(action).max() == 2.0 and np.abs(action).min() < 1.9
    # One observation, several axes, and another type of float: the same actions.
    assert act(observation[3]).shape == (1,)
    np.testing.assert_allclose(act(observation[3]), action[3], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(act(observation.reshape(5, 10, 3)).reshape(50, 1), action, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(act(observation.astype(np.float64)), action, rtol=1e-5, atol=1e-5)
    whole = np.array([-1, 0, 8])
    np.testing.assert_array_equal(act(whole), act(whole.astype(np.float32)))
    assert refused(act, observation[:, :2]) == "observations of shape (50, 2): those of Pendulum-v1 end in (3,)"


def test_loaded_policy_of_a_discrete_environment_chooses_numbers(tmp_path):
    config = dataclasses.replace(CONFIG, env="CartPole-v1")
    run, states = saved(tmp_path, {"labels_4": config, "labels_3": config})
    act = run_folder.load_policy(run.path, "labels_3", 5)
    observation = np.random.default_rng(0).normal(scale=5.0, size=(40, 4)).astype(np.float32)
    action = act(observation)
    assert action.shape == (40,) and np.issubdtype(action.dtype, np.integer)
    expected = reference_actor(jax.tree.map(lambda x: x[2], states.agent), observation).argmax(-1)
    np.testing.assert_array_equal(action, expected)
    assert set(action.tolist()) == {0, 1}
    assert act(np.zeros(4, np.float32)).shape == ()


@pytest.mark.parametrize(
    "condition, seed, words",
    [
        ("labels_350", 5, ["'labels_350'", "true_reward, labels_4"]),
        ("", 5, ["''", "true_reward, labels_4"]),
        ("labels_4", 7, ["seed 7", "5, 6"]),
        ("labels_4", -1, ["seed -1", "5, 6"]),
    ],
)
def test_policy_that_is_not_there_is_refused(condition, seed, words, pendulum):
    message = refused(run_folder.load_policy, pendulum[0].path, condition, seed)
    assert all(word in message for word in words)


def test_condition_and_seed_may_be_left_out_where_there_is_one(pendulum, tmp_path):
    run, states = pendulum
    assert "several conditions, name one: true_reward, labels_4" in refused(run_folder.load_state, run.path)
    assert "several seeds, name one: 5, 6" in refused(run_folder.load_state, run.path, "labels_4")
    config, state = run_folder.load_state(run.path, "labels_4", 6)
    assert config == CONFIG
    for a, b in zip(jax.tree.leaves(state.agent), jax.tree.leaves(states.agent), strict=True):
        np.testing.assert_array_equal(a, b[3])
    _, without = run_folder.load_state(run.path, "labels_4", 6, preferences=False)
    assert all(leaf.size == 0 for leaf in jax.tree.leaves(without.preferences))
    jax.tree.map(np.testing.assert_array_equal, without.ensemble.params, state.ensemble.params)
    alone = run_folder.create(tmp_path, "fit", {"labels_4": CONFIG}, [8])
    run_folder.start(alone, state)
    earlier, (config, state) = state, run_folder.load_state(tmp_path)
    assert config == CONFIG and int(state.iteration) == 0
    for a, b in zip(jax.tree.leaves(state.ensemble), jax.tree.leaves(earlier.ensemble), strict=True):
        np.testing.assert_array_equal(a, b)
    expected = rlhf_jax.init(jax.random.key(8), env=rlhf_jax.make("Pendulum-v1"), config=CONFIG)
    for a, b in zip(jax.tree.leaves(state.agent.actor), jax.tree.leaves(expected.agent.actor), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_policy_without_a_run_or_checkpoint_is_refused(tmp_path):
    assert "config.json" in refused(run_folder.load_policy, tmp_path, "labels_4", 5)
    run_folder.create(tmp_path, "pendulum", CONDITIONS, SEEDS)
    assert "no checkpoint" in refused(run_folder.load_policy, tmp_path, "labels_4", 5)


def test_policy_of_another_network_is_refused(pendulum, tmp_path):
    wider = dataclasses.replace(CONFIG, ppo=dataclasses.replace(CONFIG.ppo, hidden=(6, 7)))
    run = run_folder.create(tmp_path, "pendulum", {"true_reward": wider, "labels_4": wider}, SEEDS)
    (tmp_path / "checkpoints").symlink_to(pendulum[0].checkpoints)
    assert "another program" in refused(run_folder.load_policy, run.path, "labels_4", 5)
