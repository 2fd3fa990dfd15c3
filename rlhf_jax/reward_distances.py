"""How far apart two rewards are, whatever shaping and scale they have: EPIC and DARD.

Two rewards that differ by a positive factor, a constant and a potential, γ Φ(s′) − Φ(s), rank all policies alike. Both
distances first take the potential out of a reward, each by a canonical form C, and then the rest by Pearson's
correlation ρ of both over the transitions of a coverage distribution:

    EPIC   C(R)(s, a, s′) = R(s, a, s′) + E[γ R(s′, A, S′) − R(s, A, S′) − γ R(S, A, S′)]
    DARD   C(R)(s, a, s′) = R(s, a, s′) + E[γ R(s′, A, S″) − R(s, A, S′) − γ R(S′, A, S″)]
    D = √(1 − ρ) / √2, between 0, for equivalent rewards, and 1, for opposite ones

A is uniform over the actions. In EPIC, S and S′ are any states of the coverage, so that a learnt reward is asked about
steps that no one can take. In DARD, S′ ~ T(s, A) and S″ ~ T(s′, A) are drawn from the dynamics with the same A, here by
the simulator. The last term of DARD takes this very S″, not a successor of S′: only so does the potential cancel, at
the price of steps S′ → S″ that may be impossible, though they are not far-fetched.

Steps that end an episode are left out, be it by the time limit or not: what comes after them cannot be simulated.

Reference: Gleave et al. 2020, "Quantifying differences in reward functions" (arXiv 2006.13900); Wulfe et al. 2022,
"Dynamics-aware comparison of learned reward functions" (arXiv 2201.10081).
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from rlhf_jax import reward_ensemble
from rlhf_jax.config import RewardConfig
from rlhf_jax.environments import Environment
from rlhf_jax.reward_ensemble import RewardEnsemble
from rlhf_jax.rollout import Rollout


@flax.struct.dataclass
class Situation:
    """Where B environments stand.

    state: [B, ...] their own states, as `Environment.step` takes them.
    observation: [B, ...] what the agent sees there.
    """

    state: Any
    observation: jax.Array


@flax.struct.dataclass
class Transition:
    """Steps s, a, s′ that a reward can be asked about, possible or not.

    start: [B] s.
    action: [B, ...] a.
    end: [B] s′.
    """

    start: Situation
    action: jax.Array
    end: Situation

    @property
    def size(self) -> int:
        """B."""
        return self.action.shape[0]


RewardFunction = Callable[[Transition], jax.Array]
"""Transitions, `[B]` of them, to their rewards, `[B]`, or `[..., B]` for several rewards at once."""


def learnt_reward(ensemble: RewardEnsemble, *, env: Environment, config: RewardConfig) -> RewardFunction:
    """Returns what the ensemble has learnt as a reward of transitions: it sees observation and action."""

    def reward(steps: Transition) -> jax.Array:
        return reward_ensemble.predict(ensemble, steps.start.observation, steps.action, env=env, config=config)

    return reward


def true_reward(key: jax.Array, *, env: Environment) -> RewardFunction:
    """Returns what the simulator pays as a reward of transitions: that for the action in the state.

    Where it would pay by where the step leads, it does so by its own successor, not by the end of the transition. The
    key is consumed; it decides what a random reward is, the same at each call.
    """

    def reward(steps: Transition) -> jax.Array:
        keys = jax.random.split(key, steps.size)
        return jax.vmap(env.step)(keys, steps.start.state, steps.action)[1].reward

    return reward


def coverage(steps: Rollout, *, env: Environment, num_samples: int) -> tuple[Transition, jax.Array]:
    """Takes transitions from a rollout, spread evenly over its steps and environments.

    Args:
      steps: `[T, N]` the rollout.
      env: the environment.
      num_samples: B.

    Returns:
      B transitions, and `[B]` whether to count each of them: not if it ended an episode.
    """
    num_steps, num_envs = steps.done.shape
    # Multiples of the golden ratio, modulo 1, fill the unit interval evenly however many there are. The last step is
    # left out: where it led is known as an observation, not as a state.
    row = (jnp.arange(num_samples) * 0.6180339887 % 1.0 * (num_steps - 1) * num_envs).astype(jnp.int32)
    time, lane = row // num_envs, row % num_envs
    start, end = ({name: x[t, lane] for name, x in steps.state.items()} for t in (time, time + 1))
    return Transition(
        start=Situation(_unnamed_state(start, env), steps.observation[time, lane]),
        action=steps.action[time, lane],
        end=Situation(_unnamed_state(end, env), steps.next_observation[time, lane]),
    ), ~steps.done[time, lane]


def uniform_actions(key: jax.Array, num_actions: int, *, env: Environment) -> jax.Array:
    """Returns `[num_actions, *action]` actions, uniform over all there are; the key is consumed."""
    if env.continuous:
        return jax.random.uniform(key, (num_actions, env.action_size), minval=-1.0)
    return jax.random.randint(key, (num_actions,), 0, env.action_size)


def independent_steps(key: jax.Array, steps: Transition, *, env: Environment, num_means: int) -> Transition:
    """Returns `[num_means]` steps S, A, S′, which EPIC's expectation is over; the key is consumed.

    S and S′ are states of the coverage, of which there are at least as many; its first ones are spread as evenly as
    all. S′ are the same as S, one place on, so that the mean of a potential is the same over both, and cancels whole.
    The actions are uniform.
    """
    start = jax.tree.map(lambda x: x[:num_means], steps.start)
    end = jax.tree.map(lambda x: jnp.roll(x, 1, 0), start)
    return Transition(start, uniform_actions(key, num_means, env=env), end)


def canonicalised_epic(
    reward: RewardFunction, steps: Transition, means: Transition, discount: jax.Array | float
) -> jax.Array:
    """Returns a reward in the canonical form of EPIC, with the expectation taken over given draws.

    Args:
      reward: gives `[..., B]`.
      steps: `[B]` transitions s, a, s′.
      means: `[K]` transitions S, A, S′; see `independent_steps`.
      discount: γ.

    Returns:
      `[..., B]` canonicalised rewards.
    """

    def add(total: jax.Array, mean: Transition) -> tuple[jax.Array, None]:
        action, end = jax.tree.map(lambda x: jnp.broadcast_to(x, (steps.size, *x.shape)), (mean.action, mean.end))
        after = reward(Transition(steps.end, action, end))
        before = reward(Transition(steps.start, action, end))
        return total + (discount * after - before) / means.size, None

    total, _ = jax.lax.scan(add, reward(steps), means)
    return total - discount * reward(means).mean(-1, keepdims=True)


def canonicalised_dard(
    key: jax.Array,
    reward: RewardFunction,
    steps: Transition,
    actions: jax.Array,
    discount: jax.Array | float,
    *,
    env: Environment,
) -> tuple[jax.Array, jax.Array]:
    """Returns a reward in the canonical form of DARD, with the expectation taken over given actions.

    Args:
      key: consumed, by the simulator.
      reward: gives `[..., B]`.
      steps: `[B]` transitions s, a, s′.
      actions: `[K, *action]` draws of A.
      discount: γ.
      env: the environment, whose dynamics give S′ and S″.

    Returns:
      `[..., B]` canonicalised rewards, by the mean over the actions that do not end the episode in s, and `[B]` whether
      there are any such.
    """

    def add(carry: tuple[jax.Array, jax.Array], draw: tuple[jax.Array, jax.Array]):
        (total, count), (key, action) = carry, draw
        key_first, key_second = jax.random.split(key)
        action = jnp.broadcast_to(action, (steps.size, *action.shape))
        first, ended = _simulate(key_first, steps.start, action, env)
        second, _ = _simulate(key_second, steps.end, action, env)
        after = reward(Transition(steps.end, action, second))
        before = reward(Transition(steps.start, action, first))
        beside = reward(Transition(first, action, second))
        term, goes_on = discount * (after - beside) - before, ~ended
        return (total + jnp.where(jnp.broadcast_to(goes_on, term.shape), term, 0.0), count + goes_on), None

    value = reward(steps)
    start = jnp.zeros_like(value), jnp.zeros(steps.size, jnp.int32)
    (total, count), _ = jax.lax.scan(add, start, (jax.random.split(key, actions.shape[0]), actions))
    return value + total / jnp.broadcast_to(jnp.maximum(count, 1), total.shape), count > 0


def pearson_distance(a: jax.Array, b: jax.Array, counted: jax.Array) -> jax.Array:
    """Returns Pearson's distance of two samples, √(1 − ρ) / √2.

    With x and y the samples at zero mean and unit standard deviation, ρ = mean(x y) and mean((x − y)²) = 2 − 2 ρ, so

        D = √mean((x − y)²) / 2

    This form keeps its digits near 0, where 1 − ρ in float32 has none left below D = 2e-4.

    Args:
      a, b: `[B]` the samples.
      counted: `[B]` which entries to use.

    Returns:
      `[]` distance in [0, 1]; NaN if one of the samples is constant.
    """
    x, y = _standardised(a, counted), _standardised(b, counted)
    return 0.5 * jnp.sqrt(jnp.where(counted, jnp.square(x - y), 0.0).sum() / counted.sum())


def epic_distance(
    key: jax.Array,
    first: RewardFunction,
    second: RewardFunction,
    steps: Transition,
    counted: jax.Array,
    *,
    env: Environment,
    discount: jax.Array | float,
    num_means: int,
) -> jax.Array:
    """Returns EPIC's distance of two rewards.

    Args:
      key: consumed.
      first, second: the rewards.
      steps: `[B]` transitions of the coverage distribution; see `coverage`.
      counted: `[B]` which of them to use.
      env: the environment.
      discount: γ.
      num_means: draws for the expectation, K.

    Returns:
      `[]` distance in [0, 1], 0 for equivalent rewards; NaN if one of them is constant.

    Example:
      >>> _, steps, *_ = training.propose(agent, env=env, config=config)
      >>> covered = reward_distances.coverage(steps, env=env, num_samples=512)
      >>> learnt = reward_distances.learnt_reward(agent.ensemble, env=env, config=config.reward)
      >>> truth = reward_distances.true_reward(key_truth, env=env)
      >>> reward_distances.epic_distance(key, learnt, truth, *covered, env=env, discount=0.98, num_means=32)
    """
    means = independent_steps(key, steps, env=env, num_means=num_means)
    a, b = canonicalised_epic(lambda x: jnp.stack([first(x), second(x)]), steps, means, discount)
    return pearson_distance(a, b, counted)


def dard_distance(
    key: jax.Array,
    first: RewardFunction,
    second: RewardFunction,
    steps: Transition,
    counted: jax.Array,
    *,
    env: Environment,
    discount: jax.Array | float,
    num_means: int,
) -> jax.Array:
    """Returns DARD's distance of two rewards; arguments and result are those of `epic_distance`."""
    key_actions, key_dynamics = jax.random.split(key)
    actions = uniform_actions(key_actions, num_means, env=env)
    both = lambda x: jnp.stack([first(x), second(x)])  # noqa: E731
    (a, b), any_left = canonicalised_dard(key_dynamics, both, steps, actions, discount, env=env)
    return pearson_distance(a, b, counted & any_left)


def _simulate(key: jax.Array, start: Situation, action: jax.Array, env: Environment) -> tuple[Situation, jax.Array]:
    """Returns where `[B]` actions lead, and `[B]` whether the episode ended there, so that the state is a new one's.

    One key for all, so that chance is the same in all of them: keys of their own would cost more than the step.
    """
    state, step = jax.vmap(env.step, (None, 0, 0))(key, start.state, action)
    return Situation(state, step.final_observation), step.done


def _unnamed_state(named: dict[str, jax.Array], env: Environment) -> Any:
    """Returns the state whose `Environment.named_state` this is."""
    shapes = jax.eval_shape(env.reset, jax.random.key(0))[1]
    return jax.tree.unflatten(jax.tree.structure(shapes), [named[name] for name in env.named_state(shapes)])


def _standardised(values: jax.Array, counted: jax.Array) -> jax.Array:
    # Deviations from one of the values, so that equal ones have a spread of exactly zero, and rounding none.
    values = values - jnp.where(counted, values, -jnp.inf).max()
    centred = values - jnp.where(counted, values, 0.0).sum() / counted.sum()
    return centred / jnp.sqrt(jnp.where(counted, jnp.square(centred), 0.0).sum() / counted.sum())
