"""Synthetic teachers: literal answers, and errors within binomial bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rlhf_jax import teacher
from rlhf_jax.config import TeacherConfig
from rlhf_jax.queries import Queries


def ask(true_reward, error_rate, *, asked=None, seed=0):
    """Answers to pairs of which only the `[Q, 2, L]` true rewards are known."""
    num_queries = true_reward.shape[0]
    queries = Queries(
        observation=jnp.zeros((*true_reward.shape, 1)),
        action=jnp.zeros((*true_reward.shape, 1)),
        state={},
        true_reward=true_reward,
        asked=jnp.ones(num_queries, bool) if asked is None else asked,
    )
    return teacher.answer(jax.random.key(seed), queries, config=TeacherConfig(error_rate=error_rate))


def clear_pairs(num_queries):
    """Pairs whose better slot is 0 in the even ones and 1 in the odd ones, and the right labels."""
    better = jnp.arange(num_queries) % 2
    rewards = jax.nn.one_hot(better, 2)[..., None] * jnp.ones((1, 1, 3))
    return rewards, np.asarray(1 - better)


def within(count, trials, probability):
    """Whether so many successes are no surprise (two-sided, once in a million)."""
    low, high = stats.binom.interval(1 - 1e-6, trials, probability)
    return low <= count <= high


def test_oracle_literals():
    returns = jnp.array([[[2.0, 1.0], [1.0, 2.0], [3.0, 3.0]], [[-1e-6, 0.0], [-5.0, -6.0], [0.0, 0.0]]])
    assert teacher.oracle(returns).tolist() == [[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]


def test_without_errors_answers_are_the_oracles_of_the_summed_true_reward():
    # Sums 3 ≻ 2, though the single best and the last step are in slot 1; then 1 ≺ 1.5; then a tie.
    first, second = [[2.0, 1.0, 0.0], [-2.0, 3.0, 1.0]], [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
    answers = ask(jnp.array([first, second, [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]]), 0.0)
    assert answers.label.tolist() == [1.0, 0.0, 0.5]
    assert answers.weight.tolist() == [1.0, 1.0, 1.0]


def test_what_is_not_asked_has_no_weight():
    answers = ask(clear_pairs(4)[0], 0.0, asked=jnp.array([True, False, True, False]))
    assert answers.weight.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert answers.weight.dtype == jnp.float32


@pytest.mark.parametrize(("error_rate", "wrong"), [(0.0, 0.0), (0.1, 0.05), (0.2, 0.1), (1.0, 0.5)])
def test_half_of_the_random_answers_are_wrong(error_rate, wrong):
    rewards, right = clear_pairs(20_000)
    label = np.asarray(ask(rewards, error_rate).label)
    assert set(label) <= {0.0, 1.0}
    for slot in (0, 1):  # errors favour neither slot
        assert within((label != right)[right == slot].sum(), 10_000, wrong)


def test_a_random_answer_is_never_a_tie():
    """Two equal segments: a share ε of the answers is a fair coin, the rest are ties."""
    label = np.asarray(ask(jnp.ones((20_000, 2, 3)), 0.4).label)
    for value, probability in ((0.0, 0.2), (0.5, 0.6), (1.0, 0.2)):
        assert within((label == value).sum(), 20_000, probability)


def test_errors_depend_on_the_key_only():
    rewards, _ = clear_pairs(100)
    np.testing.assert_array_equal(ask(rewards, 0.5).label, ask(rewards, 0.5).label)
    assert (ask(rewards, 0.5, seed=0).label != ask(rewards, 0.5, seed=1).label).any()


def test_error_rate_may_differ_between_lanes():
    rewards, right = clear_pairs(1000)
    label = jax.jit(jax.vmap(lambda rate: ask(rewards, rate).label))(jnp.array([0.0, 1.0]))
    wrong = (np.asarray(label) != right).sum(1)
    assert wrong[0] == 0
    assert within(wrong[1], 1000, 0.5)
