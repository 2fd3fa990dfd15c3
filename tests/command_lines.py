"""Runs many command lines of `experiments.pendulum`, each in a process of its own, for the price of one import.

    echo '[{"arguments": ["--seeds", "0"], "folder": "/tmp"}]' | python tests/command_lines.py

This process imports what takes long and does not start JAX, and forks for each command line. Standard input is a list of
objects: `arguments`, the `folder` to run in, and optionally `interrupt`, after how many lines of progress the process
sends itself the signal of Ctrl-C. Standard output is a list of `[exit status, standard output, standard error]`.
"""

import contextlib
import json
import os
import runpy
import signal
import sys
import tempfile
import traceback

import orbax.checkpoint  # noqa: F401
import seaborn  # noqa: F401  gymnax would import it; gymnax itself would start JAX.

from experiments import figures, study  # noqa: F401


def interrupt_after(lines: int) -> None:
    """Sends this process SIGINT when it has shown its progress this often."""
    show, shown = study.Progress.show, []

    def show_and_count(*args):
        show(*args)
        shown.append(1)
        if len(shown) == lines:
            os.kill(os.getpid(), signal.SIGINT)

    study.Progress.show = show_and_count


def run(job: dict) -> int:
    """Runs one command line in this process, as `python -m experiments.pendulum` would, and returns its exit status."""
    os.chdir(job["folder"])
    sys.argv = ["pendulum", *job["arguments"]]
    if "interrupt" in job:
        interrupt_after(job["interrupt"])
    try:
        runpy.run_module("experiments.pendulum", run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def fork(job: dict) -> tuple[int, str, str]:
    """Runs one command line in a process of its own; returns its exit status and what it wrote."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            status = 1
            with contextlib.suppress(BaseException):
                status = run(job)
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return os.waitstatus_to_exitcode(status), out.read().decode(), err.read().decode()


if __name__ == "__main__":
    print(json.dumps([fork(job) for job in json.load(sys.stdin)]))
