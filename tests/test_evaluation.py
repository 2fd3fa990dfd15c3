"""Evaluation: who acts in which episodes, from which starts, and what is said of a training in the end."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlhf_jax
from experiments import evaluation, memory, results
from rlhf_jax import rollout, train_state

STARTS, EPISODES = 8, 4


@pytest.fixture(scope="module")
def found():
    """The evaluation of an untrained agent, whose judge tells the largest action instead of judging."""
    env = rlhf_jax.make("Pendulum-v1")
    config = rlhf_jax.Config(ppo=rlhf_jax.PPOConfig(hidden=(4,)), reward=rlhf_jax.RewardConfig(hidden=(4,)))
    env = dataclasses.replace(env, horizon=40)

    def judge(key, state, steps, *, env, config):
        said = {"largest": jnp.abs(steps.action).max(), "varies": steps.action.std()}
        return said | {"earned": steps.true_reward.sum(0).mean()}, jnp.zeros((2, 3))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "plan", lambda env: evaluation.Plan(STARTS, EPISODES, env.horizon))
        patch.setattr(evaluation, "_judge", judge)
        state = train_state.init(jax.random.key(0), env=env, config=config)
        evaluate = jax.jit(partial(evaluation.evaluate, env=env, config=config), static_argnames="judged")
        return env, *jax.device_get((evaluate(state), evaluate(state, judged=False)))


def test_each_kind_of_states_is_that_of_its_policy(found):
    # The untrained Gaussian has a mean near 0 and a standard deviation of 1.65; random actions end at ±1.
    _, values, _ = found
    assert values["expert.largest"] < 0.3
    assert 0.9 < values["random.largest"] <= 1.0
    assert values["on_policy.largest"] > 2.0
    assert values["random.varies"] == pytest.approx(1 / np.sqrt(3), abs=0.1)
    assert values["on_policy.varies"] == pytest.approx(1.65, abs=0.3)


def test_exploring_return_is_that_of_the_exploring_episodes_whether_or_not_a_reward_is_judged(found):
    _, values, unjudged = found
    assert values["exploring_return"] == pytest.approx(values["on_policy.earned"], rel=1e-5)
    assert values["exploring_return"] == pytest.approx(unjudged["exploring_return"], rel=1e-5)
    assert values["exploring_return"] != pytest.approx(values["return"], rel=1e-4)
    assert "on_policy.earned" not in unjudged


def test_starts_are_those_of_the_fixed_key_however_many_other_episodes_there_are(found):
    env, values, _ = found
    key_init, _ = jax.random.split(jax.random.key(evaluation.KEY))
    alone = rollout.init(key_init, env=env, num_envs=STARTS)
    np.testing.assert_array_equal(values["observation"][0], np.asarray(alone.observation)[: evaluation.CLIPS])


@pytest.mark.parametrize(
    ("name", "starts", "steps"),
    [
        ("Pendulum-v1", 512, 200),
        ("Breakout-MinAtar", 128, 1000),
        ("MovingDot-v0", 32, 250),
        ("MovingDotNoFrameskip-v0", 4, 200),
        ("PongNoFrameskip-v4", 4, 200),
    ],
)
def test_what_is_kept_of_an_evaluation_fits_into_memory(name, starts, steps):
    env = rlhf_jax.make(name)
    plan = evaluation.plan(env)
    assert (plan.starts, plan.steps) == (starts, steps)
    assert plan.starts >= evaluation.CLIPS and memory.evaluation_bytes(env) < 2**30


def test_final_distance_is_that_after_the_last_action_in_pixels():
    """The middle is at (80, 105): 3 and 4 pixels away is 5, and 12 to the left, moved four to the right, is 8."""
    places = {"x": jnp.array([[2, 2], [83, 68]]), "y": jnp.array([[2, 2], [109, 105]])}
    actions, unused = jnp.array([[0, 0], [0, 2]]), jnp.zeros((2, 2))
    steps = rollout.Rollout(unused, actions, places, unused, unused, unused, unused, unused)
    assert evaluation.MEASURES["MovingDot-v0"]["final_distance"](steps) == 6.5


def test_games_of_an_emulator_end_after_five_minutes():
    env = rlhf_jax.make("PongNoFrameskip-v4")
    assert evaluation.shortened(env).horizon == 5 * 60 * 60 / 4
    assert evaluation.shortened(dataclasses.replace(env, horizon=99)).horizon == 99
    pendulum = rlhf_jax.make("Pendulum-v1")
    assert evaluation.shortened(pendulum) is pendulum


def course(**metrics):
    config = rlhf_jax.Config()
    return results._course(config, {name: np.asarray(values, float) for name, values in metrics.items()})


def test_rates_are_of_all_queries_of_all_seeds():
    nothing = np.zeros((2, 3))
    # 6 and 2 answers, of which 1 and 1 are ties; 2 queries got none.
    said = course(
        labels=[[202, 204, 206], [200, 201, 202]],  # 200 are of an earlier run
        answers=[[2, 2, 2], [0, 1, 1]],
        ties=[[1, 0, 0], [0, 0, 1]],
        silences=[[0, 0, 0], [1, 1, 0]],
        predicted_return=nothing,
        **{"return": nothing},
    )
    assert said == {"tie_rate": 0.2, "silence_rate": 0.2, "alarms": [None, None]}


def test_alarm_is_the_iteration_after_which_the_reward_is_exploited():
    time = np.arange(60.0)
    truth = np.where(time < 30, time, 60.0 - time)
    nothing = np.zeros((2, 60))
    said = course(
        answers=nothing, ties=nothing, silences=nothing, predicted_return=[time, time], **{"return": [truth, time]}
    )
    assert 31 <= said["alarms"][0] <= 45 and said["alarms"][1] is None


def test_nothing_is_said_of_agents_on_the_true_reward():
    config = rlhf_jax.Config(use_true_reward=True)
    assert results._course(config, {}) == {"tie_rate": None, "silence_rate": None, "alarms": None}
