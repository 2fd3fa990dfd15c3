"""The page's application: what each of its requests does, and which files it is made of."""

import asyncio
import dataclasses
from concurrent.futures import Future
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rlhf_jax.environments import rendering
from rlhf_jax.labelling import clips, requests, security
from rlhf_jax.labelling.clips import ClipCache
from rlhf_jax.labelling.desk import Conflict, Desk, Showing
from rlhf_jax.labelling.label_store import Answer, LabelStore
from rlhf_jax.labelling.progress import Progress
from rlhf_jax.labelling.security import Refused

_PREPARED = 4  # pairs whose clips are drawn before they are asked for
_SURENESS = 200  # answers that the page draws
_MAX_HISTORY = 100
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the page says of a run that does not change.

    budget: answers that are wanted.
    initial: how many of them before training begins.
    iterations: of the training.
    synchronous: whether the agent waits for each batch.
    """

    budget: int
    initial: int
    iterations: int
    synchronous: bool


class Page:
    """Answers the page's requests."""

    def __init__(self, store: LabelStore, desk: Desk, progress: Progress, plan: Plan) -> None:
        self._store, self._desk, self._progress, self._plan = store, desk, progress, plan
        source = store.source
        self._length = source.layout["action"].shape[1]
        self._clips = ClipCache(lambda pair, slot: clips.sheet(source.env, store.segments([pair])[0], slot))
        desk.when_asking(self._prepare)
        self._prepare()

    def _prepare(self) -> None:
        """Has the clips drawn that will be wanted next."""
        for pair in self._desk.upcoming(_PREPARED):
            self._clips.prepare(pair)

    def status(self) -> dict[str, Any]:
        """Returns all that the page says at all times."""
        source, in_force = self._store.source, self._store.in_force()
        shown, agreed = self._desk.agreement()
        newest = sorted(in_force.values(), key=lambda answer: answer.id)[-_SURENESS:]
        return {
            "run": source.run,
            "env": source.env,
            "instruction": source.instruction,
            "legend": rendering.legend(source.env),
            "mode": "synchronous" if self._plan.synchronous else "asynchronous",
            "answered": len(in_force),
            "budget": self._plan.budget,
            "waiting": self._desk.waiting,
            "initial_missing": max(self._plan.initial - len(in_force), 0),
            "iterations": self._plan.iterations,
            "fps": rendering.STEPS_PER_SECOND,
            "repeats": {"shown": shown, "agreed": agreed},
            "sureness": [_sureness(answer) for answer in newest],
            **self._progress.snapshot(),
        }

    def next(self, screen: str, labeller: str) -> dict[str, Any]:
        """Returns the pair that this screen shows, and the status."""
        showing = self._desk.next(screen, labeller)
        self._prepare()
        return {"pair": self._described(showing), "status": self.status()}

    def leave(self, screen: str) -> dict[str, Any]:
        """Puts the pair of this screen back, so that somebody else can have it at once."""
        self._desk.leave(screen)
        return {}

    def answer(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Stores an answer; returns what the model thought, the next pair, and the status."""
        self._check_run(fields["run"])
        pair = requests.number(str(fields["pair"]), "pair", 1, self._store.num_pairs())
        screen, labeller = fields["tab"], fields["labeller"].strip()
        wanted = {name: fields[name] for name in ("swapped", "token", "change")}
        stored = self._desk.answer(screen, labeller, pair, fields["answer"], **wanted)
        return {"probability": _probability_of_left(stored), **self.next(screen, labeller)}

    def undo(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Takes back this labeller's newest answer; returns its pair, and the status."""
        self._check_run(fields["run"])
        showing = self._desk.undo(fields["tab"], fields["labeller"].strip(), fields["token"])
        return {"pair": self._described(showing), "status": self.status()}

    def history(self, before: int, limit: int) -> dict[str, Any]:
        """Returns the answers in force that came before this row, newest first."""
        answers = sorted(self._store.in_force().values(), key=lambda answer: -answer.id)
        older = [answer for answer in answers if answer.id < before]
        return {"answers": [self._past(answer) for answer in older[:limit]], "more": len(older) > limit}

    def sheet(self, pair: int, slot: int) -> Future[bytes]:
        """Returns the PNG of one clip, which is drawn if need be."""
        return self._clips.sheet(pair, slot)

    def num_pairs(self) -> int:
        """Returns the number of the newest pair."""
        return self._store.num_pairs()

    def close(self) -> None:
        """Stops drawing clips."""
        self._desk.when_asking(lambda: None)
        self._clips.close()

    def _check_run(self, run: str) -> None:
        if run != self._store.source.run:
            raise Conflict("this page belongs to another run; load it again")

    def _past(self, answer: Answer) -> dict[str, Any]:
        record = {name: getattr(answer, name) for name in ("id", "pair", "answer", "labeller", "answered")}
        return {**record, **self._clip(answer.pair, answer.swapped), "probability": _probability_of_left(answer)}

    def _described(self, showing: Showing | None) -> dict[str, Any] | None:
        return None if showing is None else {"id": showing.pair, **self._clip(showing.pair, showing.swapped)}

    def _clip(self, pair: int, swapped: bool) -> dict[str, Any]:
        """Returns where the clips of a pair are, as they are shown."""
        sides = {
            side: f"/api/clips/{pair}/{int(slot)}.png" for side, slot in (("left", swapped), ("right", not swapped))
        }
        across = clips.columns(self._length)
        return {"swapped": swapped, **sides, "frames": self._length, "columns": across, "size": clips.SIZE}


def _sureness(answer: Answer) -> float | None:
    """Returns with which probability the model expected this answer; None where it could not."""
    if answer.probability is None or answer.label not in (0.0, 1.0):
        return None
    return answer.probability if answer.label else 1.0 - answer.probability


def _probability_of_left(answer: Answer) -> float | None:
    if answer.probability is None:
        return None
    return 1.0 - answer.probability if answer.swapped else answer.probability


def static_files() -> dict[str, tuple[bytes, str]]:
    """Returns the files of the page, by their path in its address: content and type."""
    folder = resources.files("rlhf_jax.labelling") / "page"
    files = {}
    for file in folder.iterdir():
        kind = _TYPES.get(file.name[file.name.rfind(".") :])
        if kind is not None:
            path = "/" if file.name == "index.html" else f"/{file.name}"
            files[path] = file.read_bytes(), kind
    return files


def application(page: Page) -> Starlette:
    """Returns the application that serves a page."""
    app = Starlette(
        routes=[*_static_routes(), *_routes(page)],
        exception_handlers={Refused: _refused, Conflict: _conflict, HTTPException: _http_error, Exception: _failure},
    )
    app.router.redirect_slashes = False
    return app


def _static_routes() -> list[Route]:
    def route(path: str, content: bytes, kind: str) -> Route:
        async def endpoint(request: Request) -> Response:
            return Response(content, media_type=kind)

        return Route(path, endpoint)

    return [route(path, *file) for path, file in static_files().items()]


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return security.refusal(error)


async def _conflict(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 409)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = {404: "there is nothing here", 405: f"{request.method} is not a method of this address"}
    return JSONResponse({"error": text.get(error.status_code, error.detail)}, error.status_code, error.headers)


async def _failure(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"{type(error).__name__} in the server; its terminal says more"}, 500)


def _routes(page: Page) -> list[Route]:
    def post(path: str, names: tuple[str, ...], respond: Any) -> Route:
        async def endpoint(request: Request) -> Response:
            body = await security.read_body(request)
            fields = requests.parse(body, request.headers.get("content-type", ""), names)
            return JSONResponse(await run_in_threadpool(respond, fields))

        return Route(path, endpoint, methods=["POST"])

    async def status(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(page.status))

    async def history(request: Request) -> Response:
        query = request.query_params
        before = requests.number(query.get("before", str(2**31)), "before", 1, 2**31)
        limit = requests.number(query.get("limit", "50"), "limit", 1, _MAX_HISTORY)
        return JSONResponse(await run_in_threadpool(page.history, before, limit))

    async def clip(request: Request) -> Response:
        slot = requests.number(request.path_params["slot"], "slot", 0, 1)
        pair = requests.number(request.path_params["pair"], "pair", 1, await run_in_threadpool(page.num_pairs))
        # No thread waits for the drawing, so that slow clips leave the threads to the answers.
        drawing = asyncio.wrap_future(page.sheet(pair, slot))
        return Response(await asyncio.shield(drawing), media_type="image/png")

    answer = ("run", "pair", "answer", "swapped", "labeller", "tab", "token", "change")
    return [
        Route("/api/status", status),
        Route("/api/history", history),
        Route("/api/clips/{pair}/{slot}.png", clip),
        post("/api/pair", ("labeller", "tab"), lambda fields: page.next(fields["tab"], fields["labeller"].strip())),
        post("/api/leave", ("tab",), lambda fields: page.leave(fields["tab"])),
        post("/api/answer", answer, page.answer),
        post("/api/undo", ("run", "labeller", "tab", "token"), page.undo),
    ]
