"""Environments: gymnax's registry under one interface, and a renderer for each that people can be shown."""

from rlhf_jax.environments.environment import Environment, Step, make, wrap
from rlhf_jax.environments.fixed_horizon import FixedHorizon

__all__ = ["Environment", "FixedHorizon", "Step", "make", "wrap"]
