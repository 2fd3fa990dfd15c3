"""Kills a run with people again and again while it takes answers, and counts what is lost.

    python tests/killed_runs.py FOLDER 20

Each time the run is resumed and answers go on, through HTTP; the last time it is left to finish. This process imports
what takes long and does not start JAX, and forks for each run. Standard output is one JSON object.
"""

import json
import os
import random
import signal
import sqlite3
import sys
import time
import traceback
import urllib.error
from pathlib import Path

import orbax.checkpoint  # noqa: F401
import seaborn  # noqa: F401
import tiny
import uvicorn  # noqa: F401

from experiments import command_line, human
from rlhf_jax.labelling.client import Client


def start(folder: Path, port: int, resume: bool) -> int:
    """Forks a run; returns its process number."""
    flags = ["--out", str(folder), "--port", str(port)]
    flags += ["--resume"] if resume else tiny.PEOPLE
    child = os.fork()
    if child == 0:
        with open(folder.parent / "output.txt", "a") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        sys.argv = ["human", *flags]
        try:
            command_line.run("human", human.main)
        except SystemExit as error:
            os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    return child


def read(folder: Path, sql: str, *values: object) -> list[tuple]:
    """Returns rows of the run's labels, read beside the run."""
    database = sqlite3.connect(f"file:{folder / 'labels.sqlite'}?mode=ro", uri=True)
    try:
        return database.execute(sql, values).fetchall()
    finally:
        database.close()


def labelled(client: Client, confirmed: list[str], count: int) -> bool:
    """Answers so many pairs, noting what is confirmed; returns whether the run is finished."""
    for _ in range(count):
        reply = client.pair()
        if reply["pair"] is not None:
            token = f"{len(confirmed):08}-{random.getrandbits(32):x}"
            answer = random.choice(["left", "right", "tie", "cannot_tell"])
            client.answer(reply["status"], reply["pair"], answer, token=token)
            confirmed.append(token)
        elif reply["status"]["phase"] == "finished":
            return True
        else:
            time.sleep(0.02)
    return False


def until_it_answers(port: int, deadline: float) -> Client:
    """Returns a client once the page is there."""
    while True:
        client = Client(f"http://127.0.0.1:{port}/")
        try:
            client.get("/api/status")
            return client
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def main(folder: Path, kills: int, port: int) -> dict:
    """Kills the run so many times, then lets it finish."""
    confirmed: list[str] = []
    killed = 0
    for attempt in range(kills + 1):
        child = start(folder, port, resume=attempt > 0)
        deadline = time.monotonic() + 120
        try:
            client = until_it_answers(port, deadline)
            before = len(confirmed)
            finished = False
            while not finished and time.monotonic() < deadline:
                finished = labelled(client, confirmed, 1)
                if attempt < kills and len(confirmed) > before + random.randrange(4):
                    break
        except (urllib.error.URLError, ConnectionError):
            break  # it finished between two requests
        if attempt < kills:
            time.sleep(random.random() * 0.1)
            os.kill(child, signal.SIGKILL)
            killed += 1
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    stored = {token for (token,) in read(folder, "SELECT token FROM answers")}
    twice = read(
        folder,
        "SELECT pair FROM answers WHERE NOT repeat GROUP BY pair HAVING count(*) > 1",
    )
    return {
        "killed": killed,
        "confirmed": len(confirmed),
        "lost": len(set(confirmed) - stored),
        "answered_twice": len(twice),
        "pairs": read(folder, "SELECT count(*) FROM pairs")[0][0],
        "exit_status": status,
    }


if __name__ == "__main__":
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        chosen = free.getsockname()[1]
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), chosen)))
