"""Runs the stages of learning from stored trajectories, each for all seeds at once, and writes down how they went."""

import dataclasses
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import session
from experiments.command_line import Stopped
from rlhf_jax import normalisation, parallel, rollout, run_folder
from rlhf_jax.environments import Environment
from rlhf_jax.offline import agent as agents
from rlhf_jax.offline import behavioural_cloning, inverse_rl, policy_gradient, trajectories, trajectory_reward
from rlhf_jax.offline.agent import Agent, Metrics
from rlhf_jax.offline.config import OfflineConfig
from rlhf_jax.offline.trajectories import Pairs, Trajectories
from rlhf_jax.offline.trajectory_reward import TrajectoryReward
from rlhf_jax.run_folder import RunFolder

EVALUATION_STARTS = 256
_EVALUATION_KEY = 1
# All randomness of a seed, by what it is for. The agents of all conditions begin alike, as far as that is possible.
_PURPOSES = ("data", "trajectories", "held_out", "fit", "agent", "cloning", "inverse_rl")
_TRUE, _CONSTANT, _LEARNT = range(3)  # rewards to learn from


@dataclasses.dataclass
class Data:
    """What is learnt from, of all seeds.

    checkpoints: [seeds, K, ...] policies, after each epoch on the true reward.
    curves: [seeds, K] metrics of these epochs.
    trajectories, pairs: of these policies, n = K · data.trajectories, one policy after the other.
    held_out: more of the same, which nothing is fitted to.
    """

    checkpoints: Any
    curves: dict[str, np.ndarray]
    trajectories: Trajectories
    pairs: Pairs
    held_out: tuple[Trajectories, Pairs]

    @property
    def returns(self) -> np.ndarray:
        """`[seeds, K, data.trajectories]` true returns."""
        returns = np.asarray(self.trajectories.true_return)
        return returns.reshape(len(returns), next(iter(self.curves.values())).shape[1], -1)

    def best_checkpoint(self) -> Any:
        """Returns the `[seeds, ...]` policies whose trajectories have the largest mean true return."""
        best = jnp.asarray(self.returns.mean(2).argmax(1))
        return jax.vmap(lambda one, i: jax.tree.map(lambda x: x[i], one))(self.checkpoints, best)


class Stages:
    """The stages in one environment, each a compiled program for all seeds."""

    def __init__(self, run: RunFolder, env: Environment, config: OfflineConfig, clock: session.Clock) -> None:
        self._run, self._env, self._config, self._clock = run, env, config, clock
        self._over = partial(parallel.over_agents, num_agents=len(run.seeds))
        self._chunk = math.gcd(config.data.checkpoints, config.epochs)
        self._begin = self._over(partial(agents.init, env=env, config=config))
        self._advance = self._over(self._advance_one)
        self._evaluate = self._over(self._evaluate_one)

    def gather(self, name: str) -> Data:
        """Trains on the true reward for a few epochs, plays the policies after each, and compares the trajectories."""
        epochs = self._config.data.checkpoints
        words = f"{name}: {epochs} epochs on the true reward, and trajectories of each"
        with self._clock.phase("data", words):
            agent = self._begin(self._keys("data"))
            _, actors, curves = self._loop(name, agent, _TRUE, self._no_reward(), epochs)
            play = self._over(self._gather_one)
            data, pairs = play(self._keys("trajectories"), actors)
            held_out = play(self._keys("held_out"), actors)
            for i, seed in enumerate(self._run.seeds):
                with _stopping(f"{name}, seed {seed}"):
                    trajectories.check(np.asarray(data.true_return)[i], np.asarray(pairs.label)[i])
        return Data(actors, curves, data, pairs, held_out)

    def fit(self, name: str, data: Data) -> tuple[TrajectoryReward, dict[str, np.ndarray]]:
        """Fits the rewards to the preferences; returns them, and how well they do, `[seeds, ...]` each."""
        number = self._config.data.pairs
        with self._clock.phase("fit", f"{name}: fitting rewards to {number} preferences between whole trajectories"):
            rewards, info = self._over(self._fit_one)(self._keys("fit"), data.trajectories, data.pairs, data.held_out)
            info = jax.device_get(info)
            self._refuse_nan(name, np.isfinite(info["loss"]) & np.isfinite(info["mean_reward"])[:, None], "step")
        return rewards, info

    def learn(self, name: str, reward: TrajectoryReward | None) -> tuple[Any, dict[str, np.ndarray]]:
        """Trains from scratch on a learnt reward, or on 1 in every step if None; returns the actors and the curves."""
        source, what = (_CONSTANT, "a constant reward") if reward is None else (_LEARNT, "the learnt reward")
        with self._clock.phase("train", f"{name}: {self._config.epochs} epochs on {what}"):
            agent = self._begin(self._keys("agent"))
            agent, _, curves = self._loop(name, agent, source, reward or self._no_reward(), self._config.epochs)
        return agent.actor, curves

    def clone(self, name: str, data: Data) -> tuple[Any, dict[str, np.ndarray]]:
        """Clones the trajectories; returns the actors and the loss of each step."""
        config = self._config
        one = partial(behavioural_cloning.clone, env=self._env, hidden=config.hidden, config=config.cloning)
        with self._clock.phase("baselines", f"{name}: {config.cloning.fit_steps} steps on all trajectories"):
            actors, loss = self._over(one)(self._keys("cloning"), data.trajectories)
            loss = np.asarray(loss)
            self._refuse_nan(name, np.isfinite(loss), "step")
        return actors, {"loss": loss}

    def explain(self, name: str, data: Data) -> tuple[Any, TrajectoryReward, dict[str, np.ndarray]]:
        """Does inverse RL on the trajectories; returns the actors, the rewards and the curves."""
        config = self._config
        begin = self._over(partial(inverse_rl.init, env=self._env, config=config))
        advance = self._over(partial(inverse_rl.advance, num_epochs=self._chunk, env=self._env, config=config))
        with self._clock.phase("baselines", f"{name}: {config.epochs} epochs of policy and reward"):
            state, parts = begin(self._keys("inverse_rl"), data.trajectories), []
            for done in range(0, config.epochs, self._chunk):
                state, metrics = advance(state, data.trajectories)
                parts.append(self._show(name, metrics, done, config.epochs))
        return state.agent.actor, state.reward, _joined(parts)

    def untrained(self) -> Any:
        """Returns the actors with which `learn` begins."""
        return self._begin(self._keys("agent")).actor

    def evaluate(self, actors: dict[str, Any]) -> dict[str, dict[str, np.ndarray]]:
        """Plays policies from the same starts, as they act in training and without exploring."""
        words = f"evaluating {', '.join(actors)} on the same {EVALUATION_STARTS} starts"
        with self._clock.phase("evaluate", words):
            return {name: jax.device_get(self._evaluate(actor)) for name, actor in actors.items()}

    def _keys(self, purpose: str) -> jax.Array:
        keys = parallel.agent_keys(self._run.seeds)
        return jax.vmap(lambda key: jax.random.fold_in(key, _PURPOSES.index(purpose)))(keys)

    def _no_reward(self) -> TrajectoryReward:
        """Returns a reward in place of a learnt one, where another is to be learnt from."""
        moments = normalisation.init(self._env.observation_shape)
        one = partial(trajectory_reward.init, observation=moments, env=self._env, config=self._config.reward)
        return self._over(one)(self._keys("fit"))

    def _loop(
        self, name: str, agent: Agent, source: int, reward: TrajectoryReward, epochs: int
    ) -> tuple[Agent, Any, dict[str, np.ndarray]]:
        """Advances chunk by chunk; returns the agents, their actors `[seeds, epochs, ...]`, and the curves."""
        sources, parts, actors = jnp.full(len(self._run.seeds), source), [], []
        for done in range(0, epochs, self._chunk):
            agent, after, metrics = self._advance(agent, sources, reward)
            parts.append(self._show(name, metrics, done, epochs))
            actors.append(after)
        return agent, jax.tree.map(lambda *x: jnp.concatenate(x, 1), *actors), _joined(parts)

    def _show(self, name: str, metrics: Metrics, done: int, epochs: int) -> dict[str, np.ndarray]:
        """Says how a chunk went, adds it to metrics.jsonl, and stops if it went wrong; returns its curves."""
        part = {key: np.asarray(value) for key, value in metrics.items()}
        finite = part.pop("finite")
        self._refuse_nan(name, finite, "epoch", done)
        done += self._chunk
        last = part["return"][:, -1].mean()
        session.show(f"{name}: epoch {done}/{epochs}, return {last:.1f}", last=done == epochs)
        with (self._run.path / "metrics.jsonl").open("a") as file:
            for column in range(self._chunk):
                row = {"condition": name, "epoch": done - self._chunk + column + 1}
                row |= {key: run_folder.plain(value[:, column]) for key, value in part.items()}
                file.write(json.dumps(row) + "\n")
        return part

    def _refuse_nan(self, name: str, finite: np.ndarray, unit: str, done: int = 0) -> None:
        if not finite.all():
            seed, column = np.argwhere(~finite)[np.argmin(np.argwhere(~finite)[:, 1])]
            raise Stopped(
                f"{name}, seed {self._run.seeds[seed]}: a loss, reward or parameter became NaN or infinite in {unit} "
                f"{done + column + 1}"
            )

    def _advance_one(self, agent: Agent, source: jax.Array, reward: TrajectoryReward) -> tuple[Agent, Any, Metrics]:
        def rewards(steps: rollout.Rollout) -> jax.Array:
            learnt = trajectory_reward.predict(
                reward, steps.observation, steps.action, env=self._env, config=self._config.reward
            )
            kinds = [source == _TRUE, source == _CONSTANT]
            return jnp.select(kinds, [steps.true_reward, jnp.ones_like(learnt)], learnt)

        return agents.advance(agent, rewards, self._chunk, env=self._env, config=self._config)

    def _gather_one(self, key: jax.Array, actors: Any) -> tuple[Trajectories, Pairs]:
        config = self._config.data
        key_play, key_pairs = jax.random.split(key)

        def play(key: jax.Array, actor: Any) -> Trajectories:
            policy = policy_gradient.policy(actor, env=self._env, hidden=self._config.hidden)
            return trajectories.play(key, policy, env=self._env, num_episodes=config.trajectories)

        data = jax.vmap(play)(jax.random.split(key_play, config.checkpoints), actors)
        data = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), data)
        return data, trajectories.compare(key_pairs, data.true_return, config.pairs)

    def _fit_one(
        self, key: jax.Array, data: Trajectories, pairs: Pairs, held_out: tuple[Trajectories, Pairs]
    ) -> tuple[TrajectoryReward, dict[str, jax.Array]]:
        options: dict[str, Any] = {"env": self._env, "config": self._config.reward}
        reward, info = trajectory_reward.fit(key, data, pairs, **options)
        others, other_pairs = held_out
        predicted = trajectory_reward.returns(reward, others, **options)
        rewards = jnp.where(
            others.mask, trajectory_reward.predict(reward, others.observation, others.action, **options), 0
        )
        info["held_out_accuracy"] = trajectory_reward.accuracy(predicted, other_pairs)
        info["mean_reward"] = rewards.sum() / others.mask.sum()
        info["share_positive"] = (rewards > 0).sum() / others.mask.sum()
        return reward, info

    def _evaluate_one(self, actor: Any) -> dict[str, jax.Array]:
        def mean_return(explores: jax.Array) -> jax.Array:
            policy = policy_gradient.policy(actor, env=self._env, hidden=self._config.hidden, explores=explores)
            key = jax.random.key(_EVALUATION_KEY)
            return rollout.evaluate(key, policy, env=self._env, num_episodes=EVALUATION_STARTS)[0].mean()

        # A loop, so that the same episode is compiled once.
        exploring, deterministic = jax.lax.map(mean_return, jnp.array([True, False]))
        return {"return": exploring, "deterministic": deterministic}


@contextmanager
def _stopping(name: str) -> Iterator[None]:
    """Turns what the library refuses in the middle of a run into its end, with the name of what it was about."""
    try:
        yield
    except ValueError as error:
        raise Stopped(f"{name}: {error}") from error


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {key: np.concatenate([part[key] for part in parts], 1) for key in parts[0]}
