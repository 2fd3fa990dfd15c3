"""Every setting of learning from stored trajectories, its default and what it may be."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import jax

from rlhf_jax import settings
from rlhf_jax.config import PPOConfig

ALGORITHMS = ("policy_gradient", "ppo")
_STATIC = {"static": True}  # shapes the compiled program
_PPO = PPOConfig(epochs=4, minibatches=10, learning_rate_decay=0.0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PolicyGradientConfig:
    """The agent that learns by the policy gradient.

    hidden: widths of the hidden layers of the policy.
    learning_rate: Adam's.
    """

    hidden: tuple[int, ...] = field(default=(32,), metadata=_STATIC)
    learning_rate: float = 1e-2


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DataConfig:
    """The trajectories, and the preferences between them.

    checkpoints: epochs on the true reward, after each of which the policy is kept.
    trajectories: of each of these policies.
    pairs: that are compared.
    """

    checkpoints: int = field(default=10, metadata=_STATIC)
    trajectories: int = field(default=10, metadata=_STATIC)
    pairs: int = field(default=500, metadata=_STATIC)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrajectoryRewardConfig:
    """The reward network, and its fit to preferences.

    hidden: widths of its hidden layers; none makes the reward linear.
    fit_steps: gradient steps, each on all pairs.
    learning_rate: Adam's.
    l2: coefficient of the squared weights; biases are free, because they hold the zero of the reward.
    """

    hidden: tuple[int, ...] = field(default=(32,), metadata=_STATIC)
    fit_steps: int = field(default=100, metadata=_STATIC)
    learning_rate: float = 1e-2
    l2: float = 1.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CloningConfig:
    """Behavioural cloning; its policy has the layers of the agent's.

    fit_steps: gradient steps, each on all trajectories.
    learning_rate: Adam's.
    """

    fit_steps: int = field(default=100, metadata=_STATIC)
    learning_rate: float = 1e-2


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InverseRLConfig:
    """Inverse reinforcement learning; its reward has the layers of the one that is fitted to preferences.

    reward_steps: gradient steps on the reward in an epoch.
    learning_rate: Adam's.
    l2: coefficient of half the squared weights and biases. It is large, because the reward must follow what the policy
      does now and not all that it ever did: a reward that accumulates swings between long and short episodes.
    """

    reward_steps: int = field(default=2, metadata=_STATIC)
    learning_rate: float = 0.1
    l2: float = 30.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OfflineConfig:
    """A whole study.

    env: name of the environment.
    algorithm: of the agents, one of `ALGORITHMS`.
    horizon: steps after which an episode is cut off.
    epochs: of an agent that learns from a learnt reward.
    num_envs: environments that an agent acts in at once, N.
    epoch_steps: steps over all of them after which no further episode begins; those that run are finished.
    """

    env: str = field(default="CartPole-v1", metadata=_STATIC)
    algorithm: str = field(default="policy_gradient", metadata=_STATIC)
    horizon: int = field(default=200, metadata=_STATIC)
    epochs: int = field(default=50, metadata=_STATIC)
    num_envs: int = field(default=25, metadata=_STATIC)
    epoch_steps: int = field(default=5000, metadata=_STATIC)
    policy_gradient: PolicyGradientConfig = PolicyGradientConfig()
    ppo: PPOConfig = _PPO
    data: DataConfig = DataConfig()
    reward: TrajectoryRewardConfig = TrajectoryRewardConfig()
    cloning: CloningConfig = CloningConfig()
    inverse_rl: InverseRLConfig = InverseRLConfig()

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the hidden layers of the policies."""
        return self.ppo.hidden if self.algorithm == "ppo" else self.policy_gradient.hidden

    @property
    def steps_per_env(self) -> int:
        """Steps of one environment in an epoch, but for the end of its last episode."""
        return self.epoch_steps // self.num_envs


def validate(config: OfflineConfig) -> None:
    """Checks the settings before anything compiles.

    Raises:
      ValueError: the first thing that is wrong, in one line.
    """
    for problem in _problems(config):
        raise ValueError(problem)


def _problems(config: OfflineConfig) -> Iterator[str]:
    flat = settings.to_dict(config, flat=True)
    if config.algorithm not in ALGORITHMS:
        yield f"algorithm = {config.algorithm!r}; it must be one of {', '.join(ALGORITHMS)}"
    for path, value in flat.items():
        name = path.split(".")[-1]
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{path} = {value}; it must be finite"
        elif name == "hidden" and (min(value, default=1) < 1 or not (value or path == "reward.hidden")):
            yield f"{path} = {value}; it must name at least one layer, each at least 1 wide"
        elif name in ("learning_rate", "clip", "max_grad_norm", "initial_std") and not value > 0:
            yield f"{path} = {value}; it must be positive"
        elif name in ("discount", "trace_decay", "learning_rate_decay") and not 0 <= value <= 1:
            yield f"{path} = {value}; it must be between 0 and 1"
        elif name in ("l2", "value_coefficient", "entropy_coefficient") and not value >= 0:
            yield f"{path} = {value}; it must not be negative"
        elif type(value) is int and value < 1:
            yield f"{path} = {value}; it must be at least 1"
    if config.ppo.pooling != "none":
        yield f"ppo.pooling = {config.ppo.pooling} has no say: offline learning is of vectors"
    if config.ppo.discount == 1:
        yield "ppo.discount = 1; it must be below 1, because rewards are scaled by 1 − discount"
    if config.epoch_steps % config.num_envs:
        yield f"epoch_steps = {config.epoch_steps} is not divisible by num_envs = {config.num_envs}"
    if config.algorithm == "ppo" and config.epoch_steps % config.ppo.minibatches:
        yield f"epoch_steps = {config.epoch_steps} is not divisible by ppo.minibatches = {config.ppo.minibatches}"
    number = config.data.checkpoints * config.data.trajectories
    if number < 2:
        yield f"data.checkpoints × data.trajectories = {number}; a pair needs at least 2"
