"""The reward that an earlier run learnt, for runs that start with it."""

import dataclasses
from contextlib import closing
from pathlib import Path

from absl import flags

from rlhf_jax import presets, run_folder, settings
from rlhf_jax.config import Config
from rlhf_jax.labelling import labels_file
from rlhf_jax.labelling.label_store import LabelStore
from rlhf_jax.labelling.labels_file import Labels
from rlhf_jax.run_folder import RunFolder
from rlhf_jax.train_state import TrainState

CONDITION = flags.DEFINE_string("condition", None, "Condition of the run in --reward; needed if it has several.")
REWARD_SEED = flags.DEFINE_integer("reward_seed", None, "Seed of the agent in that run; needed if it has several.")

# The networks, and what they and the preferences are about.
SHARED = ("normalise_observations", "queries.segment_length", "reward.members", "reward.hidden", "reward.pooling")


@dataclasses.dataclass(frozen=True)
class StoredReward:
    """What an earlier run learnt.

    path: its folder.
    config: its settings.
    state: its agent, which has the reward ensemble and the preferences.
    """

    path: Path
    config: Config
    state: TrainState

    @property
    def num_labels(self) -> int:
        """How many answers its buffer holds."""
        return min(int(self.state.preferences.added), self.state.preferences.label.shape[0])

    def settings(self, env: str | None, assignments: list[str]) -> Config:
        """Returns the settings of a run that starts with this reward, but for its labels.

        Args:
          env: name of the environment, if one is asked for.
          assignments: of `rlhf_jax.settings.override`.

        Raises:
          ValueError: they conflict with those of the reward, or are unknown or wrong.
        """
        mine = self.config
        if env not in (None, mine.env):
            raise ValueError(f"--env {env} conflicts with --reward {self.path}, which is about {mine.env}")
        known = presets.preset(mine.env)
        base = dataclasses.replace(
            known,
            normalise_observations=mine.normalise_observations,
            queries=dataclasses.replace(known.queries, segment_length=mine.queries.segment_length),
            reward=dataclasses.replace(mine.reward, frozen=False),
        )
        config = settings.override(base, assignments)
        wanted, stored = settings.to_dict(config, flat=True), settings.to_dict(mine, flat=True)
        for name in SHARED:
            if wanted[name] != stored[name]:
                raise ValueError(f"--set {name}={wanted[name]} conflicts with {stored[name]} in --reward {self.path}")
        return config


def load(path: str) -> StoredReward:
    """Loads the reward of a run, by --condition and --reward_seed.

    Raises:
      ValueError: there is none.
    """
    config, state = run_folder.load_state(path, CONDITION.value, REWARD_SEED.value)
    stored = StoredReward(Path(path), config, state)
    if config.use_true_reward:
        raise ValueError(f"--reward {path} has learnt no reward: it was given the true one")
    if not stored.num_labels:
        raise ValueError(f"--reward {path} has learnt no reward: it was given no label")
    return stored


def learnt_pairs(stored: StoredReward) -> list[int]:
    """Returns which pairs in the folder of a reward its preferences are, in their order.

    Raises:
      ValueError: there are no labels, or others than it was learnt from.
    """
    with closing(LabelStore(stored.path / run_folder.LABELS, read_only=True)) as store:
        added = int(stored.state.preferences.added)
        learnt = store.learnt()[:added]
    if len(learnt) < added:
        raise ValueError(f"the reward in {stored.path} was not learnt from the labels there")
    return learnt[-stored.num_labels :]


def hand_over(stored: StoredReward, labels: Labels, learnt: list[int], run: RunFolder, instruction: str) -> None:
    """Begins a run with people with a stored reward, and with the labels in the folder that the reward is from.

    Args:
      stored: the reward.
      labels: those in its folder.
      learnt: which of them its preferences are.
      run: the new run.
      instruction: the question in words; that of the labels if empty.
    """
    source = labels_file.source_for(labels)
    source = dataclasses.replace(source, instruction=instruction or source.instruction)
    with closing(LabelStore.create(run.path / run_folder.LABELS, source)) as store:
        numbers, _ = labels_file.merge(store, labels)
        store.learn([numbers[pair] for pair in learnt], 0)
    # Last, because without a checkpoint the labels are learnt from the store.
    run_folder.start(run, stored.state)
