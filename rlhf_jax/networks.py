"""Networks of the agent and of the reward, and the distributions over actions."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from rlhf_jax.convolution import Convolutions

_LOG_2PI = 1.8378770664093453


def initialise(
    key: jax.Array, network: nn.Module, *examples: jax.Array, output_scale: float = 1.0, copies: int | None = None
) -> Any:
    """Returns initial parameters: He-normal kernels, everything else zero.

    All kernels are cut from one draw, which compiles in less than half the time of a draw for each. Not orthogonal: its
    QR decomposition deadlocks XLA's CPU thread pool when it is batched over agents.

    Args:
      key: consumed.
      network: any network with one output layer, its last dense one.
      examples: `[*input]` of each input.
      output_scale: factor on the kernel of the output layer.
      copies: leading axis of independent copies; none if None.

    Reference: He et al. 2015, "Delving deep into rectifiers".
    """
    shapes = jax.eval_shape(network.init, key, *examples)
    paths, leaves = zip(*jax.tree.leaves_with_path(shapes), strict=True)
    lead = () if copies is None else (copies,)
    noise = jax.random.normal(key, (*lead, sum(leaf.size for leaf in leaves)))
    # Leaves are in the order of names, by which convolutions may come after the dense layers that follow them, and
    # Dense_10 before Dense_2.
    dense = (jax.tree_util.keystr(path) for path, leaf in zip(paths, leaves, strict=True) if leaf.ndim == 2)
    last_kernel = max(dense, key=lambda name: (len(name), name), default=None)
    filled, offset = [], 0
    for path, leaf in zip(paths, leaves, strict=True):
        is_output = jax.tree_util.keystr(path) == last_kernel
        scale = math.sqrt(2.0 / math.prod(leaf.shape[:-1])) * (output_scale if is_output else 1.0)
        part = noise[..., offset : offset + leaf.size].reshape(*lead, *leaf.shape)
        filled.append(scale * part if leaf.ndim > 1 else jnp.zeros((*lead, *leaf.shape)))
        offset += leaf.size
    return jax.tree.unflatten(jax.tree.structure(shapes), filled)


def apply(network: nn.Module, params: Any, *inputs: jax.Array) -> Any:
    """Returns what the network makes of the inputs; without mutable collections it is the output alone."""
    return network.apply(params, *inputs)


@flax.struct.dataclass
class Gaussian:
    """Diagonal Gaussian over continuous actions.

    mean: [..., D] centre.
    log_std: [..., D] logarithm of the standard deviation.
    """

    mean: jax.Array
    log_std: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """Returns `[..., D]` actions; the key is consumed."""
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Returns the `[...]` log-density of `[..., D]` actions."""
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return -0.5 * (jnp.square(z) + _LOG_2PI).sum(-1) - self.log_std.sum(-1)

    def entropy(self) -> jax.Array:
        """Returns the `[...]` differential entropy in nats."""
        return (self.log_std + 0.5 * (1.0 + _LOG_2PI)).sum(-1)

    def mode(self) -> jax.Array:
        """Returns the most likely action."""
        return self.mean


@flax.struct.dataclass
class Categorical:
    """Distribution over discrete actions.

    logits: [..., K] unnormalised log-probabilities.
    """

    logits: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """Returns `[...]` integer actions; the key is consumed."""
        return jax.random.categorical(key, self.logits)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Returns the `[...]` log-probability of `[...]` actions."""
        log_probs = jax.nn.log_softmax(self.logits)
        return jnp.take_along_axis(log_probs, action[..., None].astype(jnp.int32), -1)[..., 0]

    def entropy(self) -> jax.Array:
        """Returns the `[...]` entropy in nats."""
        log_probs = jax.nn.log_softmax(self.logits)
        return -(jnp.exp(log_probs) * log_probs).sum(-1)

    def mode(self) -> jax.Array:
        """Returns the most likely action."""
        return self.logits.argmax(-1)


class Actor(nn.Module):
    """Policy network: `[..., F]` observations, or features of images, to a distribution over actions.

    action_size: dimensions of a continuous action, or the number of discrete ones.
    continuous: whether the action space is a box.
    hidden: widths of the hidden layers.
    initial_std: standard deviation of a continuous action before training, where the action space ends at ±1.
    leak: slope of the units below zero, as of `Critic`.
    """

    action_size: int
    continuous: bool
    hidden: Sequence[int]
    initial_std: jax.Array | float = 1.0
    leak: float = 0.0

    @nn.compact
    def __call__(self, features: jax.Array) -> Gaussian | Categorical:
        """Returns the distributions of `[...]` actions."""
        x = features
        for width in self.hidden:
            x = nn.leaky_relu(nn.Dense(width)(x), self.leak)
        out = nn.Dense(self.action_size)(x)
        if not self.continuous:
            return Categorical(out)
        log_std = self.param("log_std", nn.initializers.zeros, (self.action_size,)) + jnp.log(self.initial_std)
        return Gaussian(out, jnp.broadcast_to(log_std, out.shape))


class Critic(nn.Module):
    """Value network: `[..., F]` observations, or features of images, to `[...]` values.

    hidden: widths of the hidden layers.
    leak: slope of the units below zero. Without one most end up below zero for all images, and learn no more.
    """

    hidden: Sequence[int]
    leak: float = 0.0

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Returns `[...]` values."""
        x = features
        for width in self.hidden:
            x = nn.leaky_relu(nn.Dense(width)(x), self.leak)
        return nn.Dense(1)(x)[..., 0]


class RewardNetwork(nn.Module):
    """Reward network: `[..., *observation]` and `[..., K]` features of actions to `[...]` unnormalised rewards.

    Leaky ReLU with slope 0.01, as in Christiano et al. 2017, A.1 and A.2.

    hidden: widths of the hidden layers.
    eyes: convolutions before them, for images.
    """

    hidden: Sequence[int]
    eyes: Convolutions = Convolutions(())

    @nn.compact
    def __call__(self, observation: jax.Array, action: jax.Array, groups: int | None = None) -> jax.Array:
        """Returns the rewards; `groups` is as for `Convolutions`."""
        x = self.eyes(observation, groups)
        x = jnp.concatenate([x, action], -1)
        for width in self.hidden:
            x = nn.leaky_relu(nn.Dense(width)(x), 0.01)
        return nn.Dense(1)(x)[..., 0]
