"""Episodes of Gymnasium's own Pendulum."""

import gymnasium
import numpy as np


def pendulums(count, starts=None):
    """Gymnasium's own Pendulum, several times, at its own random starts or at these; environments and observations."""
    envs, observations = [], []
    for i in range(count):
        env = gymnasium.make("Pendulum-v1")
        observation, _ = env.reset(seed=i)
        if starts is not None:
            cosine, sine, speed = starts[i]
            env.unwrapped.state = np.array([np.arctan2(sine, cosine), speed])
            observation = starts[i]
        envs.append(env)
        observations.append(observation)
    return envs, np.stack(observations)


def play(act, envs, observations):
    """True return of one episode of 200 steps in each environment."""
    returns = np.zeros(len(envs))
    for t in range(200):
        actions = act(observations)
        assert all(env.action_space.contains(action) for env, action in zip(envs, actions, strict=True))
        observations, rewards, terminated, truncated, _ = map(
            np.array, zip(*(env.step(action) for env, action in zip(envs, actions, strict=True)), strict=True)
        )
        returns += rewards
        assert not terminated.any() and (truncated == (t == 199)).all()
    return returns
