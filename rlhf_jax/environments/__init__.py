"""Environments: gymnax's, this library's and Atari's under one interface, and a renderer for those that are shown."""

from rlhf_jax.environments.environment import Environment, Step, wrap
from rlhf_jax.environments.fixed_horizon import FixedHorizon
from rlhf_jax.environments.registry import make

__all__ = ["Environment", "FixedHorizon", "Step", "make", "wrap"]
