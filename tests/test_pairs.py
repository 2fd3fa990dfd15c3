"""Pairs as records: what was asked about comes back bit for bit, whatever the environment keeps."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import label_stores
import numpy as np
import probes
import pytest

import rlhf_jax
from rlhf_jax.labelling import pairs
from rlhf_jax.queries import Queries


@flax.struct.dataclass
class Board:
    """Part of a state.

    alive: [4] whether each cell is.
    colour: [2, 2] of each cell.
    """

    alive: jax.Array
    colour: jax.Array


@flax.struct.dataclass
class Nested(probes.State):
    """A state with a state in it, of every type that environments use.

    board: what is in it.
    energy: [] half precision.
    """

    board: Board
    energy: jax.Array


class Puzzle(probes.Probe):
    """A probe whose state is nested."""

    def reset(self, key, params):
        observation, state = super().reset(key, params)
        board = Board(jnp.zeros(4, jnp.bool_), jnp.zeros((2, 2), jnp.uint8))
        return observation, Nested(state.time, state.sign, board, jnp.zeros((), jnp.float16))


def filled(record, asked, seed=0):
    """Queries of random bits, as many as `asked` has slots."""
    noise = label_stores.noise(record, len(asked), seed)
    names = ("observation", "action", "true_reward")
    state = {name: jnp.asarray(values) for name, values in pairs.states(noise).items()}
    return noise, Queries(**{name: jnp.asarray(noise[name]) for name in names}, state=state, asked=jnp.asarray(asked))


def test_a_record_has_all_that_was_asked_about():
    record = pairs.layout(probes.make(Puzzle()), 7)
    fields = {name: (record[name].base, record[name].shape) for name in record.names}
    assert fields == {
        "observation": (np.float32, (2, 7, 1)),
        "action": (np.int32, (2, 7)),
        "true_reward": (np.float32, (2, 7)),
        "state.time": (np.int32, (2, 7)),
        "state.sign": (np.float32, (2, 7)),
        "state.board.alive": (np.bool_, (2, 7, 4)),
        "state.board.colour": (np.uint8, (2, 7, 2, 2)),
        "state.energy": (np.float16, (2, 7)),
    }


def test_a_continuous_action_keeps_its_dimensions():
    assert pairs.layout(rlhf_jax.make("Pendulum-v1"), 4)["action"].shape == (2, 4, 1)


@pytest.mark.parametrize("asked", [[True, False, True, True], [False] * 4, [True] * 4])
def test_what_is_asked_comes_back_bit_for_bit(asked):
    record = pairs.layout(probes.make(Puzzle()), 7)
    noise, queries = filled(record, asked)
    records = pairs.to_records(queries, record)
    assert records.dtype == record
    assert records.tobytes() == noise[np.asarray(asked)].tobytes()
    again = pairs.to_queries(records, 6)
    assert again.asked.tolist() == [i < sum(asked) for i in range(6)]
    assert pairs.to_records(again, record).tobytes() == records.tobytes()


def test_empty_slots_hold_zeros():
    record = pairs.layout(probes.make(Puzzle()), 7)
    queries = pairs.to_queries(label_stores.noise(record, 1), 3)
    for values in jax.tree.leaves(dataclasses.replace(queries, asked=jnp.zeros(3))):
        assert not np.asarray(values)[1:].any()


def test_the_queries_have_the_types_of_the_environment():
    queries = pairs.to_queries(label_stores.noise(label_stores.LAYOUT, 2), 2)
    assert queries.action.dtype == jnp.int32
    assert queries.state["board.alive"].dtype == jnp.bool_
    assert queries.state["board.colour"].dtype == jnp.uint8
    assert set(queries.state) == {"time", "board.alive", "board.colour"}


def test_more_records_than_slots_are_not_cut_off_in_silence():
    with pytest.raises(ValueError):
        pairs.to_queries(label_stores.noise(label_stores.LAYOUT, 3), 2)


def test_a_layout_survives_json():
    record = pairs.layout(probes.make(Puzzle()), 7)
    assert pairs.from_json(pairs.to_json(record)) == record


@pytest.mark.parametrize("name", ["Pendulum-v1", "Breakout-MinAtar", "MovingDot-v0"])
def test_packed_records_come_back(name):
    """Pictures are compressed: the noise of a test hardly, the black of a screen to a hundredth."""
    record = pairs.layout(rlhf_jax.make(name), 5)
    noise = label_stores.noise(record, 3, 1)
    packed = [pairs.pack(one) for one in noise]
    assert all(pairs.fits(len(part), record) for part in packed)
    assert pairs.unpack(packed, record).tobytes() == noise.tobytes()
    black = pairs.pack(np.zeros(1, record)[0])
    assert len(black) < record.itemsize / 100 if name == "MovingDot-v0" else len(black) == record.itemsize


@pytest.mark.parametrize("kept", [slice(None, 40), slice(0, 0)])
def test_a_damaged_picture_is_said_to_be_damaged(kept):
    record = pairs.layout(rlhf_jax.make("MovingDot-v0"), 5)
    packed = pairs.pack(np.zeros(1, record)[0])
    with pytest.raises(ValueError, match=r"^a stored pair is damaged: "):
        pairs.unpack([packed[kept]], record)


def test_layout_of_pictures_is_in_bytes():
    record = pairs.layout(rlhf_jax.make("MovingDot-v0"), 10)
    assert record["observation"].base == np.uint8 and record["observation"].shape == (2, 10, 84, 84, 4)
    assert pairs.layout(rlhf_jax.make("PongNoFrameskip-v4"), 3)["observation"].shape == (2, 3, 84, 84, 4)
    assert pairs.layout(rlhf_jax.make("Breakout-MinAtar"), 3)["observation"].base == np.bool_
