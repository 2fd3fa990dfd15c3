"""Learning from stored trajectories: formulas against literal numbers and NumPy, and each learner on a probe."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
import reference

from rlhf_jax import environments, normalisation, settings
from rlhf_jax.environments import FixedHorizon
from rlhf_jax.offline import agent as agents
from rlhf_jax.offline import behavioural_cloning, inverse_rl, policy_gradient, trajectories, trajectory_reward
from rlhf_jax.offline.config import CloningConfig, OfflineConfig, TrajectoryRewardConfig, validate
from rlhf_jax.offline.trajectories import Pairs, Trajectories
from rlhf_jax.rollout import Rollout

CHOICE = probes.make(probes.Choice())  # one step; shows 0, pays 1 for action 1 and −1 for action 0


def column(*values):
    """One environment's `[T, 1]` values."""
    return jnp.array(values)[:, None]


def steps_of(action, done, observation=None):
    """A rollout of which only what is learnt from matters."""
    zeros = jnp.zeros(action.shape)
    observation = zeros[..., None] if observation is None else observation
    return Rollout(observation, action, {}, zeros, observation, done, jnp.zeros_like(done), zeros)


def some_trajectories(lengths, features=2, seed=0):
    """Trajectories of these lengths with random observations and actions; the padding is huge."""
    rng = np.random.default_rng(seed)
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    observation = np.where(mask[..., None], rng.normal(size=(*mask.shape, features)), 1e6)
    action = np.where(mask, rng.integers(0, 2, mask.shape), 1)
    return Trajectories(
        jnp.asarray(observation, jnp.float32),
        jnp.asarray(action, jnp.int32),
        jnp.asarray(mask),
        jnp.asarray(lengths, jnp.float32),
    )


class Showing(probes.Probe):
    """A probe that shows two numbers."""

    def observation_space(self, params):
        from gymnax.environments import spaces

        return spaces.Box(-10.0, 10.0, (2,))


TWO = probes.make(Showing())


def test_reward_to_go_literal():
    """Two episodes, of three steps and of two, and one that runs on."""
    rewards, done = column(1.0, 2.0, 4.0, 8.0, 16.0, 32.0), column(False, False, True, False, True, False)
    assert policy_gradient.reward_to_go(rewards, done)[:, 0].tolist() == [7, 6, 4, 24, 16, 32]


def test_reward_to_go_against_numpy():
    rng = np.random.default_rng(1)
    rewards, done = rng.normal(size=(30, 4)).astype(np.float32), rng.random((30, 4)) < 0.2
    expected = reference.generalised_advantages(rewards, 0 * rewards, 0 * rewards, done, done, 1.0, 1.0)
    np.testing.assert_allclose(
        policy_gradient.reward_to_go(jnp.asarray(rewards), jnp.asarray(done)), expected, rtol=1e-4
    )


def test_episodes_are_taken_for_when_they_begin():
    """Episodes of 3, 2 and 2 steps; those that begin in the first four steps are the first two, to their ends."""
    mask, age = policy_gradient.episodes_begun(column(False, False, True, False, True, False, True), 4)
    assert mask[:, 0].tolist() == [True] * 5 + [False] * 2
    assert age[:, 0].tolist() == [0, 1, 2, 0, 1, 0, 1]


def test_advantages_literal():
    """Ages 0, 1, 0 and 0, 1, 2: the means are (5 + 1 + 3) / 3 = 3, (4 + 2) / 2 = 3 and 7."""
    to_go, age = jnp.array([[5.0, 3.0], [4.0, 2.0], [1.0, 7.0]]), jnp.array([[0, 0], [1, 1], [0, 2]])
    advantages = policy_gradient.advantages(to_go, age, jnp.ones((3, 2), bool))
    assert advantages.tolist() == [[2, 0], [1, -1], [-2, 0]]
    masked = policy_gradient.advantages(to_go, age, jnp.array([[True, True], [True, True], [False, True]]))
    assert masked.tolist() == [[1, -1], [1, -1], [0, 0]]


@pytest.mark.parametrize(("rewards", "direction"), [((1.0, 1.0, -1.0, -1.0), 1.0), ((-1.0, -1.0, 1.0, 1.0), -1.0)])
def test_policy_gradient_moves_towards_what_was_paid(rewards, direction):
    """Four episodes of one step; Adam's first step is the learning rate along the sign of the gradient."""
    config = OfflineConfig().policy_gradient
    state = policy_gradient.init(jax.random.key(0), env=CHOICE, config=config)
    steps = steps_of(jnp.array([[1, 1, 0, 0]]), jnp.ones((1, 4), bool))
    after = policy_gradient.update(state, steps, jnp.array([rewards]), 1, env=CHOICE, config=config)
    bias = after.actor["params"]["Dense_1"]["bias"] - state.actor["params"]["Dense_1"]["bias"]
    np.testing.assert_allclose(bias, [-0.01 * direction, 0.01 * direction], rtol=1e-4)


def small(*assignments, algorithm="policy_gradient"):
    """Settings for a probe of one step."""
    base = OfflineConfig(algorithm=algorithm, num_envs=32, epoch_steps=64, epochs=30)
    return settings.override(base, ["policy_gradient.hidden=8", "ppo.hidden=8", "ppo.minibatches=4", *assignments])


def chosen(actor, env, config):
    """Probability of action 1 where the probe shows 0."""
    logits = policy_gradient.distribution(actor, jnp.zeros(env.observation_shape), env=env, hidden=config.hidden).logits
    return float(jax.nn.softmax(logits)[1])


@pytest.mark.parametrize("algorithm", ["policy_gradient", "ppo"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_agent_learns_from_the_reward_that_it_is_given(algorithm, sign):
    config = small("policy_gradient.learning_rate=0.1", "ppo.learning_rate=0.03", algorithm=algorithm)
    agent, actors, metrics = train(algorithm, config)(jnp.float32(sign))
    probability = chosen(agent.actor, CHOICE, config)
    assert probability > 0.9 if sign > 0 else probability < 0.1
    np.testing.assert_allclose(metrics["predicted_return"], sign * metrics["return"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(metrics["length"], 1.0)
    assert metrics["finite"].all() and agent.epoch == 30
    jax.tree.map(lambda all_of_them, last: np.testing.assert_array_equal(all_of_them[-1], last), actors, agent.actor)


@functools.cache
def train(algorithm, config):
    """Thirty epochs on the true reward times a number."""
    del algorithm

    def run(sign):
        start = agents.init(jax.random.key(3), env=CHOICE, config=config)
        return agents.advance(start, lambda steps: sign * steps.true_reward, 30, env=CHOICE, config=config)

    return jax.jit(run)


def test_constant_reward_teaches_nothing_where_all_episodes_last_as_long():
    """And it does where they do not: an agent that can make episodes longer is paid for it."""

    class Staying(probes.Delayed):
        """Ends at once unless action 1 is taken."""

        def step(self, key, state, action, params):
            observation, after, reward, terminated, truncated, info = super().step(key, state, action, params)
            over = terminated | (action == 0)
            return observation, after, reward, over, truncated, info

    base, config = Staying(3), small("policy_gradient.learning_rate=0.1")
    moved = []
    for env in (environments.wrap(FixedHorizon(base)), environments.wrap(base)):
        start = agents.init(jax.random.key(4), env=env, config=config)
        learn = functools.partial(agents.advance, reward=lambda steps: jnp.ones(steps.done.shape), num_epochs=3)
        agent, _, _ = jax.jit(functools.partial(learn, env=env, config=config))(start)
        same = jax.tree.map(lambda a, b: bool((a == b).all()), start.actor, agent.actor)
        moved.append(not all(jax.tree.leaves(same)))
    assert moved == [False, True]


def test_rollouts_last_until_all_that_begin_in_time_have_ended():
    config = OfflineConfig(num_envs=4, epoch_steps=40)
    clock = probes.Clock(length=3)  # its limit is six steps
    assert agents.rollout_length(environments.wrap(clock), config) == 15
    assert agents.rollout_length(environments.wrap(FixedHorizon(clock)), config) == 12


def test_trajectories_are_first_episodes():
    """Two environments, five steps: the first ends after two and after four."""
    done = jnp.array([[False, False], [True, False], [False, False], [True, True], [False, False]])
    observation = jnp.arange(10.0).reshape(5, 2, 1)
    data = trajectories.from_rollout(steps_of(jnp.zeros((5, 2), jnp.int32), done, observation), jnp.array([2.0, 4.0]))
    assert data.mask.tolist() == [[True, True, False, False, False], [True, True, True, True, False]]
    assert data.observation[..., 0].tolist() == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


def test_moments_do_not_see_padding():
    data = some_trajectories([3, 7, 5])
    moments = trajectories.observation_moments(data)
    real = np.asarray(data.observation, np.float64)[np.asarray(data.mask)]
    np.testing.assert_allclose(moments.count, 15)
    np.testing.assert_allclose(moments.mean, real.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.std, real.std(0), rtol=1e-5)


def test_preferences_literal():
    pairs = jnp.array([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0]])
    assert trajectories.preference(pairs).tolist() == [1.0, 0.0, 0.5]


def test_pairs_are_of_different_trajectories_and_use_all():
    returns = jnp.array([1.0, 5.0, 5.0, 9.0])
    pairs = trajectories.compare(jax.random.key(5), returns, 300)
    first, second = np.asarray(pairs.index).T
    assert (first != second).all() and len(set(zip(first.tolist(), second.tolist(), strict=True))) == 12
    expected = [1.0 if returns[i] > returns[j] else 0.5 if returns[i] == returns[j] else 0.0 for i, j in pairs.index]
    np.testing.assert_array_equal(pairs.label, expected)


@pytest.mark.parametrize(
    ("returns", "labels", "words"),
    [
        ([], [], "no reward can be learnt from 0 trajectories and 0 pairs"),
        ([1.0, 2.0], [], "from 2 trajectories and 0 pairs"),
        ([1.0, np.nan, np.inf], [1.0], "2 of 3 true returns are NaN or infinite"),
        ([7.0, 7.0], [0.5, 0.5], r"all 2 pairs of trajectories tie \(returns from 7 to 7\)"),
    ],
)
def test_data_without_a_lesson_are_refused(returns, labels, words):
    with pytest.raises(ValueError, match=words):
        trajectories.check(np.array(returns), np.array(labels))
    trajectories.check(np.array([7.0, 8.0]), np.array([0.5, 0.0]))


LINEAR = TrajectoryRewardConfig(hidden=(), fit_steps=60, learning_rate=0.1, l2=0.0)


def linear_reward(kernel, bias):
    """r = wᵀ f + b, of two observed numbers and the one-hot action."""
    params = {"params": {"Dense_0": {"kernel": jnp.array(kernel)[:, None], "bias": jnp.array([bias])}}}
    return trajectory_reward.TrajectoryReward(params, normalisation.init((2,)), jnp.float32(1.0))


def test_predicted_returns_do_not_count_padding():
    data = some_trajectories([2, 5])
    kernel, bias = [0.5, -1.0, 0.25, 2.0], 0.125
    returns = trajectory_reward.returns(linear_reward(kernel, bias), data, env=TWO, config=LINEAR)
    expected = [
        sum(
            np.dot(kernel, [*data.observation[i, t], data.action[i, t] == 0, data.action[i, t] == 1]) + bias
            for t in range(length)
        )
        for i, length in enumerate([2, 5])
    ]
    np.testing.assert_allclose(returns, expected, rtol=1e-5)


def test_the_zero_of_a_reward_matters_between_trajectories_of_different_length():
    """One more in every step moves the log-odds of a pair by the difference of the lengths, 2 − 5."""
    data = some_trajectories([2, 5])
    low, high = (
        trajectory_reward.returns(linear_reward([0.0] * 4, b), data, env=TWO, config=LINEAR) for b in (0.0, 1.0)
    )
    assert (high[0] - high[1]) - (low[0] - low[1]) == -3.0


def test_accuracy_leaves_ties_out():
    pairs = Pairs(jnp.array([[0, 1], [1, 2], [2, 0], [0, 2]]), jnp.array([1.0, 1.0, 0.5, 0.0]))
    # Predicted: 3 > 1, right; 1 < 2, wrong; a tie; 3 > 2, wrong.
    np.testing.assert_allclose(trajectory_reward.accuracy(jnp.array([3.0, 1.0, 2.0]), pairs), 1 / 3)


@functools.cache
def fitted(longer_is_better):
    """A linear reward fitted to preferences for the longer, or for the shorter, of random trajectories."""
    data = some_trajectories([1, 3, 4, 6, 7, 9, 12, 15])
    sign = 1.0 if longer_is_better else -1.0
    pairs = trajectories.compare(jax.random.key(6), sign * data.true_return, 60)
    fit = functools.partial(trajectory_reward.fit, env=TWO, config=LINEAR)
    return data, pairs, *jax.jit(fit)(jax.random.key(7), data, pairs)


@pytest.mark.parametrize("longer_is_better", [True, False])
def test_fit_learns_the_sign_of_a_step_from_lengths(longer_is_better):
    data, pairs, reward, info = fitted(longer_is_better)
    predicted = np.asarray(trajectory_reward.returns(reward, data, env=TWO, config=LINEAR))
    assert info["accuracy"][-1] > 0.95 and info["loss"][-1] < 0.2
    steps = trajectory_reward.predict(reward, data.observation, data.action, env=TWO, config=LINEAR)
    steps = np.asarray(steps)[np.asarray(data.mask)]
    assert (steps.mean() > 0) == longer_is_better
    np.testing.assert_allclose(np.sqrt(np.square(steps).mean()), 1.0, rtol=1e-4)
    # Unit scale is a division and no shift: with the scale undone, the loss is that of the fit, but for its last step.
    returns = predicted[np.asarray(pairs.index)] * float(reward.scale)
    probability = reference.sigmoid(returns[:, 0] - returns[:, 1])
    label = np.asarray(pairs.label)
    nats = -(label * np.log(probability) + (1 - label) * np.log(1 - probability)).mean()
    np.testing.assert_allclose(nats, info["loss"][-1], rtol=0.1)


def test_fit_begins_undecided():
    np.testing.assert_allclose(fitted(True)[3]["loss"][0], np.log(2), rtol=0.05)


def test_weights_but_not_biases_are_shrunk():
    assert trajectory_reward.squared_weights(linear_reward([1.0, 2.0, 3.0, 4.0], 100.0)) == 30.0


def test_likelihood_of_actions_against_numpy():
    data, rng = some_trajectories([2, 4, 3]), np.random.default_rng(8)
    first, second = rng.normal(size=(2, 3)).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)
    layers = {"Dense_0": (first, np.ones(3)), "Dense_1": (second, np.zeros(2))}
    actor = {"params": {name: {"kernel": jnp.asarray(w), "bias": jnp.asarray(b)} for name, (w, b) in layers.items()}}
    found = behavioural_cloning.negative_log_likelihood(actor, data, env=TWO, hidden=(3,))
    nats = []
    for i, t in np.argwhere(np.asarray(data.mask)):
        logits = np.maximum(np.asarray(data.observation[i, t]) @ first + 1, 0) @ second
        nats.append(np.log(np.exp(logits).sum()) - logits[data.action[i, t]])
    np.testing.assert_allclose(found, np.mean(nats), rtol=1e-5)


def test_cloning_does_what_was_done():
    """Actions are the sign of the first number shown; the padding says otherwise."""
    data = some_trajectories([20, 40, 30])
    shown = jnp.where(data.mask, data.observation[..., 0] > 0, False)
    data = dataclasses.replace(data, action=shown.astype(jnp.int32))
    clone = functools.partial(
        behavioural_cloning.clone, env=TWO, hidden=(8,), config=CloningConfig(fit_steps=60, learning_rate=0.05)
    )
    actor, losses = jax.jit(clone)(jax.random.key(9), data)
    modes = policy_gradient.distribution(actor, data.observation, env=TWO, hidden=(8,)).mode()
    assert np.asarray(modes == data.action)[np.asarray(data.mask)].mean() > 0.95
    np.testing.assert_allclose(losses[0], np.log(2), rtol=0.05)


def test_gradient_of_inverse_rl_is_the_expert_s_features_less_the_policy_s():
    """Two states (1, 0) and (0, 1); the expert stays in the second for three steps, the policy in the first for one.

    The expert has two episodes: (1,0)a0 (0,1)a1 (0,1)a1 and (0,1)a1; sums of features per episode: state (½, 3/2),
    action (½, 3/2), 2 steps. The policy has one in the time that counts, (1,0)a0 (1,0)a0 (1,0)a1: state (3, 0), action
    (2, 1), 3 steps.
    """
    states = jnp.eye(2)
    expert = Trajectories(
        states[jnp.array([[0, 1, 1], [1, 0, 0]])],
        jnp.array([[0, 1, 1], [1, 0, 0]]),
        jnp.array([[True, True, True], [True, False, False]]),
        jnp.zeros(2),
    )
    done = column(False, False, True, False)
    own = steps_of(column(0, 0, 1, 1), done, states[jnp.array([0, 0, 0, 1])][:, None])
    gradient = inverse_rl.reward_gradient(
        linear_reward([0.3, -0.2, 0.1, 0.7], 0.5),
        inverse_rl.visits_of(expert),
        inverse_rl.visits_in(own, 3),
        env=TWO,
        config=LINEAR,
    )["params"]["Dense_0"]
    np.testing.assert_allclose(gradient["kernel"][:, 0], [0.5 - 3, 1.5 - 0, 0.5 - 2, 1.5 - 1], atol=1e-6)
    np.testing.assert_allclose(gradient["bias"], [2 - 3], atol=1e-6)


@pytest.mark.parametrize(("share", "expected"), [(0.75, 0.6535), (0.25, 0.3465)])
def test_inverse_rl_does_as_the_expert_does_and_not_what_pays(share, expected):
    """An expert that takes action 1 three times of four, or once, is followed, though the probe pays for action 1.

    The soft policy of a reward w for action 1 and −w for the other takes it with logit p = 2 w, and the reward weighs
    the gap against its squared weights: w = (share − p) / λ. With λ = 0.3 that is p = 0.6535 or 0.3465. Policy and
    reward circle around it, so it is the mean over epochs that is there.
    """
    np.testing.assert_allclose(np.log(expected / (1 - expected)), 2 * (share - expected) / 0.3, atol=0.01)
    count = 16
    action = (jnp.arange(count) < share * count).astype(jnp.int32)[:, None]
    data = Trajectories(jnp.zeros((count, 1, 1)), action, jnp.ones((count, 1), bool), jnp.zeros(count))
    metrics = explainer()(data)
    assert abs(0.5 + 0.5 * metrics["return"][50:].mean() - expected) < 0.05
    assert metrics["finite"].all()


@functools.cache
def explainer():
    """A hundred and fifty epochs of inverse RL with a linear reward."""
    settled = "reward.hidden=() inverse_rl.l2=0.3 inverse_rl.learning_rate=0.1 policy_gradient.learning_rate=0.1"
    config = small(*settled.split(), "num_envs=256", "epoch_steps=256")

    def run(data):
        start = inverse_rl.init(jax.random.key(10), data, env=CHOICE, config=config)
        return inverse_rl.advance(start, data, 150, env=CHOICE, config=config)[1]

    return jax.jit(run)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("algorithm=sarsa", "algorithm = 'sarsa'; it must be one of policy_gradient, ppo"),
        ("epochs=0", "epochs = 0; it must be at least 1"),
        ("data.pairs=-1", "data.pairs = -1; it must be at least 1"),
        ("reward.learning_rate=nan", "reward.learning_rate = nan; it must be finite"),
        ("cloning.learning_rate=0", "cloning.learning_rate = 0.0; it must be positive"),
        ("inverse_rl.l2=-1", "inverse_rl.l2 = -1.0; it must not be negative"),
        ("policy_gradient.hidden=()", r"policy_gradient.hidden = \(\); it must name at least one layer"),
        ("reward.hidden=8,0", r"reward.hidden = \(8, 0\); it must name at least one layer, each at least 1 wide"),
        ("num_envs=3", "epoch_steps = 5000 is not divisible by num_envs = 3"),
        ("ppo.discount=1", "ppo.discount = 1; it must be below 1"),
        ("ppo.trace_decay=2", "ppo.trace_decay = 2.0; it must be between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(assignment, words):
    with pytest.raises(ValueError, match=words):
        validate(settings.override(OfflineConfig(), [assignment]))


def test_settings_that_depend_on_each_other():
    validate(settings.override(OfflineConfig(), ["reward.hidden=()", "ppo.minibatches=3"]))
    with pytest.raises(ValueError, match=r"epoch_steps = 5000 is not divisible by ppo.minibatches = 3"):
        validate(settings.override(OfflineConfig(algorithm="ppo"), ["ppo.minibatches=3"]))
    with pytest.raises(ValueError, match=r"data.checkpoints × data.trajectories = 1; a pair needs at least 2"):
        validate(settings.override(OfflineConfig(), ["data.checkpoints=1", "data.trajectories=1"]))
