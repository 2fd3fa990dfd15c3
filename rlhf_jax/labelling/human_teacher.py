"""People in place of the synthetic teacher: queries go to the desk, answers are taken when they come."""

import dataclasses
import random
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax import preferences, queries, reward_ensemble, training
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment
from rlhf_jax.labelling import pairs
from rlhf_jax.labelling.desk import Desk
from rlhf_jax.labelling.label_store import LabelStore
from rlhf_jax.labelling.progress import Progress
from rlhf_jax.queries import Queries
from rlhf_jax.reward_ensemble import RewardEnsemble
from rlhf_jax.teacher import Answers
from rlhf_jax.train_state import TrainState
from rlhf_jax.training import Metrics

LEAD = 8
"""How many pairs without an answer the agent may leave behind it, unless it is told to wait for each batch."""

_JUDGED = 8  # pairs that the model thinks of at once: few are open at a time, and those of images take long
_CLOSING = 2  # iterations at the end that wait for every answer: one alone may have more answers than slots
_PATIENCE = 0.2  # seconds between looks at whether the run was stopped


def iterations(
    state: TrainState, people: "HumanTeacher", stopped: Callable[[], bool], *, env: Environment, config: Config
) -> Iterator[tuple[TrainState, Metrics]]:
    """Does the rounds of `rlhf_jax.train` with people in place of the synthetic teacher.

    With the same answers, given before each round goes on, the states are those of `rlhf_jax.train`, bit for bit.

    Args:
      state: the agent, new or from a checkpoint.
      people: who is asked.
      stopped: says whether to stop waiting for them.
      env: the environment.
      config: the settings.

    Yields:
      The agent and the metrics after each iteration, until all are done or the run was stopped.
    """
    propose, absorb = training.halves(env=env, config=config)
    while (iteration := int(state.iteration)) < config.iterations:
        acted, steps, chosen, acting = propose(state)
        people.ask(chosen, acted)
        if not people.wait(iteration, stopped):
            return
        acted, asked, answers = people.answers(acted)
        state, learning = absorb(acted, steps, asked, answers)
        del acted
        yield state, acting | learning


class HumanTeacher:
    """What stands between the training loop and the people at the desk."""

    def __init__(
        self, store: LabelStore, desk: Desk, progress: Progress, *, env: Environment, config: Config, lead: int = LEAD
    ) -> None:
        """Takes the desk that hands out the store's pairs, and how far the agent may run ahead of the answers.

        With a lead of 0 every round waits for all of its answers. A round learns from no more answers than it has
        slots, so no more may be left behind than the last rounds can learn beside their own.
        """
        self._store, self._desk, self._progress = store, desk, progress
        self._config, self._slots = config, queries.slots(config)
        by = [int(queries.labels_by(jnp.asarray(i), config=config)) for i in (-_CLOSING - 1, -1)]
        self._lead = min(lead, self._slots, _CLOSING * self._slots - (by[1] - by[0]))
        self._probability = jax.jit(partial(reward_ensemble.preference_probability, env=env, config=config.reward))

    def ask(self, chosen: Queries, state: TrainState) -> None:
        """Puts queries on the desk, as many as are due, and tells it what the model thinks of all that may be shown.

        After a restart the rounds since the checkpoint are done again; what they asked is on the desk already.
        """
        iteration = int(state.iteration)
        due = int(queries.labels_by(state.iteration + 1, config=self._config)) - self._store.num_pairs()
        # More than this round's share if an earlier round could not ask its own: every slot holds a pair, if any does.
        due_slots = (jnp.arange(self._slots) < due) & chosen.asked.any()
        records = pairs.to_records(dataclasses.replace(chosen, asked=due_slots), self._store.source.layout)
        new = self._store.ask(records, iteration, [random.random() < 0.5 for _ in records])
        taught = int(state.preferences.added) > 0
        self._desk.tell(iteration, self._think(state.ensemble, [*self._desk.expected(), *new]) if taught else {})
        self._desk.ask(new)

    def _think(self, ensemble: RewardEnsemble, asked: list[int]) -> dict[int, float]:
        """Returns how likely the first clip of each pair is preferred."""
        thoughts: dict[int, float] = {}
        for i in range(0, len(asked), _JUDGED):
            batch = asked[i : i + _JUDGED]
            queried = pairs.to_queries(self._store.segments(batch), _JUDGED)
            probabilities = np.asarray(self._probability(ensemble, queried.observation, queried.action))
            thoughts |= dict(zip(batch, probabilities[: len(batch)].tolist(), strict=True))
        return thoughts

    def wait(self, iteration: int, stopped: Callable[[], bool]) -> bool:
        """Waits until the agent may go on; returns False if the run was stopped instead.

        It waits for every answer while the initial labels are gathered, and at the end, when an answer that comes too
        late would teach it nothing.
        """
        initial = iteration < self._config.labels.warmup
        lead = 0 if initial or iteration >= self._config.iterations - _CLOSING else self._lead
        while not self._desk.wait(lead, _PATIENCE):
            if stopped():
                return False
            self._progress.say(*self._complaint(initial, lead))
        of = f"{iteration + 1} of {self._config.iterations}"
        if initial:
            self._progress.say("initial", f"The untrained agent gathers clips: iteration {of}.")
        else:
            self._progress.say("training", f"The agent trains: iteration {of}.")
        return not stopped()

    def _complaint(self, initial: bool, lead: int) -> tuple[str, str]:
        waiting = self._desk.waiting
        if initial:
            first = int(queries.labels_by(jnp.asarray(self._config.labels.warmup), config=self._config))
            missing = max(first - len(self._store.in_force()), 1)
            if first == self._config.labels.budget:
                return "initial", f"{missing} of {first} answers {_are(missing)} missing."
            return "initial", f"Training begins after {first} initial labels: {missing} {_are(missing)} missing."
        if lead:
            return "waiting", f"The agent is ahead of you: it goes on after {_count(waiting - lead, 'more answer')}."
        return "waiting", f"The agent waits for the answers to {_count(waiting, 'pair')}."

    def answers(self, state: TrainState) -> tuple[TrainState, Queries, Answers]:
        """Returns what has arrived, at most Q answers, oldest pairs first, in a form that `absorb` takes.

        Answers that were changed or taken back since they were learnt from are changed in the state's buffer.
        """
        in_force = self._store.in_force()
        added = int(state.preferences.added)
        learnt = self._store.learnt()[:added]
        told = set(learnt)
        labels = {pair: answer.label for pair, answer in sorted(in_force.items())}
        new = [pair for pair, label in labels.items() if label is not None and pair not in told][: self._slots]
        self._store.learn(new, added)
        state = dataclasses.replace(state, preferences=_revised(state.preferences, learnt, labels))
        label, weight = np.zeros(self._slots, np.float32), np.zeros(self._slots, np.float32)
        label[: len(new)], weight[: len(new)] = [labels[pair] for pair in new], 1.0
        asked = pairs.to_queries(self._store.segments(new), self._slots)
        return state, asked, Answers(jnp.asarray(label), jnp.asarray(weight))


def _revised(
    data: preferences.Preferences, learnt: list[int], labels: dict[int, float | None]
) -> preferences.Preferences:
    """Returns the buffer with the answers that are in force now; members keep their bootstrap samples.

    A row whose answer was taken back teaches nothing until it is answered again. The clips are the same arrays.
    """
    capacity = data.label.shape[0]
    label, filled = np.array(data.label), np.array(data.filled)
    for position in range(max(len(learnt) - capacity, 0), len(learnt)):
        row, said = position % capacity, labels.get(learnt[position])
        label[row], filled[row] = said or 0.0, said is not None
    return dataclasses.replace(data, label=jnp.asarray(label), filled=jnp.asarray(filled))


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)
