"""What teachers answer, how well a perfect model would do, the people among the presets, and teachers of one's own."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rlhf_jax import config, teacher
from rlhf_jax.config import TeacherConfig
from rlhf_jax.normalisation import Moments
from rlhf_jax.teacher import Opinion

SCALE = Moments(count=jnp.array(4.0), mean=jnp.array(-100.0), m2=jnp.array(6400.0))  # a spread of 40
NUMBER = 20_000
EVERY = np.ones(NUMBER, bool)


def same(first, second, tie, silence, number=NUMBER):
    """The same opinion of so many pairs."""
    return Opinion(*(jnp.full(number, probability, jnp.float32) for probability in (first, second, tie, silence)))


def random_opinions(number=NUMBER):
    """Opinions of all sorts, in which each answer is as likely as any other."""
    return Opinion(*jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(4), number).T, jnp.float32))


def answer(opinion, asked=EVERY, seed=0):
    """Labels and weights in NumPy."""
    said = teacher.answer(jax.random.key(seed), opinion, jnp.asarray(asked))
    return np.asarray(said.label), np.asarray(said.weight)


def within(count, trials, probability):
    """Whether so many successes are no surprise (two-sided, once in a million)."""
    low, high = stats.binom.interval(1 - 1e-6, trials, probability)
    return low <= count <= high


@pytest.mark.parametrize("opinion", [(0.4, 0.3, 0.2, 0.1), (0.05, 0.05, 0.3, 0.6), (0.0, 0.5, 0.0, 0.5)])
def test_answers_come_as_often_as_the_opinion_says(opinion):
    label, weight = answer(same(*opinion))
    assert set(label) <= {0.0, 0.5, 1.0} and set(weight) <= {0.0, 1.0}
    for value, probability in zip((1.0, 0.0, 0.5), opinion, strict=False):
        assert within(((label == value) & (weight == 1)).sum(), NUMBER, probability)
    assert within((weight == 0).sum(), NUMBER, opinion[3])


@pytest.mark.parametrize(("opinion", "label"), [((1, 0, 0, 0), 1.0), ((0, 1, 0, 0), 0.0), ((0, 0, 1, 0), 0.5)])
def test_a_teacher_who_is_sure_always_says_the_same(opinion, label):
    labels, weight = answer(same(*opinion))
    assert (labels == label).all() and (weight == 1).all()
    assert (answer(same(0, 0, 0, 1))[1] == 0).all()


def test_an_opinion_that_is_no_number_is_not_mistaken_for_silence():
    opinion = Opinion(*jnp.array([[jnp.nan, 1.0], [jnp.nan, 0.0], [0.0, 0.0], [0.0, 0.0]]))
    label, weight = answer(opinion, np.ones(2, bool))
    np.testing.assert_array_equal(label, [np.nan, 1.0])
    assert weight.tolist() == [1.0, 1.0]


def test_queries_are_answered_independently_of_each_other():
    label, _ = answer(same(0.4, 0.6, 0, 0))
    assert within(((label[::2] == 1) & (label[1::2] == 1)).sum(), NUMBER // 2, 0.16)


def test_what_is_not_asked_has_no_weight():
    said = teacher.answer(jax.random.key(0), same(0.5, 0.5, 0, 0, 4), jnp.array([True, False, True, False]))
    assert said.weight.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert said.weight.dtype == said.label.dtype == jnp.float32
    assert not said.label.weak_type  # else `absorb` would be compiled again for answers that come from the host


def test_answers_depend_on_the_key_and_on_nothing_else():
    opinion = same(0.5, 0.5, 0, 0)
    np.testing.assert_array_equal(answer(opinion)[0], answer(opinion)[0])
    assert within((answer(opinion)[0] != answer(opinion, seed=1)[0]).sum(), NUMBER, 0.5)


@pytest.mark.parametrize("error_rate", [0.0, 0.1, 1.0])
def test_half_of_the_random_answers_are_wrong(error_rate):
    """Slot 0 is better in the even pairs, slot 1 in the odd ones; errors favour neither."""
    better = np.arange(NUMBER) % 2
    rewards = jax.nn.one_hot(better, 2)[..., None] * jnp.ones((1, 1, 3))
    label, _ = answer(teacher.opinion(rewards, SCALE, config=TeacherConfig(error_rate=error_rate)))
    for slot in (0, 1):
        assert within((label == slot)[better == slot].sum(), NUMBER // 2, error_rate / 2)


def test_ceiling_literals():
    """The oracle is never wrong, a coin half of the time; without answers there is nothing to reach."""
    for opinion, expected in (
        ((1, 0, 0, 0), (1.0, 0.0)),
        ((0.5, 0.5, 0, 0), (0.5, -0.69314718)),
        ((0.25, 0.75, 0, 0), (0.75, -0.56233514)),
        ((0.2, 0.6, 0, 0.2), (0.75, -0.56233514)),
        ((0, 0, 1, 0), (np.nan, -0.69314718)),
        ((0, 0, 0, 1), (np.nan, np.nan)),
    ):
        np.testing.assert_allclose(teacher.ceiling(same(*opinion, 3), jnp.ones(3, bool)), expected, rtol=1e-6)
    assert np.isnan(teacher.ceiling(same(1, 0, 0, 0, 3), jnp.zeros(3, bool))).all()


def test_ceiling_against_numpy():
    opinion, asked = random_opinions(50), np.arange(50) % 3 > 0
    right = decided = log_likelihood = answered = 0.0
    rows = zip(
        *(np.asarray(p, float) for p in (opinion.first, opinion.second, opinion.tie, opinion.silence)), strict=True
    )
    for row, (first, second, tie, _) in enumerate(rows):
        if asked[row]:
            right, decided = right + max(first, second), decided + first + second
            mean = (first + tie / 2) / (first + second + tie)
            answered += first + second + tie
            log_likelihood += (first + tie / 2) * np.log(mean) + (second + tie / 2) * np.log(1 - mean)
    expected = right / decided, log_likelihood / answered
    np.testing.assert_allclose(teacher.ceiling(opinion, jnp.asarray(asked)), expected, rtol=1e-5)


def test_model_that_predicts_the_expected_label_reaches_the_ceiling():
    """Within 4.9 standard errors, once in a million; and one that knows less does not."""
    opinion, asked = random_opinions(), np.arange(NUMBER) % 4 > 0
    label, weight = answer(opinion, asked)
    accuracy, log_likelihood = (float(x) for x in teacher.ceiling(opinion, jnp.asarray(asked)))
    model = np.asarray(opinion.expected_label, float)
    right = ((model > 0.5) == (label > 0.5))[(weight > 0) & (label != 0.5)]
    assert within(right.sum(), right.size, accuracy)

    def reached(model):
        each = (label * np.log(model) + (1 - label) * np.log(1 - model))[weight > 0]
        return each.mean(), each.std() / np.sqrt(each.size)

    mean, error = reached(model)
    assert abs(mean - log_likelihood) < 4.9 * error
    mean, error = reached(0.5 * model + 0.25)
    assert mean < log_likelihood - 4.9 * error


def preferred(name, gaps):
    """The probability by which this preset prefers slot 0, for gaps between the returns in spreads."""
    rewards = jnp.stack([40.0 * jnp.asarray(gaps, jnp.float32) - 100.0, jnp.full(len(gaps), -100.0)], -1)[..., None]
    opinion = teacher.opinion(rewards, SCALE, config=config.TEACHER_PRESETS[name])
    assert not opinion.tie.any() and not opinion.silence.any()
    return np.asarray(opinion.first, float)


@pytest.mark.parametrize(("name", "agreement", "accuracy"), [("person_90", 0.90, 0.93), ("person_80", 0.80, 0.86)])
def test_people_agree_with_themselves_as_often_as_their_names_say(name, agreement, accuracy):
    """By quadrature over pairs of independent normal returns, whose gap has a standard deviation of √2 spreads."""
    gaps = np.linspace(-12.0, 12.0, 24_000)  # no gap is 0
    density = stats.norm.pdf(gaps, scale=np.sqrt(2))
    p = preferred(name, gaps)
    assert density.sum() * (gaps[1] - gaps[0]) == pytest.approx(1.0, abs=1e-6)
    assert (density * (p**2 + (1 - p) ** 2)).sum() / density.sum() == pytest.approx(agreement, abs=0.003)
    right = np.where(gaps > 0, p, 1 - p)
    assert (density * right).sum() / density.sum() == pytest.approx(accuracy, abs=0.005)


@pytest.fixture
def teachers(monkeypatch):
    """The registry, which forgets what a test adds to it."""
    monkeypatch.setattr(teacher, "TEACHERS", dict(teacher.TEACHERS))
    return teacher.TEACHERS


def test_teacher_of_the_example_is_known_by_its_name(teachers):
    """It judges by the last step only, with a temperature of a tenth of the spread: 4 here."""
    (example,) = doctest.DocTestFinder(recurse=False).find(
        teacher.register_teacher, "register_teacher", globs={"teacher": teacher}
    )
    assert len(example.examples) == 2
    assert doctest.DocTestRunner().run(example, clear_globs=False).failed == 0
    rewards = jnp.array([[[0.0, 4.0], [9.0, 0.0]]])
    opinion = teacher.opinion(rewards, SCALE, config=TeacherConfig(name="hasty"))
    np.testing.assert_allclose(opinion.first, [0.7310585786], rtol=1e-6)
    teacher.check(TeacherConfig(name="hasty"))
    with pytest.raises(ValueError, match=r"^there is a teacher 'hasty' already; all: standard, hasty$"):
        teacher.register_teacher("hasty", teacher.standard)


@pytest.mark.parametrize("name", config.TEACHER_PRESETS)
def test_presets_pass_the_check(name):
    teacher.check(config.TEACHER_PRESETS[name])


def saying(first, second, tie=0.0, silence=0.0):
    """A teacher who says this to whatever it is asked."""

    def fixed(true_reward, scale, config):
        parts = (jnp.asarray(part) for part in (first, second, tie, silence))
        return Opinion(*(jnp.broadcast_to(part, true_reward.shape[:-2]) for part in parts))

    return fixed


def one_is_wrong(true_reward, scale, config):
    """Says 1.5 in all about the last pair."""
    fair = saying(0.5, 0.5)(true_reward, scale, config)
    return fair.replace(tie=fair.tie.at[-1].set(0.5))


BROKEN = {
    "NaN": (saying(jnp.nan, 0.5), ["first = [nan", "a probability for each pair"]),
    "negative": (saying(1.25, -0.25), ["first = [1.25", "a probability for each pair"]),
    "below 0": (saying(1.0, 0.25, -0.25), ["tie = [-0.25", "a probability for each pair"]),
    "short": (saying(0.5, 0.25), ["sum to 0.75, not 1"]),
    "one": (one_is_wrong, ["sum to 1.5, not 1"]),
    "steps": (lambda r, scale, config: teacher.oracle(jnp.swapaxes(r, -1, -2)), ["first", "of shape (32, 5)"]),
    "number": (lambda r, scale, config: teacher.oracle(r.sum(-1)).replace(silence=0.0), ["silence", "of shape ()"]),
    "array": (lambda r, scale, config: r.sum(-1), ["returns no Opinion"]),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_teacher_that_gives_no_probabilities_is_refused_in_one_line(kind, teachers):
    broken, words = BROKEN[kind]
    teacher.register_teacher("broken", broken)
    with pytest.raises(ValueError) as error:
        teacher.check(TeacherConfig(name="broken"))
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in ["'broken'", *words])


def test_unknown_teacher_is_refused_with_those_that_are_known(teachers):
    teacher.register_teacher("mine", saying(0.5, 0.5))
    with pytest.raises(ValueError, match=r"^teacher.name = 'yours'; it must be one of standard, mine$"):
        teacher.check(TeacherConfig(name="yours"))
