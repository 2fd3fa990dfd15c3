"""Opinions of synthetic teachers: literal probabilities, and what holds whatever the settings and the scale."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from rlhf_jax import config, normalisation, teacher
from rlhf_jax.config import TeacherConfig
from rlhf_jax.normalisation import Moments
from rlhf_jax.teacher import Opinion

# Segment returns of mean −10 and standard deviation 2.
SCALE = Moments(count=jnp.array(4.0), mean=jnp.array(-10.0), m2=jnp.array(16.0))
FIRST, SECOND, TIE, SILENCE = np.eye(4)


def opinion_of(*rows):
    """Opinions from rows of the four probabilities."""
    return Opinion(*jnp.array(rows, jnp.float32).T)


def table(opinion):
    """`[..., 4]` probabilities of slot 0, slot 1, a tie and silence."""
    return np.stack([opinion.first, opinion.second, opinion.tie, opinion.silence], -1)


def assert_says(opinion, *rows):
    """Compares an opinion with rows of the four probabilities."""
    np.testing.assert_allclose(table(opinion), np.array(rows), rtol=1e-5, atol=1e-7)


def standard(*returns, scale=SCALE, **settings):
    """The opinion of the teacher of these settings of pairs of one step each."""
    rewards = jnp.array(returns)[..., None]
    return teacher.opinion(rewards, scale, config=TeacherConfig(**settings))


@pytest.mark.parametrize(("discount", "expected"), [(1, 7.0), (1.0, 7.0), (0.5, 9.0), (0.0, 12.0)])
def test_segment_return_literals(discount, expected):
    """Rewards 1, 2, 4 weigh 1 each; 3/7, 6/7, 12/7; or only the last one does, three times."""
    assert teacher.segment_returns(jnp.array([1.0, 2.0, 4.0]), discount) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("discount", [0.0, 0.3, 0.9, 1.0])
def test_weights_of_the_steps_fall_into_the_past_and_sum_to_the_length(discount):
    weights = np.asarray(teacher.segment_returns(jnp.eye(6), discount))
    assert weights.sum() == pytest.approx(6.0, rel=1e-6)
    np.testing.assert_allclose(weights[:-1], discount * weights[1:], rtol=1e-5)
    constant = teacher.segment_returns(jnp.full((2, 3, 6), -2.5), discount)
    np.testing.assert_allclose(constant, np.full((2, 3), -15.0), rtol=1e-6)


def test_oracle_literals():
    returns = jnp.array([[[2.0, 1.0], [1.0, 2.0], [3.0, 3.0]], [[-1e-6, 0.0], [-5.0, -6.0], [0.0, 0.0]]])
    expected = np.array([[FIRST, SECOND, TIE], [SECOND, FIRST, TIE]])
    np.testing.assert_array_equal(table(teacher.oracle(returns)), expected)


@pytest.mark.parametrize(
    ("returns", "temperature", "first"),
    [
        ((2.0, 1.0), 1.0, 0.7310585786),
        ((2.0, 1.0), 0.5, 0.8807970780),
        ((2.0, 1.0), 2.0, 0.6224593312),
        ((1.0, 3.0), 1.0, 0.1192029220),
        ((-7.0, -5.0), 1.0, 0.1192029220),
        ((4.0, 4.0), 0.3, 0.5),
        ((1e5, -1e5), 0.1, 1.0),
    ],
)
def test_boltzmann_literals(returns, temperature, first):
    assert_says(teacher.boltzmann(jnp.array([returns]), temperature), [first, 1.0 - first, 0.0, 0.0])


def test_without_temperature_it_is_the_oracle_and_near_it_almost():
    returns = jnp.array([[2.0, 1.0], [-3.0, -1.0], [5.0, 5.0]])
    np.testing.assert_array_equal(table(teacher.boltzmann(returns, 0.0)), [FIRST, SECOND, TIE])
    np.testing.assert_allclose(table(teacher.boltzmann(returns[:2], 0.05)), [FIRST, SECOND], atol=1e-8)


def test_returns_within_the_band_are_a_tie():
    """Gaps of 0.125, 0.25 and 0.5 with a band of 0.25; a query that gets no answer is no tie."""
    returns = jnp.array([[1.0, 1.125], [1.0, 1.25], [1.5, 1.0], [-1.0, -1.0]])
    assert_says(teacher.with_ties(teacher.oracle(returns), returns, 0.25), TIE, SECOND, FIRST, TIE)
    half_silent = opinion_of([0.5, 0.125, 0.125, 0.25])
    assert_says(teacher.with_ties(half_silent, jnp.array([[0.0, 0.1]]), 0.25), [0.0, 0.0, 0.75, 0.25])


def test_nothing_is_said_where_both_returns_are_poor():
    returns = jnp.array([[-4.0, -5.0], [-4.0, -2.0], [-2.0, -4.0], [-3.0, -3.0], [-3.5, -3.5]])
    opinion = teacher.with_silence(teacher.oracle(returns), returns, -3.0)
    assert_says(opinion, SILENCE, SECOND, FIRST, TIE, SILENCE)


def test_mistakes_turn_a_preference_round_and_spare_ties_and_silence():
    opinion = opinion_of(FIRST, SECOND, TIE, SILENCE, [0.5, 0.25, 0.125, 0.125])
    expected = [[0.9, 0.1, 0, 0], [0.1, 0.9, 0, 0], TIE, SILENCE, [0.475, 0.275, 0.125, 0.125]]
    assert_says(teacher.with_mistakes(opinion, 0.1), *expected)
    assert_says(teacher.with_mistakes(opinion_of(FIRST, SECOND), 1.0), SECOND, FIRST)


def test_errors_are_a_fair_coin_whatever_the_pair():
    opinion = opinion_of(FIRST, SECOND, TIE, SILENCE, [0.5, 0.0, 0.0, 0.5])
    expected = [[0.9, 0.1, 0, 0], [0.1, 0.9, 0, 0], [0.1, 0.1, 0.8, 0], SILENCE, [0.45, 0.05, 0, 0.5]]
    assert_says(teacher.with_errors(opinion, 0.2), *expected)
    assert_says(teacher.with_errors(opinion_of(FIRST, TIE), 1.0), [0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0])


def test_fallibilities_compose_in_their_order():
    """A band of 1, silence below −12; mistakes turn only preferences round, errors reach every answer."""
    opinion = standard(
        (-5.0, -8.0), (-5.0, -5.5), (-13.0, -13.5), (-13.0, -20.0), (-13.0, -11.0),
        mistake_rate=0.1, tie_band=0.5, silence_below=-1.0, error_rate=0.2,
    )  # fmt: skip
    assert_says(opinion, [0.82, 0.18, 0, 0], [0.1, 0.1, 0.8, 0], SILENCE, SILENCE, [0.18, 0.82, 0, 0])


def test_temperature_is_in_spreads_and_the_discount_forgets_the_beginning():
    assert_says(standard((-5.0, -6.0), temperature=0.5), [0.7310585786, 0.2689414214, 0, 0])
    rewards = jnp.array([[[9.0, 0.0, 1.0], [0.0, 0.0, 2.0]]])
    for discount, expected in ((1.0, FIRST), (0.0, SECOND)):
        assert_says(teacher.opinion(rewards, SCALE, config=TeacherConfig(discount=discount)), expected)


def test_default_is_the_oracle_of_the_summed_true_reward():
    # Sums 3 ≻ 2, though the single best and the last step are in slot 1; then 1 ≺ 1.5; then a tie; then bad ones.
    first, second = [[2.0, 1.0, 0.0], [-2.0, 3.0, 1.0]], [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
    tie, bad = [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], [[-30.0, -40.0, -50.0], [-30.0, -40.0, -49.0]]
    opinion = teacher.opinion(jnp.array([first, second, tie, bad]), SCALE, config=TeacherConfig())
    np.testing.assert_array_equal(table(opinion), [FIRST, SECOND, TIE, SECOND])


# Gaps 4 and 0.4 and returns below −11 with a mean of −10 and a spread of 2; the later reward is better in slot 1.
PRESETS = {
    "oracle": [FIRST, FIRST, FIRST],
    "mistaken": [[0.9, 0.1, 0, 0]] * 3,
    "tying": [FIRST, TIE, FIRST],
    "silent": [FIRST, FIRST, SILENCE],
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    opinion = standard((-6.0, -10.0), (-9.0, -9.4), (-11.2, -12.0), **dataclasses.asdict(config.TEACHER_PRESETS[name]))
    assert_says(opinion, *PRESETS[name])


def test_preset_that_forgets():
    """0.9 · 1.05 is less than 1."""
    rewards = jnp.array([[[1.05, 0.0], [0.0, 1.0]]])
    for name, expected in (("oracle", FIRST), ("myopic", SECOND)):
        assert_says(teacher.opinion(rewards, SCALE, config=config.TEACHER_PRESETS[name]), expected)


@pytest.mark.parametrize(("factor", "shift"), [(1e-2, 0.0), (1.0, 50.0), (1.0, -9.0), (300.0, -4e3)])
def test_opinion_does_not_depend_on_the_scale_of_the_reward_nor_on_its_sign(factor, shift):
    """Rewards like Pendulum's, all negative, moved and scaled together with the moments of their returns."""
    rewards = np.random.default_rng(0).uniform(-16.0, 0.0, (300, 2, 10))
    returns = rewards.sum(-1)
    settings = TeacherConfig(
        temperature=0.3, mistake_rate=0.1, error_rate=0.1, tie_band=0.2, silence_below=-0.3, discount=0.9
    )

    def opinion(rewards, returns):
        scale = normalisation.update(normalisation.init(), jnp.asarray(returns, jnp.float32))
        return table(teacher.opinion(jnp.asarray(rewards, jnp.float32), scale, config=settings))

    plain, moved = opinion(rewards, returns), opinion(factor * rewards + shift, factor * returns + 10 * shift)
    np.testing.assert_allclose(moved, plain, rtol=2e-3, atol=1e-5)
    # All kinds of answers are among them: silence below the mean, not below some share of it.
    tied, silent = (plain[:, 2] > 0.5).sum(), (plain[:, 3] == 1).sum()
    assert 10 < tied < 100 and 10 < silent < 100
    assert (plain[:, :2].max(-1) > 0.8).sum() > 50


def test_silence_of_bad_returns_against_numpy():
    """The mean is −10, so a threshold of −0.5 spreads is −11, which is worse than the mean and not better."""
    returns = np.random.default_rng(1).normal(-10.0, 2.0, (200, 2))
    silent = np.asarray(standard(*returns, silence_below=-0.5).silence)
    np.testing.assert_array_equal(silent, (returns < -11.0).all(-1))
    assert 5 < silent.sum() < 60


def random_settings(number):
    """Lanes of settings, a third of them without temperature."""
    rng = np.random.default_rng(2)
    return TeacherConfig(
        temperature=jnp.array(rng.choice([0.0, 0.1, 2.0], number)),
        mistake_rate=jnp.array(rng.random(number)),
        error_rate=jnp.array(rng.random(number) * rng.integers(0, 2, number)),
        tie_band=jnp.array(rng.random(number)),
        silence_below=jnp.array(rng.normal(size=number)),
        discount=jnp.array(rng.random(number)),
    )


def test_settings_may_differ_between_lanes_and_the_probabilities_always_sum_to_one():
    lanes, rewards = random_settings(40), jax.random.normal(jax.random.key(0), (25, 2, 4)) * 2.0 - 2.5
    rewards = rewards.at[0, 1].set(rewards[0, 0])
    ask = jax.jit(jax.vmap(lambda settings, rewards: teacher.opinion(rewards, SCALE, config=settings), (0, None)))
    opinion = table(ask(lanes, rewards))
    assert opinion.shape == (40, 25, 4)
    assert (opinion >= 0).all() and (opinion <= 1).all()
    np.testing.assert_allclose(opinion.sum(-1), 1.0, atol=1e-6)
    for i in (0, 7, 39):  # each as it is alone
        alone = teacher.opinion(rewards, SCALE, config=jax.tree.map(lambda x, i=i: x[i], lanes))
        np.testing.assert_allclose(opinion[i], table(alone), rtol=1e-4, atol=1e-6)
    swapped = table(ask(lanes, rewards[:, ::-1]))
    np.testing.assert_allclose(swapped, opinion[..., [1, 0, 2, 3]], rtol=1e-4, atol=1e-6)
    assert all((opinion[..., k] > 0.5).any() for k in range(4))


def test_expected_label_is_the_mean_of_the_answers():
    """(0.5 + 0.1) / 0.9; ½ for ties only, and where there is never an answer."""
    opinion = opinion_of([0.5, 0.2, 0.2, 0.1], FIRST, SECOND, TIE, SILENCE)
    np.testing.assert_allclose(opinion.expected_label, [2 / 3, 1.0, 0.0, 0.5, 0.5], rtol=1e-6)


def test_a_crowd_shares_the_queries():
    returns = jnp.array([[2.0, 1.0], [1.0, 1.0]])
    crowd = [teacher.oracle(returns), teacher.boltzmann(returns, 1.0)]
    first = 0.25 + 0.75 * float(reference.sigmoid(1.0))
    assert_says(teacher.mixed(crowd, [0.25, 0.75]), [first, 1.0 - first, 0, 0], [0.375, 0.375, 0.25, 0])
    with pytest.raises(ValueError):
        teacher.mixed(crowd, [1.0])
