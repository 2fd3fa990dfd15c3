"""Plays the policy of a run's newest checkpoint, with the predicted and the true reward drawn under the clip.

    python -m experiments.replay results/pendulum/<time> --condition labels_700 --seed 0

Works on the folder of every run but CartPole's. Each reward is drawn to a scale of its own; what matters is whether
they go together.
"""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import numpy as np
from absl import flags

import rlhf_jax
from experiments import captions, command_line, evaluation, figures, session
from rlhf_jax import ppo, reward_ensemble, rollout, run_folder
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment, atari, rendering
from rlhf_jax.environments.canvas import INK
from rlhf_jax.train_state import TrainState

flags.adopt_module_key_flags(command_line)
_CONDITION = flags.DEFINE_string("condition", None, "Condition, such as labels_700; needed if the run has several.")
_SEED = flags.DEFINE_integer("seed", None, "Seed of the agent; needed if the run has several.")
_EPISODES = flags.DEFINE_integer("episodes", 4, "Episodes side by side.", lower_bound=1, upper_bound=16)
_STEPS = flags.DEFINE_integer(
    "steps", None, "Steps of each, at most; if not given whole episodes, of Atari a minute.", lower_bound=2
)
_OUT = flags.DEFINE_string(
    "out", None, "The GIF, a new file; replay.gif in the run's folder, or replay_2.gif and so on, if not given."
)

_SIZE, _CURVES = 224, 96  # pixels: of a clip, and the height of the curves under it
_COLUMNS = 4
_FPS = 25.0


@dataclasses.dataclass(frozen=True)
class Episode:
    """One episode from its start to its end, or as far as it was played.

    moments: `[T, ...]` what a renderer is given.
    true_reward: [T].
    predicted: [T] the reward ensemble's, if it has learnt one.
    """

    moments: rendering.Moment
    true_reward: np.ndarray
    predicted: np.ndarray | None


def play(state: TrainState, num_episodes: int, num_steps: int, *, env: Environment, config: Config) -> list[Episode]:
    """Plays the deterministic policy from the first of the starts that every evaluation has; of Atari from any."""

    @jax.jit
    def act(state: TrainState):
        policy = ppo.deterministic_policy(state.agent, env=env, config=config.ppo)
        key_init, key_rollout = jax.random.split(jax.random.key(evaluation.KEY))
        begin = rollout.init(key_init, env=env, num_envs=num_episodes)
        _, steps, _ = rollout.rollout(key_rollout, begin, policy, env=env, num_steps=num_steps)
        predict = partial(reward_ensemble.predict, state.ensemble, env=env, config=config.reward)
        return steps, steps.done, predict(steps.observation, steps.action)

    steps, done, predicted = jax.device_get(act(state))
    episodes = []
    for i in range(num_episodes):
        end = int(np.argmax(done[:, i])) + 1 if done[:, i].any() else num_steps
        first = jax.tree.map(lambda x, i=i, end=end: x[:end, i], steps)
        moments = rendering.Moment(first.observation, first.action, first.state)
        episodes.append(Episode(moments, first.true_reward, None if config.use_true_reward else predicted[:end, i]))
    return episodes


def describe(episode: Episode) -> list[list[tuple[str, captions.Colour]]]:
    """Returns the words under the clip, in the colours of the curves."""
    steps = len(episode.true_reward)
    lines = [[(captions.minus(f"{steps} steps, true return {episode.true_reward.sum():.1f}"), INK)]]
    if episode.predicted is None:
        return [*lines, [("true reward", captions.TRUE)]]
    constant = min(np.ptp(episode.true_reward), np.ptp(episode.predicted)) == 0.0
    correlation = np.nan if constant else np.corrcoef(episode.true_reward, episode.predicted)[0, 1]
    words = "no correlation: one is constant" if constant else captions.minus(f"correlation {correlation:.2f}")
    names = [("true", captions.TRUE), (" and ", INK), ("predicted", captions.PREDICTED), (" reward", INK)]
    return [*lines, names, [(words, INK)]]


def draw(env: str, episodes: list[Episode]) -> np.ndarray:
    """Returns the clips side by side with words and curves under each, `[T, H, W, 3]`; what ends early stands still."""
    true = _scaled([episode.true_reward for episode in episodes])
    curves = [[(values, captions.TRUE)] for values in true]
    predicted = [episode.predicted for episode in episodes if episode.predicted is not None]
    for series, values in zip(curves, _scaled(predicted) if predicted else [], strict=False):
        series.append((values, captions.PREDICTED))
    longest, clips = max(map(len, true)), []
    for series, episode in zip(curves, episodes, strict=True):
        words = captions.words(describe(episode), _SIZE, bold_first=True)
        clip = rendering.frames(env, episode.moments, _SIZE)
        whole = captions.under(clip, words, captions.curves(series, _SIZE, _CURVES))
        clips.append(np.concatenate([whole, np.repeat(whole[-1:], longest - len(whole), axis=0)]))
    return figures.tile(np.stack(clips), columns=min(len(clips), _COLUMNS))


def _scaled(rewards: list[np.ndarray]) -> list[np.ndarray]:
    """Returns rewards as shares of their range over all episodes, so that a quiet one does not look like a wild one."""
    low, high = (bound([bound(values) for values in rewards]) for bound in (np.min, np.max))
    return [(values - low) / (high - low) if high > low else np.full(len(values), 0.5) for values in rewards]


def main(path: str) -> None:
    """Plays, draws, and says where the GIF is."""
    session.say(f"loading the newest checkpoint of {path}")
    with command_line.refusing():
        for config in run_folder.load(Path(path)).conditions.values():
            rendering.require(config.env)
        config, state = run_folder.load_state(path, _CONDITION.value, _SEED.value, preferences=False)
        env = rlhf_jax.make(config.env)
    out = command_line.picture(_OUT.value, Path(path, "replay.gif"))
    num_steps = min(_STEPS.value or (atari.STEPS_PER_MINUTE if env.emulated else env.horizon), env.horizon)
    what = f"{_EPISODES.value} × {num_steps} steps of {config.env}"
    session.say(f"playing {what} with the policy of iteration {state.iteration}")
    episodes = play(state, _EPISODES.value, num_steps, env=env, config=config)
    session.say(f"drawing {sum(len(episode.true_reward) for episode in episodes)} frames")
    figures.animation(out, draw(config.env, episodes), fps=_FPS)
    for i, episode in enumerate(episodes, 1):
        print(f"episode {i}: " + ", ".join("".join(text for text, _ in line) for line in describe(episode)))
    print(out)


if __name__ == "__main__":
    command_line.run("replay", main, "RUN")
