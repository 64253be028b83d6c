"""A real browser for the pages, or a skip that says what is missing; and what must hold for pages with players."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
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
    for (const card of cards) {
      const shown = card.videos.filter(v => v.hasAttribute("src"));
      if (!card.seen || shown.some(v => v.seeking || v.readyState < 2)) continue;
      const at = shown.map(v => v.currentTime), apart = Math.max(...at) - Math.min(...at);
      found.push([Math.min(apart, shown[0].duration - apart), at[0]]);
    }
  }
  return found;
}"""
"""How far apart the players of a card in view are, in seconds, around the loop; and where the first one is."""
ORDER = "() => [...document.querySelectorAll('.clip')].filter(c => !c.hidden).map(c => +c.dataset.place)"
CHANGES = """() => {
  const model = +at("model").value, of = (i, card) => value(i, card, "gold");
  return cards.map(card => of(model, card) - of(models[model].base, card));
}"""
"""What the cards changed by the second judge, in the order in which they are shown."""


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
            pytest.fail(f"this has not come about: {page.content()}")
        page.wait_for_timeout(10)


def check_players(file: Path, word: str, count: int) -> None:
    """What a report with players must do, opened from disk: `count` of its prompts hold `word`, not all of them."""
    with browsing(1600, 1000) as seen:
        page = seen.page
        page.goto(file.as_uri())
        page.locator(".clips").scroll_into_view_if_needed()
        _check_steps(page)
        page.click("#play")
        page.wait_for_timeout(100)
        assert page.evaluate("cards.flatMap(card => card.videos).every(v => v.paused)")
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
        assert page.inner_text("#count") == f"{count} shown"
        page.fill("#filter", "")
        for width in (1600, 400):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"it scrolls sideways at {width} px"
            narrow = "[...document.querySelectorAll('figure')].filter(f => f.clientWidth < 96).length"
            assert page.evaluate(narrow) == 0, f"players are too small to see at {width} px"
            tiny = "[...document.querySelectorAll('body *')].filter(e => parseFloat(getComputedStyle(e).fontSize) < 11)"
            assert page.evaluate(f"{tiny}.filter(e => !e.closest('svg')).length") == 0
    assert not seen.errors
    assert all(address.startswith("file://") for address in seen.asked)


def _check_steps(page: Any) -> None:
    """The players of a card show the same moment, but for the time that it takes to mend a drift; and they move."""
    until(page, lambda: page.evaluate("cards.some(card => card.seen && card.videos[0].currentTime > 0)"))
    spreads = page.evaluate(SPREADS, 2)
    apart = sorted(spread for spread, _ in spreads)
    assert len({place for _, place in spreads}) > 5
    assert apart[int(0.9 * len(apart))] < 0.13, f"players are apart: {apart[-5:]}"
