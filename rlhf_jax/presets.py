"""Settings to start from, by environment."""

import dataclasses

from rlhf_jax.config import Config, LabelConfig, PPOConfig, QueryConfig, RewardConfig
from rlhf_jax.environments import rendering
from rlhf_jax.environments.atari_games import is_atari


def preset(env: str) -> Config:
    """Returns the settings for an environment; those for Pendulum-v1 where none are known to be better.

    Args:
      env: its name, such as "MovingDot-v0".
    """
    if env.startswith("MovingDot"):
        return _moving_dot(env)
    if env.endswith("-MinAtar") or env == "Pong-misc":
        return _minatar(env)
    if is_atari(env):
        return _atari(env)
    return Config(env=env)


def for_people(env: str) -> Config:
    """Returns the same settings, but with clips that last at least a second where people are shown them.

    Args:
      env: its name.
    """
    config = preset(env)
    length = max(config.queries.segment_length, rendering.STEPS_PER_SECOND)
    return dataclasses.replace(config, queries=dataclasses.replace(config.queries, segment_length=length))


def _moving_dot(env: str) -> Config:
    return Config(
        env=env,
        iterations=60,
        num_envs=16,
        rollout_length=128,
        ppo=PPOConfig(
            epochs=2,
            minibatches=8,
            hidden=(64,),
            pooling="keypoints",
            learning_rate=2e-3,
            # A step is good or bad at once. The further an agent looks ahead, the better it finds detours whose small
            # errors of the learnt reward add up.
            discount=0.5,
            # With half as much, one of eight agents gave up a direction that the reward did not pay for yet, for good.
            entropy_coefficient=0.2,
            max_grad_norm=0.5,
        ),
        # Drawn uniformly: the pairs that members disagree most about are odd ones here, such as those at the border.
        # Of three steps, an answer tells which one it is about.
        queries=QueryConfig(segment_length=3, selection="uniform", candidates=1),
        labels=LabelConfig(budget=500, max_budget=500, initial_fraction=0.3, warmup=3, schedule="constant"),
        reward=RewardConfig(
            members=3,
            hidden=(64, 64),
            pooling="keypoints",
            fit_steps=10,
            batch_size=16,
            reference_size=32,
            learning_rate=5e-3,
            action_scale=1.0,
            l2=1e-4,
            l2_adaptation=1.0,
        ),
    )


def _minatar(env: str) -> Config:
    is_pong = env == "Pong-misc"
    return Config(
        env=env,
        iterations=122,
        num_envs=64,
        rollout_length=128,
        ppo=PPOConfig(
            epochs=4,
            minibatches=8,
            hidden=(128,),
            learning_rate=4e-3,
            discount=0.99,
            # Both for the end of Breakout, where agents play the same few games until they explore nothing, and stand
            # still before the wall is through. The errors of the critic are small: it predicts (1 − γ) times a return.
            value_coefficient=20.0,
            entropy_coefficient=0.03,
            max_grad_norm=0.5,
        ),
        queries=QueryConfig(segment_length=25),
        # Few at first: most pairs of an untrained policy are ties. Then soon: agents that got stuck on a poor reward
        # did not come free on the true one.
        labels=LabelConfig(budget=1400, max_budget=1400, initial_fraction=0.1, warmup=3, half_life=150_000.0),
        reward=RewardConfig(
            members=3,
            hidden=(64,),
            # A ball that meets a brick is worth the same wherever that is, and few bricks are seen standing alone.
            # SpaceInvaders, Freeway and Asterix gain by it as well (BUILD_NOTES.md, "Pictures"), Seaquest was not
            # measured, and on Pong-misc it was not tried.
            pooling="none" if is_pong else "max",
            zero_median=True,
            # The fit is what is short, not labels. Pong-misc's pictures have twelve times as many pixels.
            fit_steps=16 if is_pong else 80,
            batch_size=32,
            learning_rate=3e-3,
            action_scale=1.0,
            # In most steps nothing happens, and a clip of 25 holds two or three in which something does.
            sparsity=0.1,
            l2=1e-3 if is_pong else 1e-4,
            l2_adaptation=1.0,
        ),
    )


def _atari(env: str) -> Config:
    """Christiano et al. 2017, A.2, at a five-hundredth of the steps; what else differs is in BUILD_NOTES.md."""
    return Config(
        env=env,
        iterations=49,
        num_envs=16,
        rollout_length=128,
        ppo=PPOConfig(
            epochs=3,
            minibatches=8,
            hidden=(256,),
            learning_rate=5e-4,
            discount=0.99,
            max_grad_norm=0.5,
        ),
        queries=QueryConfig(segment_length=25),
        labels=LabelConfig(budget=1400, max_budget=1400, warmup=2, half_life=50_000.0),
        reward=RewardConfig(
            members=3,
            hidden=(64,),
            # From 400 pairs more is learnt of the places of things than of whole pictures.
            pooling="keypoints",
            fit_steps=8,
            batch_size=16,
            reference_size=16,
            learning_rate=3e-3,
            action_scale=0.1,
            l2=1e-4,
            l2_adaptation=1.0,
        ),
    )
