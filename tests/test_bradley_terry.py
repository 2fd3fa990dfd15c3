"""The Bradley–Terry model against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import bradley_terry

# σ(2), log σ(2) and log σ(−2), to ten digits.
SIGMOID_2 = 0.8807970780
LOG_SIGMOID_2 = -0.1269280110
LOG_SIGMOID_MINUS_2 = -2.1269280110


def loss_of_logit(logit, label, error_rate=0.0):
    """The loss of one pair whose returns are `logit` and 0."""
    return bradley_terry.cross_entropy(jnp.stack([logit, jnp.zeros_like(logit)], -1), label, error_rate)


def test_logit_is_first_return_minus_second():
    returns = jnp.array([[[3.0, 1.0], [0.0, 0.0]], [[-1.0, 4.0], [2.5, 2.0]]])
    np.testing.assert_allclose(bradley_terry.preference_logit(returns), [[2.0, 0.0], [-5.0, 0.5]])


def test_logit_needs_two_slots():
    with pytest.raises(AssertionError):
        bradley_terry.preference_logit(jnp.zeros((4, 3)))


@pytest.mark.parametrize(
    ("error_rate", "expected"),
    [
        (0.0, [SIGMOID_2, 0.5, 1 - SIGMOID_2, 1.0]),
        (0.1, [0.9 * SIGMOID_2 + 0.05, 0.5, 0.9 * (1 - SIGMOID_2) + 0.05, 0.95]),
        (1.0, [0.5, 0.5, 0.5, 0.5]),
    ],
)
def test_probability_with_error_rate(error_rate, expected):
    returns = jnp.array([[3.0, 1.0], [7.0, 7.0], [-1.0, 1.0], [60.0, 0.0]])
    np.testing.assert_allclose(bradley_terry.preference_probability(returns, error_rate), expected, rtol=1e-6)


@pytest.mark.parametrize("error_rate", [0.0, 0.1])
def test_probabilities_of_both_orders_sum_to_one(error_rate):
    returns = 5.0 * jax.random.normal(jax.random.key(0), (100, 2))
    forward = bradley_terry.preference_probability(returns, error_rate)
    backward = bradley_terry.preference_probability(returns[:, ::-1], error_rate)
    np.testing.assert_allclose(forward + backward, np.ones(100), rtol=1e-6)


@pytest.mark.parametrize("label", [0.0, 0.5, 1.0])
def test_constant_added_to_both_changes_nothing(label):
    # Multiples of 1/8 stay exact in float32 when 1000 is added.
    returns = jnp.round(8.0 * jax.random.normal(jax.random.key(1), (100, 2))) / 8.0
    labels = jnp.full(100, label)
    np.testing.assert_array_equal(
        bradley_terry.preference_probability(returns, 0.1), bradley_terry.preference_probability(returns + 1000.0, 0.1)
    )
    np.testing.assert_array_equal(
        bradley_terry.cross_entropy(returns, labels, 0.1), bradley_terry.cross_entropy(returns + 1000.0, labels, 0.1)
    )


@pytest.mark.parametrize(
    ("label", "error_rate", "expected"),
    [
        (1.0, 0.0, -LOG_SIGMOID_2),
        (0.0, 0.0, -LOG_SIGMOID_MINUS_2),
        (0.5, 0.0, 1.1269280110),  # the mean of the two above
        (0.25, 0.0, 1.6269280110),  # ¼ of the first and ¾ of the second
        (1.0, 0.1, 0.1711236439),  # −log(0.9 · 0.8807970780 + 0.05)
        (0.0, 0.1, 1.8497109021),  # −log(0.9 · 0.1192029220 + 0.05)
        (0.5, 0.1, 1.0104172730),
        (1.0, 1.0, 0.6931471806),  # log 2, whatever the model says
    ],
)
def test_cross_entropy(label, error_rate, expected):
    loss = bradley_terry.cross_entropy(jnp.array([3.0, 1.0]), jnp.array(label), error_rate)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize(("label", "right"), [(1.0, 50.0), (0.0, -50.0)])
def test_confident_pairs_without_errors_are_exact(label, right):
    """At ±50 the loss is e⁻⁵⁰ or 50, where log(σ) alone would give −∞ or NaN in float32."""
    value, gradient = jax.vmap(jax.value_and_grad(loss_of_logit), in_axes=(0, None))(
        jnp.array([right, -right]), jnp.array(label)
    )
    np.testing.assert_allclose(value, [1.9287498e-22, 50.0], rtol=1e-4)
    np.testing.assert_allclose(gradient[0], -np.sign(right) * 1.9287498e-22, rtol=1e-4)
    np.testing.assert_allclose(gradient[1], -np.sign(right), rtol=1e-6)


@pytest.mark.parametrize(("label", "wrong"), [(1.0, -30.0), (0.0, 30.0)])
def test_error_rate_silences_confidently_wrong_pairs(label, wrong):
    """With ε = 0.1 such a pair is taken for a slip and stops pulling; with ε = 0 it pulls with all its weight."""
    gradient = jax.grad(loss_of_logit)
    assert abs(gradient(jnp.array(wrong), jnp.array(label), 0.1)) < 1e-10
    np.testing.assert_allclose(gradient(jnp.array(wrong), jnp.array(label), 0.0), np.sign(wrong), rtol=1e-6)


def test_error_rate_limits_the_loss():
    """A pair that the model is certain about in the wrong direction costs log(2/ε) = log 20."""
    np.testing.assert_allclose(loss_of_logit(jnp.array(-200.0), jnp.array(1.0), 0.1), 2.9957322736, rtol=1e-6)


def test_soft_label_is_best_at_its_own_probability():
    """The gradient vanishes where the model says 50 % for a tie, and at log 3 for a label of ¾."""
    assert jax.grad(loss_of_logit)(jnp.array(0.0), jnp.array(0.5)) == 0.0
    assert abs(jax.grad(loss_of_logit)(jnp.array(1.0986123), jnp.array(0.75))) < 1e-6


def test_error_rate_may_be_traced():
    """Lanes of one program may differ in it, zero included."""
    losses = jax.jit(jax.vmap(lambda e: loss_of_logit(jnp.array(2.0), jnp.array(1.0), e)))(jnp.array([0.0, 0.1]))
    np.testing.assert_allclose(losses, [0.1269280110, 0.1711236439], rtol=1e-6)
