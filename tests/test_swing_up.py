"""Agents learn to swing the pendulum up from labels, and are as good in Gymnasium's own."""

import jax
import numpy as np
import pytest
from gymnasium_pendulum import pendulums, play

import rlhf_jax
from rlhf_jax import parallel, ppo, rollout, settings, train_state, training

AGENTS, EPISODES = 3, 40


@pytest.fixture(scope="module")
def learnt():
    """Three agents, untrained and trained on 700 labels: returns on the same starts, those starts, and the agents."""
    env = rlhf_jax.make("Pendulum-v1")
    config = settings.override(rlhf_jax.Config(), ["iterations=40", "labels.budget=700", "teacher.error_rate=0"])

    def evaluate(state):
        policy = ppo.deterministic_policy(state.agent, env=env, config=config.ppo)
        returns, steps = rollout.evaluate(jax.random.key(1), policy, env=env, num_episodes=EPISODES)
        return returns, steps.observation[0]

    def run(key):
        state = train_state.init(key, env=env, config=config)
        before, _ = evaluate(state)
        state, metrics = training.advance(state, config.iterations, env=env, config=config)
        after, starts = evaluate(state)
        return {"before": before, "after": after, "starts": starts, "labels": metrics["labels"], "agent": state.agent}

    results = parallel.over_agents(run, AGENTS)(parallel.agent_keys(range(AGENTS)))
    policy = lambda agent: ppo.deterministic_policy(agent, env=env, config=config.ppo)  # noqa: E731
    act = jax.jit(lambda agent, x: env.native_action(policy(agent)(jax.random.key(0), x)[0]))
    agents = [jax.tree.map(lambda x, i=i: x[i], results["agent"]) for i in range(AGENTS)]
    return results, [lambda x, agent=agent: np.asarray(act(agent, np.asarray(x, np.float32))) for agent in agents]


def test_agents_learn_to_swing_up_from_labels(learnt):
    results, _ = learnt
    assert (results["labels"][:, -1] == 700).all()
    assert (results["before"].mean(1) < -900).all()
    assert (results["after"].mean(1) > -250).all()  # the best possible is −137.8


@pytest.mark.parametrize("agent", range(AGENTS))
def test_trained_policy_is_as_good_in_gymnasium(agent, learnt):
    results, policies = learnt
    ours = np.asarray(results["after"][agent])
    # From other random starts: the same mean within its error.
    theirs = play(policies[agent], *pendulums(EPISODES))
    error = np.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / EPISODES)
    assert abs(theirs.mean() - ours.mean()) < 3 * error
    # From the same starts: the same episodes, but for rounding, which a swing-up amplifies where it is a close call.
    same = play(policies[agent], *pendulums(EPISODES, np.asarray(results["starts"][agent])))
    differences = np.abs(same - ours)
    assert np.median(differences) < 0.005 and np.quantile(differences, 0.9) < 0.05
    assert abs(same.mean() - ours.mean()) < 0.5 * error
