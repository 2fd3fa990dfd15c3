"""Running moments against NumPy over everything at once."""

import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import normalisation


def stream(batches, shape):
    """The moments after all these batches."""
    moments = normalisation.init(shape)
    for batch in batches:
        moments = normalisation.update(moments, jnp.asarray(batch, jnp.float32))
    return moments


@pytest.mark.parametrize("splits", [[], [1], [30], [1, 2, 3, 59], [7, 20, 41], list(range(1, 60))])
def test_any_split_into_batches_gives_numpys_moments(splits):
    samples = np.random.default_rng(0).normal([5.0, -300.0, 0.0], [0.1, 20.0, 3.0], (60, 3))
    moments = stream(np.split(samples, splits), (3,))
    assert moments.count == 60
    np.testing.assert_allclose(moments.mean, samples.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.std, samples.std(0), rtol=1e-3)


def test_batches_may_have_several_axes_and_samples_none():
    rng = np.random.default_rng(1)
    batches = [rng.exponential(2.0, (4, 5)), rng.exponential(9.0, (3, 2, 6))]
    everything = np.concatenate([b.ravel() for b in batches])
    moments = stream(batches, ())
    assert moments.count == 56
    np.testing.assert_allclose(moments.mean, everything.mean(), rtol=1e-5)
    np.testing.assert_allclose(moments.std, everything.std(), rtol=1e-5)


def test_samples_may_have_several_axes():
    batches = np.random.default_rng(2).normal(size=(3, 8, 2, 4))
    moments = stream(batches, (2, 4))
    np.testing.assert_allclose(moments.mean, batches.reshape(24, 2, 4).mean(0), atol=1e-6)
    np.testing.assert_allclose(moments.std, batches.reshape(24, 2, 4).std(0), rtol=1e-5)


def test_literal_moments():
    """0, 2 | 4, 10: mean 4, squared deviations 16 + 4 + 0 + 36 = 56, variance 14."""
    moments = stream([[0.0, 2.0], [4.0, 10.0]], ())
    assert (moments.count, moments.mean, moments.m2) == (4.0, 4.0, 56.0)
    np.testing.assert_allclose(moments.std, 3.7416574, rtol=1e-6)


def test_whole_numbers_are_counted_as_numbers():
    moments = normalisation.update(normalisation.init(), jnp.array([1, 2], jnp.uint8))
    assert (moments.mean, moments.m2) == (1.5, 0.5)


def test_std_is_one_before_anything_has_varied():
    assert normalisation.init((2,)).std.tolist() == [1.0, 1.0]
    moments = stream([np.stack([np.full(9, 3.7), np.arange(9.0)], -1)] * 3, (2,))
    assert moments.std[0] == 1.0
    np.testing.assert_allclose(moments.std[1], 2.5819889, rtol=1e-5)  # √(60/9)


@pytest.mark.parametrize("constant", [1000.1, 12345.6])
def test_std_of_a_large_constant_is_one(constant):
    """Rounding of the mean must not be taken for variation."""
    assert stream([np.full((200, 16), constant)] * 2, ()).std == 1.0


def test_normalise_literal_and_limit():
    moments = normalisation.Moments(count=jnp.array(4.0), mean=jnp.array([1.0, 0.0]), m2=jnp.array([16.0, 1.0]))
    values = jnp.array([[1.0, 0.0], [5.0, -1.0], [1e6, -1e6]])
    np.testing.assert_allclose(normalisation.normalise(moments, values), [[0, 0], [2, -2], [10, -10]])
    np.testing.assert_allclose(normalisation.normalise(moments, values, limit=1.5)[1:], [[1.5, -1.5], [1.5, -1.5]])


def test_observations_are_left_as_they_are_until_something_is_known_of_their_scale():
    """Also far from zero: a position in metres is not cut off at ten."""
    far = jnp.array([[500.0, -3.0]])
    nothing = normalisation.init((2,))
    np.testing.assert_array_equal(normalisation.normalise_observations(nothing, far), far)
    known = normalisation.update(nothing, jnp.array([[0.0, 0.0], [2.0, 2.0]]))
    np.testing.assert_allclose(normalisation.normalise_observations(known, far), [[10.0, -4.0]])


def test_normalised_stream_has_zero_mean_and_unit_std():
    samples = jnp.asarray(np.random.default_rng(3).normal(-40.0, 7.0, (5, 100, 2)), jnp.float32)
    normal = np.asarray(normalisation.normalise(stream(samples, (2,)), samples)).reshape(-1, 2)
    np.testing.assert_allclose(normal.mean(0), [0.0, 0.0], atol=1e-4)
    np.testing.assert_allclose(normal.std(0), [1.0, 1.0], rtol=1e-4)


@pytest.mark.parametrize("shape", [(), (3,)])
def test_chosen_samples_only_against_numpy(shape):
    """Two batches with two axes; what is not chosen may be anything."""
    rng, moments, kept = np.random.default_rng(4), normalisation.init(shape), []
    for share in (0.3, 0.8):
        batch, where = rng.normal(-50.0, 4.0, (7, 5, *shape)), rng.random((7, 5)) < share
        where[0, 0] = False
        kept.append(batch[where])
        batch[~where] = rng.choice([1e6, -1e6, np.nan], (~where).sum())[(...,) + (None,) * len(shape)]
        moments = normalisation.update(moments, jnp.asarray(batch, jnp.float32), jnp.asarray(where))
    kept = np.concatenate(kept)
    assert moments.count == len(kept) < 70
    np.testing.assert_allclose(moments.mean, kept.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.std, kept.std(0), rtol=1e-4)


def test_nothing_chosen_leaves_the_stream_as_it_was():
    nothing = jnp.zeros((2, 3), bool)
    for moments in (normalisation.init(), stream([[0.0, 2.0], [4.0, 10.0]], ())):
        after = normalisation.update(moments, jnp.full((2, 3), 7.0), nothing)
        assert (after.count, after.mean, after.m2) == (moments.count, moments.mean, moments.m2)
    assert normalisation.update(normalisation.init(), jnp.full((2, 3), 7.0), nothing).std == 1.0


def test_chosen_samples_that_are_equal_do_not_vary():
    where = jnp.arange(200) > 3
    batch = jnp.where(where, 12345.6, 0.0)
    moments = normalisation.update(normalisation.init(), batch, where)
    assert moments.std == 1.0 and moments.mean == jnp.float32(12345.6)


def test_all_chosen_is_the_same_as_no_choice():
    batch = jnp.asarray(np.random.default_rng(5).normal(3.0, 2.0, (4, 6, 2)), jnp.float32)
    plain = normalisation.update(normalisation.init((2,)), batch)
    chosen = normalisation.update(normalisation.init((2,)), batch, jnp.ones((4, 6), bool))
    assert plain.count == chosen.count == 24
    np.testing.assert_allclose(chosen.mean, plain.mean, rtol=1e-6)
    np.testing.assert_allclose(chosen.m2, plain.m2, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e6])
def test_spread_is_in_the_units_of_the_values_however_small(scale):
    values = np.random.default_rng(0).normal(-3.0, 2.0, 500)
    moments = normalisation.update(normalisation.init(), jnp.asarray(scale * values, jnp.float32))
    assert moments.std == pytest.approx(scale * values.std(), rel=1e-4)
