"""Presets: every one is valid for its environment, and what the issue of each environment fixes is so."""

import subprocess
import sys
from pathlib import Path

import pytest

import rlhf_jax
from rlhf_jax import presets, settings

GRIDS = [f"{game}-MinAtar" for game in ("Breakout", "Asterix", "Freeway", "Seaquest", "SpaceInvaders")] + ["Pong-misc"]


@pytest.mark.parametrize("name", ["Pendulum-v1", "CartPole-v1", "MovingDot-v0", "PongNoFrameskip-v4", *GRIDS])
def test_presets_are_valid(name):
    config = presets.preset(name)
    assert config.env == name
    settings.validate(config, rlhf_jax.make(name))


def test_vectors_have_the_defaults():
    assert presets.preset("Pendulum-v1") == rlhf_jax.Config()
    assert presets.preset("CartPole-v1") == rlhf_jax.Config(env="CartPole-v1")


def test_rewards_of_small_grids_look_for_what_happens_anywhere():
    rewards = [presets.preset(name).reward for name in GRIDS]
    assert [(reward.pooling, reward.l2) for reward in rewards] == [("max", 1e-4)] * 5 + [("none", 1e-3)]


def test_people_see_clips_of_a_second_at_least():
    names = ["MovingDot-v0", "Breakout-MinAtar", "Pendulum-v1", "PongNoFrameskip-v4"]
    assert [presets.for_people(name).queries.segment_length for name in names] == [20, 25, 30, 25]
    dot = presets.preset("MovingDot-v0")
    assert dot.queries.segment_length < 20
    assert presets.for_people("MovingDot-v0").reward == dot.reward


def test_a_stored_reward_is_trained_on_by_the_preset_and_keeps_its_networks():
    """In a process of its own, because the module declares flags."""
    code = """if True:
        import dataclasses, pathlib
        from experiments.stored_reward import StoredReward
        from rlhf_jax import presets
        preset = presets.preset("MovingDot-v0")
        mine = dataclasses.replace(preset, ppo=dataclasses.replace(preset.ppo, discount=0.9))
        stored = StoredReward(pathlib.Path("stored"), mine, None)
        assert stored.settings(None, []).ppo == preset.ppo
        assert stored.settings(None, []).queries == preset.queries
        stored.settings(None, ["reward.pooling=none"])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stderr.endswith("ValueError: --set reward.pooling=none conflicts with keypoints in --reward stored\n")


@pytest.mark.parametrize("name", GRIDS)
def test_grids_are_learnt_from_clips_of_the_paper(name):
    """25 steps; 1,400 labels, and a million steps."""
    config = presets.preset(name)
    assert config.queries.segment_length == 25
    assert config.labels.budget == 1400
    assert 0.97e6 < config.iterations * config.num_envs * config.rollout_length < 1.02e6


def test_moving_dot_is_learnt_within_150_000_steps():
    config = presets.preset("MovingDot-v0")
    assert config.labels.budget == 500
    assert config.iterations * config.num_envs * config.rollout_length <= 150_000
