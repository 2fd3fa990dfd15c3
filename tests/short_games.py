"""Imported by command lines of experiments on images, so that less is played to evaluate them.

How much is played otherwise is tested in `test_evaluation`.
"""

import dataclasses

from experiments import evaluation, results

evaluation.plan = lambda env: evaluation.Plan(starts=4, episodes=2, steps=40)
# An emulator's games have some more steps than are kept.
results._for_evaluation = lambda env: dataclasses.replace(env, horizon=50 if env.emulated else 40)
