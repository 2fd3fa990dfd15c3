"""Rules that choose which pairs of segments to ask about.

A rule is one function. It is given candidates, pairs drawn uniformly from the newest rollout, and returns those to ask
about, best first. Most rules give each candidate a score and take the largest.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from rlhf_jax import bradley_terry


@flax.struct.dataclass
class Candidates:
    """K pairs to choose from.

    member_returns: [M, K, 2] return of each segment as each member of the ensemble predicts it.
    features: [K, F] where the pair lies, whichever segment is first: `pair_features`.
    answered: [C, F] the same of the queries that have been answered.
    filled: [C] which of these there are.
    eligible: [K] which candidates the rule may choose from; enough, if there are enough in all.
    """

    member_returns: jax.Array
    features: jax.Array
    answered: jax.Array
    filled: jax.Array
    eligible: jax.Array


Rule = Callable[[jax.Array, Candidates, int], jax.Array]
"""`(key, candidates, number) -> [number]` which candidates to ask about, best first."""


def pair_features(segments: jax.Array) -> jax.Array:
    """Returns where pairs lie, the same for both orders of their segments.

    Args:
      segments: `[..., 2, F]` mean over the steps of each segment, of what the reward network sees.

    Returns:
      `[..., 2F]` sum and absolute difference of both.
    """
    first, second = segments[..., 0, :], segments[..., 1, :]
    return jnp.concatenate([first + second, jnp.abs(first - second)], -1)


def disagreement(member_returns: jax.Array) -> jax.Array:
    """Returns the variance over the ensemble of the probability that slot 0 is preferred.

    Args:
      member_returns: `[M, ..., 2]` return of each segment as each member predicts it.

    Returns:
      `[...]` variances.

    Reference: Christiano et al. 2017, §2.2.4.
    """
    return jnp.var(bradley_terry.preference_probability(member_returns), axis=0)


def logit_disagreement(member_returns: jax.Array) -> jax.Array:
    """Returns the `[...]` variance over the ensemble of the log-odds of a preference; it has no upper limit."""
    return jnp.var(bradley_terry.preference_logit(member_returns), axis=0)


def vote_disagreement(member_returns: jax.Array) -> jax.Array:
    """Returns the `[...]` variance over the ensemble of the members' votes, 1 for slot 0 and 0 for slot 1."""
    return jnp.var((bradley_terry.preference_logit(member_returns) > 0).astype(jnp.float32), axis=0)


def entropy(member_returns: jax.Array) -> jax.Array:
    """Returns the `[...]` entropy in nats of the answer, mean of the members'.

    Reference: Lee et al. 2021, "B-Pref".
    """
    return _binary_entropy(bradley_terry.preference_probability(member_returns)).mean(0)


def information_gain(member_returns: jax.Array) -> jax.Array:
    """Returns the `[...]` information in nats that the answer is expected to give about which member is right.

        I = H(E p) − E H(p), with the expectation over the members

    Reference: Houlsby et al. 2011, "Bayesian active learning for classification and preference learning", eq. 2.
    """
    probability = bradley_terry.preference_probability(member_returns)
    return _binary_entropy(probability.mean(0)) - _binary_entropy(probability).mean(0)


def _binary_entropy(probability: jax.Array) -> jax.Array:
    return -jax.scipy.special.xlogy(probability, probability) - jax.scipy.special.xlogy(
        1.0 - probability, 1.0 - probability
    )


def _best(score: Callable[[jax.Array], jax.Array]) -> Rule:
    """Returns the rule that asks about the candidates of the largest score."""

    def rule(key: jax.Array, candidates: Candidates, number: int) -> jax.Array:
        del key
        return jax.lax.top_k(jnp.where(candidates.eligible, score(candidates.member_returns), -jnp.inf), number)[1]

    return rule


def uniform(key: jax.Array, candidates: Candidates, number: int) -> jax.Array:
    """Asks about any candidates: they are drawn uniformly, so the first ones are as good as any."""
    del key
    return jnp.argsort(~candidates.eligible)[:number]


def k_centre(key: jax.Array, candidates: Candidates, number: int) -> jax.Array:
    """Asks about the candidate that is farthest from all that was answered and chosen, again and again.

    Reference: Sener and Savarese 2018, algorithm 1.
    """
    del key
    return _spread(candidates, candidates.eligible, number)


def _spread(candidates: Candidates, allowed: jax.Array, number: int) -> jax.Array:
    """Returns what `k_centre` chooses of the `[K]` allowed candidates, then of the other eligible ones."""
    features, answered = candidates.features, candidates.answered
    far = jnp.where(candidates.filled, _squared_distances(features, answered), jnp.inf).min(-1)
    # With nothing answered all are infinitely far, and argmax takes the first allowed one.
    far = jnp.where(allowed, far, jnp.where(candidates.eligible, -1.0, -2.0))

    def step(far: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        chosen = far.argmax()
        near = _squared_distances(features, features[chosen][None])[:, 0]
        return jnp.minimum(far, near).at[chosen].set(-3.0), chosen

    return jax.lax.scan(step, far, None, length=number)[1]


def _squared_distances(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns `[K, C]` squared distances of `[K, F]` from `[C, F]` points."""
    # In full precision, which accelerators do not give unasked: close points differ in the last digits only.
    product = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(jnp.square(a).sum(-1)[:, None] + jnp.square(b).sum(-1)[None] - 2.0 * product, 0.0)


def _k_centre_of_top_half(score: Callable[[jax.Array], jax.Array]) -> Rule:
    """Returns the rule that spreads its questions over the half of the candidates with the larger score."""

    def rule(key: jax.Array, candidates: Candidates, number: int) -> jax.Array:
        del key
        scores = jnp.where(candidates.eligible, score(candidates.member_returns), -jnp.inf)
        rank = jnp.argsort(jnp.argsort(-scores))
        return _spread(candidates, rank < (candidates.eligible.sum() + 1) // 2, number)

    return rule


RULES: dict[str, Rule] = {
    "uniform": uniform,
    "disagreement": _best(disagreement),
    "logit_disagreement": _best(logit_disagreement),
    "vote_disagreement": _best(vote_disagreement),
    "entropy": _best(entropy),
    "information_gain": _best(information_gain),
    "k_centre": k_centre,
    "k_centre_disagreement": _k_centre_of_top_half(disagreement),
    "k_centre_entropy": _k_centre_of_top_half(entropy),
}
"""Rules by name: what `queries.selection` may be."""


def register_rule(name: str, rule: Rule) -> None:
    """Makes a rule of your own known by this name, for `queries.selection`.

    Args:
      name: new.
      rule: pure and traceable, `(key, candidates, number) -> [number]` which candidates to ask about, best first.

    Raises:
      ValueError: the name is taken.

    Example:
      >>> def closest(key, candidates, number):  # the pairs about which the mean of the members is least sure
      ...     gap = jnp.abs(bradley_terry.preference_logit(candidates.member_returns).mean(0))
      ...     return jax.lax.top_k(jnp.where(candidates.eligible, -gap, -jnp.inf), number)[1]
      >>> query_rules.register_rule("closest", closest)
    """
    if name in RULES:
        raise ValueError(f"there is a rule {name!r} already; all: {', '.join(RULES)}")
    RULES[name] = rule


def check(name: str) -> None:
    """Tries a rule on shapes, without computing anything.

    Raises:
      ValueError: it is unknown or fails, or does not return which candidates to ask about.
    """
    if name not in RULES:
        raise ValueError(f"queries.selection = {name!r}; it must be one of {', '.join(RULES)}")
    pairs, number = 6, 2

    def choose(key: jax.Array) -> jax.Array:
        example = Candidates(
            member_returns=jnp.zeros((3, pairs, 2)),
            features=jnp.zeros((pairs, 4)),
            answered=jnp.zeros((5, 4)),
            filled=jnp.ones(5, bool),
            eligible=jnp.ones(pairs, bool),
        )
        return RULES[name](key, example, number)

    try:
        chosen = jax.eval_shape(choose, jax.random.key(0))
        good = chosen.shape == (number,) and jnp.issubdtype(chosen.dtype, jnp.integer)
    except Exception as error:  # It may be anybody's, and fail in any way.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"query rule {name!r} does not work: {reason}") from error
    if not good:
        raise ValueError(
            f"query rule {name!r} returns {chosen}; [{number}] whole numbers are needed for {number} queries"
        )
