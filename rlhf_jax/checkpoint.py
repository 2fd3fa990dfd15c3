"""Host only: checkpoints of whole training states, by orbax."""

import dataclasses
import logging
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


def _manager(folder: Path) -> Any:
    import orbax.checkpoint as ocp  # Here, not above: loading a policy should not wait for it before it complains.

    return ocp.CheckpointManager(folder.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=2))


@dataclasses.dataclass(frozen=True)
class _WithoutLateReads:
    """Tells of errors that cannot be raised, but not of reads that end after another failed and their loop was closed.

    otherwise: is told of all else.
    """

    otherwise: Callable[[Any], None]

    def __call__(self, unraisable: Any) -> None:
        # They are native code, which has no name.
        if unraisable.object is not None or str(unraisable.exc_value) != "Event loop is closed":
            self.otherwise(unraisable)


def save(folder: Path, iteration: int, tree: Any) -> None:
    """Writes a checkpoint and waits until it is on disk; the two newest are kept.

    Args:
      folder: of the checkpoints.
      iteration: iterations done, the checkpoint's name.
      tree: any pytree of arrays, typed keys included.
    """
    import orbax.checkpoint as ocp

    with _manager(folder) as manager:
        manager.save(iteration, args=ocp.args.StandardSave(tree))
        manager.wait_until_finished()


def latest(folder: Path) -> int | None:
    """Returns the iteration of the newest complete checkpoint; None if there is none."""
    if not folder.is_dir():
        return None
    with _manager(folder) as manager:
        return manager.latest_step()


def restore(folder: Path, iteration: int, like: Any) -> Any:
    """Reads a checkpoint.

    For the rest of the process Python is silent about native code that finds an event loop closed; after a failure,
    also about errors of asyncio that are not critical.

    Args:
      folder: of the checkpoints.
      iteration: which one.
      like: a pytree of arrays or of `jax.ShapeDtypeStruct`, of the structure, shapes and dtypes that are expected;
        leaves that are `...` are not read.

    Returns:
      The pytree, bit for bit as it was saved, on the first device; it may have been saved from others. What is not read
      stays `...`.

    Raises:
      ValueError: the checkpoint is damaged, or of another program.
    """
    import orbax.checkpoint as ocp

    # Named, because orbax would otherwise ask for the devices that the checkpoint was saved from.
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    read = lambda x: x is not ...  # noqa: E731
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here) if read(x) else x, like)
    how = jax.tree.map(lambda x: ocp.ArrayRestoreArgs(sharding=here, dtype=x.dtype) if read(x) else x, shapes)
    if not isinstance(sys.unraisablehook, _WithoutLateReads):  # For good: they may end at any time.
        sys.unraisablehook = _WithoutLateReads(sys.unraisablehook)
    try:
        with _manager(folder) as manager:
            tree = manager.restore(iteration, args=ocp.args.PyTreeRestore(item=shapes, restore_args=how))
    except Exception as error:  # Orbax raises a dozen kinds, by what exactly is missing or damaged.
        # It leaves tasks behind that failed alike, of which asyncio would tell at some later time.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        reason = textwrap.shorten((str(error).strip() or type(error).__name__).splitlines()[0], 200, placeholder=" …")
        raise ValueError(f"checkpoint {iteration} in {folder} is damaged or of another program: {reason}") from error
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(shapes), strict=True)
    if any(read(x) and found.shape != x.shape for found, x in pairs):
        raise ValueError(f"checkpoint {iteration} in {folder} is of another program: its arrays have other shapes")
    return tree
