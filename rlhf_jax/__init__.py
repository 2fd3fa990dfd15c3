"""Deep reinforcement learning from human preferences (Christiano et al. 2017) in JAX.

Axes, by the same letters everywhere:

    A  agents: seeds × conditions, the lanes of a compiled program
    N  environments that an agent acts in at once
    T  steps of a rollout
    L  steps of a segment
    Q  queries
    2  the two slots of a pair
    M  members of the reward ensemble
    C  capacity of the preference buffer

Rollouts are time-major, `[T, N, ...]`; pairs are `[Q, 2, L, ...]`.
"""

from rlhf_jax.config import TEACHER_PRESETS, Config, LabelConfig, PPOConfig, QueryConfig, RewardConfig, TeacherConfig
from rlhf_jax.environments import Environment, make, wrap
from rlhf_jax.train_state import TrainState, init
from rlhf_jax.training import absorb, advance, halves, iteration, propose, train

__all__ = [
    "TEACHER_PRESETS",
    "Config",
    "Environment",
    "LabelConfig",
    "PPOConfig",
    "QueryConfig",
    "RewardConfig",
    "TeacherConfig",
    "TrainState",
    "absorb",
    "advance",
    "halves",
    "init",
    "iteration",
    "make",
    "propose",
    "train",
    "wrap",
]
