"""Distributions against SciPy, networks against NumPy."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from scipy import stats

import rlhf_jax
from rlhf_jax import convolution, ppo
from rlhf_jax.config import PPOConfig
from rlhf_jax.networks import Actor, Categorical, Critic, Gaussian, RewardNetwork, initialise

MEAN = np.array([[0.0, 1.5, -2.0], [3.0, 0.25, 0.0]])
STD = np.array([[1.0, 0.1, 5.0], [0.5, 2.0, 1e-3]])
LOGITS = np.array([[0.0, 0.0, 0.0, 0.0], [1.0, -2.0, 0.5, 3.0], [-40.0, 0.0, 40.0, 5.0]])


def gaussian():
    return Gaussian(jnp.asarray(MEAN, jnp.float32), jnp.log(jnp.asarray(STD, jnp.float32)))


def categorical():
    return Categorical(jnp.asarray(LOGITS, jnp.float32))


def probabilities():
    weights = np.exp(LOGITS - LOGITS.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_gaussian_log_prob():
    action = MEAN + STD * np.random.default_rng(0).normal(size=(2, 3))
    expected = stats.norm(MEAN, STD).logpdf(action).sum(-1)
    np.testing.assert_allclose(gaussian().log_prob(jnp.asarray(action, jnp.float32)), expected, rtol=1e-3)


def test_gaussian_entropy_and_mode():
    np.testing.assert_allclose(gaussian().entropy(), stats.norm(MEAN, STD).entropy().sum(-1), rtol=1e-5)
    np.testing.assert_allclose(gaussian().mode(), MEAN)


def test_gaussian_samples():
    """Kolmogorov–Smirnov of every dimension, and no correlation between them."""
    samples = np.asarray(jax.vmap(gaussian().sample)(jax.random.split(jax.random.key(0), 4000)))
    assert samples.shape == (4000, 2, 3)
    for i in np.ndindex(2, 3):
        assert stats.kstest((samples[(slice(None), *i)] - MEAN[i]) / STD[i], "norm").pvalue > 1e-3
    correlation = np.corrcoef(samples.reshape(4000, 6).T)[np.triu_indices(6, 1)]
    assert np.abs(correlation).max() < 0.06  # 3.8 standard errors


def test_categorical_log_prob():
    for row, column in np.ndindex(LOGITS.shape):
        actions = jnp.zeros(3, jnp.int32).at[row].set(column)
        expected = np.log(probabilities()[row, column])
        np.testing.assert_allclose(categorical().log_prob(actions)[row], expected, rtol=1e-5, atol=1e-6)


def test_categorical_entropy_and_mode():
    np.testing.assert_allclose(categorical().entropy(), stats.entropy(probabilities(), axis=-1), rtol=1e-5, atol=1e-7)
    assert categorical().mode()[1:].tolist() == [3, 2]


def test_categorical_samples():
    samples = np.asarray(jax.vmap(categorical().sample)(jax.random.split(jax.random.key(1), 4000)))
    assert samples.shape == (4000, 3)
    for row in (0, 1):
        counts = np.bincount(samples[:, row], minlength=4)
        assert stats.chisquare(counts, 4000 * probabilities()[row]).pvalue > 1e-3
    assert set(samples[:, 2]) == {2}


@functools.cache
def actor(continuous):
    """An untrained policy network with three observations and two actions, and its parameters."""
    network = Actor(2, continuous, (16, 8))
    return network, initialise(jax.random.key(2), network, jnp.zeros(3), output_scale=0.01)


def observations():
    return jax.random.normal(jax.random.key(3), (5, 4, 3))


def test_untrained_gaussian_actor_is_close_to_standard_normal():
    network, params = actor(continuous=True)
    actions = network.apply(params, observations())
    assert isinstance(actions, Gaussian)
    assert actions.mean.shape == actions.log_std.shape == (5, 4, 2)
    assert 0.0 < jnp.abs(actions.mean).max() < 0.2
    assert not actions.log_std.any()


def test_initial_std_of_the_actor():
    network = Actor(2, True, (8,), 1.65)
    log_std = network.apply(initialise(jax.random.key(2), network, jnp.zeros(3)), jnp.zeros(3)).log_std
    np.testing.assert_allclose(log_std, [0.5007753, 0.5007753], rtol=1e-5)


def test_untrained_categorical_actor_is_close_to_uniform():
    network, params = actor(continuous=False)
    actions = network.apply(params, observations())
    assert isinstance(actions, Categorical)
    assert actions.logits.shape == (5, 4, 2)
    np.testing.assert_allclose(jax.nn.softmax(actions.logits), np.full((5, 4, 2), 0.5), atol=0.05)


def test_critic_returns_one_value_per_observation():
    network = Critic((16, 8))
    values = network.apply(initialise(jax.random.key(4), network, jnp.zeros(3)), observations())
    assert values.shape == (5, 4)
    assert values.std() > 0


@pytest.mark.parametrize(("env", "alive"), [("Breakout-MinAtar", True), ("Pendulum-v1", False)])
def test_over_images_units_that_are_below_zero_everywhere_still_learn(env, alive):
    """Without that, eight to nine in ten of the critic's units were, after a million steps of Breakout."""
    env = rlhf_jax.make(env)
    trunk, actor, critic = ppo.networks(env, PPOConfig(hidden=(4,)))
    for network in (actor, critic):
        params = initialise(jax.random.key(0), network, jnp.ones(5))
        params["params"]["Dense_0"]["bias"] -= 100.0
        outputs = lambda params, network=network: jax.tree.leaves(network.apply(params, jnp.ones((3, 5))))[0].sum()  # noqa: E731
        slope = jax.grad(outputs)(params)["params"]["Dense_0"]["kernel"]
        assert (np.abs(slope) > 0).all() if alive else (slope == 0).all()
    assert bool(trunk.layers) == alive


@pytest.mark.parametrize("hidden", [(8,), (16, 8)])
def test_reward_network_against_numpy(hidden):
    network = RewardNetwork(hidden)
    observation, action = observations()[..., :2], observations()[..., 2:]
    params = initialise(jax.random.key(5), network, jnp.zeros(2), jnp.zeros(1))
    # Biases start at zero: give them something to do.
    params = jax.tree.map(lambda x: x + 0.1, params)
    expected = reference.reward_network(params["params"], observations())
    np.testing.assert_allclose(network.apply(params, observation, action), expected, rtol=1e-4, atol=1e-5)


def calls_lapack(initialise):
    """Whether initialising four agents at once calls a LAPACK routine, on whatever platform."""
    lowered = jax.jit(jax.vmap(initialise)).lower(jax.random.split(jax.random.key(6), 4)).as_text().lower()
    return any(routine in lowered for routine in ("lapack", "solver", "geqrf", "householder"))


def test_initialisers_call_no_lapack():
    """A QR decomposition batched over agents deadlocks XLA's CPU thread pool."""
    assert calls_lapack(lambda key: nn.initializers.orthogonal()(key, (3, 16)))
    networks = Actor(2, True, (16, 8)), Actor(2, False, (16, 8)), Critic((16, 8))
    for network in networks:
        assert not calls_lapack(lambda key, network=network: initialise(key, network, jnp.zeros(3)))
    eyes = convolution.eyes((84, 84, 4), pooling="none")
    inputs = jnp.zeros((84, 84, 4)), jnp.zeros(2)
    assert not calls_lapack(lambda key: initialise(key, RewardNetwork((16, 8), eyes), *inputs))


def test_initial_kernels_are_he_normal_and_biases_zero():
    """Standard deviation √(2 / inputs), a hundredth of it in the output layer; every copy and layer on its own."""
    network = RewardNetwork((40, 50))
    examples = jnp.zeros(5), jnp.zeros(3)
    params = initialise(jax.random.key(7), network, *examples, output_scale=0.01, copies=30)["params"]
    assert params.keys() == network.init(jax.random.key(0), *examples)["params"].keys()
    for name, inputs, outputs, scale in (("Dense_0", 8, 40, 1.0), ("Dense_1", 40, 50, 1.0), ("Dense_2", 50, 1, 0.01)):
        kernel = np.asarray(params[name]["kernel"])
        assert kernel.shape == (30, inputs, outputs)
        assert stats.kstest(kernel.ravel() / (scale * np.sqrt(2 / inputs)), "norm").pvalue > 1e-3
        assert not params[name]["bias"].any()
        assert params[name]["bias"].shape == (30, outputs)
    first, second = (np.asarray(params[name]["kernel"]).reshape(30, -1) for name in ("Dense_0", "Dense_1"))
    assert abs(np.corrcoef(first.ravel(), second[:, : first.shape[1]].ravel())[0, 1]) < 0.05
    assert np.abs(np.corrcoef(second)[np.triu_indices(30, 1)]).max() < 0.1


@pytest.mark.parametrize(
    ("shape", "pooling"),
    [((10, 10, 4), "none"), ((84, 84, 4), "none"), ((84, 84, 4), "keypoints"), ((10, 10, 4), "max")],
)
def test_beside_convolutions_only_the_output_layer_starts_near_zero(shape, pooling):
    """Names of convolutions come after those of dense layers, though they are applied before them."""
    eyes = convolution.eyes(shape, pooling=pooling)
    network, inputs = RewardNetwork((16,), eyes), (jnp.zeros(shape), jnp.zeros(3))
    params = initialise(jax.random.key(8), network, *inputs, output_scale=0.01)["params"]
    output = params["Dense_1"]["kernel"]
    assert output.shape == (16, 1) and output.std() < 0.02 * np.sqrt(2 / 16)
    for kernel in (params["Dense_0"]["kernel"], *(x for name, x in params["eyes"].items() if "kernel" in name)):
        assert kernel.std() == pytest.approx(np.sqrt(2 / np.prod(kernel.shape[:-1])), rel=0.15)


def test_the_output_layer_is_the_last_of_more_than_ten():
    """In the order of names Dense_10 comes before Dense_2."""
    params = initialise(jax.random.key(9), Critic((20,) * 10), jnp.zeros(20), output_scale=0.01)["params"]
    assert len(params) == 11
    for i in range(11):
        kernel = params[f"Dense_{i}"]["kernel"]
        scale = 0.01 if i == 10 else 1.0
        assert kernel.std() == pytest.approx(scale * np.sqrt(2 / 20), rel=0.5)
