"""The labelling page in a real browser: by keyboard alone, with a screen reader, on a phone, in light and in dark."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from browser import NO_NETWORK
from PIL import Image

from rlhf_jax.environments.canvas import PAPER

PHONE = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
CONTROLS = "button, input, select, a[href], [tabindex]"
STAGE = ["back", "play", "forward", "scrubber", "speed", "answer-left", "answer-right", "answer-tie"]
STAGE += ["answer-cannot-tell", "undo", "skip"]


def busy(visit, **options):
    """A run in the middle of its training, and a tab that asks for pair 25."""
    run = visit.run([pair % 3 == 0 for pair in range(26)], instruction="keep the pendulum upright", budget=200)
    for pair in range(1, 25):
        run.desk.tell(pair, {pair: 0.5 + 0.45 * np.sin(pair)})
        run.say(pair, ("left", "right", "right", "tie", "left", "cannot_tell")[pair % 6], ("ann", "bob")[pair % 2])
        rounds = {"predicted_return": 3 * np.log(pair) + np.sin(pair), "labels": pair - pair % 3}
        run.progress.add(pair, rounds)
    run.progress.say("training", "The agent trains: iteration 24 of 60.")
    tab = visit.tab(run.start(), **options)
    tab.asks(25)
    return run, tab


def active(tab):
    """The name of the element that has the focus."""
    return tab.page.evaluate("document.activeElement.id")


def test_tab_reaches_everything_in_order_and_is_not_trapped(visit):
    _, tab = busy(visit)
    expected = tab.page.evaluate(
        "(all) => [...document.querySelectorAll(all)].filter((x) => x.checkVisibility()).map((x) => x.id)", CONTROLS
    )
    assert expected == ["labeller", "history-open", *STAGE]
    reached = []
    for _ in expected:
        tab.press("Tab")
        reached.append(active(tab))
        ring = tab.page.evaluate("(({ outlineStyle, outlineWidth }) => outlineStyle + ' ' + outlineWidth)"
                                 "(getComputedStyle(document.activeElement))")  # fmt: skip
        assert ring == "solid 3px", reached
    assert reached == expected
    tab.press("Tab")  # to the browser's own controls, or around
    assert active(tab) in ("", "labeller")


def test_the_history_has_the_focus_while_it_is_open_and_gives_it_back(visit):
    _, tab = busy(visit)
    tab.page.focus("#history-open")
    tab.press("Enter")
    tab.expect("#history-list li").to_have_count(24)
    for _ in range(27):
        tab.press("Tab")
        assert tab.page.evaluate(
            "document.activeElement.closest('dialog, body').id || document.activeElement.tagName"
        ) in (
            "history",
            "BODY",
        )
    tab.press("Escape")
    tab.expect("#history").not_to_be_visible()
    assert active(tab) == "history-open"


def test_the_focus_stays_where_it_was_after_an_answer(visit):
    run, tab = busy(visit)
    tab.page.focus("#answer-tie")
    tab.press("Enter")
    tab.asks(26)
    assert active(tab) == "answer-tie" and run.rows()[-1][:2] == (25, "tie")


def nodes(tab):
    """What a screen reader is told: role and name of each thing, and whether it can have the focus."""
    tree = tab.context.new_cdp_session(tab.page).send("Accessibility.getFullAXTree")["nodes"]
    for node in tree:
        if not node["ignored"] and node["role"]["value"] != "RootWebArea":
            focusable = any(item["name"] == "focusable" and item["value"]["value"] for item in node["properties"])
            yield node["role"]["value"], node.get("name", {}).get("value", ""), focusable


@pytest.mark.parametrize("options", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_everything_has_a_name(visit, options):
    _, tab = busy(visit, **options)
    tab.page.click("#play")
    told = list(nodes(tab))
    named = [name for role, name, focusable in told if focusable and role != "option"]
    assert len(named) == 2 + len(STAGE) and all(named), named
    starts = ["You are", "History", "One frame back", "Play", "One frame forward", "Frame", "Speed"]
    assert all(any(name.startswith(start) for name in named) for start in starts), named
    assert all(name for role, name, _ in told if role in ("image", "progressbar", "group", "complementary")), told
    assert {"left clip", "right clip"} <= {name.partition(",")[0] for role, name, _ in told if role == "image"}
    tab.page.click("#history-open")
    tab.expect("#history-list li").to_have_count(24)
    tab.page.click("#history-list button")
    tab.is_in("changing")
    assert any(name.startswith("Keep as it is") for _, name, focusable in nodes(tab) if focusable)
    assert all(name for _, name, focusable in nodes(tab) if focusable)


def overflow(tab, selector):
    """By how many pixels the contents are wider than the element."""
    return tab.page.eval_on_selector(selector, "(element) => element.scrollWidth - element.clientWidth")


def test_on_a_phone_nothing_is_wider_than_the_screen_and_every_button_can_be_tapped(visit):
    run, tab = busy(visit, **PHONE)
    assert overflow(tab, "html") <= 0 and tab.page.evaluate("innerWidth") == 360
    for name in ("left", "right", "answer-left", "answer-right", "answer-tie", "answer-cannot-tell"):
        tab.expect(f"#{name}").to_be_in_viewport(ratio=1)
    for name in ("labeller", "history-open", *STAGE):
        tab.page.tap(f"#{name}", trial=True)  # it can be scrolled to, and nothing covers it
        assert min(tab.page.locator(f"#{name}").bounding_box()[side] for side in ("width", "height")) >= 30
    assert overflow(tab, "#answer-left") <= 0 and overflow(tab, "#answer-right") <= 0
    run.progress.say("training", "w" * 200)
    tab.page.fill("#labeller", "w" * 40)
    tab.page.tap("#answer-left")
    tab.asks(26)
    tab.says("message", "w" * 200)
    assert overflow(tab, "html") <= 0
    tab.page.tap("#history-open")
    tab.expect("#history-list li").to_have_count(25)
    assert overflow(tab, "dialog") <= 0 and overflow(tab, "html") <= 0
    tab.page.tap("#history-list button")
    tab.is_in("changing")
    assert overflow(tab, "html") <= 0
    assert run.rows()[-1][:2] == (25, "left")


def luminance(colour):
    """Relative luminance by the WCAG."""
    channels = np.asarray(colour) / 255
    return float(np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ _WEIGHTS)


_WEIGHTS = np.array([0.2126, 0.7152, 0.0722])


def over(top, bottom):
    """A colour `r, g, b, a` over an opaque one."""
    return top[3] * np.array(top[:3]) + (1 - top[3]) * np.asarray(bottom)[:3]


def colour(text):
    """The numbers of a computed colour."""
    numbers = [float(number) for number in re.findall(r"[\d.]+", text)]
    assert text.startswith("rgb") and len(numbers) in (3, 4), text
    return [*numbers, 1.0][:4]


def contrasts(tab):
    """The contrast of each visible text that is not switched off, by what it says."""
    found = {}
    for text, ink, backgrounds in tab.page.evaluate(_TEXTS):
        paper = np.array([255.0, 255.0, 255.0])
        for background in reversed(backgrounds):
            paper = over(colour(background), paper)
        lighter, darker = sorted([luminance(over(colour(ink), paper)), luminance(paper)], reverse=True)
        found[text] = min((lighter + 0.05) / (darker + 0.05), found.get(text, 99))
    return found


_TEXTS = """() => {
  const found = [];
  const add = (text, element, ink) => {
    const shown = element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    if (!text || !shown || element.closest("[aria-disabled=true]")) return;
    const papers = [];
    for (let up = element; up; up = up.parentElement) papers.push(getComputedStyle(up).backgroundColor);
    found.push([text, ink, papers]);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const style = getComputedStyle(element);
    if (parseFloat(style.fontSize) > 0)
      add(walker.currentNode.data.trim(), element, element instanceof SVGElement ? style.fill : style.color);
  }
  for (const field of document.querySelectorAll("input[type=text], select")) {
    add(field.value || field.id, field, getComputedStyle(field).color);
    if (field.placeholder) add(field.placeholder, field, getComputedStyle(field, "::placeholder").color);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_buttons_are_readable(visit, scheme):
    run, tab = busy(visit, color_scheme=scheme, reduced_motion="reduce")
    tab.allowed.append(NO_NETWORK)
    tab.press("u")
    tab.says("notice", "nothing to undo")
    tab.asks(25)
    seen = contrasts(tab)
    tab.press("h")
    tab.expect("#history-list li").to_have_count(24)
    seen |= contrasts(tab)
    tab.page.click("#history-list button")
    tab.is_in("changing")
    seen |= contrasts(tab)
    run.stop()
    tab.says("banner", "Connection lost")
    seen |= contrasts(tab)
    assert {
        "Left is better",
        "There is nothing to undo.",
        "Close",
        "Keep as it is",
        "asynchronous",
    } <= set(seen)
    assert {"Predicted return", "100 %", "Connection lost; trying again…", "Goal: keep the pendulum upright"} <= set(
        seen
    )
    assert any(text.startswith("guest-") for text in seen)
    assert {text: round(contrast, 2) for text, contrast in seen.items() if contrast < 4.5} == {}


@pytest.mark.parametrize(
    ("name", "options"),
    [("page_light_desktop", DESKTOP), ("page_dark_phone", PHONE | {"color_scheme": "dark"})],
)
def test_screenshot(visit, tmp_path, name, options):
    folder = Path(os.environ.get("RLHF_JAX_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    _, tab = busy(visit, **options)
    while tab.frame() < 10:
        tab.page.evaluate("new Promise(requestAnimationFrame)")
    tab.page.screenshot(path=folder / f"{name}.png")
    picture = Image.open(folder / f"{name}.png").convert("RGB")
    scale = options.get("device_scale_factor", 1)
    assert picture.size == tuple(options["viewport"][side] * scale for side in ("width", "height"))
    corner = np.asarray(picture)[-8:, -8:].mean()
    assert corner > 240 if options is DESKTOP else corner < 40
    assert len(picture.getcolors(2**24)) > 200 and np.std(picture) > 20
    clip = tab.page.locator("#left").bounding_box()
    edge = (clip["x"] + clip["width"] - 2) * scale, (clip["y"] + clip["height"] / 2) * scale
    assert picture.getpixel(edge) == PAPER  # the clip beside it casts no shadow on it
