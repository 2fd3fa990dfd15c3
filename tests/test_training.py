"""The loop in all its forms: whole, in chunks, driven from the host, abreast and in turn."""

import dataclasses
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import rlhf_jax
from rlhf_jax import environments, judgement, parallel, ppo, reward_ensemble, teacher, train_state, training
from rlhf_jax.teacher import Answers

BUDGETS = [
    0,
    7,
    12,
    12,
]  # of the lanes; lane 0 learns from the true reward, lane 3 is lane 2 with a larger learning rate
SEEDS = [3, 4, 5, 5]
PENDULUM = rlhf_jax.make("Pendulum-v1")
# Shorter than a rollout, so that every rollout has resets in it.
ENV = environments.wrap(PENDULUM.base, PENDULUM.params.replace(max_steps_in_episode=15))
CONFIG = rlhf_jax.Config(
    iterations=4,
    num_envs=4,
    rollout_length=20,
    ppo=rlhf_jax.PPOConfig(epochs=1, minibatches=2, hidden=(8,), learning_rate=0.01),
    queries=rlhf_jax.QueryConfig(segment_length=5, candidates=2),
    labels=rlhf_jax.LabelConfig(budget=12, max_budget=12, warmup=1, half_life=200.0),
    teacher=rlhf_jax.TeacherConfig(error_rate=0.1),
    # With actions of a smaller scale some hidden units are on one side of their kink throughout a pair: the gradient of
    # their bias is then nothing but rounding, as that of the offset below.
    reward=rlhf_jax.RewardConfig(
        members=3, hidden=(8,), fit_steps=2, batch_size=4, reference_size=8, action_scale=1.0, l2=1e-4
    ),
)
# Everything that XLA's CPU programs call by name here: top-k and sorting for the queries, products of matrices.
HARMLESS_CALLS = {"TopK", "__onednn$matmul", "Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}


def train(key, config):
    """One agent from scratch."""
    return training.train(key, env=ENV, config=config)


def fresh(key, config):
    """An untrained agent."""
    return train_state.init(key, env=ENV, config=config)


def advance(state, config):
    """A chunk: half of the run."""
    return training.advance(state, CONFIG.iterations // 2, env=ENV, config=config)


def plain(tree):
    """The tree in NumPy, with the data of its keys."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if is_key(x) else x), tree)


def assert_same(actual, expected):
    """Bit for bit; NaN equals NaN."""
    chex.assert_trees_all_equal_dtypes(plain(actual), plain(expected))
    jax.tree.map(np.testing.assert_array_equal, plain(actual), plain(expected))


def lane(tree, row):
    """One agent of several."""
    return jax.tree.map(lambda x: x[row], tree)


def concatenated(parts):
    """Metrics of parts of a run as those of the whole."""
    return jax.tree.map(lambda *x: np.concatenate([np.atleast_1d(part) for part in x]), *parts)


def without_offset(agents, metrics):
    """All but the offset of the learnt reward.

    It cancels in every comparison of two segments, so that its gradient is nothing but rounding, which Adam scales up.
    """
    params = jax.tree.map(np.copy, agents.ensemble.params)
    output = params["params"][f"Dense_{len(CONFIG.reward.hidden)}"]
    offset, output["bias"] = output["bias"][..., 0], np.zeros(())
    ensemble = dataclasses.replace(agents.ensemble, params=params, optimiser=None, zero=agents.ensemble.zero - offset)
    return dataclasses.replace(agents, ensemble=ensemble), metrics


@pytest.fixture(scope="module")
def configs():
    """Settings of the lanes, `[4]` each."""
    lanes = []
    for budget in BUDGETS:
        labels = dataclasses.replace(CONFIG.labels, budget=budget)
        lanes.append(dataclasses.replace(CONFIG, use_true_reward=budget == 0, labels=labels))
    ppo = dataclasses.replace(CONFIG.ppo, learning_rate=0.03)
    lanes[3] = dataclasses.replace(lanes[3], ppo=ppo)
    return parallel.lanes(lanes)


@pytest.fixture(scope="module")
def keys():
    """A key for each lane."""
    return parallel.agent_keys(SEEDS)


@pytest.fixture(scope="module")
def compiled_train(configs, keys):
    """The whole run of one agent, lowered and compiled."""
    lowered = jax.jit(train).lower(keys[0], lane(configs, 0))
    return lowered, lowered.compile()


@pytest.fixture(scope="module")
def whole(compiled_train, configs, keys):
    """Agent and metrics of each lane, each trained alone in one program."""
    return [compiled_train[1](keys[i], lane(configs, i)) for i in range(len(SEEDS))]


@pytest.fixture(scope="module")
def in_chunks(configs, keys):
    """Agents and metrics of all lanes after each of two chunks, as an experiment trains them."""
    start, chunk = (parallel.over_agents(function, len(SEEDS)) for function in (fresh, advance))
    states = start(keys, configs)
    first = chunk(states, configs)
    return states, first, chunk(first[0], configs)


@pytest.fixture(scope="module")
def lanes(in_chunks):
    """Trained agents of all lanes and the metrics of their whole runs."""
    _, (_, first), (states, second) = in_chunks
    return states, jax.tree.map(lambda a, b: np.concatenate([a, b], 1), first, second)


@pytest.fixture(scope="module")
def halves():
    """Compiled `propose` and `absorb`, which fail when they are traced twice."""
    chex.clear_trace_counter()

    def propose(state, config):
        return training.propose(state, env=ENV, config=config)

    def absorb(state, steps, asked, answers, config):
        return training.absorb(state, steps, asked, answers, env=ENV, config=config)

    return tuple(jax.jit(chex.assert_max_traces(function, n=1)) for function in (propose, absorb))


@pytest.fixture(scope="module")
def driven(halves, configs, keys):
    """Lane 2 driven from the host: the state after each iteration, and all metrics."""
    propose, absorb = halves
    config = lane(configs, 2)
    state = jax.jit(fresh)(keys[2], config)
    history, metrics = [state], []
    for i in range(CONFIG.iterations):
        state, steps, asked, acting = propose(state, config)
        # As a person's would, the answers pass through the memory of the host.
        opinion = teacher.opinion(asked.true_reward, state.segment_return, config=config.teacher)
        said = teacher.answer(jax.random.fold_in(state.key, 3 * i + 1), opinion, asked.asked)
        state, learning = absorb(state, steps, asked, Answers(np.asarray(said.label), np.asarray(said.weight)), config)
        history.append(state)
        metrics.append(acting | learning)
    return history, concatenated(metrics)


@pytest.fixture(scope="module")
def before_absorb(halves, driven, configs):
    """Everything that the third iteration absorbs: the policy and the reward are being trained by then."""
    state, steps, asked, _ = halves[0](driven[0][2], lane(configs, 2))
    opinion = teacher.opinion(asked.true_reward, state.segment_return, config=CONFIG.teacher)
    said = teacher.answer(jax.random.key(9), opinion, asked.asked)
    assert said.weight.sum() > 1
    return state, steps, asked, said


def test_chunks_of_agents_in_turn_equal_the_whole_run_of_each_agent_alone_bit_for_bit(lanes, whole):
    for i, alone in enumerate(whole):
        assert_same(lane(lanes, i), plain(alone))


def test_host_driven_loop_equals_one_scan_bit_for_bit(driven, whole):
    history, metrics = driven
    assert_same(history[-1], whole[2][0])
    assert_same(metrics, plain(whole[2][1]))


def test_agents_abreast_agree_with_each_agent_alone(in_chunks, configs):
    # Not bit for bit: a batched matrix product adds in another order, and training amplifies the difference. After two
    # iterations, in one of which the policy learnt too, it is still rounding.
    states, in_turn, _ = in_chunks
    abreast = jax.jit(jax.vmap(advance))(states, configs)
    actual, expected = (without_offset(*plain(lanes)) for lanes in (abreast, in_turn))
    chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_program_without_queries_trains_the_agent_on_the_true_reward_as_the_one_with_them(
    compiled_train, in_chunks, configs, keys
):
    """Nothing of it is about a learnt reward: it is about half as long."""
    labels = dataclasses.replace(lane(configs, 0).labels, max_budget=0)
    alone = dataclasses.replace(lane(configs, 0), labels=labels)
    lowered = jax.jit(train).lower(keys[0], alone)
    sizes = [len(program.as_text().splitlines()) for program in (lowered, compiled_train[0])]
    assert sizes[0] < 0.6 * sizes[1]
    state, metrics = jax.jit(advance)(fresh(keys[0], alone), alone)
    expected, known = lane(in_chunks[1][0], 0), lane(in_chunks[1][1], 0)
    for part in ("iteration", "agent", "environments", "ensemble", "true_reward", "segment_return"):
        # Another program may round in another way, as that of agents abreast.
        actual = plain(getattr(state, part))
        chex.assert_trees_all_close(actual, plain(getattr(expected, part)), rtol=1e-4, atol=1e-5)
    assert state.preferences.added == 0 and state.preferences.label.shape == (1,)
    assert metrics.keys() == known.keys()
    rewards = {"predicted_return", *reward_ensemble.METRICS, *judgement.METRICS}
    for name, values in metrics.items():
        wanted = jnp.full_like(values, jnp.nan) if name in rewards else known[name]
        np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-5, err_msg=name)


def test_host_driven_loop_compiles_each_half_once(halves, driven):
    assert len(driven[0]) == CONFIG.iterations + 1
    assert [half._cache_size() for half in halves] == [1, 1]
    with pytest.raises(AssertionError, match="traced > 1 times"):  # the guard itself works
        halves[0](dataclasses.replace(driven[0][0], iteration=jnp.zeros((), jnp.int16)), CONFIG)


def test_absorb_does_not_depend_on_the_true_reward(halves, before_absorb, configs):
    state, steps, asked, said = before_absorb
    unknown = lambda x: dataclasses.replace(x, true_reward=jnp.full_like(x.true_reward, jnp.nan))  # noqa: E731
    config = lane(configs, 2)
    expected, expected_metrics = halves[1](state, steps, asked, said, config)
    blind, metrics = halves[1](state, unknown(steps), unknown(asked), said, config)
    assert_same(blind, expected)
    assert_same(metrics, expected_metrics)
    early = dataclasses.replace(state, iteration=jnp.zeros_like(state.iteration))
    expected, _ = halves[1](early, steps, asked, said, config)
    blind, _ = halves[1](early, unknown(steps), unknown(asked), said, config)
    assert_same(blind, expected)


def test_agent_on_the_true_reward_learns_from_it(halves, before_absorb, configs):
    state, steps, asked, said = before_absorb
    config = dataclasses.replace(lane(configs, 0), labels=lane(configs, 2).labels)
    rewards = jnp.cos(jnp.arange(steps.true_reward.size)).reshape(steps.true_reward.shape)
    other = dataclasses.replace(steps, true_reward=rewards)
    agents = [halves[1](state, rewards, asked, said, config)[0].agent for rewards in (steps, other)]
    assert not jnp.array_equal(*(jnp.concatenate([x.ravel() for x in jax.tree.leaves(a.actor)]) for a in agents))


@pytest.mark.parametrize("row, finite", [(0, False), (2, True)])
def test_finite_tells_of_a_broken_reward(row, finite, halves, before_absorb, configs):
    state, steps, asked, said = before_absorb
    broken = dataclasses.replace(steps, true_reward=steps.true_reward.at[3, 1].set(jnp.nan))
    # In the warm-up nothing is learnt from the reward that could show it.
    for iteration in (state.iteration, jnp.zeros_like(state.iteration)):
        state = dataclasses.replace(state, iteration=iteration)
        assert halves[1](state, steps, asked, said, lane(configs, row))[1]["finite"]
        assert halves[1](state, broken, asked, said, lane(configs, row))[1]["finite"] == finite


@pytest.mark.parametrize("part", ["actor", "critic", "reward"])
def test_finite_tells_of_a_broken_parameter(part, halves, before_absorb, configs):
    state, *rest = before_absorb
    agent, ensemble = state.agent, state.ensemble
    breaking = lambda tree: jax.tree.map(lambda x: x.at[0].set(jnp.nan), tree)  # noqa: E731
    if part == "reward":
        ensemble = dataclasses.replace(ensemble, params=breaking(ensemble.params))
    else:
        agent = dataclasses.replace(agent, **{part: breaking(getattr(agent, part))})
    early = dataclasses.replace(state, iteration=jnp.zeros_like(state.iteration))
    assert halves[1](early, *rest, lane(configs, 2))[1]["finite"]
    broken = dataclasses.replace(early, agent=agent, ensemble=ensemble)
    assert not halves[1](broken, *rest, lane(configs, 2))[1]["finite"]


@pytest.mark.parametrize("row", [0, 2])
def test_finite_tells_of_a_broken_answer(row, halves, before_absorb, configs):
    """Even where nothing is fitted to the answers, as in the lane on the true reward."""
    state, steps, asked, said = before_absorb
    early = dataclasses.replace(state, iteration=jnp.zeros_like(state.iteration))
    broken = dataclasses.replace(said, label=said.label.at[0].set(jnp.nan))
    assert not halves[1](early, steps, asked, broken, lane(configs, row))[1]["finite"]


def test_teacher_measures_by_the_segments_of_the_untrained_policy(halves, driven, configs):
    """Every window of five steps of the only iteration of the warm-up that crosses no reset, and none of later ones."""
    history, _ = driven
    _, steps, _, _ = halves[0](history[0], lane(configs, 2))
    returns = reference.window_sums(np.asarray(steps.true_reward, np.float64), 5)
    returns = returns[reference.valid_starts(np.asarray(steps.done), 5)]
    assert 20 < len(returns) < 64
    for state in history[1:]:
        assert state.segment_return.count == len(returns)
        np.testing.assert_allclose(state.segment_return.mean, returns.mean(), rtol=1e-5)
        np.testing.assert_allclose(state.segment_return.std, returns.std(), rtol=1e-4)


def test_teacher_tells_preferences_or_the_return_of_the_first_segment(before_absorb):
    state, _, asked, _ = before_absorb
    oracle = dataclasses.replace(CONFIG, teacher=rlhf_jax.TeacherConfig())
    returns = np.asarray(asked.true_reward, np.float64).sum(-1)
    said = training.label(state, asked, config=oracle)
    np.testing.assert_array_equal(said.label, returns[:, 0] > returns[:, 1])
    targets = dataclasses.replace(oracle, reward=dataclasses.replace(CONFIG.reward, targets=True))
    told = training.label(state, asked, config=targets)
    expected = (returns[:, 0] - state.segment_return.mean) / state.segment_return.std
    np.testing.assert_allclose(told.label, expected, rtol=1e-4)
    for answers in (said, told):
        np.testing.assert_array_equal(answers.weight, asked.asked)


def test_ties_and_silences_are_counted(halves, before_absorb, configs):
    state, steps, asked, _ = before_absorb
    assert asked.asked.sum() == 3
    labels, weights = jnp.array([0.5, 0.5, 1.0, 0.5]), jnp.array([1.0, 0.0, 1.0, 0.0])
    _, metrics = halves[1](state, steps, asked, Answers(labels, weights), lane(configs, 2))
    assert [metrics[name] for name in ("answers", "ties", "silences")] == [2, 1, 1]


def test_every_seed_and_iteration_has_its_own_noise(halves, before_absorb, configs, keys):
    state, *rest = before_absorb
    others = [dataclasses.replace(state, key=keys[0]), dataclasses.replace(state, iteration=state.iteration + 1)]
    for other in others:
        actions = [halves[0](agent, lane(configs, 2))[1].action for agent in (state, other)]
        assert (actions[0] != actions[1]).all()
        bags = [halves[1](agent, *rest, lane(configs, 2))[0].preferences.multiplicity for agent in (state, other)]
        assert (bags[0] != bags[1]).any()


def test_unanswered_queries_leave_the_buffer_as_it_is(halves, before_absorb, configs):
    state, steps, asked, said = before_absorb
    nothing = dataclasses.replace(said, weight=jnp.zeros_like(said.weight))
    silent, metrics = halves[1](state, steps, asked, nothing, lane(configs, 2))
    assert_same(silent.preferences, state.preferences)
    assert metrics["labels"] == state.preferences.added


def test_absorb_takes_the_answers_that_have_arrived(halves, before_absorb, configs):
    state, steps, asked, said = before_absorb
    last = int(np.flatnonzero(said.weight)[-1])
    alone = dataclasses.replace(said, weight=jnp.zeros_like(said.weight).at[last].set(1.0))
    state_after, metrics = halves[1](state, steps, asked, alone, lane(configs, 2))
    row = int(state.preferences.added)
    assert metrics["labels"] == row + 1
    assert state_after.preferences.filled.sum() == row + 1
    np.testing.assert_array_equal(state_after.preferences.observation[row], asked.observation[last])
    assert state_after.preferences.label[row] == said.label[last]


def test_policy_stands_still_while_the_first_labels_come(driven):
    history, metrics = driven
    start, warm, *later = [state.agent for state in history]
    assert_same((warm.actor, warm.critic, warm.optimiser), (start.actor, start.critic, start.optimiser))
    np.testing.assert_array_equal(np.isnan(metrics["policy_loss"]), [True, False, False, False])
    for before, after in zip([warm, *later], later, strict=False):
        changed = jax.tree.map(
            lambda a, b: bool((a != b).any()), (before.actor, before.critic), (after.actor, after.critic)
        )
        assert all(jax.tree.leaves(changed))
    # The reward and the moments of the observations are learnt from the first iteration on.
    assert warm.observation.count == CONFIG.num_envs * CONFIG.rollout_length
    assert not jnp.array_equal(history[0].ensemble.zero, history[1].ensemble.zero)


def test_lanes_use_up_exactly_their_budgets(lanes):
    agents, metrics = lanes
    np.testing.assert_array_equal(metrics["labels"][:, -1], BUDGETS)
    np.testing.assert_array_equal(agents.preferences.filled.sum(-1), BUDGETS)
    assert (np.diff(metrics["labels"], axis=1) >= 0).all()
    assert (metrics["labels"][1:, 0] > 0).all()


def test_lane_on_the_true_reward_never_fits_a_reward(lanes, in_chunks):
    agents, metrics = lanes
    assert_same(lane(agents.ensemble, 0), lane(in_chunks[0].ensemble, 0))
    assert np.isnan(metrics["train_loss"][0]).all() and not np.isnan(metrics["train_loss"][1:]).any()
    assert not np.isnan(metrics["policy_loss"][:, 1:]).any()


def test_lanes_differ_in_their_learning_rate_only(lanes):
    agents, metrics = lanes
    slow, fast = lane(agents, 2), lane(agents, 3)
    # Up to the first gradient step of the policy, in the second iteration, they are the same agent.
    np.testing.assert_array_equal(metrics["correlation"][2, :2], metrics["correlation"][3, :2])
    different = jax.tree.map(lambda a, b: bool((a != b).any()), slow.agent.actor, fast.agent.actor)
    assert all(jax.tree.leaves(different))


def test_metrics_have_a_point_for_each_iteration(driven, whole):
    assert int(whole[2][0].iteration) == CONFIG.iterations
    assert [int(state.iteration) for state in driven[0]] == list(range(CONFIG.iterations + 1))
    assert all(x.shape == (CONFIG.iterations,) for x in whole[2][1].values())


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_training_program_calls_no_linear_algebra_library(name, compiled_train):
    # LAPACK inside the program deadlocks XLA's thread pool on a CPU when it is batched; see networks.initialise.
    if name == "Pendulum-v1":
        texts = [program.as_text() for program in compiled_train]
    else:
        env, config = rlhf_jax.make(name), rlhf_jax.Config()
        texts = [jax.jit(lambda key: training.train(key, env=env, config=config)).lower(jax.random.key(0)).as_text()]
    for text in texts:
        assert "lapack" not in text.lower()
        assert called(text) <= HARMLESS_CALLS


def test_guard_against_linear_algebra_sees_a_decomposition():
    lowered = jax.jit(lambda x: jnp.linalg.qr(x)[0]).lower(jnp.eye(3))
    for text in (lowered.as_text(), lowered.compile().as_text()):
        assert "lapack" in text.lower()
        assert not called(text) <= HARMLESS_CALLS


def called(text):
    """Names of the functions outside XLA that a program calls, in StableHLO or HLO."""
    return set(re.findall(r'custom_call_target="([^"]+)"', text)) | set(re.findall(r"custom_call @([\w$.]+)", text))


def test_observations_are_normalised_only_if_asked(halves, before_absorb, configs):
    """Without normalisation the moments stay those of an empty stream, which leave observations as they are."""
    fresh = dataclasses.replace(before_absorb[0], agent=ppo.init(jax.random.key(0), env=ENV, config=CONFIG.ppo))
    on, off = (dataclasses.replace(lane(configs, 2), normalise_observations=value) for value in (True, False))
    absorb = jax.jit(lambda *args: training.absorb(*args[:-1], env=ENV, config=args[-1]))
    after_on, after_off = (f(fresh, *before_absorb[1:], c)[0] for f, c in ((halves[1], on), (absorb, off)))
    assert after_on.agent.observation.count == CONFIG.num_envs * CONFIG.rollout_length
    assert after_off.agent.observation.count == 0
