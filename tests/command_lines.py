"""Runs many command lines of experiments, each in a process of its own, for the price of one import.

    echo '[{"module": "pendulum", "arguments": ["--seeds", "0"], "folder": "/tmp"}]' | python tests/command_lines.py

This process imports what takes long and does not start JAX, and forks for each command line. Each line of standard
input is a list of objects: the `module` of `experiments`, `arguments`, the `folder` to run in, and optionally
`xla_flags`, beside those of this process, `all_devices`, to have one for each core as by default, and `interrupt`, at
which words on its standard error the process sends itself the signal of Ctrl-C. Each is answered by a line of standard
output, a list of `[exit status, output, error output]`.
"""

import contextlib
import io
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


class Interrupting(io.TextIOBase):
    """A stream that passes text on, and sends SIGINT to this process at the first line with these words."""

    def __init__(self, stream, words):
        self._stream, self._words = stream, words

    def write(self, text):
        count = self._stream.write(text)
        if self._words and self._words in text:
            self._words = None
            os.kill(os.getpid(), signal.SIGINT)
        return count

    def flush(self):
        self._stream.flush()


def run(job: dict) -> int:
    """Runs one command line in this process, as `python -m experiments.<module>` would, and returns its exit status."""
    os.chdir(job["folder"])
    sys.argv = [job["module"], *job["arguments"]]
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {job.get('xla_flags', '')}"
    if job.get("all_devices"):
        os.environ.pop("JAX_NUM_CPU_DEVICES", None)
    if "interrupt" in job:
        # Of a shell's background processes it is ignored, and they hand that down.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stderr = Interrupting(sys.stderr, job["interrupt"])
    try:
        runpy.run_module(f"experiments.{job['module']}", run_name="__main__", alter_sys=True)
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
    for line in sys.stdin:
        print(json.dumps([fork(job) for job in json.loads(line)]), flush=True)
