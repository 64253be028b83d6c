"""What pages are made of: curves that lose no spike, settings that differ, the command as it was given."""

from __future__ import annotations

import html
import json
import re

from vpo_kit.pages import charts, forests, templates
from vpo_kit.pages.charts import Axis, Series
from vpo_kit.pages.differing import differing, of_rows
from vpo_kit.pages.forests import Change


def test_a_long_series_keeps_its_ends_and_its_spikes() -> None:
    points = [(float(i), 0.0) for i in range(10_000)]
    points[4321], points[77] = (4321.0, 9.0), (77.0, -9.0)
    kept = charts.thinned(points)
    assert len(kept) <= charts.POINTS + 4
    assert {0, 77, 4321, 9999} <= set(kept)
    assert charts.thinned(points[:500]) == list(range(500))


def test_an_axis_is_linear_and_its_ticks_are_round() -> None:
    axis = Axis(-1.0, 3.0, 100, 0)
    assert [axis.at(value) for value in (-1, 1, 3)] == [100, 50, 0]
    assert axis.ticks(4) == [-1, 0, 1, 2, 3]
    assert Axis(0.0, 0.07, 0, 1).ticks(4) == [0, 0.02, 0.04, 0.06]


def test_a_chart_says_every_point_and_escapes() -> None:
    found = charts.chart(
        "<loss>", [Series(name="a<b", points=[(1, 0.5), (2, 0.25)]), Series(name="c", points=[(1, 3)])]
    )
    assert "<loss>" not in found
    assert "a<b" not in found
    points = json.loads(html.unescape(re.findall(r'data-points="(.*?)"', found)[0]))
    assert sorted(text for _, _, text in points) == [
        "a<b: step 1, <loss> 0.5",
        "a<b: step 2, <loss> 0.25",
        "c: step 1, <loss> 3",
    ]
    assert charts.chart("t", [Series(name="a", points=[])]) == forests.forest([]) == charts.legend([]) == ""
    assert charts.chart("t", [Series(name="a", points=[(1, 2.0), (2, 2.0)])]).count("<polyline") == 1  # no height


def test_what_is_not_finite_breaks_no_page() -> None:
    nan = float("nan")
    found = charts.chart("t", [Series(name="a", points=[(1, nan), (2, 0.5)], notes=["x", "y"])])
    assert "step 2, t 0.5 (y)" in found
    assert "nan" not in found
    page = templates.environment().from_string("{{ data|tojson }}").render(data={"a": [nan, 1.0, "</script>é"]})
    assert json.loads(page) == {"a": [None, 1.0, "</script>é"]}
    assert "<" not in page


def test_no_two_series_look_alike() -> None:
    series = [Series(name="x", points=[(1, 1)], kind=kind) for kind in range(36)]
    looks = re.findall(r'<li class="c(\d)">(.) ', charts.legend(series))
    assert len(looks) == len(set(looks)) == 36


def test_changes_lie_by_their_size_on_one_axis() -> None:
    lines = [
        Change(name=name, low=low, middle=0.0, high=1.0, kind="unclear", figures="")
        for name, low in (("a", -1.0), ("b", -0.5))
    ]
    spans = [float(width) for width in re.findall(r"width:([\d.]+)%", forests.forest(lines))]
    assert abs(spans[0] / spans[1] - 2 / 1.5) < 1e-3
    assert forests.forest(lines).count('class="dot" style="left:50.0%"') == 2


def test_settings_that_differ() -> None:
    usual = {"steps": 40, "lora": {"rank": 16, "alpha": None}, "judges": ["a"]}
    here = {"steps": 40, "lora": {"rank": 4, "alpha": None}, "judges": [], "more": True}
    found = differing(here, usual)
    assert found == [("lora.rank", "4", "16"), ("judges", "[]", "[a]"), ("more", "true", "null")]
    assert differing(usual, usual) == []
    other = differing({**here, "steps": 1}, usual)
    assert of_rows({"x": found, "y": other}) == [*found, ("y: steps", "1", "40")]
    assert of_rows({}) == []


def test_the_command_is_that_of_the_terminal() -> None:
    assert templates.command(["/opt/bin/vpo", "train", "--output", "a b"]) == "vpo train --output 'a b'"
    assert templates.command(["/lib/vpo_kit/__main__.py", "eval"]) == "vpo eval"
    assert templates.command(["pytest", "x"]) == ""
