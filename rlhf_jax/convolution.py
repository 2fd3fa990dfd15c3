"""Convolutions over images, in the form that the backend is fast at."""

import math
from collections.abc import Callable
from functools import partial

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

POOLINGS = ("none", "keypoints", "max")
"""What is kept of the answers of the last layer: all, where each filter answers, or how strongly it does anywhere."""

_PATCHES = 300_000  # numbers: those of two of Atari's pictures, of a hundred and thirty of MinAtar's
_SHARPNESS = 2.0  # κ
_REACH = math.sqrt(3.0)  # Places from −√3 to √3 have unit standard deviation.


def eyes(shape: tuple[int, ...], *, pooling: str, dropout: float = 0.0) -> "Convolutions":
    """Returns the convolutions for observations of this shape: none for vectors.

    Args:
      shape: of an observation.
      pooling: as of `Convolutions`. For the places of things the first layer is enough. Where a filter tells one number
        only, the last layer has twice as many.
      dropout: as of `Convolutions`.
    """
    if len(shape) != 3:
        return Convolutions(())
    side = min(shape[:2])
    layers = PAPER if side >= 48 else _MIDDLE if side >= 16 else _SMALL
    if pooling == "keypoints":
        layers = layers[:1]
    elif pooling == "max":
        size, stride, filters = layers[-1]
        layers = (*layers[:-1], (size, stride, 2 * filters))
    return Convolutions(layers, dropout, pooling)


def places(shape: tuple[int, ...], size: int, stride: int) -> list[int]:
    """Returns in how many rows and columns a kernel of this size answers, so that it has seen every pixel.

    Of 84 × 84 pixels a kernel of 7 × 7 with stride 3 that stays within them never sees the last two rows and columns;
    a dot that has gone there is out of sight.
    """
    return [math.ceil((side - size) / stride) + 1 for side in shape[:2]]


def is_one_place(shape: tuple[int, ...]) -> bool:
    """Returns whether keypoints of images of this shape could only be in one row, or in one column."""
    size, stride, _ = eyes(shape, pooling="keypoints").layers[0]
    return min(places(shape, size, stride)) < 2


def im2col(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns the convolution as one matrix product of patches and weights; see `convolve`.

    On a CPU, `lax.conv` with weights that differ in a `vmap`, and its gradient in a `scan`, take many times as long.
    The patches are cut out of squares of stride × stride pixels: nine pieces of a 7 × 7 kernel with stride 3 instead
    of 49, which compile in half the time, and are copied sooner.
    """
    size, channels = kernel.shape[0], kernel.shape[2]
    reach, (height, width) = math.ceil(size / stride), places(images.shape[1:], size, stride)
    squares = _squares(images, stride, height - 1 + reach, width - 1 + reach)
    patches, weights = [], []
    for i in range(reach):
        for j in range(reach):
            here = kernel[i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
            rows, columns = here.shape[:2]
            piece = squares[:, i : i + height, j : j + width, :rows, :columns]
            patches.append(piece.reshape(-1, height, width, rows * columns * channels))
            weights.append(here.reshape(-1, kernel.shape[-1]))
    return jnp.concatenate(patches, -1).astype(kernel.dtype) @ jnp.concatenate(weights)


def _squares(images: jax.Array, side: int, rows: int, columns: int) -> jax.Array:
    """Returns `[B, H, W, C]` images as `[B, rows, columns, side, side, C]`, filled up with zeros."""
    batch, height, width, channels = images.shape
    images = jnp.pad(images, ((0, 0), (0, rows * side - height), (0, columns * side - width), (0, 0)))
    return images.reshape(batch, rows, side, columns, side, channels).swapaxes(2, 3)


def lax_convolution(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns the convolution by `lax.conv`, which accelerators are fast at; see `convolve`."""
    images, numbers = images.astype(kernel.dtype), ("NHWC", "HWIO", "NHWC")
    size, sides = kernel.shape[0], images.shape[1:3]
    ends = [(n - 1) * stride + size - side for n, side in zip(places(sides, size, stride), sides, strict=True)]
    padding = [(0, end) for end in ends]
    return jax.lax.conv_general_dilated(images, kernel, (stride, stride), padding, dimension_numbers=numbers)


def convolve(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns the convolution of images with a kernel; zeros are added below and on the right, if pixels would be left.

    Args:
      images: `[B, H, W, C]`, of any type.
      kernel: `[K, K, C, F]`.
      stride: in both directions.

    Returns:
      `[B, ⌈(H − K) / stride⌉ + 1, ⌈(W − K) / stride⌉ + 1, F]`.
    """
    form = im2col if jax.default_backend() == "cpu" else lax_convolution
    return form(images, kernel, stride)


class Convolutions(nn.Module):
    """Layers of convolutions: `[..., H, W, C]` images to `[..., F]` features; of vectors, bytes become shares.

    Each is followed by layer normalisation and a leaky ReLU with slope 0.01. Batch normalisation, as in the paper,
    would need statistics that are right for the pairs of a fit and for the rollout of a policy that has moved on; that
    of a layer is of one image, so that both clips of a pair are always treated alike. Before a maximum there is none:
    what a filter answers to a place must not depend on what else is in the picture.

    layers: the convolutions.
    dropout: share of the filters of each layer that are left out when `groups` is given.
    pooling: one of `POOLINGS`.
    """

    layers: Layers
    dropout: float = 0.0
    pooling: str = "none"

    @nn.compact
    def __call__(self, images: jax.Array, groups: int | None = None) -> jax.Array:
        """Returns the features.

        Args:
          images: `[..., H, W, C]`; bytes are divided by 255, and all else is taken as it is.
          groups: in how many consecutive groups of images the same filters are left out, such as the pairs of a batch.
        """
        if not self.layers:
            return images / jnp.float32(255) if images.dtype == jnp.uint8 else images
        channels, weights = images.shape[-1], []
        for i, (size, _, filters) in enumerate(self.layers):
            kernel = self.param(f"kernel_{i}", nn.initializers.he_normal(), (size, size, channels, filters))
            normalised = self.pooling != "max"
            gain = self.param(f"gain_{i}", nn.initializers.zeros, (filters,)) if normalised else None
            bias = self.param(f"bias_{i}", nn.initializers.zeros, (filters,))
            weights.append((kernel, gain, bias))
            channels = filters
        if images.dtype == jnp.uint8:  # Patches of bytes are a quarter as large as those of floats.
            weights[0] = (weights[0][0] / 255.0, *weights[0][1:])
        lead = images.shape[:-3]
        flat = images.reshape(-1, *images.shape[-3:])
        masks = self._masks(len(flat), groups) if groups and self.dropout else [None] * len(weights)
        forward = partial(self._forward, weights)
        return _in_parts(forward, flat, masks, self._patch_numbers(images.shape[-3:])).reshape(*lead, -1)

    def _patch_numbers(self, shape: tuple[int, ...]) -> int:
        """Returns the size of the patches of an image in the layer that has the largest."""
        height, width, channels = shape
        sizes = []
        for size, stride, filters in self.layers:
            height, width = places((height, width), size, stride)
            sizes.append(height * width * size * size * channels)
            channels = filters
        return max(sizes)

    def _masks(self, num_images: int, groups: int) -> list[jax.Array]:
        """Returns factors `[B, 1, 1, F]` of each layer: 0 for filters that are left out, the same within a group."""
        kept = 1.0 - self.dropout
        keys = jax.random.split(self.make_rng("dropout"), len(self.layers))
        masks = [
            jax.random.bernoulli(key, kept, (groups, 1, 1, filters)) / kept
            for key, (_, _, filters) in zip(keys, self.layers, strict=True)
        ]
        return [jnp.repeat(mask, num_images // groups, 0) for mask in masks]

    def _forward(self, weights: list, x: jax.Array, masks: list) -> jax.Array:
        for (kernel, gain, bias), mask, (_, stride, _) in zip(weights, masks, self.layers, strict=True):
            x = convolve(x, kernel, stride)
            x = x if gain is None else layer_norm(x) * (1.0 + gain[None, None, None])
            x = nn.leaky_relu(x + bias[None, None, None], 0.01)
            x = x if mask is None else x * mask
        if self.pooling == "keypoints":
            return keypoints(x)
        return strongest(x) if self.pooling == "max" else x.reshape(len(x), -1)


def keypoints(x: jax.Array) -> jax.Array:
    """Returns where in an image each filter answers: the mean place under a softmax of its answers.

        p = softmax(κ x),   places Σ p·row, Σ p·column

    A network that sees the place of a ball as a number learns from far fewer labels what is good about it than one that
    sees a thousand answers, most of which tell one image from another.

    Args:
      x: `[B, H, W, F]` answers.

    Returns:
      `[B, 2 F]` rows and columns, of about unit standard deviation over uniform places.

    Reference: Levine et al. 2016, "End-to-end training of deep visuomotor policies", §5.1.
    """
    _, height, width, _ = x.shape
    rows, columns = (jnp.linspace(-_REACH, _REACH, side)[None, :, None] for side in (height, width))
    # On a CPU, sums over rows and columns take half the time of a softmax over places and two matrix products.
    weight = jnp.exp(_SHARPNESS * (x - jax.lax.stop_gradient(x.max((1, 2), keepdims=True))))
    in_row, in_column = weight.sum(2), weight.sum(1)
    total = in_row.sum(1)
    return jnp.concatenate([(in_row * rows).sum(1) / total, (in_column * columns).sum(1) / total], -1)


def strongest(x: jax.Array) -> jax.Array:
    """Returns how strongly each filter answers where it answers most, `[B, F]` of `[B, H, W, F]`.

    What is learnt of an event in one place, such as a ball that meets a brick, then holds in every place, and among
    other things than those that were around it in the clips.

    Reference: Oquab et al. 2015, "Is object localization for free?", §3.
    """
    return x.max((1, 2))


def layer_norm(x: jax.Array) -> jax.Array:
    """Returns `[B, H, W, F]` with zero mean and unit variance over each image."""
    x = x - x.mean((1, 2, 3), keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean((1, 2, 3), keepdims=True) + 1e-5)


def _in_parts(function: Callable, images: jax.Array, masks: list, patch_numbers: int) -> jax.Array:
    """Applies a function to images and what belongs to each; on a CPU to a few images at a time.

    The patches of a few images stay in the cache: forward and backward pass over sixteen of Atari's at a time take
    nearly twice as long as over two. The backward pass makes the patches anew, because storing them for all would be as
    slow.

    Args:
      function: of images and masks.
      images: `[B, H, W, C]`.
      masks: `[B, ...]` of each layer, or None.
      patch_numbers: numbers in the patches of one image.
    """
    count = len(images)
    num_parts = math.ceil(count / max(1, _PATCHES // patch_numbers))
    if jax.default_backend() != "cpu" or num_parts < 2:
        return function(images, masks)
    size = math.ceil(count / num_parts)
    # The last part is filled up with copies, which are dropped again.
    missing = num_parts * size - count
    whole = jax.tree.map(lambda x: jnp.concatenate([x, x[:missing]]), (images, masks))
    parts = jax.tree.map(lambda x: x.reshape(num_parts, size, *x.shape[1:]), whole)
    outputs = jax.lax.map(jax.checkpoint(lambda part: function(*part), prevent_cse=False), parts)
    return outputs.reshape(-1, outputs.shape[-1])[:count]
