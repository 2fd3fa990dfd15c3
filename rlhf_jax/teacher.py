"""Synthetic teachers: what they would say to a query, by the true reward.

A teacher is a pure function from the true rewards of a pair to an `Opinion`, the probability of each answer. Small
functions make one and change it, so that any mix of fallibilities is a composition of them, and what a perfect model
could reach is known exactly. Temperatures and bands are in units of the spread of segment returns under the untrained
policy: a teacher means the same in every environment, whatever the scale and the sign of its reward.
"""

import dataclasses
from collections.abc import Callable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import TeacherConfig
from rlhf_jax.normalisation import Moments


@flax.struct.dataclass
class Answers:
    """What a teacher, synthetic or human, said to Q queries.

    label: [Q] share of the preference that goes to slot 0: 1, 0, or ½ for a tie.
    weight: [Q] 1 for an answer; 0 where there is none: not asked, not answered yet, or cannot tell.
    """

    label: jax.Array
    weight: jax.Array


@flax.struct.dataclass
class Opinion:
    """How likely each answer to a query is; the four sum to 1.

    first: [...] slot 0 is better.
    second: [...] slot 1 is better.
    tie: [...] both are equally good.
    silence: [...] cannot tell: the query gets no answer.
    """

    first: jax.Array
    second: jax.Array
    tie: jax.Array
    silence: jax.Array

    @property
    def expected_label(self) -> jax.Array:
        """`[...]` mean label of the answers, which a perfect model predicts; ½ where there is never one."""
        answered = 1.0 - self.silence
        return jnp.where(answered > 0, (self.first + 0.5 * self.tie) / jnp.where(answered > 0, answered, 1.0), 0.5)


Teacher = Callable[[jax.Array, Moments, TeacherConfig], Opinion]
"""`(true rewards [..., 2, L], moments of segment returns [], settings) -> Opinion [...]`."""


def segment_returns(true_reward: jax.Array, discount: jax.Array | float = 1.0) -> jax.Array:
    """Returns what a segment is worth to a teacher who remembers its end better than its beginning.

        G = L / Σₖ γᵏ · Σₜ γ^(L−1−t) rₜ

    The factor keeps a segment of constant reward worth the same for every γ; γ = 1 is the plain return.

    Args:
      true_reward: `[..., L]`.
      discount: γ of a step into the past.

    Reference: Lee et al. 2021, "B-Pref", the myopic teacher.
    """
    length = true_reward.shape[-1]
    weights = jnp.asarray(discount) ** jnp.arange(length - 1, -1, -1)
    weights = weights * (length / weights.sum())
    return (true_reward * weights.reshape((1,) * (true_reward.ndim - 1) + (-1,))).sum(-1)


def oracle(returns: jax.Array) -> Opinion:
    """Returns the opinion of a teacher that always prefers the larger return, and calls equal ones a tie.

    Args:
      returns: `[..., 2]` of both segments.
    """
    gap = returns[..., 0] - returns[..., 1]
    first, second = (gap > 0).astype(jnp.float32), (gap < 0).astype(jnp.float32)
    return Opinion(first, second, 1.0 - first - second, jnp.zeros_like(first))


def boltzmann(returns: jax.Array, temperature: jax.Array | float) -> Opinion:
    """Returns the opinion of a teacher that errs the more often the closer the returns are.

        P[0 ≻ 1] = σ((G⁰ − G¹) / τ)

    Args:
      returns: `[..., 2]` of both segments.
      temperature: τ = 1/β, in the units of the returns; 0 is the oracle.

    Reference: Lee et al. 2021, "B-Pref", eq. 3.
    """
    certain = oracle(returns)
    gap = returns[..., 0] - returns[..., 1]
    rational = jnp.asarray(temperature) <= 0
    scaled = gap / jnp.where(rational, 1.0, temperature)
    return Opinion(
        first=jnp.where(rational, certain.first, jax.nn.sigmoid(scaled)),
        second=jnp.where(rational, certain.second, jax.nn.sigmoid(-scaled)),
        tie=jnp.where(rational, certain.tie, 0.0),
        silence=certain.silence,
    )


def with_ties(opinion: Opinion, returns: jax.Array, band: jax.Array | float) -> Opinion:
    """Returns the opinion of a teacher that calls it a tie where the `[..., 2]` returns differ by less than `band`."""
    close = jnp.abs(returns[..., 0] - returns[..., 1]) < band
    answered = opinion.first + opinion.second + opinion.tie
    return Opinion(
        first=jnp.where(close, 0.0, opinion.first),
        second=jnp.where(close, 0.0, opinion.second),
        tie=jnp.where(close, answered, opinion.tie),
        silence=opinion.silence,
    )


def with_silence(opinion: Opinion, returns: jax.Array, below: jax.Array | float) -> Opinion:
    """Returns the opinion of a teacher that says nothing where both of the `[..., 2]` returns are less than `below`."""
    poor = returns.max(-1) < below
    silenced = jax.tree.map(lambda says: jnp.where(poor, 0.0, says), opinion)
    return dataclasses.replace(silenced, silence=jnp.where(poor, 1.0, opinion.silence))


def with_mistakes(opinion: Opinion, rate: jax.Array | float) -> Opinion:
    """Returns the opinion of a teacher that mixes up the two slots at this rate, and never mistakes a tie."""
    first = (1.0 - rate) * opinion.first + rate * opinion.second
    second = (1.0 - rate) * opinion.second + rate * opinion.first
    return dataclasses.replace(opinion, first=first, second=second)


def with_errors(opinion: Opinion, rate: jax.Array | float) -> Opinion:
    """Returns the opinion of a teacher of whose answers this share is a fair coin, whatever the pair.

    Reference: Christiano et al. 2017, §2.2.3.
    """
    answered = 1.0 - opinion.silence
    return Opinion(
        first=(1.0 - rate) * opinion.first + 0.5 * rate * answered,
        second=(1.0 - rate) * opinion.second + 0.5 * rate * answered,
        tie=(1.0 - rate) * opinion.tie,
        silence=opinion.silence,
    )


def mixed(opinions: Sequence[Opinion], shares: Sequence[float]) -> Opinion:
    """Returns the opinion of a crowd: each query goes to one of these teachers, by shares that sum to 1."""
    return jax.tree.map(lambda *says: sum(share * p for share, p in zip(shares, says, strict=True)), *opinions)


def standard(true_reward: jax.Array, scale: Moments, config: TeacherConfig) -> Opinion:
    """Returns the opinion of the teacher that the settings describe; the defaults are the oracle.

    Args:
      true_reward: `[..., 2, L]` of both segments.
      scale: moments of the segment returns by which it measures.
      config: the settings.
    """
    returns, spread = segment_returns(true_reward, config.discount), scale.std
    opinion = boltzmann(returns, config.temperature * spread)
    opinion = with_mistakes(opinion, config.mistake_rate)
    opinion = with_ties(opinion, returns, config.tie_band * spread)
    opinion = with_silence(opinion, returns, scale.mean + config.silence_below * spread)
    return with_errors(opinion, config.error_rate)


TEACHERS: dict[str, Teacher] = {"standard": standard}
"""Teachers by name: what `teacher.name` may be."""


def register_teacher(name: str, teacher: Teacher) -> None:
    """Makes a teacher of your own known by this name, for `teacher.name`.

    Args:
      name: new.
      teacher: pure and traceable, `(true rewards [..., 2, L], moments of segment returns [], settings) -> Opinion`.

    Raises:
      ValueError: the name is taken.

    Example:
      >>> def hasty(true_reward, scale, config):  # looks at the last step only
      ...     return teacher.boltzmann(true_reward[..., -1], 0.1 * scale.std)
      >>> teacher.register_teacher("hasty", hasty)
    """
    if name in TEACHERS:
        raise ValueError(f"there is a teacher {name!r} already; all: {', '.join(TEACHERS)}")
    TEACHERS[name] = teacher


def opinion(true_reward: jax.Array, scale: Moments, *, config: TeacherConfig) -> Opinion:
    """Returns what the teacher of the settings thinks of pairs.

    Args:
      true_reward: `[..., 2, L]` of both segments.
      scale: moments of the segment returns by which it measures.
      config: the settings.
    """
    return TEACHERS[config.name](true_reward, scale, config)


def answer(key: jax.Array, opinion: Opinion, asked: jax.Array) -> Answers:
    """Draws an answer to every query that is asked.

    Args:
      key: consumed.
      opinion: `[Q]` of the teacher.
      asked: `[Q]` whether the query is asked.

    Returns:
      Q answers, of weight 0 where nothing was asked or the teacher cannot tell. An opinion that is NaN becomes a label
      that is NaN, so that the run stops instead of going on without answers.
    """
    draw = jax.random.uniform(key, asked.shape)
    second, tie, silence = jnp.cumsum(jnp.stack([opinion.first, opinion.second, opinion.tie]), 0)
    label = jnp.where(draw < second, 1.0, jnp.where(draw < tie, 0.0, 0.5))
    label = jnp.where(jnp.isnan(silence), jnp.nan, label)
    return Answers(label=label.astype(jnp.float32), weight=(asked & ~(draw >= silence)).astype(jnp.float32))


def count(answers: Answers, asked: jax.Array) -> dict[str, jax.Array]:
    """Returns the `[]` numbers of `answers`, of `ties` among them, and of `silences`: queries without an answer."""
    given = answers.weight > 0
    ties, silences = given & (answers.label == 0.5), asked & ~given
    return {"answers": given.sum(), "ties": ties.sum(), "silences": silences.sum()}


def ceiling(opinion: Opinion, asked: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns what a model that knows the teacher perfectly would reach on its answers.

    Args:
      opinion: `[Q]` of the teacher.
      asked: `[Q]` whether the query is asked.

    Returns:
      `[]` accuracy on answers that are no ties, and `[]` mean log-likelihood of all answers in nats: minus their
      entropy, and −log 2 for every tie, which a model of preferences cannot foresee; NaN if there are none.
    """
    decided, answered = asked * (opinion.first + opinion.second), asked * (1.0 - opinion.silence)
    right = (asked * jnp.maximum(opinion.first, opinion.second)).sum() / decided.sum()
    label = opinion.expected_label
    log_likelihood = jax.scipy.special.xlogy(label, label) + jax.scipy.special.xlogy(1.0 - label, 1.0 - label)
    return right, (answered * log_likelihood).sum() / answered.sum()


def check(config: TeacherConfig) -> None:
    """Tries the teacher of the settings on a few pairs.

    Raises:
      ValueError: it is unknown or fails, or what it says is not a probability for each of the four answers.
    """
    if config.name not in TEACHERS:
        raise ValueError(f"teacher.name = {config.name!r}; it must be one of {', '.join(TEACHERS)}")
    rewards = np.random.default_rng(0).normal(-1.0, 1.0, (32, 2, 5)).astype(np.float32)
    scale = Moments(count=jnp.float32(64), mean=jnp.float32(-5), m2=jnp.float32(320))
    try:
        # As one program: operation by operation it would be forty small ones to compile.
        said = jax.tree.map(np.asarray, jax.jit(TEACHERS[config.name])(rewards, scale, config))
    except Exception as error:  # It may be anybody's, and fail in any way.
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(f"teacher {config.name!r} does not work: {reason}") from error
    if not isinstance(said, Opinion):
        raise ValueError(f"teacher {config.name!r} returns no Opinion, but {type(said).__name__}")
    for field in dataclasses.fields(said):
        values = getattr(said, field.name)
        if values.shape != (32,) or not ((values >= 0) & (values <= 1 + 1e-5)).all():
            raise ValueError(
                f"teacher {config.name!r} gives {field.name} = {values.ravel()[:3].tolist()}… of shape {values.shape}; "
                "a probability for each pair is needed"
            )
    total = said.first + said.second + said.tie + said.silence
    if abs(total - 1.0).max() > 1e-4:
        worst = total[abs(total - 1.0).argmax()]
        raise ValueError(f"teacher {config.name!r} gives probabilities that sum to {worst:g}, not 1")
