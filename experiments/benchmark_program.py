"""The compiled program, timed from inside: steady state, scaling over agents, share of the matmul peak."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax

from experiments.timing import Seconds, cost, in_turn, spread, typical
from rlhf_jax import normalisation, parallel, ppo, reward_ensemble, rollout, train_state, training
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment

ITERATIONS_PER_CALL = 5
_STEP_SIZE = 1e-6  # Of the bare matmuls' weights: enough that no step can be skipped, too little to overflow.


def iterations_per_call(config: Config) -> int:
    """Returns how many iterations a timed call does, so that it starts past the warm-up and ends within the run."""
    warmup = config.labels.warmup
    fits = [n for n in range(1, ITERATIONS_PER_CALL + 1) if (math.ceil(warmup / n) + 1) * n <= config.iterations]
    return max(fits)


@dataclasses.dataclass(frozen=True)
class Agents:
    """A agents past their warm-up, so that PPO runs and the buffer holds labels.

    program: takes them on.
    states: `[A, ...]` where they stand.
    lanes: `[A]` their settings.
    """

    program: "Program"
    states: train_state.TrainState
    lanes: Config

    @property
    def num(self) -> int:
        """How many there are, A."""
        return self.program.num

    def __call__(self) -> Any:
        """Does the next iterations of all agents, the same at every call."""
        return self.program.advance(self.states, self.lanes)


class Program:
    """What takes so many agents on, several iterations in a call; compiled once for all settings that are numbers."""

    def __init__(self, config: Config, num: int, *, env: Environment) -> None:
        self.config, self.num, self.env = config, num, env
        self.iterations = iterations_per_call(config)
        self._init = parallel.over_agents(lambda key, config: train_state.init(key, env=env, config=config), num)
        self.advance = parallel.over_agents(
            lambda state, config: training.advance(state, self.iterations, env=env, config=config), num
        )

    def agents(self, config: Config) -> Agents:
        """Returns agents with these settings, past their warm-up."""
        lanes = parallel.lanes([config] * self.num)
        states = self._init(parallel.agent_keys(range(self.num)), lanes)
        for _ in range(math.ceil(config.labels.warmup / self.iterations)):
            states, _ = self.advance(states, lanes)
        return Agents(self, jax.block_until_ready(states), lanes)


def plain_ppo(
    state: train_state.TrainState, config: Config, num_iterations: int, *, env: Environment
) -> tuple[ppo.PPOState, jax.Array]:
    """Does iterations of `rlhf_jax.training` on the true reward, without anything that preferences need."""

    def step(carry: tuple[rollout.EnvironmentState, ppo.PPOState], key: jax.Array):
        environments, agent = carry
        key_rollout, key_ppo = jax.random.split(key)
        policy = ppo.sampling_policy(agent, env=env, config=config.ppo)
        environments, steps, metrics = rollout.rollout(
            key_rollout, environments, policy, env=env, num_steps=config.rollout_length
        )
        observation = normalisation.update(agent.observation, steps.observation)
        rewards = steps.true_reward / state.true_reward.std
        agent, _ = ppo.update(key_ppo, agent, steps, rewards, 0.0, env=env, config=config.ppo)
        return (environments, dataclasses.replace(agent, observation=observation)), metrics["return"]

    keys = jax.random.split(state.key, num_iterations)
    (_, agent), returns = jax.lax.scan(step, (state.environments, state.agent), keys)
    return agent, returns


def steady_state(preferences: Agents, true_reward: Agents, repeats: int) -> dict[str, Any]:
    """Returns speed past the warm-up, and what preferences cost over the same PPO on the true reward.

    Agents on the true reward run the same program, in which they skip the fit but still choose pairs to ask about and
    predict rewards. Plain PPO is a program without any of that: against it the overhead is the whole of it. On a GPU
    the lanes of a program cannot skip anything, so that only plain PPO tells anything there.
    """
    program = preferences.program
    plain = parallel.over_agents(
        lambda state, config: plain_ppo(state, config, program.iterations, env=program.env), program.num
    )
    on_plain_ppo = lambda: plain(true_reward.states, true_reward.lanes)  # noqa: E731
    calls: dict[str, Callable[[], Any]] = {
        "preferences": preferences,
        "true_reward": true_reward,
        "plain_ppo": on_plain_ppo,
    }
    samples = in_turn(calls, repeats)
    out: dict[str, Any] = {
        "agents": program.num,
        "iterations_per_call": program.iterations,
        "from_iteration": int(preferences.states.iteration[0]),
        "labels": float(preferences.states.preferences.added.mean()),
        "overhead_clock": "processor" if jax.default_backend() == "cpu" else "wall",
    }
    out |= {name: _speed(typical(timings), program) for name, timings in samples.items()}
    for name in ("true_reward", "plain_ppo"):
        pairs = zip(samples["preferences"], samples[name], strict=True)
        out[f"preference_overhead_over_{name}"] = spread([cost(a) / cost(b) for a, b in pairs])
    return out


def _speed(seconds: Seconds, program: Program) -> dict[str, float]:
    """Returns the speed of a call of the program that took so long; an agent's is that of a whole training of it."""
    num, iterations, config = program.num, program.iterations, program.config
    steps = num * iterations * config.num_envs * config.rollout_length
    out = {
        "env_steps_per_second": steps / seconds.wall,
        "env_steps_per_processor_second": steps / seconds.processor,
        "cores_busy": seconds.processor / seconds.wall,
    }
    for clock, spent in seconds._asdict().items():
        out[f"{clock}_seconds_per_iteration"] = spent / iterations
        out[f"{clock}_seconds_per_agent_iteration"] = spent / iterations / num
        out[f"{clock}_seconds_per_agent"] = spent / iterations / num * config.iterations
    return out


def scaling(crowds: Sequence[Agents], repeats: int) -> dict[str, Any]:
    """Returns the speed of ever more agents, and the ratio per doubling: 2 if company makes none cheaper."""
    samples = in_turn({str(crowd.num): crowd for crowd in crowds}, repeats)
    sizes = [{"agents": crowd.num, **_speed(typical(samples[str(crowd.num)]), crowd.program)} for crowd in crowds]
    doublings = []
    for few, many in pairwise(crowds):
        pairs = list(zip(samples[str(few.num)], samples[str(many.num)], strict=True))
        power = 1.0 / math.log2(many.num / few.num)
        ratios = {k: spread([(getattr(b, k) / getattr(a, k)) ** power for a, b in pairs]) for k in Seconds._fields}
        doublings.append({"from": few.num, "to": many.num, **ratios})
    return {"sizes": sizes, "ratio_per_doubling": doublings}


def forward_flops(widths: Sequence[int]) -> int:
    """Returns the floating-point operations of the matmuls of an MLP for one sample: `2 Σ inᵢ outᵢ`."""
    return 2 * sum(a * b for a, b in pairwise(widths))


class Loop(NamedTuple):
    """A loop of gradient steps, as its matmuls see it.

    batch: samples in a step of one network.
    networks: widths of every network, input and output included.
    steps: how many.
    """

    batch: int
    networks: tuple[tuple[int, ...], ...]
    steps: int

    @property
    def flops(self) -> int:
        """Three forward passes for every gradient sample: one forward, two backward."""
        return 3 * self.steps * self.batch * sum(forward_flops(widths) for widths in self.networks)


def ppo_loop(env: Environment, config: Config) -> Loop:
    """Returns the gradient steps of `ppo.update`: policy and critic."""
    inputs = math.prod(env.observation_shape)
    batch = config.num_envs * config.rollout_length // config.ppo.minibatches
    networks = tuple((inputs, *config.ppo.hidden, outputs) for outputs in (env.action_size, 1))
    return Loop(batch, networks, config.ppo.epochs * config.ppo.minibatches)


def fit_loop(env: Environment, config: Config) -> Loop:
    """Returns the gradient steps of `reward_ensemble.fit`; each member has steps of its own."""
    inputs = math.prod(env.observation_shape) + env.action_size
    batch = config.reward.batch_size * 2 * config.queries.segment_length
    return Loop(batch, ((inputs, *config.reward.hidden, 1),), config.reward.fit_steps * config.reward.members)


def bare_matmuls(loop: Loop) -> Callable[[], Any]:
    """Returns a call that does the matmuls of the loop, forward and backward, and nothing else."""

    def chain(weights: Sequence[jax.Array], x: jax.Array) -> jax.Array:
        for w in weights:
            x = x @ w
        return x

    def step(networks: list, inputs: list[jax.Array]):
        moved = []
        for weights, x in zip(networks, inputs, strict=True):
            out, pull = jax.vjp(lambda w, x=x: chain(w, x), weights)
            moved.append(jax.tree.map(lambda w, g: w - _STEP_SIZE * g, weights, pull(out)[0]))
        return moved

    def matrix(rows: int, columns: int) -> jax.Array:
        return jax.random.normal(jax.random.key(rows), (rows, columns)) / math.sqrt(rows)

    networks = [[matrix(*shape) for shape in pairwise(w)] for w in loop.networks]
    inputs = [matrix(loop.batch, widths[0]) for widths in loop.networks]
    run = jax.jit(lambda n, x: jax.lax.fori_loop(0, loop.steps, lambda _, n: step(n, x), n))
    return lambda: run(networks, inputs)


def hot_loops(agents: Agents) -> dict[str, Callable[[], Any]]:
    """Returns calls of `ppo.update` and `reward_ensemble.fit` of the first agent, on one device."""
    env, config = agents.program.env, agents.program.config
    state = jax.tree.map(lambda x: jax.device_put(x[0], jax.devices()[0]), agents.states)
    _, steps, _, _ = jax.jit(lambda state: training.propose(state, env=env, config=config))(state)
    key = jax.random.key(0)
    update = jax.jit(
        lambda agent, steps, rewards: ppo.update(key, agent, steps, rewards, 0.0, env=env, config=config.ppo)
    )
    fit = jax.jit(lambda *args: reward_ensemble.fit(key, *args, env=env, config=config.reward))
    return {
        "ppo": lambda: update(state.agent, steps, steps.true_reward),
        "reward_fit": lambda: fit(state.ensemble, state.preferences, state.agent.observation),
    }


def matmul_share(agents: Agents, square: int, repeats: int, sample_seconds: float) -> dict[str, Any]:
    """Returns how fast the hot loops do their matmuls, and how fast the machine does those when it does nothing else.

    Work that is no gradient sample, such as advantages, normalisation and Adam, takes time and counts as no operations.
    Both sides run on one device, which on a CPU is one core.

    Args:
      agents: whose hot loops to time.
      square: rows of a large matrix, whose square is timed to see what the device can do at best.
      repeats: timings of each.
      sample_seconds: how long one of them should last.
    """
    env, config = agents.program.env, agents.program.config
    large = jax.random.normal(jax.random.key(0), (square, square))
    product = jax.jit(lambda x: x @ x)
    seconds = typical(in_turn({"square": lambda: product(large)}, repeats, sample_seconds)["square"])
    gflops = 2e-9 * square**3 / cost(seconds)
    out: dict[str, Any] = {"square": {"rows": square, "gflops": gflops, "cores_busy": seconds.processor / seconds.wall}}
    loops = {"ppo": ppo_loop(env, config), "reward_fit": fit_loop(env, config)}
    for name, ours in hot_loops(agents).items():
        loop = loops[name]
        samples = in_turn({"bare": bare_matmuls(loop), "ours": ours}, repeats, sample_seconds)
        pairs = zip(samples["bare"], samples["ours"], strict=True)
        out[name] = {
            "flops": loop.flops,
            "matmul_gflops": 1e-9 * loop.flops / cost(typical(samples["bare"])),
            "achieved_gflops": 1e-9 * loop.flops / cost(typical(samples["ours"])),
            "share": spread([cost(bare) / cost(ours) for bare, ours in pairs]),
        }
    return out
