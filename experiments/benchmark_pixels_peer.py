"""The peer side of MovingDot: PPO with a CnnPolicy of Stable-Baselines3, on the true reward and the same frames.

Run it with the Python of an environment that holds stable-baselines3; nothing of rlhf_jax is imported.

    python experiments/benchmark_pixels_peer.py --timesteps 122880

Settings are those of RL Baselines3 Zoo for Atari (batch size, epochs, coefficients, γ = 0.99), but for constant rates
and as many environments and steps between updates as ours: they are what its users begin with, not tuned to this task,
so what is compared is the time, not how well the dot is moved. Frames are drawn from the place of the dot, as ours are,
so that neither side draws whole ones. Progress goes to stderr, one JSON object to the last line of stdout; cpu_seconds
and wall_seconds run from the start of the process to the end of training.
"""

import argparse
import importlib.metadata
import json
import os
import resource
import sys
import time

WALL_START = time.monotonic()
HEIGHT, WIDTH, SIDE, STACK, REPEAT, HORIZON = 210, 160, 84, 4, 4, 1000
NUM_ENVS, UNROLL, EPISODES = 16, 128, 32
MOVES = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))  # noop, down, right, up, left, as (x, y)


def say(text):
    print(f"[{time.monotonic() - WALL_START:7.1f} s] {text}", file=sys.stderr, flush=True)


def overlaps(low, high, cells, length):
    """Share of each of `cells` equal cells of [0, length) that [low, high) covers."""
    import numpy as np

    edges = np.arange(cells + 1) * length / cells
    covered = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return np.clip(covered, 0, None) * cells / length


def make_env():
    """MovingDot as an Atari agent sees it."""
    import gymnasium
    import numpy as np

    class MovingDot(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 255, (SIDE, SIDE, STACK), np.uint8)
        action_space = gymnasium.spaces.Discrete(len(MOVES))

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.x, self.y = int(self.np_random.integers(0, WIDTH)), int(self.np_random.integers(0, HEIGHT))
            self.time = 0
            self.frames = np.repeat(self.draw([(self.x, self.y)])[..., None], STACK, -1)
            return self.frames, {}

        def draw(self, places):
            """The brightest of the frames with the dot at these places, one pixel apart."""
            xs, ys = zip(*places, strict=True)
            rows = overlaps(min(ys) - 2, max(ys) + 2, SIDE, HEIGHT)
            columns = overlaps(min(xs) - 2, max(xs) + 2, SIDE, WIDTH)
            return np.rint(255 * np.outer(rows, columns)).astype(np.uint8)

        def distance(self):
            return ((self.x - WIDTH // 2) ** 2 + (self.y - HEIGHT // 2) ** 2) ** 0.5

        def step(self, action):
            reward, places = 0.0, []
            for _ in range(REPEAT):
                before = self.distance()
                self.x = min(max(self.x + MOVES[action][0], 2), 157)
                self.y = min(max(self.y + MOVES[action][1], 2), 207)
                reward += float(np.sign(before - self.distance()))
                places.append((self.x, self.y))
            self.time += REPEAT
            self.frames = np.concatenate([self.frames[..., 1:], self.draw(places[-2:])[..., None]], -1)
            return self.frames, reward, False, self.time >= HORIZON, {"distance": self.distance()}

    return MovingDot()


def train(seed, timesteps):
    """Trains an agent; returns it."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    class Report(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_end(self):
            infos = self.model.ep_info_buffer
            mean = sum(info["r"] for info in infos) / len(infos) if infos else float("nan")
            say(f"{self.num_timesteps} of {timesteps} steps, return {mean:.1f}")

    settings = dict(n_steps=UNROLL, batch_size=256, n_epochs=4, learning_rate=2.5e-4, clip_range=0.1, ent_coef=0.01)
    venv = make_vec_env(make_env, NUM_ENVS, seed=seed)
    agent = PPO("CnnPolicy", venv, seed=seed, device="cpu", **settings)
    return agent.learn(timesteps, callback=Report())


def final_distance(agent):
    """Mean distance at the end of episodes of the deterministic policy."""
    env, found = make_env(), []
    for episode in range(EPISODES):
        observation, _ = env.reset(seed=10_000 + episode)
        over = False
        while not over:
            action, _ = agent.predict(observation, deterministic=True)
            observation, _, _, over, info = env.step(int(action))
        found.append(info["distance"])
    return sum(found) / len(found)


def main():
    parser = argparse.ArgumentParser(description="Stable-Baselines3's PPO on MovingDot")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timesteps", type=int, default=122_880)
    args = parser.parse_args()
    say(f"training on {os.cpu_count()} cores")
    agent = train(args.seed, args.timesteps)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    record = {
        "peer": "stable-baselines3",
        "version": importlib.metadata.version("stable-baselines3"),
        "timesteps": agent.num_timesteps,
        "wall_seconds": time.monotonic() - WALL_START,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
    }
    say("evaluating")
    print(json.dumps(record | {"final_distance": final_distance(agent)}))


if __name__ == "__main__":
    main()
