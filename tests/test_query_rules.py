"""Rules that choose queries: scores against NumPy and literals, choices against slow versions of the same."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from scipy import stats

from rlhf_jax import bradley_terry, query_rules
from rlhf_jax.query_rules import Candidates

ROWS, NUMBER = 24, 6
ELIGIBLE = np.isin(np.arange(ROWS), [1, 2, 3, 6, 7, 10, 11, 12, 13, 16, 17, 18, 20, 23])  # 14, so half is 7


def probabilities(returns):
    """`[M, ...]` probabilities of the members that slot 0 is preferred."""
    return reference.sigmoid(returns[..., 0] - returns[..., 1])


def binary_entropy(p):
    return -p * np.log(p) - (1 - p) * np.log(1 - p)


SCORES = {
    "disagreement": lambda returns: np.var(probabilities(returns), axis=0),
    "logit_disagreement": lambda returns: np.var(returns[..., 0] - returns[..., 1], axis=0),
    "vote_disagreement": lambda returns: np.var(returns[..., 0] > returns[..., 1], axis=0),
    "entropy": lambda returns: np.mean(binary_entropy(probabilities(returns)), axis=0),
    "information_gain": lambda returns: (
        binary_entropy(probabilities(returns).mean(0)) - binary_entropy(probabilities(returns)).mean(0)
    ),
}


def candidates(seed=0, filled=(True, False, True), eligible=ELIGIBLE):
    """Random candidates and the `[K, 2, F]` segments that their features are of."""
    rng = np.random.default_rng(seed)
    segments, answered = rng.normal(size=(ROWS, 2, 3)), rng.normal(size=(len(filled), 2, 3))
    return Candidates(
        member_returns=jnp.asarray(rng.normal(scale=2.0, size=(4, ROWS, 2)), jnp.float32),
        features=query_rules.pair_features(jnp.asarray(segments, jnp.float32)),
        answered=query_rules.pair_features(jnp.asarray(answered, jnp.float32)),
        filled=jnp.array(filled),
        eligible=jnp.asarray(eligible),
    ), jnp.asarray(segments, jnp.float32)


def choose(name, given, number=NUMBER):
    return np.asarray(query_rules.RULES[name](jax.random.key(0), given, number))


def greedy(given, allowed, number):
    """Returns the allowed candidates that are farthest from all that was answered and chosen, by loops."""
    features = np.asarray(given.features, float)
    centres = [np.asarray(row, float) for row, there in zip(given.answered, given.filled, strict=True) if there]
    chosen = []
    for _ in range(number):
        rest = [k for k in np.flatnonzero(allowed) if k not in chosen]
        distance = [min((np.linalg.norm(features[k] - c) for c in centres), default=np.inf) for k in rest]
        chosen.append(rest[int(np.argmax(distance))])
        centres.append(features[chosen[-1]])
    return chosen


@pytest.mark.parametrize("name", SCORES)
def test_scores_against_numpy(name):
    returns = np.random.default_rng(0).normal(scale=3.0, size=(4, 50, 2))
    score = getattr(query_rules, name)(jnp.asarray(returns, jnp.float32))
    np.testing.assert_allclose(score, SCORES[name](returns), rtol=1e-4, atol=2e-6)


def test_score_literals():
    """Members that are certain and opposed, all undecided, of two minds (¾ and ¼: log-odds ± log 3), and agreed."""
    logits = jnp.array([[60.0, 0.0, 1.0986123, 60.0], [-60.0, 0.0, -1.0986123, 60.0]])
    returns = jnp.stack([logits, jnp.zeros_like(logits)], -1) + jnp.array([[[5.0]], [[-3.0]]])
    expected = {
        "disagreement": [0.25, 0.0, 0.0625, 0.0],
        "logit_disagreement": [3600.0, 0.0, 1.2069490, 0.0],
        "vote_disagreement": [0.25, 0.0, 0.25, 0.0],
        "entropy": [0.0, 0.6931472, 0.5623351, 0.0],
        "information_gain": [0.6931472, 0.0, 0.1308120, 0.0],
    }
    for name, literals in expected.items():
        np.testing.assert_allclose(getattr(query_rules, name)(returns), literals, rtol=1e-4, atol=1e-6, err_msg=name)


def test_pair_features_literal():
    segments = jnp.array([[[1.0, 2.0], [4.0, 0.0]], [[4.0, 0.0], [1.0, 2.0]]])
    assert query_rules.pair_features(segments).tolist() == [[5.0, 2.0, 3.0, 2.0]] * 2


@pytest.mark.parametrize("name", query_rules.RULES)
def test_rules_choose_distinct_eligible_candidates_whichever_segment_is_first(name):
    given, segments = candidates()
    chosen = choose(name, given)
    assert chosen.shape == (NUMBER,) and len(set(chosen)) == NUMBER
    assert ELIGIBLE[chosen].all()
    swapped = given.replace(
        member_returns=given.member_returns[..., ::-1], features=query_rules.pair_features(segments[:, ::-1])
    )
    np.testing.assert_array_equal(choose(name, swapped), chosen)


@pytest.mark.parametrize("name", query_rules.RULES)
@pytest.mark.parametrize("number", [14, 20])
def test_rules_take_the_eligible_ones_first_when_they_run_out(name, number):
    chosen = choose(name, candidates()[0], number)
    assert len(set(chosen)) == number
    assert ELIGIBLE[chosen].tolist() == [True] * 14 + [False] * (number - 14)


@pytest.mark.parametrize("name", SCORES)
def test_largest_scores_are_chosen_best_first(name):
    given, _ = candidates(1)
    score = np.where(ELIGIBLE, SCORES[name](np.asarray(given.member_returns, float)), -np.inf)
    np.testing.assert_array_equal(choose(name, given), np.argsort(-score, kind="stable")[:NUMBER])


def test_uniform_takes_the_candidates_as_they_come():
    """They are drawn uniformly, and nothing else about them matters."""
    for seed in (0, 1):
        assert choose("uniform", candidates(seed)[0]).tolist() == [1, 2, 3, 6, 7, 10]


@pytest.mark.parametrize("filled", [(True, False, True), (True, True, True, True), (False, False)])
def test_k_centre_against_a_greedy_loop(filled):
    for seed in range(3):
        given, _ = candidates(seed, filled)
        assert choose("k_centre", given, 10).tolist() == greedy(given, ELIGIBLE, 10)


def test_k_centre_literal():
    """On a line: 4 was answered, so 10 is the farthest, then 0, then 7, 3 from both."""
    given, _ = candidates(eligible=np.arange(ROWS) < 6)
    line = jnp.zeros(ROWS).at[:6].set(jnp.array([0.0, 5.0, 4.0, 9.0, 7.0, 10.0]))
    given = given.replace(features=line[:, None], answered=jnp.array([[4.0], [10.0]]), filled=jnp.array([True, False]))
    assert choose("k_centre", given, 3).tolist() == [5, 0, 4]


@pytest.mark.parametrize("score", ["disagreement", "entropy"])
def test_spread_over_the_top_half_against_a_greedy_loop(score):
    for seed in range(3):
        given, _ = candidates(seed)
        scores = np.where(ELIGIBLE, SCORES[score](np.asarray(given.member_returns, float)), -np.inf)
        half = stats.rankdata(-scores) <= 7
        assert choose(f"k_centre_{score}", given, 7).tolist() == greedy(given, half, 7)
        assert not set(choose("k_centre", given, 7)) <= set(np.flatnonzero(half))


def test_rule_of_the_example_is_known_by_its_name(monkeypatch):
    monkeypatch.setattr(query_rules, "RULES", dict(query_rules.RULES))
    names = {"jax": jax, "jnp": jnp, "bradley_terry": bradley_terry, "query_rules": query_rules}
    (example,) = doctest.DocTestFinder(recurse=False).find(query_rules.register_rule, "register_rule", globs=names)
    assert len(example.examples) == 2
    assert doctest.DocTestRunner().run(example, clear_globs=False).failed == 0
    given, _ = candidates()
    mean_gap = np.abs((given.member_returns[..., 0] - given.member_returns[..., 1]).mean(0))
    np.testing.assert_array_equal(choose("closest", given), np.argsort(np.where(ELIGIBLE, mean_gap, np.inf))[:NUMBER])
    with pytest.raises(ValueError, match=r"^there is a rule 'closest' already; all: uniform, disagreement, .*closest$"):
        query_rules.register_rule("closest", query_rules.uniform)
