"""A real browser for the pages, or a skip that says what is missing; and what must hold for pages with players."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SPREADS = """async seconds => {
  const found = [], end = performance.now() + 1000 * seconds;
  while (performance.now() < end) {
    await new Promise(requestAnimationFrame);
    for (const row of gallery.rows) {
      if (!row.running || row.busy || !row.begun || row.shown.some(v => v.seeking || v.paused)) continue;
      const at = row.shown.map(v => v.currentTime);
      found.push([Math.max(...at) - Math.min(...at), at[0]]);
    }
  }
  return found;
}"""
"""How far apart the players of a row in view are while they play, in seconds; and where the first one is."""
ORDER = "gallery.chosen.map(item => item.place)"
CHANGES = "gallery.chosen.map(change)"
"""What the rows changed by the chosen metric, in the order in which they are shown."""
FRAME_S = 1 / 8
"""One frame of the videos in tests."""
OVER = """() => [...document.querySelectorAll("body *")].filter(e => {
  const { right } = e.getBoundingClientRect();
  return right > innerWidth + 1 && !e.closest(".wide, pre, dialog, svg");
}).map(e => e.outerHTML.slice(0, 100))"""
"""What stands out of the window, but for what scrolls in its own box."""


@dataclass
class Browsing:
    """An open page, the addresses that it has asked for and what went wrong on it."""

    page: Any
    asked: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def browsing(width: int = 900, height: int = 800) -> Iterator[Browsing]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (group dev)")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the path")
    with sync_api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=FLAGS)
        found = Browsing(browser.new_page(viewport={"width": width, "height": height}))
        found.page.on("request", lambda request: found.asked.append(request.url))
        found.page.on("pageerror", lambda error: found.errors.append(str(error)))
        found.page.on("console", lambda said: found.errors.append(said.text) if said.type == "error" else None)
        yield found
        browser.close()


def until(page: Any, what: Callable[[], object]) -> None:
    last = time.monotonic() + 20
    while not what():
        if time.monotonic() > last:
            pytest.fail(f"this has not come about: {page.inner_text('body')[:2000]}")
        page.wait_for_timeout(10)


def check_fit(page: Any, widths: Sequence[int] = (400, 1000, 1600)) -> None:
    """At each width nothing stands out of the window, players and text are large enough, no head breaks in a word."""
    for width in widths:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"it scrolls sideways at {width} px"
        assert page.evaluate(OVER) == [], f"at {width} px"
        narrow = "[...document.querySelectorAll('.films figure')].filter(f => f.clientWidth < 96).length"
        assert page.evaluate(narrow) == 0, f"players are too small to see at {width} px"
        tiny = "[...document.querySelectorAll('body *')].filter(e => parseFloat(getComputedStyle(e).fontSize) < 11)"
        assert page.evaluate(f"{tiny}.filter(e => !e.closest('svg')).length") == 0


def check_steps(page: Any, seconds: float = 2) -> None:
    """The players of a row are within one frame of each other while they play, over the loop too; and they move."""
    until(page, lambda: page.evaluate("gallery.rows.some(row => row.running && row.lead.currentTime > 0)"))
    spreads = page.evaluate(SPREADS, seconds)
    apart = sorted(spread for spread, _ in spreads)
    assert len({place for _, place in spreads}) > 5
    # all but what a starved machine lets pass before it is mended
    assert apart[int(0.95 * len(apart))] < FRAME_S, f"players are apart: {apart[-5:]}"


def check_players(file: Path, word: str, count: int) -> None:
    """What a report with players must do, opened from disk: `count` of its prompts hold `word`, not all of them."""
    with browsing(1600, 1000) as seen:
        page = seen.page
        page.goto(file.as_uri())
        page.locator("#rows").scroll_into_view_if_needed()
        check_steps(page)
        page.click("#play")
        until(page, lambda: page.evaluate("gallery.rows.flatMap(row => row.videos).every(v => v.paused)"))
        places = page.evaluate(ORDER)
        page.select_option("#order", "place")
        assert page.evaluate(ORDER) == sorted(places)
        page.select_option("#metric", "gold")
        # by what they changed, for two of them may have changed alike
        rises, falls = (page.select_option("#order", way) and page.evaluate(CHANGES) for way in ("rise", "fall"))
        assert rises == sorted(falls, reverse=True)
        assert falls == sorted(rises)
        page.fill("#filter", word)
        assert len(page.evaluate(ORDER)) == count < len(places)
        assert page.inner_text("#count") == f"1 to {count} of {count} ({len(places)} in all)"
        page.fill("#filter", "")
        check_fit(page)
    assert not seen.errors
    assert all(address.startswith("file://") for address in seen.asked)
