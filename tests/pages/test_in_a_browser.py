"""What the report, the board and the page of a pair set do in a real browser, opened from disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import three_pages
from tests.support.browser import FRAME_S, Browsing, browsing, check_fit, check_steps, until

NAMES = ("report", "board", "pairs")
UNNAMED = """() => [...document.querySelectorAll("button, input, select, a, [role=slider], [tabindex='0']")]
  .filter(e => e.checkVisibility() && !(e.innerText?.trim() || e.getAttribute("aria-label") || e.labels?.length))
  .map(e => e.outerHTML.slice(0, 100))"""

PALE = """() => {
  const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = colour => {
    const [red, green, blue] = colour.match(/[\\d.]+/g).map(v => linear(v / 255));
    return .2126 * red + .7152 * green + .0722 * blue;
  };
  const ground = e => {
    const colour = getComputedStyle(e).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? ground(e.parentElement) : colour;
  };
  const has_text = e => [...e.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  const shown = [...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && !e.closest("svg, script"));
  return shown.filter(has_text).map(e => {
    const [low, high] = [light(getComputedStyle(e).color), light(ground(e))].sort((a, b) => a - b);
    return [(high + .05) / (low + .05), e.outerHTML.slice(0, 80)];
  }).filter(([contrast]) => contrast < 4.5);
}"""
"""Text that stands out from what lies behind it by less than WCAG AA asks."""


@pytest.fixture(scope="module")
def seen() -> Iterator[Browsing]:
    with browsing(1000, 900) as found:
        yield found
        assert not found.errors
        assert all(address.startswith(("file://", "blob:", "data:")) for address in found.asked)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, seen: Browsing) -> dict[str, Path]:  # which may skip first
    return three_pages.build(tmp_path_factory.mktemp("pages"))


def show(seen: Browsing, place: Path, width: int = 1000) -> Any:
    seen.page.set_viewport_size({"width": width, "height": 900})
    seen.page.goto(place.as_uri())
    return seen.page


def column(page: Any, table: str, place: int) -> list[str]:
    lines = f"[...document.querySelector(\"[data-name='{table}']\").tBodies[0].rows]"
    found: list[str] = page.evaluate(f"{lines}.map(line => line.cells[{place}]?.innerText.split('\\n')[0] ?? 'group')")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_and_names_what_it_has(seen: Browsing, places: dict[str, Path], name: str) -> None:
    page = show(seen, places[name])
    check_fit(page)
    assert page.evaluate(UNNAMED) == []
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(PALE) == []
    # at 1600 px the videos beside each other take the width
    films = [film.bounding_box() for film in page.locator(".films figure").all()[:12]]
    across = sum(box["width"] for box in films if abs(box["y"] - films[0]["y"]) < 60)
    assert across > 0.8 * 1600
    for text in ("2026-01-31 12:00", "1:02:03", "vpo train --method online"):
        assert text in page.inner_text("header")
    assert page.inner_text(".said")
    page.keyboard.press("Tab")
    outline = "getComputedStyle(document.activeElement)"
    assert page.evaluate(f"[{outline}.outlineStyle, parseFloat({outline}.outlineWidth) >= 2]") == ["solid", True]


@pytest.mark.parametrize("name", NAMES)
def test_the_videos_of_a_row_keep_step_and_obey_one_slider(seen: Browsing, places: dict[str, Path], name: str) -> None:
    page = show(seen, places[name])
    page.locator(".row").first.scroll_into_view_if_needed()
    check_steps(page, 3 if name == "report" else 0.7)  # the clips last 2.5 s: in the report they begin anew within
    moved = "s => (s.value = 1, s.dispatchEvent(new Event('input')), s.getAttribute('aria-valuetext'))"
    assert page.locator(".player input").first.evaluate(moved) == "1.00 seconds"  # at once, before the videos are there
    until(
        page, lambda: page.evaluate("gallery.rows[0].shown.every(v => v.paused && Math.abs(v.currentTime - 1) < .05)")
    )
    slider = page.locator(".player input").first
    slider.focus()
    page.keyboard.press("ArrowRight")  # one frame on
    until(
        page, lambda: page.evaluate(f"gallery.rows[0].shown.every(v => Math.abs(v.currentTime - 1 - {FRAME_S}) < .05)")
    )
    assert slider.get_attribute("aria-valuetext").endswith("seconds")
    page.locator(".player button").first.click()
    until(page, lambda: page.evaluate("gallery.rows[0].shown.every(v => !v.paused)"))


def test_a_video_is_enlarged_by_click_and_enter_and_closed_by_escape(seen: Browsing, places: dict[str, Path]) -> None:
    page = show(seen, places["report"])
    film = page.locator(".film").first
    film.scroll_into_view_if_needed()
    until(page, lambda: page.evaluate("gallery.rows[0].begun"))
    for way in (lambda: film.click(), lambda: (film.focus(), page.keyboard.press("Enter"))):
        way()
        assert page.evaluate("$('large').open")
        assert page.inner_text("#shown").startswith("base: prompt number")
        assert page.evaluate("$('large').querySelector('video').clientWidth") > 2 * film.bounding_box()["width"]
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#shown").startswith("moved: prompt number")
        page.keyboard.press("Escape")
        assert not page.evaluate("$('large').open")
        assert page.evaluate("document.activeElement.className") == "film"


def test_columns_sort_by_keyboard_and_the_table_is_saved(seen: Browsing, places: dict[str, Path]) -> None:
    page = show(seen, places["report"])
    before = column(page, "moved", 0)
    assert len(before) > len(three_pages.METRICS)  # heads of groups among them
    head = page.locator("[data-name=moved] th").nth(4)
    head.locator("button").focus()
    found = []
    for way in ("descending", "ascending", "none"):
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == way
        found.append([float(text) for text in column(page, "moved", 4) if text != "group"])
    assert found[0] == sorted(found[0], reverse=True)
    assert found[1] == sorted(found[0])
    assert column(page, "moved", 0) == before
    head.locator("button").click()
    with page.expect_download() as saved:
        page.click("button[aria-label='save the table moved as CSV']")
    lines = Path(saved.value.path()).read_text().splitlines()
    assert saved.value.suggested_filename == "moved.csv"
    assert lines[0] == "metric,better,base,moved,change,95% interval,wins,p,verdict"
    assert [float(line.split(",")[4]) for line in lines[1:]] == found[0]
    assert '"[' in lines[1]  # a comma in a cell


def test_a_board_sorts_costs_as_numbers(seen: Browsing, places: dict[str, Path]) -> None:
    page = show(seen, places["board"])
    heads = page.evaluate(
        "[...document.querySelector('[data-name=methods]').tHead.rows[0].cells].map(c => c.dataset.csv)"
    )
    place = heads.index("passes")
    page.locator("[data-name=methods] th button").nth(place).click()
    assert column(page, "methods", place) == ["4,000", "3,000", "2,000", "1,000", "0"]
    assert page.locator(".legend li").count() == len(three_pages.NAMES)


def test_ten_thousand_pairs_are_paged(seen: Browsing, places: dict[str, Path]) -> None:
    page = show(seen, places["pairs"])
    videos = "document.querySelectorAll('video').length"
    assert page.evaluate(videos) == 2 * 12 + 1
    assert page.inner_text("#count") == "1 to 12 of 10,000"
    assert page.locator("#back").is_disabled()
    page.click("#on")
    assert page.inner_text("#count") == "13 to 24 of 10,000"
    for wanted, shown in (("009875", 9876), ("9876", 9876), ("10000", 10000)):
        page.fill("#jump", wanted)
        page.keyboard.press("Enter")
        assert f"{shown - 1:06d}" in page.evaluate("document.activeElement.innerText")
        assert page.evaluate(videos) <= 2 * 12 + 1
    assert page.locator("#on").is_disabled()
    page.fill("#jump", "20000")
    page.keyboard.press("Enter")
    assert page.inner_text("#count") == "there is no 20000 among 10000"
    page.fill("#filter", "number 3 ")
    assert page.inner_text("#count").endswith("of 715 (10,000 in all)")
    page.select_option("#order", "decided -1")
    assert page.evaluate("gallery.chosen[0].decided") == 4
    # a segment is repeated, and told
    segment = page.locator(".line button").nth(2)
    segment.click()
    assert segment.get_attribute("aria-pressed") == "true"
    assert page.locator("output.note").first.inner_text() == segment.get_attribute("aria-label")
    until(page, lambda: page.evaluate("gallery.rows[0].lead.currentTime > gallery.rows[0].range[0]"))


def test_what_judges_and_people_disagree_on_is_chosen_by_judge(seen: Browsing, places: dict[str, Path]) -> None:
    page = show(seen, places["judges"])
    check_fit(page)
    assert page.evaluate(UNNAMED) == []
    assert page.locator(".films .chosen").count() == 12
    assert page.inner_text("#count") == "1 to 12 of 14"
    page.select_option("#section", "1")  # this one agrees with people
    assert page.inner_text("#count").startswith("none")


def test_curves_tell_their_values(seen: Browsing, places: dict[str, Path]) -> None:
    page = show(seen, places["report"], 400)
    chart = page.locator(".chart", has_text="loss")
    assert page.locator(".legend").first.inner_text().split() == ["run-0", "run-1"]
    svg, told = chart.locator("svg"), chart.locator("output")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    page.mouse.move(box["x"] + box["width"] - 12, box["y"] + box["height"] - 40)
    assert told.inner_text() == "run-0: step 39, loss 0.02564"
    svg.focus()
    page.keyboard.press("Home")
    assert told.inner_text() == "run-0: step 1, loss 1" == svg.get_attribute("aria-valuetext")
    page.keyboard.press("ArrowRight")
    assert told.inner_text() == "run-1: step 1, loss 2"


def test_nothing_moves_by_itself_for_who_wants_it_still(seen: Browsing, places: dict[str, Path]) -> None:
    seen.page.emulate_media(reduced_motion="reduce")
    page = show(seen, places["report"])
    page.locator(".row").first.scroll_into_view_if_needed()
    until(page, lambda: page.evaluate("gallery.rows[0].begun && !gallery.rows[0].busy"))
    assert page.evaluate("gallery.rows.flatMap(row => row.videos).every(v => v.paused)")
    assert page.inner_text("#play") == "play all"
    seen.page.emulate_media(reduced_motion="no-preference")
