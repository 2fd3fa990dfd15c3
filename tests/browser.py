"""A run without training behind it, and real browsers that look at its labelling page."""

import base64
import contextlib
import functools
import io
import os
import re
import shutil
import socket

import numpy as np
import pytest
from PIL import Image

import rlhf_jax
from rlhf_jax.environments.canvas import BODY
from rlhf_jax.labelling import clips, pairs, server
from rlhf_jax.labelling.application import Page, Plan
from rlhf_jax.labelling.desk import Desk
from rlhf_jax.labelling.label_store import LabelStore, new_source
from rlhf_jax.labelling.progress import Progress

try:
    from playwright import sync_api
except ImportError:
    sync_api = None

LENGTH = 30
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # The name that other machines call this one by; a page that comes from there is no secure context.
    f"--host-resolver-rules=MAP {socket.gethostname()} 127.0.0.1",
]
NO_NETWORK = r"Failed to load resource: net::ERR_"
CONFLICT = r"Failed to load resource: .* status of 409"


def _missing(what, command):
    message = f"{what} is missing: {command}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@contextlib.contextmanager
def chromium():
    """A browser without a window; where there is none, the test is skipped, in CI it fails."""
    if sync_api is None:
        _missing("playwright", 'pip install -e ".[dev]"')
    path = shutil.which("chromium")
    if path is None:
        _missing("Chromium", "apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        sync_api.expect.set_options(timeout=15_000)
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@functools.cache
def pendulum():
    """The environment, and the record of a pair."""
    env = rlhf_jax.make("Pendulum-v1")
    return env, pairs.layout(env, LENGTH)


def records(upright):
    """Pairs of which this slot shows a pendulum that stands, and the other one that hangs; no two frames are alike."""
    made = np.zeros(len(upright), pendulum()[1])
    for record, standing in zip(made, upright, strict=True):
        for slot in (0, 1):
            angle = np.linspace(-0.5, 0.5, LENGTH) + (0 if slot == standing else np.pi)
            record["observation"][slot] = np.stack([np.cos(angle), np.sin(angle), np.ones(LENGTH)], axis=-1)
            record["state.theta"][slot] = angle
    return made


class Run:
    """The part of a run that people see: a store, a desk, what it says of itself, and its server."""

    def __init__(self, folder, swapped=(), upright=None, *, instruction="", initial=0, budget=20, repeat_share=0.0):
        env, layout = pendulum()
        folder.mkdir()
        self.store = LabelStore.create(folder / "labels.sqlite", new_source(env, layout, instruction))
        self.plan = Plan(budget=budget, initial=initial, iterations=60, synchronous=False)
        self.desk = Desk(self.store, repeat_share=repeat_share)
        self.progress = Progress()
        self.progress.say("training", "The agent trains.")
        self.server = contextlib.ExitStack()
        self.ask(swapped, upright)

    def ask(self, swapped, upright=None):
        """Asks pairs; unless told otherwise, slot 0 of each is the upright one."""
        upright = [0] * len(swapped) if upright is None else upright
        self.desk.ask(self.store.ask(records(upright), 0, swapped))

    def start(self, port=0, host="127.0.0.1"):
        """Serves the page, and returns its address."""
        page = Page(self.store, self.desk, self.progress, self.plan)
        self.address = self.server.enter_context(server.serve(page, host, port))
        if port:
            assert self.port == port
        return self.address

    @property
    def port(self):
        """Where the page is served."""
        return int(re.search(r":(\d+)/", self.address)[1])

    def restart(self):
        """Serves the page where it was, as a process would that was killed and started again."""
        path, share = self.store.path, self.desk._repeat_share
        self.store.close()
        self.store = LabelStore(path)
        self.desk = Desk(self.store, repeat_share=share)
        self.start(self.port)

    def stop(self):
        """Serves the page no more."""
        self.server.close()

    def say(self, pair, answer, labeller="anonymous", *, change=False):
        """Answers a pair without a browser."""
        token = f"request-{len(self.store.answers())}"
        swapped = self.store.swapped(pair)
        self.desk.answer("another screen", labeller, pair, answer, swapped=swapped, token=token, change=change)

    def rows(self):
        """What is stored: pair, answer, whether slot 1 was on the left, share that slot 0 is given."""
        return [(row.pair, row.answer, row.swapped, row.label) for row in self.store.answers()]


class Tab:
    """A page in a context of its own, and everything that its console says."""

    def __init__(self, browser, address, **options):
        self.context = browser.new_context(**options)
        self.page, self.problems, self.allowed = self.context.new_page(), [], []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.goto(address)

    def _hear(self, message):
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def surprises(self):
        """What the console said that it may not say."""
        return [said for said in self.problems if not any(re.match(allowed, said) for allowed in self.allowed)]

    def expect(self, selector):
        """Assertions that are tried again until they hold."""
        return sync_api.expect(self.page.locator(selector))

    def is_in(self, state):
        """Waits until the page is in this state."""
        self.expect("body").to_have_attribute("data-state", state)

    def asks(self, pair=None):
        """Waits until the page asks for this pair, or any; returns which."""
        which = "[data-pair]" if pair is None else f'[data-pair="{pair}"]'
        body = self.page.wait_for_selector(f"body[data-state=asking]{which}")
        return int(body.get_attribute("data-pair"))

    def says(self, name, text):
        """Waits until the element of this name says so."""
        self.expect(f"#{name}").to_contain_text(text)

    def press(self, key):
        """Presses a key."""
        self.page.keyboard.press(key)

    def click(self, name):
        """Clicks the element of this name."""
        self.page.click(f"#{name}")

    def attribute(self, name, attribute):
        """An attribute of the element of this name."""
        return self.page.get_attribute(f"#{name}", attribute)

    def frame(self):
        """Which frame is shown, from 1."""
        return int(self.page.input_value("#scrubber"))

    def picture(self, side):
        """The frame that the canvas of a side shows, as it was before the page enlarged it."""
        url = self.page.evaluate(_PICTURE, [side, clips.SIZE])
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))

    def upright_side(self):
        """On which side the pendulum stands, by the pixels."""
        heights = {side: _height(self.picture(side)) for side in ("left", "right")}
        assert min(heights.values()) < -10 and max(heights.values()) > 10, heights
        return max(heights, key=heights.get)


def _height(picture):
    """How far above the middle the pendulum's rod is, in pixels."""
    rows, _ = np.nonzero((picture == BODY).all(-1))
    return (len(picture) - 1) / 2 - rows.mean()


_PICTURE = """([side, size]) => {
  const small = document.createElement("canvas");
  small.width = small.height = size;
  const context = small.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(document.getElementById(side), 0, 0, size, size);
  return small.toDataURL();
}"""


class Visit:
    """The runs and tabs of one test; closed after it, tabs first."""

    def __init__(self, browser, folder):
        self.browser, self.folder, self.runs, self.tabs = browser, folder, [], []

    def run(self, *args, **options):
        """A new run, which is not served yet."""
        self.runs.append(Run(self.folder / f"run {len(self.runs)}", *args, **options))
        return self.runs[-1]

    def tab(self, address, **options):
        """A browser of its own, with one tab at this address."""
        self.tabs.append(Tab(self.browser, address, **options))
        return self.tabs[-1]

    def start(self, *args, **options):
        """A new run, and a tab that shows its first pair."""
        run = self.run(*args, **options)
        tab = self.tab(run.start())
        tab.asks()
        return run, tab

    def close(self):
        """Closes everything; returns what the consoles said that they may not say."""
        for tab in self.tabs:
            tab.context.close()
        for run in self.runs:
            run.stop()
            run.store.close()
        return [said for tab in self.tabs for said in tab.surprises()]


@contextlib.contextmanager
def visit(browser, folder):
    """What a test needs; after it no console may have said anything unexpected."""
    made = Visit(browser, folder)
    try:
        yield made
    except BaseException:
        made.close()
        raise
    assert made.close() == []
