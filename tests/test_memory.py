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
    assert taken == pytest.approx(memory._program_bytes(env, config, agents)["rollouts"], abs=0.1 * buffer)


def test_many_pairs_of_pictures_asked_at_once_take_what_is_said():
    """By XLA's own account, half as much as the buffer: all labels are initial ones, asked about in two iterations."""
    env = rlhf_jax.make("MovingDot-v0")
    small = {"labels.max_budget": 80, "labels.budget": 80, "labels.warmup": 2, "labels.initial_fraction": 1.0}
    small |= {"queries.segment_length": 25, "num_envs": 2, "rollout_length": 50, "iterations": 4}
    config = settings.override(PRESET, [f"{path}={value}" for path, value in (tiny.NETWORKS | small).items()])
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda key: train_state.init(key, env=env, config=config), key)
    asked = jax.eval_shape(lambda state: training.propose(state, env=env, config=config)[2], state)
    pictures = 40 * 2 * 25 * 84 * 84 * 4
    assert pictures < memory.query_bytes(env, config) < 1.01 * pictures
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(asked)) == pytest.approx(pictures, rel=0.01)
    without = memory._program_bytes(env, settings.override(config, ["labels.max_budget=0", "labels.capacity=80"]), 1)
    both = memory._program_bytes(env, config, 1)
    assert both["rollouts"] - without["rollouts"] == memory.query_bytes(env, config)


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
    taken = memory._program_bytes(env, MOVING_DOT, 1)
    assert taken["evaluation"] == expected > taken["rollouts"]


def test_what_takes_most_is_named_and_what_would_help(monkeypatch):
    """A smaller `num_envs` is no help to an evaluation, and fewer labels are none to agents on the true reward."""
    monkeypatch.setattr(memory, "_available", lambda *_: 2**20)

    def refusal(seeds, **changes):
        with pytest.raises(ValueError) as error:
            memory.check({"one": dataclasses.replace(MOVING_DOT, **changes)}, seeds)
        return str(error.value)

    assert refusal(1).endswith("with their evaluation 916 MiB, but there is 1 MiB free; ask for fewer labels")
    assert "ask for fewer --seeds, fewer labels, shorter segments, a smaller num_envs" in refusal(4, num_envs=256)
    nobody = dataclasses.replace(MOVING_DOT.labels, budget=0, max_budget=0)
    assert refusal(1, labels=nobody, num_envs=1024).endswith("ask for a smaller num_envs")
    assert refusal(1, labels=nobody).endswith("ask for a machine with more")


def test_every_program_is_held_against_the_devices_that_it_uses(monkeypatch):
    """Four agents have four cards; the two of the other program, which need less, have two."""
    short = dataclasses.replace(MOVING_DOT, queries=dataclasses.replace(MOVING_DOT.queries, segment_length=5))
    conditions = {"one": MOVING_DOT, "other": MOVING_DOT, "short": short}
    need = max(memory._program_bytes(rlhf_jax.make("MovingDot-v0"), MOVING_DOT, 4).values())
    monkeypatch.setattr(memory, "_available", lambda agents, _: need * agents // 4)
    memory.check(conditions, 2)
    monkeypatch.setattr(memory, "_available", lambda agents, _: need if agents == 4 else 2**20)
    with pytest.raises(ValueError, match="1 MiB free"):
        memory.check(conditions, 2)


def test_agents_act_on_as_many_devices_as_share_them_evenly(monkeypatch):
    """Of eleven agents on eight cores one acts at a time, of twelve six."""
    cores = jax.devices()[:1] * 8
    monkeypatch.setattr(memory.parallel.jax, "devices", lambda: cores)
    env = rlhf_jax.make("MovingDot-v0")
    for agents, acting in ((11, 1), (12, 6)):
        expected = agents * memory.buffer_bytes(env, MOVING_DOT) + acting * memory.evaluation_bytes(env)
        assert memory._program_bytes(env, MOVING_DOT, agents)["evaluation"] == expected


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
    everything = memory._available(2, pendulum)
    for version in memory._LIMITS:
        (tmp_path / version[0]).parent.mkdir(exist_ok=True)
        limit, used, stat = (tmp_path / name for name in version[:3])
        used.write_text("1000\n")
        stat.write_text(f"cache 900\n{version[3]} 300\n")
        for text, available in (("max\n", everything), ("9223372036854771712\n", everything), ("5000\n", 4300)):
            limit.write_text(text)
            assert memory._available(2, pendulum) == available
        limit.unlink()
