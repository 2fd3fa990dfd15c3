"""Environments: gymnax's registry under one interface, and a renderer for each that people can be shown."""

from rlhf_jax.environments.environment import Environment, Step, make, wrap

__all__ = ["Environment", "Step", "make", "wrap"]
