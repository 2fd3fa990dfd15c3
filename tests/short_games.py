"""Imported by command lines of experiments on images, so that less is played to evaluate them.

How much is played otherwise is tested in `test_evaluation`.
"""

import dataclasses

from experiments import evaluation, results

evaluation._GAMES = ((2**18, (512, 32)), (2**25, (4, 2)))  # Vectors as ever; of images what is shown.
# 200 steps of a game of an emulator are kept, so that it has some more.
results._for_evaluation = lambda env: dataclasses.replace(env, horizon=250) if env.emulated else env
