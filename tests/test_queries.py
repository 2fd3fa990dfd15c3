"""Which pairs are asked about."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from scipy import stats

from rlhf_jax import queries, query_rules
from rlhf_jax.config import QueryConfig
from rlhf_jax.rollout import Rollout

LENGTH = 3


def rollout_of(done=None, steps=20, num_envs=3):
    """A rollout in which every step can be told from its observation, 10 t + n."""
    step = 10.0 * jnp.arange(steps)[:, None] + jnp.arange(num_envs)[None]
    done = jnp.zeros((steps, num_envs), bool) if done is None else done
    return Rollout(
        observation=jnp.stack([step, -step], -1),
        action=step[..., None] + 0.5,
        state={"step": step},
        log_prob=jnp.zeros((steps, num_envs)),
        next_observation=jnp.zeros((steps, num_envs, 2)),
        terminated=done,
        truncated=jnp.zeros((steps, num_envs), bool),
        true_reward=2.0 * step,
    )


FEATURES = jax.random.normal(jax.random.key(1), (20, 3, 2))
ANSWERED = jax.random.normal(jax.random.key(2), (6, 2, 2)), jnp.arange(6) < 2


def select(rewards, count, *, selection="disagreement", num_slots=4, candidates=5, done=None, random_share=0.0, seed=0):
    """Selects from such a rollout."""
    config = QueryConfig(segment_length=LENGTH, candidates=candidates, selection=selection, random_share=random_share)
    key, rollout = jax.random.key(seed), rollout_of(done)
    return queries.select(key, rollout, rewards, FEATURES, ANSWERED, count, num_slots=num_slots, config=config)


def random_rewards(seed=0):
    return jax.random.normal(jax.random.key(seed), (3, 20, 3))


def places(asked):
    """Returns `[Q, 2]` start and environment of the segments, read off their first observation."""
    first = np.asarray(asked.observation[:, :, 0, 0]).astype(int)
    return first // 10, first % 10


def chosen_by(asked):
    """Returns `[Q, 2, 2]` start and environment of both segments."""
    return np.stack(places(asked), -1)


def drawn():
    """Returns the places of the 20 candidates of these selections, in the order in which they are drawn."""
    return places(select(random_rewards(), 20, selection="uniform", num_slots=20, candidates=1))


def drawn_rows():
    """Returns the same, `[20, 2, 2]`."""
    return np.stack(drawn(), -1)


def means_of(values):
    """Returns `[T − L + 1, N, ...]` means over every window."""
    return reference.window_sums(np.asarray(values, np.float64), LENGTH) / LENGTH


@pytest.mark.parametrize("selection", query_rules.RULES)
def test_queries_are_slices_of_the_rollout(selection):
    asked, rollout = select(random_rewards(), 3, selection=selection), rollout_of()
    assert asked.observation.shape == (4, 2, LENGTH, 2)
    start, env = places(asked)
    for q in range(4):
        for slot in range(2):
            window = slice(start[q, slot], start[q, slot] + LENGTH), env[q, slot]
            np.testing.assert_array_equal(asked.observation[q, slot], rollout.observation[window])
            np.testing.assert_array_equal(asked.action[q, slot], rollout.action[window])
            np.testing.assert_array_equal(asked.true_reward[q, slot], rollout.true_reward[window])


@pytest.mark.parametrize("count", [0, 1, 3, 4])
@pytest.mark.parametrize("selection", ["disagreement", "uniform", "k_centre"])
def test_exactly_count_are_asked(selection, count):
    asked = select(random_rewards(), jnp.array(count), selection=selection).asked
    assert asked.tolist() == [q < count for q in range(4)]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_disagreement_picks_the_largest_variance_among_its_candidates(count):
    """Of 20 candidates only the first 5 · count are looked at, and the `count` best of them are asked."""
    rewards = random_rewards()
    returns = means_of(np.moveaxis(np.asarray(rewards), 0, -1))[drawn()] * LENGTH
    variance = np.var(reference.sigmoid(returns[:, 0] - returns[:, 1]), axis=-1)
    best = np.argsort(-variance[: 5 * count])[:count]
    np.testing.assert_array_equal(chosen_by(select(rewards, count))[:count], drawn_rows()[best])


def test_k_centre_sees_the_features_of_the_segments_and_of_the_answered_pairs():
    """Farthest first from the two that are filled, in the sums and differences of the means over segments."""
    means, answered = means_of(FEATURES)[drawn()], np.asarray(ANSWERED[0], np.float64)[:2]
    points, centres = (np.concatenate([m.sum(1), np.abs(m[:, 0] - m[:, 1])], -1) for m in (means, answered))
    chosen = []
    for _ in range(4):
        far = np.linalg.norm(points[:, None] - np.concatenate([centres, points[chosen]])[None], axis=-1).min(1)
        chosen.append(int(far.argmax()))
    np.testing.assert_array_equal(chosen_by(select(random_rewards(), 4, selection="k_centre")), drawn_rows()[chosen])


@pytest.mark.parametrize("selection", query_rules.RULES)
def test_every_rule_asks_about_distinct_candidates(selection):
    chosen = chosen_by(select(random_rewards(), 3, selection=selection))[:3]
    rows = [int((drawn_rows() == pair).all((1, 2)).argmax()) for pair in chosen]
    np.testing.assert_array_equal(drawn_rows()[rows], chosen)
    assert len(set(rows)) == 3 and max(rows) < 15


def test_random_share_of_lanes_of_one_program():
    """None is random, or the first half, or all; the rule chooses from the candidates that are left."""
    ask = jax.jit(jax.vmap(lambda share: select(random_rewards(), 4, random_share=share)))
    asked = ask(jnp.array([0.0, 0.5, 1.0]))
    ruled, mixed, uniform = (chosen_by(jax.tree.map(lambda x, i=i: x[i], asked)) for i in range(3))
    np.testing.assert_array_equal(ruled, chosen_by(select(random_rewards(), 4)))
    np.testing.assert_array_equal(uniform, chosen_by(select(random_rewards(), 4, selection="uniform")))
    np.testing.assert_array_equal(uniform, drawn_rows()[:4])
    ranked = chosen_by(select(random_rewards(), 20, num_slots=20, candidates=1))
    best = [pair for pair in ranked if not (pair == uniform[:2]).all((1, 2)).any()]
    np.testing.assert_array_equal(mixed, [*uniform[:2], *best[:2]])
    # None is asked twice: not even by the rule that would have taken the first ones too.
    twice = chosen_by(select(random_rewards(), 4, selection="uniform", random_share=0.5))
    np.testing.assert_array_equal(twice, drawn_rows()[:4])


@pytest.mark.parametrize(("count", "share"), [(1, 0.3), (4, 0.2)])
def test_rounds_of_few_queries_get_their_share_of_random_ones(monkeypatch, count, share):
    """On average over the keys; this rule takes the last candidates, and the random ones are the first."""

    def last(key, candidates, number):
        return jax.lax.top_k(jnp.where(candidates.eligible, jnp.arange(candidates.eligible.size), -1), number)[1]

    monkeypatch.setitem(query_rules.RULES, "last", last)
    ask = lambda seed, share: select(random_rewards(), count, selection="last", random_share=share, seed=seed)  # noqa: E731
    ask = jax.jit(jax.vmap(ask, (0, None)))
    chosen, ruled = (ask(jnp.arange(1000), share).observation[:, 0, :, 0] for share in (share, 0.0))
    random = (chosen != ruled).any((1, 2)).sum()
    low, high = stats.binom.interval(1 - 1e-6, 1000, count * share)
    assert low <= random <= high


def test_uniform_ignores_the_ensemble():
    first, second = (select(random_rewards(seed), 3, selection="uniform") for seed in (0, 1))
    np.testing.assert_array_equal(first.observation, second.observation)
    first, second = (select(random_rewards(seed), 3) for seed in (0, 1))
    assert (first.observation != second.observation).any()


def test_segments_never_cross_a_reset():
    done = jnp.zeros((20, 3), bool).at[7, 0].set(True).at[3:18:4, 1].set(True).at[:, 2].set(True)
    start, env = places(select(random_rewards(), 50, num_slots=50, candidates=2, done=done))
    valid = reference.valid_starts(np.asarray(done), LENGTH)
    assert set(env.ravel()) == {0, 1}
    assert valid[start, env].all()


@pytest.mark.parametrize("selection", ["disagreement", "uniform", "k_centre_entropy"])
def test_nothing_is_asked_if_every_window_crosses_a_reset(selection):
    asked = select(random_rewards(), 3, selection=selection, done=jnp.ones((20, 3), bool))
    assert not asked.asked.any()
