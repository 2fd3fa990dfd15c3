"""Judging a learnt reward on a rollout, against NumPy and in cases whose answer is known."""

import jax.numpy as jnp
import numpy as np
import pytest
import reference
from scipy import stats

from rlhf_jax import judgement, normalisation
from rlhf_jax.config import Config, QueryConfig, RewardConfig, TeacherConfig
from rlhf_jax.reward_ensemble import RewardEnsemble
from rlhf_jax.rollout import Rollout

STEPS, ENVS, LENGTH = 20, 6, 5


def rollout_of(true_reward, done=None):
    """A rollout of which only the true rewards and the ends of episodes are known."""
    nothing = jnp.zeros_like(true_reward)
    return Rollout(
        observation=nothing[..., None],
        action=nothing[..., None],
        state={},
        log_prob=nothing,
        next_observation=nothing[..., None],
        terminated=jnp.zeros_like(true_reward, bool) if done is None else done,
        truncated=jnp.zeros_like(true_reward, bool),
        true_reward=true_reward,
    )


def judge(rewards, true_reward, *, done=None, error_rate=0.0, teacher=None, std=None):
    """Judges the `[M, T, N]` rewards of an ensemble whose normalisation is known, by a scale of mean 0 and spread 2."""
    members = rewards.shape[0]
    ensemble = RewardEnsemble(
        params=None,
        optimiser=None,
        observation=None,
        zero=jnp.zeros(members),
        std=jnp.ones(members) if std is None else jnp.asarray(std),
        l2=jnp.zeros(()),
    )
    config = Config(
        queries=QueryConfig(segment_length=LENGTH),
        reward=RewardConfig(error_rate=error_rate),
        teacher=teacher or TeacherConfig(),
    )
    scale = normalisation.Moments(jnp.float32(10), jnp.float32(0), jnp.float32(40))
    steps = rollout_of(jnp.asarray(true_reward, jnp.float32), done)
    return judgement.judge(ensemble, jnp.asarray(rewards, jnp.float32), steps, scale, config=config)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def starts(done=None):
    """Where `_pairs` puts its windows: `[P, 2]` starts and environments, and which pairs are of different ones."""
    windows, distinct = judgement._pairs(rollout_of(jnp.zeros((STEPS, ENVS)), done), LENGTH)
    return np.asarray(windows.start), np.asarray(windows.env), np.asarray(distinct)


def test_every_window_is_in_one_pair_with_one_of_another_environment():
    start, env, distinct = starts()
    assert sorted(zip(start.ravel(), env.ravel(), strict=True)) == [(s, n) for s in (0, 5, 10, 15) for n in range(ENVS)]
    assert distinct.all() and (env[:, 0] != env[:, 1]).all()


def test_windows_never_cross_a_reset():
    done = jnp.zeros((STEPS, ENVS), bool).at[7].set(True).at[12, :4].set(True)
    start, env, distinct = starts(done)
    assert reference.valid_starts(np.asarray(done), LENGTH)[start, env].all()
    same = (start[:, 0] == start[:, 1]) & (env[:, 0] == env[:, 1])
    np.testing.assert_array_equal(distinct, ~same)


def test_the_true_reward_on_another_scale_is_perfect():
    true = noise(STEPS, ENVS)
    metrics, _ = judge(np.stack([50.0 * true - 3.0, 30.0 * true]), true)
    for name in ("heldout_accuracy", "teacher_accuracy", "correlation", "rank_correlation", "segment_correlation"):
        assert metrics[name] == pytest.approx(1.0, abs=1e-5), name
    assert metrics["segment_rank_correlation"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["spread"] == pytest.approx(0.0, abs=1e-5)
    assert metrics["heldout_log_likelihood"] == pytest.approx(0.0, abs=1e-2)
    assert metrics["teacher_log_likelihood"] == 0.0


def test_a_reward_that_is_the_wrong_way_round_is_always_wrong():
    true = noise(STEPS, ENVS)
    metrics, _ = judge(-true[None], true)
    assert metrics["heldout_accuracy"] == 0.0
    assert metrics["correlation"] == pytest.approx(-1.0, abs=1e-6)
    assert metrics["segment_rank_correlation"] == pytest.approx(-1.0, abs=1e-5)


@pytest.mark.parametrize("error_rate", [0.0, 0.1])
def test_against_numpy_with_a_teacher_who_errs_and_ties(error_rate):
    true, rewards = noise(STEPS, ENVS), noise(3, STEPS, ENVS, seed=1) + noise(STEPS, ENVS)
    teacher = TeacherConfig(temperature=0.8, tie_band=0.3)  # of a spread of 2
    metrics, _ = judge(rewards, true, error_rate=error_rate, teacher=teacher, std=[1.0, 2.0, 0.5])

    start, env, _ = starts()
    sums = lambda values: reference.window_sums(values, LENGTH)[start, env]  # noqa: E731
    returns = sums(true)
    gap = returns[:, 0] - returns[:, 1]
    tie = np.abs(gap) < 0.6
    first = np.where(tie, 0.0, reference.sigmoid(gap / 1.6))
    second = np.where(tie, 0.0, reference.sigmoid(-gap / 1.6))
    label = np.where(tie, 0.5, first)
    member = np.stack([sums(r) for r in rewards])
    model = np.mean((1 - error_rate) * reference.sigmoid(member[..., 0] - member[..., 1]) + error_rate / 2, 0)
    assert 0 < tie.sum() < len(tie)

    expected = {
        "heldout_accuracy": np.where(model > 0.5, first, second).sum() / (~tie).sum(),
        "heldout_log_likelihood": np.mean(label * np.log(model) + (1 - label) * np.log(1 - model)),
        "teacher_accuracy": np.maximum(first, second).sum() / (~tie).sum(),
        "teacher_log_likelihood": -np.mean(stats.entropy([label, 1 - label])),
    }
    predicted = (rewards / np.array([1.0, 2.0, 0.5])[:, None, None]).mean(0)
    expected |= {
        "correlation": stats.pearsonr(predicted.ravel(), true.ravel())[0],
        "rank_correlation": stats.spearmanr(predicted.ravel(), true.ravel())[0],
        "segment_correlation": stats.pearsonr(sums(predicted).ravel(), returns.ravel())[0],
        "segment_rank_correlation": stats.spearmanr(sums(predicted).ravel(), returns.ravel())[0],
    }
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, abs=2e-5), name


def test_silent_pairs_have_no_say():
    """A teacher who answers only where one of the two is good: the reward may be wrong about the rest."""
    true = np.full((STEPS, ENVS), -1.0)
    true[:, :3] = 1.0
    rewards = np.where(true > 0, true, noise(STEPS, ENVS))[None]
    metrics, reliability = judge(rewards, true, teacher=TeacherConfig(silence_below=0.0))
    _, env, _ = starts()
    answered = (env < 3).any(1)
    assert 0 < answered.sum() < len(answered)
    assert reliability.count.sum() == pytest.approx(answered.sum())
    assert metrics["heldout_accuracy"] == 1.0


def test_without_a_whole_window_nothing_is_known_and_nothing_breaks():
    metrics, _ = judge(noise(2, STEPS, ENVS), noise(STEPS, ENVS), done=jnp.ones((STEPS, ENVS), bool))
    assert np.isnan(metrics["heldout_accuracy"]) and np.isnan(metrics["teacher_log_likelihood"])
    assert np.isfinite(metrics["correlation"])
