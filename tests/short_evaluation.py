"""Imported by command lines, so that less is played to evaluate their agents.

How much is played otherwise is tested in `test_evaluation`.
"""

import dataclasses

from experiments import evaluation

STEPS = 40  # that are kept of a game that is seen


def plan(env):
    """Of images only what is shown."""
    seen = len(env.observation_shape) > 1
    return evaluation.Plan(4, 2, STEPS) if seen else evaluation.Plan(16, 4, env.horizon)


def shortened(env):
    """An emulator's games go on for some steps after those that are kept."""
    if len(env.observation_shape) == 1:
        return env
    return dataclasses.replace(env, horizon=STEPS + 10 if env.emulated else STEPS)


evaluation.plan, evaluation.shortened = plan, shortened
