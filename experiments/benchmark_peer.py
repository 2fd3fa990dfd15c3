"""The peer side of the benchmark: preference comparisons on Pendulum-v1 with the `imitation` library.

Run it with the Python of an environment that holds imitation; nothing of rlhf_jax is imported.
Parts and settings are those of imitation's tutorial 5_train_preference_comparisons; what is evaluated is the agent
trained along with the reward model. Progress goes to stderr, one JSON object to the last line of stdout. cpu_seconds
and wall_seconds run from the start of the process to the end of training. timesteps counts the steps the agent learned
from, not the ones sampled for fragments only (a line on stderr tells the number of all environment steps).
"""

import argparse
import importlib.metadata
import json
import os
import resource
import sys
import tempfile
import time

WALL_START = time.monotonic()
ENV_ID, HORIZON, NUM_ENVS = "Pendulum-v1", 200, 8
INITIAL_FRACTION, QUERY_SCHEDULE = 0.1, "hyperbolic"
DEFAULTS = dict(seed=0, timesteps=100_000, comparisons=700, fragment_length=100, iterations=60, episodes=256)


def say(text):
    print(f"[{time.monotonic() - WALL_START:7.1f} s] {text}", file=sys.stderr, flush=True)


def fail(text):
    print(f"benchmark_peer.py: error: {text}", file=sys.stderr, flush=True)
    sys.exit(2)


def cpu_seconds():
    """User and system time of this process and its finished children."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def parse_args():
    parser = argparse.ArgumentParser(description="imitation's preference comparisons on Pendulum-v1")
    parser.error = fail  # one line rather than the usage as well
    for name, default in DEFAULTS.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default, help="default: %(default)s")
    args = parser.parse_args()
    for name in DEFAULTS:
        low, high = (0, 2**32 - NUM_ENVS) if name == "seed" else (1, HORIZON if name == "fragment_length" else 10**9)
        if not low <= getattr(args, name) <= high:
            fail(f"--{name.replace('_', '-')} must be from {low} to {high}, got {getattr(args, name)}")
    if args.timesteps < args.iterations:
        fail(f"--timesteps must be at least --iterations, got {args.timesteps} < {args.iterations}")
    return args


def check_schedule(args):
    """imitation fails where a round gets no comparison: tell it before the training rather than amid it."""
    import numpy as np
    from imitation.algorithms.preference_comparisons import QUERY_SCHEDULES
    from imitation.util.util import oric

    initial = int(args.comparisons * INITIAL_FRACTION)
    weights = np.vectorize(QUERY_SCHEDULES[QUERY_SCHEDULE])(np.linspace(0, 1, args.iterations))
    if min(initial, *oric(weights / weights.sum() * (args.comparisons - initial))) < 1:
        fail(f"--comparisons {args.comparisons} is too few for --iterations {args.iterations}: every round needs one")


def make_venv(rng):
    from imitation.data.wrappers import RolloutInfoWrapper
    from imitation.util.util import make_vec_env

    return make_vec_env(ENV_ID, rng=rng, n_envs=NUM_ENVS, post_wrappers=[lambda env, _: RolloutInfoWrapper(env)])


def make_agent(args, venv):
    """The tutorial's PPO agent."""
    from imitation.policies.base import FeedForward32Policy, NormalizeFeaturesExtractor
    from imitation.util.networks import RunningNorm
    from stable_baselines3 import PPO

    features = dict(
        features_extractor_class=NormalizeFeaturesExtractor, features_extractor_kwargs=dict(normalize_class=RunningNorm)
    )
    return PPO(
        policy=FeedForward32Policy,
        policy_kwargs=features,
        env=venv,
        seed=args.seed,
        device="cpu",
        n_steps=2048 // venv.num_envs,
        batch_size=64,
        ent_coef=0.01,
        learning_rate=2e-3,
        clip_range=0.1,
        gae_lambda=0.95,
        gamma=0.97,
        n_epochs=10,
    )


def make_trainer(args, venv, rng, logger):
    """The tutorial's PPO agent and the PreferenceComparisons around it."""
    from imitation.algorithms import preference_comparisons as pc
    from imitation.rewards.reward_nets import BasicRewardNet
    from imitation.util.networks import RunningNorm

    agent = make_agent(args, venv)
    # After PPO, which seeds torch's global generator: the tutorial leaves the reward network unseeded.
    net = BasicRewardNet(venv.observation_space, venv.action_space, normalize_input_layer=RunningNorm)
    reward_trainer = pc.BasicRewardTrainer(
        preference_model=pc.PreferenceModel(net),
        loss=pc.CrossEntropyRewardLoss(),
        epochs=3,
        rng=rng,
        custom_logger=logger,
    )
    generator = pc.AgentTrainer(
        algorithm=agent, reward_fn=net, venv=venv, exploration_frac=0.05, rng=rng, custom_logger=logger
    )
    return agent, pc.PreferenceComparisons(
        generator,
        net,
        num_iterations=args.iterations,
        fragmenter=pc.RandomFragmenter(warning_threshold=0, rng=rng, custom_logger=logger),
        preference_gatherer=pc.SyntheticGatherer(rng=rng, custom_logger=logger),
        reward_trainer=reward_trainer,
        fragment_length=args.fragment_length,
        transition_oversampling=1,
        initial_comparison_frac=INITIAL_FRACTION,
        allow_variable_horizon=False,
        initial_epoch_multiplier=4,
        query_schedule=QUERY_SCHEDULE,
        custom_logger=logger,
    )


def train(args):
    """Trains one agent; returns it and the number of comparisons asked."""
    import numpy as np
    from imitation.util import logger as imitation_logger

    rng = np.random.default_rng(args.seed)
    venv = make_venv(rng)
    with tempfile.TemporaryDirectory() as folder:
        agent, trainer = make_trainer(args, venv, rng, imitation_logger.configure(folder, format_strs=[]))
        say("training: the first comparisons come from an untrained agent")
        metrics = trainer.train(
            total_timesteps=args.timesteps,
            total_comparisons=args.comparisons,
            callback=lambda i: say(
                f"round {i} of {args.iterations}: {agent.num_timesteps} timesteps, "
                f"{len(trainer.dataset)} comparisons, {cpu_seconds():.1f} s of CPU"
            ),
        )
    env_steps = sum(venv.env_method("get_wrapper_attr", "total_steps"))  # kept by the Monitor wrapper
    say(f"trained: {env_steps} environment steps in all, reward accuracy {metrics['reward_accuracy']:.3f}")
    return agent, len(trainer.dataset)


def evaluate(agent, args):
    """Returns of the deterministic policy under the true reward, in environments of its own."""
    import numpy as np
    from stable_baselines3.common.evaluation import evaluate_policy

    say(f"evaluating {args.episodes} episodes")
    venv = make_venv(np.random.default_rng([args.seed, 1]))
    returns, _ = evaluate_policy(agent, venv, args.episodes, deterministic=True, return_episode_rewards=True)
    return np.array(returns)


def main():
    args = parse_args()
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TQDM_DISABLE="1")
    say("importing imitation")
    try:
        import torch

        check_schedule(args)
    except ImportError as error:
        fail(f"this Python lacks the peer's packages ({error})")
    torch.set_num_threads(1)
    agent, comparisons = train(args)
    trained_cpu, trained_wall = cpu_seconds(), time.monotonic() - WALL_START
    returns = evaluate(agent, args)
    print(
        json.dumps(
            {
                "peer": "imitation",
                "version": importlib.metadata.version("imitation"),
                "seed": args.seed,
                "timesteps": agent.num_timesteps,
                "comparisons": comparisons,
                "return_mean": float(returns.mean()),
                "return_std": float(returns.std()),
                "cpu_seconds": round(trained_cpu, 2),
                "evaluate_cpu_seconds": round(cpu_seconds() - trained_cpu, 2),
                "wall_seconds": round(trained_wall, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
