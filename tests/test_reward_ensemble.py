"""The reward ensemble: literal numbers, the split by bags, and a known reward recovered from preferences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rlhf_jax import environments, normalisation, preferences, reward_ensemble
from rlhf_jax.config import RewardConfig
from rlhf_jax.queries import Queries
from rlhf_jax.teacher import Answers

CONFIG = RewardConfig(
    members=3,
    hidden=(32,),
    fit_steps=100,
    batch_size=32,
    reference_size=64,
    learning_rate=3e-3,
    action_scale=1.0,  # the reward of these tests does depend on the action
    error_rate=0.1,
    l2=1e-4,
    l2_adaptation=1.1,
    l2_low=1.1,
    l2_high=1.5,
)
LENGTH = 5
TRUE_WEIGHTS = np.array([1.0, -0.5, 0.25, 2.0])  # of three observations and one action


@functools.cache
def env():
    """Only the shapes of its observations and actions matter here."""
    return environments.make("Pendulum-v1")


def pairs(seed, num_pairs):
    """Random segments and the `[Q, 2]` returns of the known linear reward."""
    rng = np.random.default_rng(seed)
    observation = rng.normal(2.0, 3.0, (num_pairs, 2, LENGTH, 3)).astype(np.float32)
    action = rng.uniform(-1.0, 1.0, (num_pairs, 2, LENGTH, 1)).astype(np.float32)
    reward = np.concatenate([observation, action], -1) @ TRUE_WEIGHTS
    return jnp.asarray(observation), jnp.asarray(action), reward.sum(-1)


@functools.cache
def data(num_pairs=300):
    """A buffer of 320 rows with the oracle's answers to these pairs."""
    observation, action, returns = pairs(0, num_pairs)
    asked = jnp.ones(num_pairs, bool)
    queries = Queries(observation, action, {}, jnp.zeros((num_pairs, 2, LENGTH)), asked)
    answers = Answers(jnp.asarray(returns[:, 0] > returns[:, 1], jnp.float32), jnp.ones(num_pairs))
    empty = preferences.init(env=env(), capacity=320, length=LENGTH, members=3)
    return preferences.add(jax.random.key(0), empty, queries, answers)


def moments():
    """Moments of the observations of these pairs."""
    return normalisation.update(normalisation.init((3,)), pairs(0, 300)[0])


@functools.cache
def untrained():
    return reward_ensemble.init(jax.random.key(1), env=env(), config=CONFIG)


@tiny.quick_jit
def fit(key, ensemble, data, config=CONFIG):
    """Compiled once; the numbers of the config may differ from call to call."""
    return reward_ensemble.fit(key, ensemble, data, moments(), env=env(), config=config)


@tiny.quick_jit
def fit_plainly(key, ensemble, data, config):
    """As above, of observations as they are."""
    return reward_ensemble.fit(key, ensemble, data, normalisation.init((3,)), env=env(), config=config)


@functools.cache
def fitted():
    """The ensemble after four fits, and what the last one told."""
    ensemble = untrained()
    for i in range(4):
        ensemble, info = fit(jax.random.key(i), ensemble, data())
    return ensemble, info


def member_rewards(ensemble, observation, action, config=CONFIG):
    return reward_ensemble.member_rewards(ensemble, observation, action, env=env(), config=config)


def members_changed(before, after):
    """Whether any parameter of each member differs."""
    differs = jax.tree.map(lambda a, b: (a != b).reshape(a.shape[0], -1).any(1), before.params, after.params)
    return np.any(jax.tree.leaves(differs), axis=0).tolist()


@pytest.mark.parametrize(
    ("ratio", "expected"), [(1.3, 0.02), (1.1001, 0.02), (1.4999, 0.02), (1.6, 0.022), (9.0, 0.022), (1.0, 0.02 / 1.1)]
)
def test_l2_adapts_to_the_ratio_of_losses(ratio, expected):
    """Kept within the band, raised above it, lowered below it."""
    adapted = reward_ensemble.adapted_l2(jnp.array(0.02), jnp.array(ratio), config=CONFIG)
    np.testing.assert_allclose(adapted, expected, rtol=1e-6)


def test_l2_is_kept_without_data_or_with_a_factor_of_one():
    assert reward_ensemble.adapted_l2(jnp.array(0.02), jnp.array(jnp.nan), config=CONFIG) == jnp.float32(0.02)
    still = dataclasses.replace(CONFIG, l2_adaptation=1.0)
    for ratio in (0.5, 1.3, 3.0):
        assert reward_ensemble.adapted_l2(jnp.array(0.02), jnp.array(ratio), config=still) == jnp.float32(0.02)


@pytest.mark.parametrize("ratio", [0.1, 1.3, 9.0])
def test_l2_of_zero_stays_zero(ratio):
    assert reward_ensemble.adapted_l2(jnp.array(0.0), jnp.array(ratio), config=CONFIG) == 0.0


def test_l2_of_zero_stays_zero_in_a_fit():
    start = dataclasses.replace(untrained(), l2=jnp.array(0.0))
    ensemble, info = fit(jax.random.key(0), start, data())
    assert np.isfinite(info["validation_loss"] / info["train_loss"])
    assert ensemble.l2 == info["l2"] == 0.0


def test_mean_reward_literal():
    """First step: ((3 − 1) / 2 + (10 − 2) / 4) / 2 = 1.5; second: ((1 − 1) / 2 + (−2 − 2) / 4) / 2 = −0.5."""
    ensemble = untrained().replace(zero=jnp.array([1.0, 2.0]), std=jnp.array([2.0, 4.0]))
    rewards = jnp.array([[3.0, 1.0], [10.0, -2.0]])
    np.testing.assert_allclose(reward_ensemble.mean_reward(ensemble, rewards), [1.5, -0.5])
    np.testing.assert_allclose(reward_ensemble.mean_reward(ensemble, rewards[..., None]), [[1.5], [-0.5]])


def test_ensemble_equals_a_loop_over_its_members():
    observation, action, _ = pairs(1, 7)
    ensemble, _ = fitted()
    together = member_rewards(ensemble, observation, action)
    assert together.shape == (3, 7, 2, LENGTH)
    for m in range(3):
        alone = ensemble.replace(params=jax.tree.map(lambda x, m=m: x[m : m + 1], ensemble.params))
        rewards = member_rewards(alone, observation, action, dataclasses.replace(CONFIG, members=1))
        np.testing.assert_allclose(together[m], rewards[0], rtol=1e-4, atol=1e-5)
        assert np.abs(together[m] - together[m - 1]).max() > 0.1


def test_features_literal():
    """(3 − 1) / 2, (0 − 1) / 2 and (1 − 1) / 2 beside a tenth of the action."""
    moments = normalisation.Moments(count=jnp.array(4.0), mean=jnp.ones(3), m2=jnp.full(3, 16.0))
    seen = reward_ensemble.features(
        untrained().replace(observation=moments),
        jnp.array([[3.0, 0.0, 1.0]]),
        jnp.array([[-0.5]]),
        env=env(),
        config=dataclasses.replace(CONFIG, action_scale=0.1),
    )
    np.testing.assert_allclose(seen, [[1.0, -0.5, 0.0, -0.05]], rtol=1e-6)


def test_features_of_bytes_are_shares_of_255():
    """Or a pixel would outweigh an action a hundredfold where segments are compared."""
    dot = environments.make("MovingDot-v0")
    shape = dot.observation_shape
    seen = reward_ensemble.features(
        untrained().replace(observation=normalisation.init()),
        jnp.full((1, *shape), 51, jnp.uint8),
        jnp.array([2]),
        env=dot,
        config=dataclasses.replace(CONFIG, action_scale=0.1),
    )
    np.testing.assert_allclose(seen[0], [0.2] * (84 * 84 * 4) + [0, 0, 0.1, 0, 0], rtol=1e-6)


def test_members_see_normalised_observations_and_clipped_actions():
    """Moving the observations together with their moments changes nothing; nor does an action beyond 1."""
    observation, action, _ = pairs(1, 7)
    plain = fitted()[0].replace(observation=normalisation.init((3,)))
    scaled = plain.replace(observation=plain.observation.replace(count=1.0, mean=jnp.full(3, 5.0), m2=jnp.full(3, 4.0)))
    expected = member_rewards(plain, observation / 10.0, action)
    np.testing.assert_allclose(member_rewards(scaled, observation / 5.0 + 5.0, action), expected, rtol=1e-3, atol=1e-4)
    clipped = member_rewards(plain, observation, jnp.ones_like(action))
    np.testing.assert_array_equal(member_rewards(plain, observation, 3.0 * jnp.ones_like(action)), clipped)


def test_without_data_nothing_is_learnt():
    nothing = jax.tree.map(jnp.zeros_like, data())
    ensemble, info = fit(jax.random.key(2), untrained(), nothing)
    assert members_changed(untrained(), ensemble) == [False] * 3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((ensemble.params, ensemble.zero)))
    assert ensemble.std.tolist() == [1.0, 1.0, 1.0]
    assert ensemble.l2 == jnp.float32(1e-4)
    assert all(np.isnan(info[name]) for name in ("train_loss", "validation_loss", "accuracy"))


def test_a_member_without_a_bag_waits_for_one():
    """Nothing in its bootstrap sample yet: it keeps its parameters while the others learn."""
    lonely = data().replace(multiplicity=data().multiplicity.at[1].set(0))
    ensemble, _ = fit(jax.random.key(3), untrained(), lonely)
    assert members_changed(untrained(), ensemble) == [True, False, True]


@pytest.mark.parametrize("member", [0, 1, 2])
def test_a_member_never_sees_rows_outside_its_bag(member):
    """Garbage in their labels reaches only the members that hold them in their bags."""
    garbage = jnp.where(data().multiplicity[member] == 0, 7.0, data().label)
    clean, _ = fit(jax.random.key(4), untrained(), data())
    soiled, _ = fit(jax.random.key(4), untrained(), data().replace(label=garbage))
    assert members_changed(clean, soiled) == [m != member for m in range(3)]


def test_known_linear_reward_is_recovered():
    """On segments it has not seen the ensemble prefers what the true reward prefers, and tracks it step by step."""
    ensemble, info = fitted()
    observation, action, true_returns = pairs(2, 1000)
    rewards = reward_ensemble.predict(ensemble, observation, action, env=env(), config=CONFIG)
    returns = np.asarray(rewards).sum(-1)
    right = (returns[:, 0] > returns[:, 1]) == (true_returns[:, 0] > true_returns[:, 1])
    assert right.mean() > 0.95
    true_rewards = np.concatenate([observation, action], -1) @ TRUE_WEIGHTS
    assert np.corrcoef(true_rewards.ravel(), np.asarray(rewards).ravel())[0, 1] > 0.9
    np.testing.assert_allclose(ensemble.observation.mean, moments().mean, rtol=1e-6)
    assert 0.9 < info["accuracy"] <= 1.0
    assert info["train_loss"] < 0.4


def test_accuracy_and_validation_loss_are_of_rows_outside_the_bags():
    """Turning round every label outside the bags turns round the accuracy and leaves the training loss alone."""
    ensemble, _ = fitted()
    frozen = dataclasses.replace(CONFIG, learning_rate=0.0)
    outside = (jnp.arange(320) % 2 == 0) & data().filled
    inside = (jnp.arange(320) % 2 == 1) & data().filled
    buffer = data().replace(multiplicity=jnp.tile(inside[None].astype(jnp.int32), (3, 1)))
    opposite = jnp.where(outside, 1.0 - buffer.label, buffer.label)
    _, straight = fit(jax.random.key(5), ensemble, buffer, frozen)
    _, turned = fit(jax.random.key(5), ensemble, buffer.replace(label=opposite), frozen)
    assert straight["accuracy"] > 0.9
    assert float(turned["accuracy"]) == pytest.approx(1.0 - float(straight["accuracy"]), abs=1e-6)
    assert turned["validation_loss"] > 2.0 * straight["validation_loss"]
    assert turned["train_loss"] == straight["train_loss"]


def test_constant_added_to_a_member_vanishes_in_the_normalisation():
    """Preferences cannot tell rewards from rewards plus a constant, so each member is centred before the average."""
    observation, action, _ = pairs(3, 50)
    frozen = dataclasses.replace(CONFIG, learning_rate=0.0)
    shift = jnp.array([[0.0], [5.0], [-3.0]])  # of the output bias, the only parameters of shape [M, 1]
    before = fitted()[0]
    after = before.replace(params=jax.tree.map(lambda x: x + shift if x.shape == (3, 1) else x, before.params))
    rewards = []
    for ensemble in (before, after):
        ensemble, _ = fit(jax.random.key(6), ensemble, data(), frozen)
        members = member_rewards(ensemble, observation, action)
        rewards.append(reward_ensemble.mean_reward(ensemble, members))
    np.testing.assert_allclose(members[1] - member_rewards(before, observation, action)[1], 5.0, rtol=1e-4)
    np.testing.assert_allclose(rewards[0], rewards[1], atol=1e-4)


def test_normalised_reward_has_zero_mean_and_unit_scale():
    """Each member has standard deviation 1 over the data, their mean a little less where they disagree."""
    ensemble, _ = fitted()
    rewards = member_rewards(ensemble, data().observation[:300], data().action[:300])
    np.testing.assert_allclose(rewards.mean((1, 2, 3)), ensemble.zero, atol=0.2 * ensemble.std.max())
    np.testing.assert_allclose(rewards.std((1, 2, 3)), ensemble.std, rtol=0.15)
    mean = reward_ensemble.mean_reward(ensemble, rewards)
    assert abs(mean.mean()) < 0.2
    assert 0.7 < mean.std() < 1.15


def test_l2_shrinks_the_weights():
    """With a large coefficient the parameters lose much of their norm, with the usual one they do not."""

    def norm(ensemble):
        return sum(float(jnp.square(leaf).sum()) for leaf in jax.tree.leaves(ensemble.params))

    light, heavy = untrained(), untrained().replace(l2=jnp.array(1.0))
    light, heavy = (fit(jax.random.key(7), ensemble, data())[0] for ensemble in (light, heavy))
    assert norm(heavy) < 0.8 * norm(untrained()) < norm(light)


@pytest.mark.parametrize(("value", "expected"), [(10.0, 1.5), (-10.0, -1.5), (2.0, 0.0)])
def test_sparsity_makes_steps_worth_less_and_small_ones_nothing(value, expected):
    """Five steps of r are told to be worth y, with a cost of 25: (5 r − y)² + 25 |r| is least at y / 5 ∓ 1/2, or 0."""
    cost = {"sparsity": 25.0, "l2": 0.0, "l2_adaptation": 1.0, "learning_rate": 0.02}
    config = dataclasses.replace(CONFIG, hidden=(), targets=True, normalise=False, **cost)
    nowhere = jax.tree.map(jnp.zeros_like, data())  # At zero a linear network is its bias.
    same = nowhere.replace(label=jnp.full(320, value), filled=data().filled, multiplicity=data().multiplicity)
    ensemble = reward_ensemble.init(jax.random.key(1), env=env(), config=config)
    for i in range(3):
        ensemble, _ = fit_plainly(jax.random.key(i), ensemble, same, config)
    rewards = member_rewards(ensemble, jnp.zeros((1, 3)), jnp.zeros((1, 1)), config)
    np.testing.assert_allclose(rewards, expected, atol=0.03)


def test_without_normalisation_the_reward_is_the_plain_mean_of_the_members():
    config = dataclasses.replace(CONFIG, fit_steps=2, normalise=False)
    ensemble = reward_ensemble.init(jax.random.key(1), env=env(), config=config)
    ensemble, _ = reward_ensemble.fit(jax.random.key(2), ensemble, data(), moments(), env=env(), config=config)
    np.testing.assert_array_equal(ensemble.zero, np.zeros(3))
    np.testing.assert_array_equal(ensemble.std, np.ones(3))
    rewards = jnp.array([[1.0], [2.0], [6.0]])
    np.testing.assert_allclose(reward_ensemble.mean_reward(ensemble, rewards), [3.0])


def test_zero_at_the_median():
    """The centre is the middle of the members' rewards instead of their mean; the scale is the same."""
    config = dataclasses.replace(CONFIG, zero_median=True)
    plain, median = (fit(jax.random.key(6), fitted()[0], data(), c)[0] for c in (CONFIG, config))
    np.testing.assert_array_equal(plain.std, median.std)
    rewards = member_rewards(median, data().observation[:300], data().action[:300])
    below = np.asarray(rewards < median.zero.reshape(3, 1, 1, 1)).mean((1, 2, 3))
    np.testing.assert_allclose(below, 0.5, atol=0.08)
    assert (np.abs(plain.zero - median.zero) > 0.02 * plain.std).any()
