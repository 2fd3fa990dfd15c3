"""Plays the policy of a run's newest checkpoint, with the predicted and the true reward drawn under the clip.

    python -m experiments.replay results/pendulum/<time> --condition labels_700 --seed 0

Works on the folder of every run. Each reward is drawn to a scale of its own; what matters is whether they go together.
"""

import time

_STARTED = time.perf_counter()

import dataclasses  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402
from absl import flags  # noqa: E402

import rlhf_jax  # noqa: E402
from experiments import captions, command_line, figures, results, session  # noqa: E402
from rlhf_jax import ppo, reward_ensemble, rollout, run_folder  # noqa: E402
from rlhf_jax.config import Config  # noqa: E402
from rlhf_jax.environments import Environment, rendering  # noqa: E402
from rlhf_jax.environments.canvas import INK  # noqa: E402
from rlhf_jax.training import TrainState  # noqa: E402

flags.adopt_module_key_flags(command_line)
_CONDITION = flags.DEFINE_string("condition", None, "Condition, such as labels_700; needed if the run has several.")
_SEED = flags.DEFINE_integer("seed", None, "Seed of the agent; needed if the run has several.")
_EPISODES = flags.DEFINE_integer("episodes", 1, "Episodes side by side.", lower_bound=1, upper_bound=16)
_STEPS = flags.DEFINE_integer("steps", None, "Steps of each, at most; whole episodes if not given.", lower_bound=2)
_OUT = flags.DEFINE_string("out", None, "The GIF; replay.gif in the run's folder if not given.")

_SIZE, _CURVES = 224, 96  # pixels: of a clip, and the height of the curves under it
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
    """Plays the deterministic policy from the first of the starts that every evaluation has."""

    @jax.jit
    def act(state: TrainState):
        policy = ppo.deterministic_policy(state.agent, env=env, config=config.ppo)
        key_init, key_rollout = jax.random.split(jax.random.key(results.EVALUATION_KEY))
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


def draw(env: str, episode: Episode, num_steps: int) -> np.ndarray:
    """Returns the clip with words and curves under it, `[num_steps, H, W, 3]`; what ends early stands still."""
    clip = rendering.frames(env, episode.moments, _SIZE)
    series = [(episode.true_reward, captions.TRUE)]
    if episode.predicted is not None:
        series.append((episode.predicted, captions.PREDICTED))
    words = captions.words(describe(episode), _SIZE, bold_first=True)
    whole = captions.under(clip, words, captions.curves(series, _SIZE, _CURVES))
    return np.concatenate([whole, np.repeat(whole[-1:], num_steps - len(whole), axis=0)])


def main(path: str) -> None:
    """Plays, draws, and says where the GIF is."""
    session.say(f"loading the newest checkpoint of {path}")
    with command_line.refusing():
        for config in run_folder.load(Path(path)).conditions.values():
            rendering.require(config.env)
        config, state = run_folder.load_state(path, _CONDITION.value, _SEED.value)
        env = rlhf_jax.make(config.env)
    out = command_line.new_file(Path(_OUT.value or Path(path, "replay.gif")))
    clock = session.Clock(_STARTED)
    num_steps = min(_STEPS.value or env.horizon, env.horizon)
    with clock.phase(
        "play", f"playing {_EPISODES.value} × {num_steps} steps of {config.env}, iteration {state.iteration}"
    ):
        episodes = play(state, _EPISODES.value, num_steps, env=env, config=config)
    longest = max(len(episode.true_reward) for episode in episodes)
    with clock.phase("draw", f"drawing {len(episodes) * longest} frames"):
        clips = np.stack([draw(config.env, episode, longest) for episode in episodes])
        figures.animation(out, figures.tile(clips, columns=min(len(clips), 4)), fps=_FPS)
    for i, episode in enumerate(episodes, 1):
        print(f"episode {i}: " + ", ".join("".join(text for text, _ in line) for line in describe(episode)))
    print(out)


if __name__ == "__main__":
    command_line.run("replay", main, "RUN")
