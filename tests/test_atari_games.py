"""Names of Atari games, and the package that they need."""

import subprocess
import sys

import pytest

from rlhf_jax.environments import atari, atari_games


def test_names():
    names = atari_games.names()
    assert {"PongNoFrameskip-v4", "BeamRiderNoFrameskip-v4", "MsPacmanNoFrameskip-v4"} <= set(names)
    assert all(atari_games.is_atari(name) for name in names)
    assert not atari_games.is_atari("Pong-misc")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("PnogNoFrameskip-v4", "Pong"),
        ("SpaceInvaderNoFrameskip-v4", "SpaceInvaders"),
        ("PongDeterministic-v4", "Pong"),
        ("ALE/Enduro-v5", "Enduro"),
        ("ENDURO", "Enduro"),
        ("QbertNoFrameskip", "Qbert"),
    ],
)
def test_unknown_game_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"unknown Atari game '{name}'; did you mean {nearest}NoFrameskip-v4.*[?]$"):
        atari.make(name)


def test_a_game_for_two_is_refused():
    with pytest.raises(ValueError, match=r"^unknown Atari game 'MazeCrazeNoFrameskip-v4'; it is for two players$"):
        atari.make("MazeCrazeNoFrameskip-v4")


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(ValueError, match=r'^PongNoFrameskip-v4 needs ale-py: pip install -e "\.\[atari\]"$'):
        atari.make("PongNoFrameskip-v4")


def test_the_package_is_loaded_only_when_needed(environment):
    code = "import rlhf_jax, sys; [rlhf_jax.make(name) for name in sys.argv[1:]]; sys.exit('ale_py' in sys.modules)"
    command = [sys.executable, "-c", code, "Pendulum-v1", "MovingDot-v0"]
    assert subprocess.run(command, env=environment, timeout=120).returncode == 0
