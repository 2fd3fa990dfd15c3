"""Words for numbers that are chosen: what is said, where the thresholds lie, and what is left unsaid."""

import numpy as np
import pytest
import synthetic_runs

from experiments import results
from experiments.reporting import reward_verdicts, verdicts

SEEDS = np.array([0.90, 0.91, 0.93])


def curve(*values, points=8):
    """`[S, points]` constant curves."""
    return np.tile(np.array(values, float)[:, None], points)


def test_tail_is_the_mean_of_the_known_ones_of_the_last_five():
    values = np.array([[9.0, 9.0, 1.0, 2.0, 3.0, np.nan, 6.0], [9.0] + 6 * [np.nan]])
    np.testing.assert_array_equal(verdicts.tail(values), [3.0, np.nan])


@pytest.mark.parametrize(
    "values, expected",
    [([0.5], "0.50"), ([-1.0, 1.0, 5.0], "1.00 [−1.00, 5.00]"), ([0.301, 0.299], "0.30"), ([np.nan], "–")],
)
def test_over_seeds(values, expected):
    assert verdicts.over_seeds(np.array(values)) == expected


def test_labels_are_counted_with_ties_and_silences():
    ties, silences, answers = curve(0, 2, points=5), curve(5, 0, points=5), curve(20, 20, points=5)
    used = np.array([[20.0, 100.0], [20.0, 100.0]])
    said = verdicts.labels(used, answers, ties, silences, budget=100)
    assert said.text == "Labels: 100. 5.0 % of the answers were ties. 11.1 % of the queries got no answer."
    assert not said.notable
    assert verdicts.labels(used, answers, None, 0 * silences, budget=120).text == (
        "Labels: 100 of a budget of 120. Every query got an answer."
    )
    # 300 labels came from an earlier run.
    inherited = verdicts.labels(used + 300, answers, answers, None, budget=400)
    assert inherited.text == "Labels: 400. 100.0 % of the answers were ties, which teach less than choices."
    assert inherited.notable


def test_returns_are_given_with_their_interval_and_against_another_condition():
    better = np.array([-150.0, -151.0, -152.0, -153.0, -154.0])
    said = verdicts.returns(better - 50.0, normalised=0.936, reference=("full", better))
    assert said.brief == "return −202.0 [−203.7, −200.3]"
    assert said.text == (
        "The trained policy, without exploring, earns a true return of −202.0 [−203.7, −200.3] in an episode, the "
        "worst of 5 seeds −204.0; 94 % of the way from random actions to the optimum. That is 50.0 less than full; the "
        "95 % interval of the difference is [−50.0, −50.0]."
    )


def test_returns_that_chance_may_explain_are_not_called_different():
    mixed = np.array([-100.0, -200.0, -100.0, -200.0, -150.0])
    text = verdicts.returns(mixed, reference=("full", mixed[::-1] + 1.0)).text
    assert "That is 1.0 less than full, but the 95 % interval of the difference, [−" in text and "includes 0." in text


def test_returns_of_few_seeds_warn_and_lost_ones_are_counted():
    assert verdicts.returns(np.array([-150.0])).text.endswith(
        "−150.0 in an episode. One seed says nothing about chance."
    )
    assert verdicts.returns(np.array([-150.0, -160.0])).text.endswith("Of 2 seeds such intervals are too narrow.")
    lost = verdicts.returns(np.array([-150.0, np.nan]), reference=("full", np.zeros(2)), acting="It")
    assert lost.text.startswith("It earns a true return of −150.0 in")
    assert "That of 1 more is not known." in lost.text and "full" not in lost.text


def alarm(*starts, points=30, stop=30):
    """`[S, points]` alarms from an iteration, counted from 1, on; none for 0."""
    time = np.arange(1, points + 1)
    return np.stack([(time >= start) & (time <= stop) & (start > 0) for start in starts])


def test_exploitation_names_seeds_and_iterations():
    known = np.zeros((3, 30))
    said = verdicts.exploitation(known, known, alarm(22, 0, 27))
    assert said.brief == "the proxy rose while the true return fell from iteration 22 in 2 of 3 seeds"
    assert (
        "in 2 of 3 seeds, first at 22, 27; at the end the alarm is still on in 2 of them." in said.text and said.notable
    )
    over = verdicts.exploitation(known, known, alarm(22, 0, 22, stop=25))
    assert over.text == (
        "The proxy rose while the true return fell from iteration 22 to 25 in 2 of 3 seeds. After that there is no "
        "alarm any more."
    )
    alone = verdicts.exploitation(known[:1], known[:1], alarm(22))
    assert alone.brief == "the proxy rose while the true return fell from iteration 22"
    assert "from iteration 22; the alarm is still on." in alone.text


def test_no_exploitation_is_no_sign_of_it_and_short_runs_are_not_judged():
    known = np.zeros((2, 30))
    said = verdicts.exploitation(known, known, alarm(0, 0))
    assert said.text.startswith("No sign of the learnt reward being exploited: in no seed") and not said.notable
    assert said.brief == "no sign of exploitation"
    short = verdicts.exploitation(known[:, :19], known[:, :19], alarm(0, 0, points=19))
    assert short.text == "19 iterations are too few to tell; 20 are needed." and not short.brief
    rare = np.where(np.isin(np.arange(30), (1, 19)), 0.0, np.nan) + known
    said = verdicts.exploitation(known, rare, alarm(0, 0))
    assert said.text == "In 2 of 30 iterations did an episode end, too few to tell." and not said.brief


def test_alarms_are_raised_in_the_seeds_that_exploit():
    proxy = 2.0 * np.arange(synthetic_runs.ITERATIONS) + synthetic_runs.wiggle(1.0)
    raised = results.alarms(proxy, synthetic_runs.exploited())
    assert raised.any(1).tolist() == [False, False, True, True]
    assert not raised[:, :21].any() and raised[2:, -1].all()
    # Where an episode ends in every sixth iteration only, the last return that is known counts.
    sixth = np.arange(synthetic_runs.ITERATIONS) % 6 == 0
    rarely = results.alarms(proxy, np.where(sixth, synthetic_runs.exploited(), np.nan))
    assert rarely.any(1).tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    "validation, places, notable",
    [
        ((0.22, 0.26, 0.30), "3 of 3 seeds within", False),
        ((0.21, 0.26, 0.31), "1 of 3 seeds above, 1 of 3 seeds within, 1 of 3 seeds below", False),
        ((0.26, 0.31, 0.40), "2 of 3 seeds above, 1 of 3 seeds within", True),
    ],
)
def test_fit_is_judged_by_the_band(validation, places, notable):
    options = {"low": 1.09, "high": 1.51, "unit": "nats"}
    said = verdicts.fit(curve(0.2, 0.2, 0.2), curve(*validation), accuracy=None, l2=curve(1e-4), **options)
    assert f"Against the band of 1.09 to 1.51 that an adaptive L2 aims at: {places}." in said.text
    assert ("overfits" in said.text) == ("above" in places) and said.notable == notable
    assert said.text.endswith("L2 coefficient at the end: 1.0e−04.")


def test_fit_gives_losses_ratio_and_accuracy():
    options = {"low": 1.1, "high": 1.5, "unit": "nats", "l2": None}
    said = verdicts.fit(curve(0.2), curve(0.25), accuracy=curve(0.875), **options)
    assert said.text.startswith("Training loss 0.20, validation loss 0.25 nats: a ratio of 1.25. Against")
    assert "on labels that they are not fitted to: 0.88." in said.text
    assert "says nothing" in verdicts.fit(curve(0.0), curve(0.25), accuracy=None, **options).text


def test_policy_tells_its_entropy_and_a_large_step():
    entropy = np.array([[np.nan, 2.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5]])
    said = verdicts.policy(entropy, curve(0.01))
    assert (
        said.text
        == "Entropy of the policy: 2.00 at first, 0.50 nats at the end. KL divergence of an update: 0.0100 nats."
    )
    assert not said.notable and verdicts.policy(entropy, curve(0.06)).notable


@pytest.mark.parametrize(
    "reached, ceiling, words, notable",
    [
        (0.91, 0.93, "nearly all", False),
        (0.85, 0.93, "most", False),
        (0.75, 0.95, "a part", False),
        (0.60, 1.00, "little", True),
        (0.45, 1.00, "nothing", True),
    ],
)
def test_accuracy_is_judged_by_what_is_possible(reached, ceiling, words, notable):
    said = reward_verdicts.accuracy(curve(reached), curve(ceiling))
    assert said.brief == f"accuracy {reached:.2f} of a possible {ceiling:.2f}"
    assert said.text.endswith(f"a possible {ceiling:.2f}: {words} of what this teacher allows beyond chance.")
    assert said.notable == notable


def test_accuracy_without_a_ceiling_or_without_room():
    assert reward_verdicts.accuracy(curve(0.8), None).text.endswith("accuracy 0.80; chance is 0.5.")
    assert "nothing can be learnt" in reward_verdicts.accuracy(curve(0.5), curve(0.51)).text


def test_log_likelihood_is_beside_the_possible_and_beside_chance():
    said = reward_verdicts.log_likelihood(curve(-0.3, -0.4, -0.5), curve(-0.2, -0.2, -0.2))
    assert "−0.40 [−0.50, −0.30] nats per pair of a possible −0.20; saying ½ to every pair gives −0.69." in said.text
    worse = reward_verdicts.log_likelihood(curve(-0.8), None)
    assert worse.text.endswith("Saying ½ to every pair gives −0.69, which is better.") and worse.notable


def test_calibration_by_chance_is_what_perfect_models_show():
    rng, bins, pairs = np.random.default_rng(0), 10, 400
    p = np.repeat(np.linspace(0.55, 0.95, 5), pairs // 5)
    errors = []
    for answers in rng.random((500, pairs)) < p:
        means = answers.reshape(5, -1).mean(1)
        errors.append(np.abs(means - p.reshape(5, -1).mean(1)).mean())
    predicted = np.linspace(0.05, 0.95, bins)
    mirrored = np.stack([predicted, predicted, np.full(bins, pairs / bins)], -1)[None]
    np.testing.assert_allclose(reward_verdicts.calibration_by_chance(mirrored), np.mean(errors), rtol=0.05)


def test_confidence_gap_by_hand():
    bins = np.array(
        [[[0.1, 0.3, 2.0], [0.9, 0.7, 2.0], [np.nan, np.nan, 0.0]], [[0.2, 0.1, 3.0], [0.8, 0.7, 1.0], [np.nan] * 3]]
    )
    np.testing.assert_allclose(reward_verdicts.confidence_gap(bins), [0.2, (3 * -0.1 + 0.1) / 4])


@pytest.mark.parametrize(
    "sharpness, error, words, notable",
    [
        (3.0, 0.14, "0.14 nearer to certainty than the answers are: over-confident.", True),
        (0.4, 0.10, "further from certainty than the answers are: under-confident", False),
        (1.0, 0.02, "off by 0.02 on average, no more than chance explains with so few pairs (up to 0.02).", False),
        (1.0, 0.10, "neither over- nor under-confident on the whole", False),
    ],
)
def test_calibration_is_named_where_it_is_more_than_chance(sharpness, error, words, notable):
    said = reward_verdicts.calibration(np.array([error]), synthetic_runs.reliability(sharpness)[:1])
    assert words in said.text and said.notable == notable


def test_correlations_are_named_and_low_ones_explained():
    judged = {"random.correlation": SEEDS, "random.segment_correlation": SEEDS, "on_policy.correlation": SEEDS - 0.5}
    said = reward_verdicts.correlations(judged)
    assert "under random actions 0.91 [0.90, 0.93] per step and 0.91 [0.90, 0.93] per segment (high)" in said.text
    assert "under actions as in training 0.41 [0.40, 0.43] per step (low)" in said.text
    assert said.text.endswith("more training need not help.") and said.notable
    mild = reward_verdicts.correlations({"expert.correlation": SEEDS - 0.5})
    assert "look alike" in mild.text and not mild.notable
    assert "(the wrong way round)" in reward_verdicts.correlations({"random.correlation": -SEEDS}).text
    ranked = reward_verdicts.correlations({"random.correlation": SEEDS, "random.rank_correlation": SEEDS - 0.2})
    assert "but by rank 0.71 [0.70, 0.73]: it tells large differences better than small ones." in ranked.text


def test_distances_say_the_worst_of_each():
    judged = {"random.epic": SEEDS - 0.8, "expert.epic": SEEDS - 0.5, "expert.dard": SEEDS - 0.2}
    said = reward_verdicts.distances(judged)
    assert said.text.startswith(
        "EPIC 0.11 [0.10, 0.13] under random actions, 0.41 [0.40, 0.43] under the trained policy: rather different at "
        "worst; DARD 0.71 [0.70, 0.73] under the trained policy: hardly related. 0 is"
    )
    assert said.notable and not reward_verdicts.distances({"random.epic": SEEDS - 0.8}).notable


@pytest.mark.parametrize(
    "value, words",
    [(0.1, "agree closely"), (0.3, "differ somewhat"), (0.6, "differ much"), (1.0, "have little in common")],
)
def test_spread_is_named(value, words):
    said = reward_verdicts.spread(np.array([value]), "here", members=3)
    assert said.text.startswith(f"Its members {words} here: {value:.2f} standard deviations")
    assert said.notable == (value == 1.0)
    assert "single network" in reward_verdicts.spread(np.array([value]), "here", members=1).text


@pytest.mark.parametrize(
    "verdict",
    [
        lambda lost: verdicts.labels(lost, None, None, budget=None),
        verdicts.returns,
        lambda lost: verdicts.exploitation(lost, np.zeros((1, 30)), alarm(0)),
        lambda lost: verdicts.fit(curve(1.0), lost, accuracy=None, l2=None, low=1.0, high=2.0, unit=""),
        lambda lost: verdicts.policy(lost, curve(0.01)),
        lambda lost: reward_verdicts.accuracy(lost, None),
        lambda lost: reward_verdicts.log_likelihood(lost, None),
        lambda lost: reward_verdicts.calibration(lost, None),
        reward_verdicts.training_correlation,
        reward_verdicts.plane,
        lambda lost: reward_verdicts.spread(lost, "", members=None),
        lambda lost: reward_verdicts.correlations({} if lost is None else {"random.correlation": lost}),
        lambda lost: reward_verdicts.distances({} if lost is None else {"random.epic": lost}),
    ],
)
def test_nothing_is_said_of_what_is_not_known(verdict):
    assert verdict(None) is None and verdict(np.full((2, 8), np.nan)) is None
