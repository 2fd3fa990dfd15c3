"""How every experiment is started: one clear line and exit status 2 for bad input, no traceback for Ctrl-C."""

import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from rlhf_jax import parallel


class Stopped(Exception):
    """The run ended early; the message says why and how to go on."""


class BadInput(Exception):
    """What was asked for cannot be done; the message names the value and what is allowed."""


def run(name: str, main: Callable[[], None]) -> None:
    """Runs an experiment with the machine prepared; exits with 2 for bad input, 1 if the run stopped early."""

    def guarded(argv: Sequence[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # JAX logs at INFO which devices it looked for and did not find.
        try:
            if len(argv) > 1:
                raise BadInput(f"unknown argument {argv[1]!r}; flags begin with --, see --help")
            parallel.prepare_machine()
            main()
        except BadInput as error:
            _exit(name, str(error), 2)
        except Stopped as error:
            _exit(name, str(error), 1)
        except KeyboardInterrupt:
            _exit(name, "interrupted", 1)

    app.run(guarded, flags_parser=flags_parser(name))


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
