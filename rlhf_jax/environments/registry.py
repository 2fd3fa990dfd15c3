"""Environments by name: gymnax's, this library's, and Atari games."""

import difflib

from rlhf_jax.environments import atari, atari_games
from rlhf_jax.environments.environment import Environment, wrap

OURS = ("MovingDot-v0", "MovingDotNoFrameskip-v0")
"""Names of the environments of this library."""

_BINARY = ("-MinAtar", "Pong-misc")  # Grids of zeros and ones, which gymnax gives as floats.


def make(name: str) -> Environment:
    """Makes an environment.

    Args:
      name: such as "Pendulum-v1" and others of gymnax's registry, "MovingDot-v0", or "PongNoFrameskip-v4".

    Raises:
      ValueError: no environment has this name, and the nearest ones are offered; or it needs another package, or data
        that are not here.
    """
    if name in OURS:
        from rlhf_jax.environments import moving_dot  # Here, not above: it loads gymnax.

        kinds = (moving_dot.StackedDot, moving_dot.MovingDot)
        return wrap(kinds[OURS.index(name)](), name=name)
    if atari_games.is_atari(name) and not difflib.get_close_matches(name, OURS, cutoff=0.9):
        return atari.make(name)
    import gymnax  # Here, not above: it loads plotting libraries, which take seconds.

    if name not in gymnax.registered_envs:
        known = [*OURS, *gymnax.registered_envs]
        games = _games()
        nearest = difflib.get_close_matches(name, [*known, *games], n=3, cutoff=0.3)
        needed = "" if games else ', which need ale-py: pip install -e ".[atari]"'
        raise ValueError(
            f"unknown environment {name!r}; did you mean {' or '.join(nearest) or 'Pendulum-v1'}? "
            f"All names: {', '.join(known)}, and Atari games such as PongNoFrameskip-v4{needed}"
        )
    try:
        base, params = gymnax.make(name)
    except OSError as error:  # Some load their data from the network.
        raise ValueError(f"{name} cannot be made: {error}") from None
    return wrap(base, params, name=name, binary=name.endswith(_BINARY))


def _games() -> list[str]:
    """Returns the names of Atari games, as far as there are any here."""
    try:
        return atari_games.names()
    except ValueError:
        return []
