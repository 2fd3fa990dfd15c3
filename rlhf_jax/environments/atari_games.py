"""Which Atari games ale-py has, by their names in Gym, and where their pictures show the score."""

import difflib
import re
from typing import Any

_SUFFIX = "NoFrameskip-v4"
_FOR_TWO = frozenset({"combat", "joust", "maze_craze", "warlords"})

SIZE = 84
"""Rows and columns of a picture as agents see it."""

Box = tuple[slice, slice]
"""Rows and columns of a picture."""

_ALL = slice(0, SIZE)
_BLANKED: dict[str, tuple[Box, ...]] = {
    "beam_rider": ((slice(4, 8), slice(32, 58)), (slice(12, 16), slice(4, 24))),  # The second: enemies that are left.
    "breakout": ((slice(2, 6), slice(16, 46)),),
    "enduro": ((slice(62, 84), _ALL),),  # All that is below the road: cars to pass, distance and the speedometer.
    "pong": ((slice(0, 9), _ALL),),
    "qbert": ((slice(2, 6), slice(16, 38)),),
    "seaquest": ((slice(3, 7), slice(28, 58)),),
    "space_invaders": ((slice(4, 8), _ALL),),  # The saucer, which takes the place of the score when it comes, is lost.
}


def is_atari(name: str) -> bool:
    """Whether this is how Atari games are named."""
    return name.endswith(_SUFFIX)


def names() -> list[str]:
    """Returns the names of all games that one can play alone, such as "PongNoFrameskip-v4".

    Raises:
      ValueError: ale-py is not installed.
    """
    return sorted(_games("Atari"))


def find(name: str) -> str:
    """Returns the emulator's name of a game, such as "pong" of "PongNoFrameskip-v4".

    Raises:
      ValueError: no game has this name, and the nearest ones are offered; or ale-py is not installed.
    """
    games = _games(name)
    if name not in games:
        raise ValueError(f"unknown Atari game {name!r}; {_advice(name, games)}")
    return games[name]


def blanked(game: str) -> tuple[Box, ...]:
    """Returns what of each picture of a game is black, because it shows the score; nothing if that is not known.

    Otherwise a reward is easily learnt that only reads the score. Enduro's speedometer and BeamRider's count of
    enemies are blanked as well.

    Args:
      game: the emulator's name of the game, such as "pong".

    Reference: Christiano et al. 2017, appendix A.2.
    """
    return _BLANKED.get(game, ())


def ale(needed_by: str) -> tuple[Any, Any]:
    """Returns ale-py and its class of emulators.

    Args:
      needed_by: whatever cannot do without, for the error.

    Raises:
      ValueError: ale-py is not installed.
    """
    try:
        import ale_py
        from ale_py.vector_env import AtariVectorEnv
    except ImportError as error:
        raise ValueError(f'{needed_by} needs ale-py: pip install -e ".[atari]"') from error
    return ale_py, AtariVectorEnv


def _games(needed_by: str) -> dict[str, str]:
    """Returns the emulator's names of the games by ours."""
    package, _ = ale(needed_by)
    known = set(package.roms.get_all_rom_ids()) - _FOR_TWO
    return {game.title().replace("_", "") + _SUFFIX: game for game in known}


def _advice(name: str, games: dict[str, str]) -> str:
    """Returns what to say to whoever asked for a game by a name that is none of these."""
    # Names end alike, or as in other versions of Gym: what is near is decided by the game's own name.
    asked = re.sub(r"^ale/|(noframeskip|deterministic)?(-v\d+)?$", "", name.lower())
    if asked in {game.replace("_", "") for game in _FOR_TWO}:
        return "it is for two players"
    own = {full.removesuffix(_SUFFIX).lower(): full for full in games}
    nearest = difflib.get_close_matches(asked, own, n=3, cutoff=0.3)
    return f"did you mean {' or '.join(own[match] for match in nearest) or f'Pong{_SUFFIX}'}?"
