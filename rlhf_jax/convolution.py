"""Convolutions over images, in the form that the backend is fast at."""

import flax.linen as nn
import jax
import jax.numpy as jnp

Layers = tuple[tuple[int, int, int], ...]
"""Kernel size, stride and number of filters of each layer."""

# Christiano et al. 2017, A.2, for Atari's 84 × 84.
PAPER: Layers = ((7, 3, 16), (5, 2, 16), (3, 1, 16), (3, 1, 16))
_MIDDLE: Layers = ((4, 2, 16), (3, 1, 16))
# Young and Tian 2019, for MinAtar's 10 × 10.
_SMALL: Layers = ((3, 1, 16),)


def layers(shape: tuple[int, ...]) -> Layers:
    """Returns the convolutions for observations of this shape: none for vectors."""
    if len(shape) != 3:
        return ()
    side = min(shape[:2])
    return PAPER if side >= 48 else _MIDDLE if side >= 16 else _SMALL


def im2col(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns the convolution as one matrix product of patches and weights; see `convolve`.

    On a CPU, `lax.conv` with weights that differ in a `vmap`, and its gradient in a `scan`, take many times as long.
    """
    size = kernel.shape[0]
    height, width = ((side - size) // stride + 1 for side in images.shape[1:3])
    rows, columns = stride * (height - 1) + 1, stride * (width - 1) + 1
    patches = jnp.concatenate(
        [images[:, i : i + rows : stride, j : j + columns : stride] for i in range(size) for j in range(size)], -1
    )
    return patches.astype(kernel.dtype) @ kernel.reshape(-1, kernel.shape[-1])


def lax_convolution(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns the convolution by `lax.conv`, which accelerators are fast at; see `convolve`."""
    images, numbers = images.astype(kernel.dtype), ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(images, kernel, (stride, stride), "VALID", dimension_numbers=numbers)


def convolve(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns the convolution of images with a kernel, without padding.

    Args:
      images: `[B, H, W, C]`, of any type.
      kernel: `[K, K, C, F]`.
      stride: in both directions.

    Returns:
      `[B, (H − K) // stride + 1, (W − K) // stride + 1, F]`.
    """
    form = im2col if jax.default_backend() == "cpu" else lax_convolution
    return form(images, kernel, stride)


class Convolutions(nn.Module):
    """Layers of convolutions: `[..., H, W, C]` images to `[..., F]` features; vectors are passed on as they are.

    Each is followed by layer normalisation and a leaky ReLU with slope 0.01. Batch normalisation, as in the paper, would
    need statistics that are right for the pairs of a fit and for the rollout of a policy that has moved on; that of a
    layer is of one image, so that both clips of a pair are always treated alike.

    layers: the convolutions.
    dropout: share of the filters of each layer that are left out when `groups` is given.
    """

    layers: Layers
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: jax.Array, groups: int | None = None) -> jax.Array:
        """Returns the features.

        Args:
          images: `[..., H, W, C]`; whole numbers are in [0, 255].
          groups: in how many consecutive groups of images the same filters are left out, such as the pairs of a batch.
        """
        if not self.layers:
            return images
        x = images.reshape(-1, *images.shape[-3:])
        scale = 255.0 if x.dtype == jnp.uint8 else 1.0
        for i, (size, stride, filters) in enumerate(self.layers):
            kernel = self.param(f"kernel_{i}", nn.initializers.he_normal(), (size, size, x.shape[-1], filters))
            x = convolve(x, kernel / scale if i == 0 else kernel, stride)
            x = nn.leaky_relu(self._normalised(i, x), 0.01)
            if groups and self.dropout:
                x = _leave_out(self.make_rng("dropout"), x, groups, self.dropout)
        return x.reshape(*images.shape[:-3], -1)

    def _normalised(self, i: int, x: jax.Array) -> jax.Array:
        gain = self.param(f"gain_{i}", nn.initializers.zeros, x.shape[-1:])
        bias = self.param(f"bias_{i}", nn.initializers.zeros, x.shape[-1:])
        axes = (1, 2, 3)
        x = x - x.mean(axes, keepdims=True)
        return x * jax.lax.rsqrt(jnp.square(x).mean(axes, keepdims=True) + 1e-5) * (1.0 + gain) + bias


def _leave_out(key: jax.Array, x: jax.Array, groups: int, rate: float) -> jax.Array:
    """Returns `[B, H, W, F]` with some filters at zero, the same ones within a group, and the others larger."""
    kept = jax.random.bernoulli(key, 1.0 - rate, (groups, 1, 1, 1, x.shape[-1]))
    return (x.reshape(groups, -1, *x.shape[1:]) * kept / (1.0 - rate)).reshape(x.shape)
