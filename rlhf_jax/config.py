"""Every setting, its default and what it may be."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax


def _static(default: Any) -> Any:
    """Declares a setting that shapes the compiled program; the others are numbers that its lanes may differ in."""
    return dataclasses.field(default=default, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PPOConfig:
    """The agent.

    epochs: passes over each rollout.
    minibatches: gradient steps in a pass.
    hidden: widths of the hidden layers of the policy and of the value network.
    pooling: what is kept of the answers of convolutions to an image: "none" for all of them, or "keypoints" for the
      places of things.
    clip_value: limit the move of the critic as well as that of the policy.
    initial_std: standard deviation of a continuous action before training; the action space ends at ±1.
    learning_rate: Adam's, at the start.
    learning_rate_decay: share of it that is gone at the end; the decay is linear.
    discount: γ.
    trace_decay: λ of generalised advantages.
    clip: ε, how far the probability of an action may move before its gradient stops.
    value_coefficient: weight of the critic's loss.
    entropy_coefficient: weight of the entropy bonus.
    max_grad_norm: longer gradients are scaled down to this.
    """

    epochs: int = _static(1)
    minibatches: int = _static(16)
    hidden: tuple[int, ...] = _static((32, 32))
    pooling: str = _static("none")
    clip_value: bool = _static(False)
    initial_std: float = 1.65
    learning_rate: float = 4e-3
    learning_rate_decay: float = 1.0
    discount: float = 0.98
    trace_decay: float = 0.95
    clip: float = 0.2
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.01
    max_grad_norm: float = 2.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class QueryConfig:
    """What the teacher is asked.

    segment_length: steps of a segment, L.
    candidates: pairs to choose from, for each that is asked.
    selection: the rule that chooses, one of `rlhf_jax.query_rules.RULES`.
    random_share: share of the queries that are not left to the rule but drawn uniformly.
    """

    segment_length: int = _static(30)
    candidates: int = _static(10)
    selection: str = _static("disagreement")
    random_share: float = 0.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LabelConfig:
    """How many labels there are, and when.

    budget: labels in all.
    max_budget: the largest budget among the lanes of a program; 0 where all are on the true reward, whose program then
      has no queries, fits and predictions. Others would get rewards of NaN from it.
    capacity: labels that are kept, first in, first out; None keeps all.
    initial_fraction: share of the budget that is asked before training, about the untrained policy; 1 asks all then.
    warmup: iterations in which that is done.
    schedule: how the rate of the other labels falls, one of `rlhf_jax.queries.SCHEDULES`.
    half_life: environment steps after which labels come half as fast as at first; "constant" has no use for it.
    """

    budget: int = 700
    max_budget: int = _static(1400)
    capacity: int | None = _static(None)
    initial_fraction: float = _static(0.25)
    warmup: int = _static(4)
    schedule: str = _static("hyperbolic")
    half_life: float = _static(100_000.0)

    @property
    def kept(self) -> int:
        """Labels that there is room for, at least one, because no array of a checkpoint may be empty."""
        return self.capacity or max(self.max_budget, 1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TeacherConfig:
    """The synthetic teacher; the defaults are the oracle.

    A spread is the standard deviation of segment returns under the untrained policy.

    name: which one, of `rlhf_jax.teacher.TEACHERS`; the other settings are those of "standard".
    temperature: τ = 1/β of its choices, in spreads; 0 always prefers the larger return.
    mistake_rate: how often it mixes up the two clips.
    error_rate: share of its answers that are a fair coin, whatever the pair.
    tie_band: returns that differ by less than this, in spreads, are a tie.
    silence_below: it cannot tell where both returns are less than the mean plus this, in spreads; −1e6 is never.
    discount: γ by which it forgets the beginning of a clip; 1 remembers all.
    """

    name: str = _static("standard")
    temperature: float = 0.0
    mistake_rate: float = 0.0
    error_rate: float = 0.0
    tie_band: float = 0.0
    silence_below: float = -1e6
    discount: float = 1.0


TEACHER_PRESETS: dict[str, TeacherConfig] = {
    "oracle": TeacherConfig(),
    # Asked the same pair twice, agrees with itself 90 times of 100 on pairs of normal returns, and 93 are right.
    "person_90": TeacherConfig(temperature=0.182),
    "person_80": TeacherConfig(temperature=0.395),
    "mistaken": TeacherConfig(mistake_rate=0.1),
    "tying": TeacherConfig(tie_band=0.25),
    "silent": TeacherConfig(silence_below=-0.5),
    "myopic": TeacherConfig(discount=0.9),
}
"""Teachers that people know: an oracle, people who agree with themselves so often, and those of B-Pref."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RewardConfig:
    """The reward ensemble.

    members: M.
    hidden: widths of the hidden layers of each.
    fit_steps: gradient steps in an iteration.
    batch_size: pairs in a gradient step of one member.
    reference_size: pairs on which losses are compared and outputs normalised.
    learning_rate: Adam's.
    bootstrap: fit each member to a sample of its own; without it there is no validation loss, and `l2` stays.
    normalise: give each member zero mean and unit standard deviation after each fit.
    zero_median: then move its zero to the median, so that a step like most is worth nothing, and neither is the end of
      an episode. With sparse rewards the zero mean makes most steps bad, and an early end better than they are.
    pooling: as for the policy, or "max" for how strongly each filter answers anywhere, which tells what happens, and
      not where.
    dropout: share of the filters of each convolution that a gradient step leaves out, the same ones for both clips of a
      pair.
    action_scale: factor on the actions that the networks are given beside observations of unit scale. A small one,
      with `l2`, is the prior that the reward is about what is seen: a reward that wrongly depends on the action is
      exploited at once, in any state.
    error_rate: share of answers that the model takes to be uniformly random.
    sparsity: coefficient of the mean size of a step's reward, a prior that most steps are worth nothing (lasso). It
      takes clips that are long beside the time between rewards: with short ones, hardly anything is worth anything.
    l2: coefficient of the squared weights, at the start.
    l2_adaptation: factor by which it moves when the ratio of validation to training loss leaves the band; 1 keeps it.
    l2_low: lower end of the band.
    l2_high: upper end of the band.
    targets: learn from the returns of single segments, which the teacher then tells, instead of from comparisons.
    frozen: keep the reward as it is, such as one that was loaded; nothing is fitted.
    """

    members: int = _static(5)
    hidden: tuple[int, ...] = _static((32, 32))
    fit_steps: int = _static(6)
    batch_size: int = _static(10)
    reference_size: int = _static(64)
    bootstrap: bool = _static(True)
    normalise: bool = _static(True)
    zero_median: bool = _static(False)
    pooling: str = _static("none")
    dropout: float = _static(0.0)
    learning_rate: float = 4e-3
    action_scale: float = 0.1
    error_rate: float = 0.1
    sparsity: float = 0.0
    l2: float = 1e-2
    l2_adaptation: float = 1.1
    l2_low: float = 1.1
    l2_high: float = 1.5
    targets: bool = False
    frozen: bool = False


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Config:
    """A whole run.

    env: name of the environment.
    iterations: rounds of acting, asking and learning.
    num_envs: environments that an agent acts in at once, N.
    rollout_length: steps in each of them in an iteration, T.
    normalise_observations: give the networks observations of zero mean and unit standard deviation.
    use_true_reward: learn from the true reward instead of the learnt one.
    """

    env: str = _static("Pendulum-v1")
    iterations: int = _static(60)
    num_envs: int = _static(32)
    rollout_length: int = _static(200)
    normalise_observations: bool = _static(True)
    use_true_reward: bool = False
    ppo: PPOConfig = PPOConfig()
    queries: QueryConfig = QueryConfig()
    labels: LabelConfig = LabelConfig()
    teacher: TeacherConfig = TeacherConfig()
    reward: RewardConfig = RewardConfig()
