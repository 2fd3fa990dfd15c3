"""People in place of the teacher: the same training, whenever the answers come and however often they change."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlhf_jax
from rlhf_jax import environments, queries, reward_ensemble, train_state, training
from rlhf_jax.labelling import human_teacher, pairs
from rlhf_jax.labelling.desk import Desk
from rlhf_jax.labelling.human_teacher import HumanTeacher
from rlhf_jax.labelling.label_store import LabelStore, new_source
from rlhf_jax.labelling.progress import Progress

PENDULUM = rlhf_jax.make("Pendulum-v1")
ENV = environments.wrap(PENDULUM.base, PENDULUM.params.replace(max_steps_in_episode=15))
CONFIG = rlhf_jax.Config(
    iterations=5,
    num_envs=4,
    rollout_length=20,
    ppo=rlhf_jax.PPOConfig(epochs=1, minibatches=2, hidden=(8,), learning_rate=0.01),
    queries=rlhf_jax.QueryConfig(segment_length=5, candidates=2),
    labels=rlhf_jax.LabelConfig(budget=16, max_budget=16, warmup=2, half_life=200.0),
    reward=rlhf_jax.RewardConfig(hidden=(8,), fit_steps=2, batch_size=4, reference_size=8),
)
PROPOSE = jax.jit(lambda state: training.propose(state, env=ENV, config=CONFIG))
never = lambda: False  # noqa: E731


class Office:
    """A store, a desk, and somebody who answers by the true reward."""

    def __init__(self, folder, lead=0, config=CONFIG):
        path = folder / "labels.sqlite"
        if not path.exists():
            LabelStore.create(path, new_source(ENV, pairs.layout(ENV, 5))).close()
        self.store, self.progress, self.config = LabelStore(path), Progress(), config
        self.desk = Desk(self.store, repeat_share=0.0)
        self.people = HumanTeacher(self.store, self.desk, self.progress, env=ENV, config=config, lead=lead)
        self.count = len(self.store.answers())

    def best(self, showing):
        """What somebody says who sees the true reward."""
        first, second = self.store.segments([showing.pair])[0]["true_reward"].sum(-1)
        return "left" if (first > second) != showing.swapped else "right"

    def answer(self, showing, answer=None, **more):
        """Answers a pair, by the true reward unless told how."""
        self.count += 1
        said = answer or self.best(showing)
        return self.desk.answer(
            "screen", "eve", showing.pair, said, swapped=showing.swapped, token=str(self.count), **more
        )

    def answer_all(self):
        """Answers every pair that waits."""
        while showing := self.desk.next("screen", "eve"):
            self.answer(showing)

    def rounds(self, state):
        """The training, in which each round waits until all is answered, which it is at once."""
        wait = self.people.wait

        def answered(iteration, stopped):
            self.answer_all()
            return wait(iteration, stopped)

        self.people.wait = answered
        return human_teacher.iterations(state, self.people, never, env=ENV, config=self.config)


@pytest.fixture(scope="module")
def fresh():
    """An untrained agent."""
    return jax.jit(lambda key: train_state.init(key, env=ENV, config=CONFIG))(jax.random.key(4))


@pytest.fixture(scope="module")
def compiled(fresh):
    """The same training with the compiled oracle."""
    return jax.jit(lambda state: training.advance(state, CONFIG.iterations, env=ENV, config=CONFIG))(fresh)


def plain(tree):
    """The tree in NumPy, with the data of its keys."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if is_key(x) else x), tree)


def assert_same(actual, expected):
    """Bit for bit; NaN equals NaN."""
    jax.tree.map(np.testing.assert_array_equal, plain(actual), plain(expected))


def test_the_same_answers_give_the_same_agent_as_the_compiled_teacher_bit_for_bit(tmp_path, fresh, compiled):
    history = list(Office(tmp_path).rounds(fresh))
    assert len(history) == CONFIG.iterations
    assert_same(history[-1][0], compiled[0])
    metrics = {name: np.stack([row[name] for _, row in history]) for name in history[0][1]}
    assert_same(metrics, compiled[1])
    assert int(history[-1][0].preferences.added) == 16


def test_one_preference_buffer_is_held_between_the_halves_of_a_round_and_between_rounds(tmp_path, fresh):
    """With images a buffer is gigabytes; `absorb`, which holds two, is what `experiments.memory` counts."""
    shape = fresh.preferences.observation.shape
    count = lambda: sum(x.shape == shape for x in jax.live_arrays())  # noqa: E731
    others, held = count(), []
    office = Office(tmp_path)
    rounds = office.rounds(jax.tree.map(jnp.copy, fresh))
    answered = office.people.answers

    def counting(state):
        held.append(count() - others)
        return answered(state)

    office.people.answers = counting
    for _ in rounds:
        held.append(count() - others)
    assert held == [1] * (2 * CONFIG.iterations)


def test_resumed_run_asks_nothing_twice_and_ends_in_the_same_agent(tmp_path, fresh, compiled):
    rounds = Office(tmp_path).rounds(fresh)
    checkpoint = [next(rounds)[0] for _ in range(3)][1]  # the process dies an iteration after its last checkpoint
    office = Office(tmp_path)
    asked = office.store.num_pairs()
    state, _ = list(office.rounds(checkpoint))[-1]
    assert_same(state, compiled[0])
    assert asked < office.store.num_pairs() == 16 == len(office.store.learnt())


def test_run_that_dies_with_open_pairs_asks_them_again(tmp_path, fresh, compiled):
    office = Office(tmp_path)
    acted, _, chosen, _ = PROPOSE(fresh)
    office.people.ask(chosen, acted)
    office.answer(office.desk.next("screen", "eve"))
    office.store.close()
    office = Office(tmp_path)
    assert office.desk.open_pairs() == [2]
    assert_same(list(office.rounds(fresh))[-1][0], compiled[0])


@pytest.fixture
def learnt(tmp_path, fresh):
    """An office, and the agent after it has learnt from the initial labels."""
    office = Office(tmp_path)
    rounds = office.rounds(fresh)
    next(rounds)
    state, _ = next(rounds)
    assert int(state.preferences.added) == 4
    return office, state


def showing(office, pair):
    """The pair as it is shown in the history."""
    return human_teacher_showing(pair, office.store.swapped(pair))


def human_teacher_showing(pair, swapped):
    """What an answer needs to know of a pair on a screen."""
    return type("Showing", (), {"pair": pair, "swapped": swapped})()


def test_changed_answers_are_changed_in_the_buffer(learnt):
    office, state = learnt
    before = np.asarray(state.preferences.label)
    shown = showing(office, 2)
    other = {"left": "right", "right": "left"}[office.best(shown)]
    office.answer(shown, other, change=True)
    office.answer(showing(office, 3), "tie", change=True)
    office.answer(showing(office, 4), "cannot_tell", change=True)
    after, _, answers = office.people.answers(state)
    assert not answers.weight.any()  # nothing new
    np.testing.assert_array_equal(after.preferences.label[:3], [before[0], 1 - before[1], 0.5])
    np.testing.assert_array_equal(after.preferences.filled[:5], [True, True, True, False, False])
    assert after.preferences.observation is state.preferences.observation  # of images a copy is gigabytes
    again, *_ = office.people.answers(after)
    assert_same(again, after)
    # and back: the row is used again
    office.answer(showing(office, 4), "tie", change=True)
    back, *_ = office.people.answers(after)
    assert back.preferences.filled[3] and back.preferences.label[3] == 0.5 and int(back.preferences.added) == 4


def test_an_answer_that_is_taken_back_teaches_nothing(learnt):
    office, state = learnt
    while office.desk.undo("screen", "eve", f"undo {office.desk.waiting}"):
        pass
    emptied, *_ = office.people.answers(state)
    assert not emptied.preferences.filled.any()
    fit = jax.jit(
        lambda s: reward_ensemble.fit(
            jax.random.key(0), s.ensemble, s.preferences, s.agent.observation, env=ENV, config=CONFIG.reward
        )[0]
    )
    assert_same(fit(emptied).params, state.ensemble.params)
    assert not np.array_equal(jax.tree.leaves(fit(state).params)[0], jax.tree.leaves(state.ensemble.params)[0])


def test_cannot_tell_is_asked_but_not_learnt_from(tmp_path, fresh):
    office = Office(tmp_path)
    acted, _, chosen, _ = PROPOSE(fresh)
    office.people.ask(chosen, acted)
    first, second = office.desk.open_pairs()
    office.answer(office.desk.next("screen", "eve"), "cannot_tell")
    office.answer(office.desk.next("screen", "eve"), "left")
    _, asked, answers = office.people.answers(acted)
    assert answers.weight.tolist() == [1.0, 0.0] + [0.0] * (queries.slots(CONFIG) - 2)
    np.testing.assert_array_equal(asked.observation[0], chosen.observation[second - 1])
    assert answers.label[0] == float(not office.store.swapped(second))
    assert office.store.learnt() == [second] and first not in office.store.learnt()


def test_model_is_asked_what_it_thinks_before_it_is_told(learnt):
    office, state = learnt
    _, _, chosen, _ = PROPOSE(state)
    office.people.ask(chosen, state)
    shown = office.desk.next("screen", "eve")
    row = shown.pair - 5  # the first four are answered
    rewards = reward_ensemble.member_rewards(
        state.ensemble, chosen.observation[row], chosen.action[row], env=ENV, config=CONFIG.reward
    )
    returns = np.asarray(rewards.sum(-1))
    expected = np.mean(1 / (1 + np.exp(returns[:, 1] - returns[:, 0])))
    stored = office.answer(shown)
    np.testing.assert_allclose(stored.probability, expected, rtol=1e-5)
    assert stored.iteration == 2
    assert all(row.probability is None for row in office.store.answers()[:2])  # before the first fit


def test_model_thinks_ahead_of_pairs_that_are_shown_again_and_is_not_asked_while_people_wait(learnt):
    """With one core, what it is asked while the agent trains is computed after the iteration."""
    office, state = learnt
    office.desk._to_repeat = {1}  # answered by the true reward before the first fit, and due to be seen again
    _, _, chosen, _ = PROPOSE(state)
    office.people.ask(chosen, state)
    office.people._probability = None
    record = office.store.segments([1])[0]
    returns = reward_ensemble.member_rewards(
        state.ensemble, jnp.asarray(record["observation"]), jnp.asarray(record["action"]), env=ENV, config=CONFIG.reward
    ).sum(-1)
    expected = np.mean(1 / (1 + np.exp(np.asarray(returns[:, 1] - returns[:, 0]))))
    changed = office.answer(showing(office, 1), "tie", change=True)
    np.testing.assert_allclose(changed.probability, expected, rtol=1e-5)
    assert office.answer(showing(office, 2), "tie", change=True).probability is None


def test_what_a_round_could_not_ask_is_asked_later(tmp_path, fresh):
    office = Office(tmp_path)
    acted, _, chosen, _ = PROPOSE(fresh)
    nothing = dataclasses.replace(chosen, asked=jnp.zeros_like(chosen.asked))  # no segment without a reset
    office.people.ask(nothing, acted)
    assert office.store.num_pairs() == 0
    office.people.ask(chosen, dataclasses.replace(acted, iteration=acted.iteration + 1))
    assert office.store.num_pairs() == 4 > int(chosen.asked.sum())


def test_answers_that_come_as_late_as_they_may_are_learnt_from_all_the_same(tmp_path, fresh):
    """Rounds have 4 slots, and the last two of six 5 pairs of their own: no more than 3 may be left to them."""
    labels = dataclasses.replace(CONFIG.labels, schedule="constant", initial_fraction=0.4)
    config = dataclasses.replace(CONFIG, iterations=6, labels=labels)
    office = Office(tmp_path, lead=99, config=config)
    wait = office.people.wait

    def reluctant(iteration, stopped):
        """Answers only what the agent waits for."""
        while office.desk.waiting > (office.people._lead if iteration in (2, 3) else 0):
            office.answer(office.desk.next("screen", "eve"))
        return wait(iteration, stopped)

    office.people.wait = reluctant
    *_, (state, _) = human_teacher.iterations(fresh, office.people, never, env=ENV, config=config)
    assert int(state.preferences.added) == 16 == len(office.store.in_force())
    assert office.people._lead == 3


# There are 6 slots; the first 2 of 5 iterations gather initial labels, the last 2 close the run.
@pytest.mark.parametrize(
    ("lead", "iteration", "goes_on_at"), [(0, 2, 0), (2, 0, 0), (2, 1, 0), (2, 2, 2), (99, 2, 5), (2, 3, 0), (2, 4, 0)]
)
def test_how_far_the_agent_runs_ahead(tmp_path, lead, iteration, goes_on_at):
    office = Office(tmp_path, lead=lead)
    numbers = office.store.ask(np.zeros(8, office.store.source.layout), iteration, [False] * 8)
    office.desk.ask(numbers)
    went_on = []
    thread = threading.Thread(
        target=lambda: went_on.append((office.people.wait(iteration, never), office.desk.waiting)), daemon=True
    )
    thread.start()
    for waiting in range(8, goes_on_at, -1):
        assert not went_on and office.desk.waiting == waiting
        office.answer(office.desk.next("screen", "eve"), "left")
    thread.join(10)
    assert went_on == [(True, goes_on_at)]


def test_waiting_says_for_what_and_can_be_stopped(tmp_path):
    office = Office(tmp_path, lead=2)
    office.desk.ask(office.store.ask(np.zeros(3, office.store.source.layout), 0, [False] * 3))

    def said_after(iteration):
        looks = iter([False, True])
        assert not office.people.wait(iteration, lambda: next(looks))
        return office.progress.snapshot()["phase"], office.progress.snapshot()["message"]

    assert said_after(0) == ("initial", "Training begins after 4 initial labels: 4 are missing.")
    assert said_after(2) == ("waiting", "The agent is ahead of you: it goes on after 1 more answer.")
    assert said_after(4) == ("waiting", "The agent waits for the answers to 3 pairs.")
    office.answer_all()
    assert office.people.wait(0, never)
    assert office.progress.snapshot()["message"] == "The untrained agent gathers clips: iteration 1 of 5."
    assert office.people.wait(2, never)
    assert office.progress.snapshot()["message"] == "The agent trains: iteration 3 of 5."
