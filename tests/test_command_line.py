"""What all commands share: names of the files that they draw."""

import pytest

from experiments import command_line


def test_a_picture_takes_the_place_of_no_other(tmp_path):
    usual, drawn = tmp_path / "replay.gif", []
    for _ in range(3):
        drawn.append(command_line.picture(None, usual))
        drawn[-1].touch()
    assert [path.name for path in drawn] == ["replay.gif", "replay_2.gif", "replay_3.gif"]
    with pytest.raises(command_line.BadInput, match=r"replay_2\.gif exists already and is not written over"):
        command_line.picture(str(drawn[1]), usual)


def test_a_picture_needs_a_folder(tmp_path):
    with pytest.raises(command_line.BadInput, match="missing is not a folder"):
        command_line.picture(None, tmp_path / "missing" / "replay.gif")
