"""Convolutions: both forms against each other, in parts as whole, places of things, and what dropout leaves out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from rlhf_jax import convolution
from rlhf_jax.convolution import PAPER, Convolutions
from rlhf_jax.networks import RewardNetwork, initialise

SHAPES = [
    (84, 84, 4, 7, 3),
    (26, 26, 16, 5, 2),
    (27, 27, 16, 5, 2),
    (12, 12, 16, 3, 1),
    (10, 10, 4, 3, 1),
    (30, 40, 3, 4, 2),
    (9, 8, 1, 2, 3),
]


def images(*shape, dtype=jnp.uint8):
    values = np.random.default_rng(0).integers(0, 256, shape)
    return jnp.asarray(values % 2 if dtype is bool else values, dtype)


@pytest.mark.parametrize("height, width, channels, size, stride", SHAPES)
def test_im2col_is_a_convolution(height, width, channels, size, stride):
    """Values and gradients, to 1e-5 of their scale."""
    x = jax.random.normal(jax.random.key(0), (3, height, width, channels))
    kernel = jax.random.normal(jax.random.key(1), (size, size, channels, 5)) / size

    def outcome(form):
        loss = lambda x, kernel: jnp.sin(form(x, kernel, stride)).sum()  # noqa: E731
        return tiny.quick_jit(jax.value_and_grad(loss, (0, 1)))(x, kernel)

    ours, theirs = outcome(convolution.im2col), outcome(convolution.lax_convolution)
    values = convolution.im2col(x, kernel, stride), convolution.lax_convolution(x, kernel, stride)
    for mine, other in zip(jax.tree.leaves((ours, values[0])), jax.tree.leaves((theirs, values[1])), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("form", [convolution.im2col, convolution.lax_convolution])
@pytest.mark.parametrize("height, width, channels, size, stride", SHAPES[:-1])
def test_every_pixel_is_seen(form, height, width, channels, size, stride):
    """Also those that are left over at the end; all other answers are those of a convolution without padding."""
    x = jax.random.uniform(jax.random.key(0), (1, height, width, channels))
    kernel = jnp.ones((size, size, channels, 1))
    answers, seen = tiny.quick_jit(jax.value_and_grad(lambda x: form(x, kernel, stride).sum()))(x)
    assert seen.min() >= 1
    np.testing.assert_allclose(answers, (x * seen).sum(), rtol=1e-5)
    numbers = ("NHWC", "HWIO", "NHWC")
    inner = jax.lax.conv_general_dilated(x, kernel, (stride, stride), "VALID", dimension_numbers=numbers)
    _, rows, columns, _ = inner.shape
    np.testing.assert_allclose(form(x, kernel, stride)[:, :rows, :columns], inner, rtol=1e-5)


def test_the_form_is_chosen_by_the_backend(monkeypatch):
    def forms(backend):
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        function = lambda x, kernel: convolution.convolve(x, kernel, 1)  # noqa: E731
        return str(jax.make_jaxpr(function)(jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 2, 4))))

    assert "conv_general_dilated" not in forms("cpu")
    assert "conv_general_dilated" in forms("gpu")


@pytest.mark.parametrize(
    "shape, features, layers",
    [((84, 84, 4), 8 * 8 * 16, 4), ((10, 10, 7), 8 * 8 * 16, 1), ((30, 40, 3), 12 * 17 * 16, 2)],
)
def test_eyes_for_every_size(shape, features, layers):
    network = convolution.eyes(shape, pooling="none")
    params = jax.eval_shape(lambda key: initialise(key, network, jnp.zeros(shape)), jax.random.key(0))
    assert jax.eval_shape(network.apply, params, images(2, 3, *shape)).shape == (2, 3, features)
    assert len(network.layers) == layers
    assert convolution.eyes(shape, pooling="keypoints").layers == network.layers[:1]
    strongest = convolution.eyes(shape, pooling="max")
    assert jax.eval_shape(lambda x: strongest.init_with_output(jax.random.key(0), x)[0], jnp.zeros(shape)).shape == (
        32,
    )


def test_the_papers_layers():
    """84 → 27 → 12 → 10 → 8, sixteen filters each (Christiano et al. 2017, A.2)."""
    assert PAPER == ((7, 3, 16), (5, 2, 16), (3, 1, 16), (3, 1, 16))
    sides = [84]
    for size, stride, _ in PAPER:
        sides += convolution.places((sides[-1],), size, stride)
    assert sides == [84, 27, 12, 10, 8]


def test_vectors_are_passed_on():
    network = convolution.eyes((3,), pooling="none")
    x = jnp.arange(6.0).reshape(2, 3)
    assert network.init(jax.random.key(0), x) == {}
    np.testing.assert_array_equal(network.apply({}, x), x)
    shares = network.apply({}, jnp.array([[0, 51, 255]], jnp.uint8))
    np.testing.assert_allclose(shares, [[0.0, 0.2, 1.0]], rtol=1e-6)


@pytest.mark.parametrize("count", [16, 17, 64])
def test_in_parts_as_whole(count, monkeypatch):
    """Parts of at most sixteen, of 288 numbers each, give the values and gradients of all at once."""
    network = Convolutions(((3, 2, 4), (2, 1, 3)))
    params = initialise(jax.random.key(0), network, jnp.zeros((9, 9, 2)))
    x = images(count, 9, 9, 2)

    def outcome():
        return tiny.quick_jit(jax.value_and_grad(lambda params: jnp.sin(network.apply(params, x)).sum()))(params)

    monkeypatch.setattr(convolution, "_PATCHES", 16 * 288)
    parts = outcome()
    monkeypatch.setattr(convolution, "_PATCHES", 10**9)
    for mine, other in zip(jax.tree.leaves(parts), jax.tree.leaves(outcome()), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count, parts", [(4608, None), (4609, 2), (9216, 2), (9217, 3)])
def test_parts_hold_what_fits_the_cache(count, parts, monkeypatch):
    """As many parts as are needed, and no loop where one is enough."""
    monkeypatch.setattr(convolution, "_PATCHES", 4608 * 288)
    network = Convolutions(((3, 2, 4), (2, 1, 3)))
    params = jax.eval_shape(lambda: initialise(jax.random.key(0), network, jnp.zeros((9, 9, 2))))
    x = jax.ShapeDtypeStruct((count, 9, 9, 2), jnp.uint8)
    jaxpr = jax.make_jaxpr(network.apply)(params, x)
    loops = [eqn.params["length"] for eqn in jaxpr.eqns if eqn.primitive.name == "scan"]
    assert loops == ([] if parts is None else [parts])


def test_agents_abreast_see_as_each_does_alone():
    """As in a `vmap` over agents, each with weights and pictures of its own."""
    network = Convolutions(((3, 2, 4), (2, 1, 3)))
    x = images(34, 9, 9, 2).reshape(2, 17, 9, 9, 2)
    keys = jax.random.split(jax.random.key(0), 2)
    params = jax.vmap(lambda key: initialise(key, network, jnp.zeros((9, 9, 2))))(keys)

    def outcome(params, x):
        return jax.value_and_grad(lambda params: jnp.sin(network.apply(params, x)).sum())(params)

    together, outcome = tiny.quick_jit(jax.vmap(outcome))(params, x), tiny.quick_jit(outcome)
    for i in range(2):
        alone = outcome(jax.tree.map(lambda leaf, i=i: leaf[i], params), x[i])
        for mine, other in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(mine[i], other, rtol=1e-4, atol=1e-5)


def test_bytes_are_shares_of_255_and_booleans_are_0_or_1():
    network = Convolutions(((3, 1, 4),))
    params = initialise(jax.random.key(0), network, jnp.zeros((6, 6, 2)))
    # Nearly black: the normalisation of the layer makes bright pictures alike, whatever their unit.
    grey, binary = images(5, 6, 6, 2) % 2, images(5, 6, 6, 2, dtype=bool)
    np.testing.assert_allclose(network.apply(params, grey), network.apply(params, grey / 255.0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(network.apply(params, binary), network.apply(params, binary * 1.0), atol=1e-6)


def test_layer_norm_against_numpy():
    x = np.random.default_rng(0).normal(3.0, 2.0, (4, 5, 6, 7)).astype(np.float32)
    flat = x.reshape(4, -1)
    expected = (flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True)
    np.testing.assert_allclose(convolution.layer_norm(x).reshape(4, -1), expected, rtol=1e-3, atol=1e-4)


def test_keypoints_of_one_bright_spot():
    """A filter that answers in row 0 and column 4 of 5 is there; one that answers nowhere is in the middle."""
    x = jnp.zeros((1, 5, 5, 2)).at[0, 0, 4, 0].set(50.0)
    rows, columns = convolution.keypoints(x)[0].reshape(2, 2)
    np.testing.assert_allclose(rows, [-(3**0.5), 0.0], atol=1e-5)
    np.testing.assert_allclose(columns, [3**0.5, 0.0], atol=1e-5)


def test_keypoints_between_two_spots():
    """Answers of 1 and 0: softmax weights e² and 1 with a sharpness of 2; three cells besides at −∞."""
    x = jnp.full((1, 1, 5, 1), -jnp.inf).at[0, 0, 0, 0].set(1.0).at[0, 0, 4, 0].set(0.0)
    share = np.exp(2.0) / (np.exp(2.0) + 1.0)
    _, column = convolution.keypoints(x)[0]
    assert column == pytest.approx(-(3**0.5) * share + 3**0.5 * (1 - share), abs=1e-5)


def test_the_strongest_answers_are_those_of_each_filter():
    x = (
        jnp.zeros((2, 3, 4, 2))
        .at[0, 1, 3, 0]
        .set(5.0)
        .at[0, 2, 0, 1]
        .set(-5.0)
        .at[1]
        .set(-2.0)
        .at[1, 0, 0, 1]
        .set(-1.0)
    )
    np.testing.assert_array_equal(convolution.strongest(x), [[5.0, 0.0], [-2.0, -1.0]])


def test_an_event_looks_the_same_wherever_it_is_and_whatever_else_there_is_less_of():
    """Under a maximum, unlike under a layer normalisation, a picture answers no less where another one is added."""
    event = np.random.default_rng(0).integers(0, 2, (3, 3, 4))
    network = convolution.eyes((10, 10, 4), pooling="max")
    params = initialise(jax.random.key(0), network, jnp.zeros((10, 10, 4)))
    shown = np.zeros((3, 10, 10, 4), bool)
    shown[0, 2:5, 2:5], shown[1, 4:7, 3:6] = event, event
    shown[2, 2:5, 2:5], shown[2, 7:] = event, True
    assert set(params["params"]) == {"kernel_0", "bias_0"}
    here, there, among_others = network.apply(params, jnp.asarray(shown))
    np.testing.assert_allclose(here, there, atol=1e-6)
    assert (among_others >= here - 1e-6).all()


def reward(dropout, groups, x, seed=0):
    network = RewardNetwork((8,), Convolutions(((3, 1, 16),), dropout))
    action = jnp.zeros((len(x), 2))
    params = initialise(jax.random.key(0), network, x[0] * 1.0, action[0])
    return network.apply(params, x, action, groups, rngs={"dropout": jax.random.key(seed)})


def test_dropout_is_shared_by_both_clips_of_a_pair():
    """Three pairs of four equal images each: equal within a pair, different between pairs and draws."""
    x = jnp.repeat(images(1, 6, 6, 2), 12, 0)
    first, second = reward(0.5, 3, x), reward(0.5, 3, x, seed=1)
    pairs = np.asarray(first).reshape(3, 4)
    np.testing.assert_array_equal(pairs, pairs[:, :1].repeat(4, 1))
    assert len(np.unique(pairs)) == 3
    assert not np.array_equal(first, second)


def test_no_dropout_in_prediction():
    x = images(12, 6, 6, 2)
    np.testing.assert_array_equal(reward(0.5, None, x), reward(0.0, None, x))
    np.testing.assert_array_equal(reward(0.0, 3, x), reward(0.0, None, x))


def test_dropout_keeps_the_mean():
    """The filters that are kept answer more: over many draws the features are what they are without."""
    network = Convolutions(((3, 1, 16),), 0.5)
    x = images(1, 6, 6, 2)
    params = initialise(jax.random.key(0), network, jnp.zeros((6, 6, 2)))
    draw = jax.vmap(lambda key: network.apply(params, x, 1, rngs={"dropout": key}))
    mean = draw(jax.random.split(jax.random.key(2), 4000)).mean(0)
    np.testing.assert_allclose(mean, network.apply(params, x), rtol=0.15, atol=0.03)
