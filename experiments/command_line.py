"""How every experiment is started: one clear line and exit status 2 for bad input, no traceback for Ctrl-C."""

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from absl import app, flags, logging

from rlhf_jax import parallel

IMPORT = flags.DEFINE_multi_string("import", [], "A module to import first, such as one that registers a renderer.")


class Stopped(Exception):
    """The run ended early; the message says why and how to go on."""


class BadInput(Exception):
    """What was asked for cannot be done; the message names the value and what is allowed."""


@contextmanager
def refusing() -> Iterator[None]:
    """Turns what the library refuses into bad input: a ValueError becomes BadInput."""
    try:
        yield
    except ValueError as error:
        raise BadInput(str(error)) from error


def picture(out: str | None, usual: Path) -> Path:
    """Returns where to draw: what --out says, or the usual place; where that is taken, beside it as name_2, name_3, …

    Raises:
      BadInput: as `new_file` does.
    """
    if out:
        return new_file(Path(out))
    others = (usual.with_stem(f"{usual.stem}_{number}") for number in itertools.count(2))
    return new_file(next(path for path in itertools.chain([usual], others) if not path.exists()))


def new_file(path: Path) -> Path:
    """Returns the path of a file that can be written; raises BadInput if it is there already or has no folder."""
    if path.exists():
        raise BadInput(f"{path} exists already and is not written over; name another file by --out")
    if not path.parent.is_dir():
        raise BadInput(f"{path} cannot be written: {path.parent} is not a folder")
    return path


def run(name: str, main: Callable[..., None], *forms: str) -> None:
    """Runs an experiment with the machine prepared; exits with 2 for bad input, 1 if the run stopped early.

    Args:
      name: of the experiment.
      main: is given the arguments, those that are no flags.
      forms: what the arguments may be, such as "show RUN" or "RUN_OR_FILE ..."; none if there are only flags. Words in
        capitals stand for any text, and "..." for more of the word before it.
    """

    def guarded(argv: Sequence[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # JAX logs at INFO which devices it looked for and did not find.
        try:
            _check_arguments(name, argv[1:], forms)
            _import_modules()
            parallel.prepare_machine()
            main(*argv[1:])
        except BadInput as error:
            _exit(name, str(error), 2)
        except Stopped as error:
            _exit(name, str(error), 1)
        except KeyboardInterrupt:
            _exit(name, "interrupted", 1)

    app.run(guarded, flags_parser=flags_parser(name))


def _check_arguments(name: str, arguments: Sequence[str], forms: Sequence[str]) -> None:
    if any(_fits(arguments, form.split()) for form in forms or [""]):
        return
    if not forms:
        raise BadInput(f"unknown argument {arguments[0]!r}; flags begin with --, see --help")
    given = repr(" ".join(arguments)) if arguments else "nothing"
    raise BadInput(f"the arguments must be {' or '.join(repr(form) for form in forms)}, not {given}; see --help")


def _fits(arguments: Sequence[str], words: list[str]) -> bool:
    if words[-1:] == ["..."]:
        words = words[:-1] + words[-2:-1] * (len(arguments) - len(words) + 1)
    if len(arguments) != len(words):
        return False
    return all(word.isupper() or word == argument for word, argument in zip(words, arguments, strict=True))


def _import_modules() -> None:
    for module in IMPORT.value:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise BadInput(f"--import {module} does not work: {error}") from None


def flags_parser(name: str) -> Callable[[Sequence[str]], list[str]]:
    """Returns a parser for `absl.app.run` that exits with 2 and one line, where absl prints a page and exits with 1."""

    def parse(argv: Sequence[str]) -> list[str]:
        try:
            return flags.FLAGS(list(argv))
        except flags.Error as error:
            _exit(name, str(error).splitlines()[0], 2)
            raise

    return parse


def _exit(name: str, message: str, status: int) -> None:
    print(f"experiments.{name}: {message}", file=sys.stderr)
    sys.exit(status)
