"""What settings of offline learning may be."""

import pytest

from rlhf_jax import settings
from rlhf_jax.offline.config import OfflineConfig, validate


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("algorithm=sarsa", "algorithm = 'sarsa'; it must be one of policy_gradient, ppo"),
        ("epochs=0", "epochs = 0; it must be at least 1"),
        ("data.pairs=-1", "data.pairs = -1; it must be at least 1"),
        ("reward.learning_rate=nan", "reward.learning_rate = nan; it must be finite"),
        ("cloning.learning_rate=0", "cloning.learning_rate = 0.0; it must be positive"),
        ("inverse_rl.l2=-1", "inverse_rl.l2 = -1.0; it must not be negative"),
        ("policy_gradient.hidden=()", r"policy_gradient.hidden = \(\); it must name at least one layer"),
        ("reward.hidden=8,0", r"reward.hidden = \(8, 0\); it must name at least one layer, each at least 1 wide"),
        ("num_envs=3", "epoch_steps = 5000 is not divisible by num_envs = 3"),
        ("ppo.discount=1", "ppo.discount = 1; it must be below 1"),
        ("ppo.pooling=max", "ppo.pooling = max has no say"),
        ("ppo.trace_decay=2", "ppo.trace_decay = 2.0; it must be between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(assignment, words):
    with pytest.raises(ValueError, match=words):
        validate(settings.override(OfflineConfig(), [assignment]))


def test_settings_that_depend_on_each_other():
    validate(settings.override(OfflineConfig(), ["reward.hidden=()", "ppo.minibatches=3"]))
    with pytest.raises(ValueError, match=r"epoch_steps = 5000 is not divisible by ppo.minibatches = 3"):
        validate(settings.override(OfflineConfig(algorithm="ppo"), ["ppo.minibatches=3"]))
    with pytest.raises(ValueError, match=r"data.checkpoints × data.trajectories = 1; a pair needs at least 2"):
        validate(settings.override(OfflineConfig(), ["data.checkpoints=1", "data.trajectories=1"]))
