"""Memory of a run: what is said is what arrays take, and what would not fit is refused."""

import dataclasses

import jax
import pytest
import tiny

import rlhf_jax
from experiments import evaluation, memory
from rlhf_jax import parallel, preferences, presets, queries, reward_ensemble, settings, train_state, training

PRESET = presets.preset("MovingDot-v0")
MOVING_DOT = dataclasses.replace(PRESET, queries=dataclasses.replace(PRESET.queries, segment_length=10))
assert (MOVING_DOT.labels.max_budget, MOVING_DOT.num_envs, MOVING_DOT.rollout_length) == (500, 16, 128)


def test_buffer_bytes_are_those_of_the_arrays():
    env = rlhf_jax.make("MovingDot-v0")
    config = dataclasses.replace(MOVING_DOT, labels=dataclasses.replace(MOVING_DOT.labels, capacity=3))
    length, members = config.queries.segment_length, config.reward.members
    buffer = preferences.init(env=env, capacity=3, length=length, members=members)
    assert memory.buffer_bytes(env, config) == sum(leaf.nbytes for leaf in jax.tree.leaves(buffer))
    assert buffer.observation.dtype == "uint8"


def test_buffer_of_the_paper_in_bytes():
    """5,500 pairs of two segments of 25 observations of 84 × 84 × 4 bytes, and a few hundred bytes beside each."""
    env = rlhf_jax.make("MovingDot-v0")
    config = dataclasses.replace(
        MOVING_DOT,
        queries=dataclasses.replace(MOVING_DOT.queries, segment_length=25),
        labels=dataclasses.replace(MOVING_DOT.labels, max_budget=5500),
    )
    pictures = 5500 * 2 * 25 * 84 * 84 * 4
    assert pictures < memory.buffer_bytes(env, config) < 1.01 * pictures


def test_binary_grids_take_a_byte_a_cell():
    env, config = rlhf_jax.make("Breakout-MinAtar"), presets.preset("Breakout-MinAtar")
    cells = config.labels.max_budget * 2 * config.queries.segment_length * 10 * 10 * 4
    assert cells < memory.buffer_bytes(env, config) < 1.1 * cells


def test_a_small_run_says_nothing(capsys):
    memory.check({"labels_700": rlhf_jax.Config()}, 8)
    assert capsys.readouterr().err == ""


def test_a_large_run_says_what_it_takes(capsys, monkeypatch):
    monkeypatch.setattr(memory, "_available", lambda *_: 2**40)
    memory.check({"labels_500": MOVING_DOT}, 4)
    said = capsys.readouterr().err
    assert "the preference buffer of an agent takes 269 MiB" in said
    assert said.count("\n") == 1


def test_what_does_not_fit_is_refused_with_the_numbers(monkeypatch):
    monkeypatch.setattr(memory, "_available", lambda *_: 2**30)
    with pytest.raises(
        ValueError, match=r"takes 269 MiB, all .* rollouts 2\.6 GiB, but there is 1\.0 GiB free; ask for fewer"
    ):
        memory.check({"labels_500": MOVING_DOT}, 4)


def test_programs_run_one_after_the_other(monkeypatch):
    """Agents of another program are not held at the same time."""
    monkeypatch.setattr(memory, "_available", lambda *_: 5 * 2**30)
    longer = dataclasses.replace(MOVING_DOT, queries=dataclasses.replace(MOVING_DOT.queries, segment_length=11))
    memory.check({"one": MOVING_DOT, "other": longer}, 4)
    with pytest.raises(ValueError, match="GiB free"):
        memory.check({"one": MOVING_DOT, "other": MOVING_DOT, "third": MOVING_DOT}, 4)


def test_images_are_always_said(capsys, monkeypatch):
    monkeypatch.setattr(memory, "_WORTH_SAYING", 2**60)
    config = presets.preset("Breakout-MinAtar")
    few = dataclasses.replace(config, labels=dataclasses.replace(config.labels, max_budget=10))
    memory.check({"labels_10": few}, 1)
    assert "the preference buffer of an agent takes 197 KiB" in capsys.readouterr().err


@pytest.mark.parametrize("agents", [1, 3])
def test_a_compiled_iteration_takes_what_is_said(agents):
    """By XLA's own account: the states before and after, and a copy of the one whose turn it is among several."""
    env, large = rlhf_jax.make("Pendulum-v1"), {"labels.capacity": 200_000, "num_envs": 2, "rollout_length": 40}
    small = [f"{path}={value}" for path, value in (tiny.NETWORKS | large).items()]
    config = settings.override(rlhf_jax.Config(), small)
    lanes = parallel.lanes([config] * agents)

    def over_agents(function):
        return parallel.over_agents(function, agents)

    init = over_agents(lambda key, config: train_state.init(key, env=env, config=config))
    states = jax.eval_shape(init, parallel.agent_keys(range(agents)), lanes)
    step = over_agents(lambda state, config: training.advance(state, 1, env=env, config=config))
    found = step.lower(states, lanes).compile({"xla_backend_optimization_level": 0}).memory_analysis()
    taken = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    buffer = memory.buffer_bytes(env, config)
    assert buffer > 2**27
    assert taken == pytest.approx(memory._program_bytes(env, config, agents), abs=0.1 * buffer)


@pytest.mark.parametrize("labels", [20, 500], ids=["more steps", "more answers"])
def test_rules_that_compare_with_all_answers_take_what_is_said(labels):
    """By XLA's own account, of the steps of a rollout and of those of the answers, whichever are more."""
    env = rlhf_jax.make("MovingDot-v0")
    small = {"queries.selection": "k_centre", "labels.max_budget": labels, "labels.budget": labels}
    small |= {"rollout_length": 32, "num_envs": 4}
    config = settings.override(PRESET, [f"{path}={value}" for path, value in small.items()])

    def choose(key, state, steps, rewards):
        seen = {"env": env, "config": config.reward}
        features = reward_ensemble.features(state.ensemble, steps.observation, steps.action, **seen)
        answered = training._answered(state, env=env, config=config)
        slots = queries.slots(config)
        return queries.select(key, steps, rewards, features, answered, slots, num_slots=slots, config=config.queries)

    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda key: train_state.init(key, env=env, config=config), key)
    steps = jax.eval_shape(lambda state: training.propose(state, env=env, config=config)[1], state)
    rewards = jax.ShapeDtypeStruct((config.reward.members, *steps.true_reward.shape), "float32")
    program = tiny.quick_jit(choose).lower(key, state, steps, rewards).compile()
    taken = program.memory_analysis().temp_size_in_bytes
    assert 0.7 < taken / memory._features_bytes(env, config) < 1.05


def test_an_evaluation_may_take_more_than_training():
    """Beside the buffers: 250 steps of 32 + 2 × 8 episodes, with what each led to, of 84 × 84 × 4 bytes, and 28 more.

    These are x, y, and time, of four bytes each, and the four edges of the dot in four pictures.
    """
    env = rlhf_jax.make("MovingDot-v0")
    expected = memory.buffer_bytes(env, MOVING_DOT) + 48 * 250 * (2 * 84 * 84 * 4 + 28)
    assert memory._program_bytes(env, MOVING_DOT, 1) == expected


def test_a_compiled_evaluation_takes_no_more_than_is_said():
    """By XLA's own account, of Breakout's: 1,000 steps of 128 + 2 × 16 games."""
    env, name = rlhf_jax.make("Breakout-MinAtar"), "Breakout-MinAtar"
    small = {"labels.max_budget": 4, "labels.budget": 4, "num_envs": 2, "rollout_length": 30, "reward.fit_steps": 1}
    config = settings.override(presets.preset(name), [f"{path}={value}" for path, value in small.items()])
    state = jax.eval_shape(lambda key: train_state.init(key, env=env, config=config), jax.random.key(0))
    program = jax.jit(lambda state: evaluation.evaluate(state, env=env, config=config)).lower(state).compile()
    assert 2**26 < program.memory_analysis().temp_size_in_bytes < memory.evaluation_bytes(env)


def test_agents_share_the_devices_that_they_use(monkeypatch):
    class Device:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 10, "bytes_in_use": 3}

    monkeypatch.setattr(memory.parallel.jax, "devices", lambda: [Device(), Device(), Device()])
    pendulum, pong = rlhf_jax.make("Pendulum-v1"), rlhf_jax.make("PongNoFrameskip-v4")
    assert [memory._available(agents, pendulum) for agents in (6, 2, 1)] == [21, 14, 7]
    assert memory._available(6, pong) == 7


def test_there_is_memory(monkeypatch, tmp_path):
    pendulum = rlhf_jax.make("Pendulum-v1")
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
    free = memory._available(2, pendulum)
    monkeypatch.setattr(memory, "_MEMORY", tmp_path / "missing")
    assert 2**20 < free < memory._available(2, pendulum)
    for limit, available in (("max\n", memory._available(2, pendulum)), ("5000\n", 4000)):
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.current").write_text("1000\n")
        assert memory._available(2, pendulum) == available
