"""A training with people: the page beside the loop, checkpoints, and what is left of it all in the run folder."""

import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import rlhf_jax
from experiments import session
from experiments.command_line import BadInput, Stopped
from rlhf_jax import parallel, queries, run_folder, train_state
from rlhf_jax.labelling import human_teacher, label_store, pairs
from rlhf_jax.labelling.desk import Desk
from rlhf_jax.labelling.human_teacher import HumanTeacher
from rlhf_jax.labelling.label_store import LabelStore
from rlhf_jax.labelling.progress import Progress
from rlhf_jax.run_folder import RunFolder
from rlhf_jax.train_state import TrainState

INSTRUCTION = flags.DEFINE_string("instruction", "", "What the agent should do, in words, for the page.")
SYNCHRONOUS = flags.DEFINE_boolean(
    "synchronous", False, "Wait for all answers in every iteration, instead of training at most 8 pairs ahead of them."
)
HOST = flags.DEFINE_string("host", "127.0.0.1", "Where the page is served; beyond this machine it needs a token.")
PORT = flags.DEFINE_integer("port", 8000, "Another one is chosen if it is taken.", lower_bound=0, upper_bound=65535)

_MAX_INSTRUCTION = 500
_GOODBYE_SECONDS = 1.5  # An open page asks once a second.

Curves = dict[str, np.ndarray]
"""`[1, iterations]` of each metric."""


def instruction() -> str:
    """Returns what --instruction says; raises ValueError if it cannot be shown on the page."""
    if len(INSTRUCTION.value) > _MAX_INSTRUCTION or not INSTRUCTION.value.isprintable():
        raise ValueError(f"--instruction must be at most {_MAX_INSTRUCTION} printable characters, in one line")
    return INSTRUCTION.value


def check_page() -> None:
    """Checks what the page needs, before the folder of a run is made; raises ValueError."""
    instruction()
    _server().check_address(HOST.value, PORT.value)


def _server() -> ModuleType:
    try:
        from rlhf_jax.labelling import server
    except ImportError as error:
        raise ValueError(f'the page needs {error.name}: pip install -e ".[human]"') from None
    return server


class LabellingSession:
    """What a training with people holds open; a context manager."""

    def __init__(self, run: RunFolder) -> None:
        """Opens the labels of a run, new or resumed.

        Raises:
          BadInput: they are damaged, the run is in use, or the page cannot be served.
        """
        (self.config,) = run.conditions.values()
        self.run, self.env = run, rlhf_jax.make(self.config.env)
        self.lanes = parallel.lanes([self.config])
        self._open = ExitStack()
        try:
            self._open.enter_context(run_folder.claim(run))
            self._store = self._open_store()
            self._desk, self._progress = Desk(self._store), Progress()
            self._address = self._serve()
        except ValueError as error:
            self._open.close()
            raise BadInput(str(error)) from error

    def __enter__(self) -> "LabellingSession":
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def _open_store(self) -> LabelStore:
        path = self.run.path / run_folder.LABELS
        if not path.exists():
            layout = pairs.layout(self.env, self.config.queries.segment_length)
            source = label_store.new_source(self.env, layout, instruction())
            LabelStore.create(path, source).close()
        store = LabelStore(path)
        self._open.callback(store.close)
        return store

    def _serve(self) -> str:
        server = _server()
        from rlhf_jax.labelling.application import Page, Plan  # Not above: it needs the extra, too.

        labels = self.config.labels
        initial = int(queries.labels_by(jnp.asarray(labels.warmup), config=self.config))
        plan = Plan(labels.budget, initial, self.config.iterations, SYNCHRONOUS.value)
        page = Page(self._store, self._desk, self._progress, plan)
        address = self._open.enter_context(server.serve(page, HOST.value, PORT.value, token=self._token()))
        if PORT.value and f":{PORT.value}/" not in address:
            session.say(f"port {PORT.value} is taken")
        session.say(f"label at {address}")
        answered = len(self._store.in_force())
        mode = "waits for each batch" if SYNCHRONOUS.value else "trains on while people answer"
        if initial == labels.budget:
            session.say(f"{answered} of {labels.budget} answers are there")
        elif answered < initial:
            session.say(f"{initial - answered} answers are needed before training begins; then the agent {mode}")
        else:
            session.say(f"{answered} of {labels.budget} answers are there; the agent {mode}")
        return address

    def _token(self) -> str:
        """Returns the token of this run, the same after a restart, so that open pages go on."""
        path = self.run.path / "token"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(16))
        return path.read_text()

    def say(self, phase: str, message: str) -> None:
        """Says on the page and the terminal what is going on."""
        self._progress.say(phase, message)

    def train(
        self, clock: session.Clock, until: int | None = None
    ) -> tuple[train_state.TrainState, dict[str, np.ndarray]]:
        """Trains until this iteration, or to the end; returns the state and the metrics, `[1, ...]`.

        Raises:
          Stopped: by Ctrl-C, after saving.
        """
        until = self.config.iterations if until is None else until
        start = session.restore(self.run)
        self._show_past(start.metrics)
        with session.interruptible("saving, then stopping; press Ctrl-C again to stop at once") as stopped:
            with clock.phase("train", "compiling; the first pairs appear in a moment"):
                state, metrics = self._loop(start, until, stopped)
            if int(state.iteration) < until:
                self._stop("The run was stopped; all answers are kept.", state, metrics)
                where = f"go on with --out {self.run.path} --resume"
                raise Stopped(f"stopped at iteration {int(state.iteration)}; all answers are kept; {where}")
            self._save(state, metrics)
        return jax.tree.map(lambda x: x[None], state), metrics

    def _begin(self, start: session.Start, until: int) -> TrainState:
        """Returns the agent as it was saved, or a new one."""
        if start.states is None:
            key = parallel.agent_keys(self.run.seeds)[0]
            return jax.jit(lambda key: train_state.init(key, env=self.env, config=self.config))(key)
        state = jax.device_put(jax.tree.map(lambda x: x[0], start.take()), jax.devices()[0])
        if not self.env.emulated or start.done >= until:
            return state
        if start.done:
            session.say(session.GAMES_BEGIN_ANEW)
        return jax.jit(lambda state: train_state.restart(state, env=self.env, config=self.config))(state)

    def _loop(self, start: session.Start, until: int, stopped: Callable[[], bool]) -> tuple[TrainState, Curves]:
        state, metrics = self._begin(start, until), start.metrics
        lead = 0 if SYNCHRONOUS.value else human_teacher.LEAD
        people = HumanTeacher(self._store, self._desk, self._progress, env=self.env, config=self.config, lead=lead)
        rounds = human_teacher.iterations(state, people, stopped, env=self.env, config=self.config)
        now_and_then = session.Saver(self._save)
        while int(state.iteration) < until and not stopped():
            after, new = next(rounds, (None, {}))
            if after is None:  # stopped while it waited
                break
            row = {name: np.asarray(value)[None, None] for name, value in new.items()}
            if not row["finite"].all():
                trouble = f"a loss, reward or parameter became NaN or infinite in iteration {int(after.iteration)}"
                self._stop(f"The run was stopped, because {trouble}; all answers are kept.", state, metrics)
                raise Stopped(f"{trouble}; the state before it is saved")
            state = after
            metrics = {k: np.concatenate([metrics[k], v], 1) if metrics else v for k, v in row.items()}
            session.append_metrics(self.run, row, int(state.iteration) - 1)
            self._progress.add(int(state.iteration), new)
            now_and_then(state, metrics)
        return state, metrics

    def _stop(self, message: str, state: TrainState, metrics: Curves) -> None:
        """Saves, and gives open pages the time to say that the run has stopped, not that the connection is lost."""
        self.say("stopped", message)
        said = time.perf_counter()
        self._save(state, metrics)
        time.sleep(max(_GOODBYE_SECONDS - (time.perf_counter() - said), 0.0))

    def _save(self, state: TrainState, metrics: Curves) -> None:
        session.save(self.run, int(state.iteration), jax.tree.map(lambda x: x[None], state), metrics)

    def _show_past(self, metrics: Curves) -> None:
        """Puts what happened before the checkpoint on the page's curves and into metrics.jsonl."""
        (self.run.path / "metrics.jsonl").write_text("")
        session.append_metrics(self.run, metrics, 0)
        columns = next(iter(metrics.values())).shape[1] if metrics else 0
        for column in range(columns):
            self._progress.add(column + 1, {name: values[0, column] for name, values in metrics.items()})
