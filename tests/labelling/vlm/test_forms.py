"""The questions and answers of models that were trained on a form of their own, on canned answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.support.bright_pairs import fails, works
from tests.support.vlm_server import TRUTH, Asked, Handler, Stub, command, facts, labels
from tests.support.vlm_server import few as few
from tests.support.vlm_server import found as found
from tests.support.vlm_server import planted as planted
from tests.support.vlm_server import stub as stub
from vpo_kit.errors import ConfigError
from vpo_kit.labelling.vlm import forms
from vpo_kit.labelling.vlm.pictures import Picture
from vpo_kit.labelling.vlm.protocol import Verdict
from vpo_kit.labelling.vlm.settings import Preset, Vlm

SCRIPTS = {  # in the shape of the authors' own
    "unifiedreward": 'prompt = ""\nproblem = (\n    "compare them\\n"\n    f"Text Caption: [{prompt}]"\n)\n',
    "unifiedreward-think": "def main(prompt):\n    problem = f'''which of them? {prompt} {{x}}'''\n",
    "unifiedreward-flex": 'problem = f"""## compare\n[{prompt}]\n{{"winner": ...}}"""\n',
    "vq-insight": (
        'def main():\n    SYSTEM_PROMPT = (\n        "answer "\n        "in tags"\n    )\n'
        '    QUESTION_TEMPLATE = "{Question}\\none letter"\n    PROBLEM = "A or B?"\n'
    ),
}
ASKED = {
    "unifiedreward": "compare them\nText Caption: [a dog]",
    "unifiedreward-think": "which of them? a dog {x}",
    "unifiedreward-flex": '## compare\n[a dog]\n{"winner": ...}',
    "vq-insight": "A or B?\none letter",
}
SHARES = "Alignment Score:\n Video 1: {}\n Video 2: {}\n\nCoherence Score:\n Video 1: {}\n Video 2: {}\n\n"
SHARES += "Style Score:\n Video 1: {}\n Video 2: {}\n"


def think(total: str) -> str:
    return f"<think>\n1. Temporal coherence:\n    Video 1 (8/10) - ok;\n    Video 2 (6/10)\n</think>\n{total}"


ANSWERS: list[tuple[Preset, str, Verdict]] = [
    ("unifiedreward", SHARES.format(0.4736, 0.5264, 0.5981, 0.4019, 0.3484, 0.6516), "second"),
    ("unifiedreward", SHARES.format(0.6, 0.4, 0.7, 0.3, 0.5, 0.5), "first"),
    ("unifiedreward", SHARES.format(0.6, 0.4, 0.4, 0.6, 0.5, 0.5), "tie"),
    ("unifiedreward-think", think("<answer>Video 1 is better</answer>"), "first"),
    ("unifiedreward-think", think("<answer>\nVideo 2 is better.\n</answer>"), "second"),
    ("unifiedreward-think", think("<answer>Both videos are equally good</answer>"), "tie"),
    ("unifiedreward-flex", '```json\n{"categories": [{"cat_winner": "Video 1"}], "winner": "Video 2"}\n```', "second"),
    ("unifiedreward-flex", '{"reason": "sharper", "winner": "Video 1"}', "first"),
    ("vq-insight", "B moves less. <answer>A</answer>", "first"),
    ("vq-insight", "<answer> Video B </answer>", "second"),
    ("vq-insight", "<answer>(B)</answer>", "second"),
]
UNREADABLE: list[tuple[Preset, str]] = [
    ("unifiedreward", SHARES.format(0.6, 0.4, 0.4, 0.6, 0.5, 0.5).replace("Style", "Charm")),
    ("unifiedreward", "Video 1 is better"),
    ("unifiedreward-think", think("Video 1 is better")),
    ("unifiedreward-think", think("<answer>Video 1 or Video 2</answer>")),
    ("unifiedreward-flex", '{"winner": "neither"}'),
    ("unifiedreward-flex", '{"winner": "Video 1"'),
    ("vq-insight", "<answer>C</answer>"),
    ("vq-insight", "<answer></answer>"),
]


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    def write(preset: str) -> Path:
        path = tmp_path / "script.py"
        path.write_text(SCRIPTS[preset])
        return path

    return write


def form(preset: Preset, question: Path | None) -> forms.Form:
    return forms.of(Vlm(preset=preset, question=question))


def test_every_preset_is_tested() -> None:
    assert SCRIPTS.keys() == ASKED.keys() == forms.SOURCES.keys() == set(get_args(Preset))
    assert {preset for preset, *_ in ANSWERS} == {preset for preset, _ in UNREADABLE} == SCRIPTS.keys()


@pytest.mark.parametrize(("preset", "text", "verdict"), ANSWERS)
def test_answers(script: Callable[[str], Path], preset: Preset, text: str, verdict: Verdict) -> None:
    found = form(preset, script(preset)).read(text)
    assert found.verdict == verdict
    assert "\n" not in found.evidence
    assert "<" not in found.evidence


@pytest.mark.parametrize(("preset", "text"), UNREADABLE)
def test_answers_that_hold_no_verdict(script: Callable[[str], Path], preset: Preset, text: str) -> None:
    with pytest.raises(ValueError, match=r"no|of 3"):
        form(preset, script(preset)).read(text)


@pytest.mark.parametrize("preset", SCRIPTS)
def test_the_question_is_the_scripts(script: Callable[[str], Path], preset: Preset) -> None:
    """The authors' words with the prompt in them, and the pictures where the model learned to find them."""
    asked = form(preset, script(preset)).ask([Picture(0.0, b"1"), Picture(0.1, b"2")], [Picture(0.0, b"3")], "a dog")
    parts = asked[-1]["content"]
    assert parts[-1] == {"type": "text", "text": ASKED[preset]}
    shown = [part["text"] if part["type"] == "text" else "picture" for part in parts[:-1]]
    if preset == "vq-insight":
        assert asked[0] == {"role": "system", "content": "answer in tags"}
        assert shown == ["Video A:", "picture", "picture", "Video B:", "picture"]
    else:
        assert len(asked) == 1
        assert shown == ["picture"] * 3


def test_a_text_file_is_the_question(tmp_path: Path) -> None:
    (tmp_path / "question.txt").write_text("which, for {prompt}?")
    found = form("unifiedreward", tmp_path / "question.txt")
    assert found.ask([], [], "a {dog}")[-1]["content"][-1]["text"] == "which, for a {dog}?"
    assert found.said("a") != found.said("b")


def test_questions_that_are_missing(tmp_path: Path, script: Callable[[str], Path]) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("problem = (")
    for preset, question, words in (
        ("vq-insight", None, "download demo_vqinsight_comp.py of github bytedance/Q-Insight"),
        ("vq-insight", tmp_path / "nowhere.py", "does not hold the question"),
        ("vq-insight", script("unifiedreward"), "'QUESTION_TEMPLATE'"),
        ("unifiedreward", broken, "does not hold the question"),
    ):
        with pytest.raises(ConfigError, match=words):
            form(preset, question)  # type: ignore[arg-type]


def test_a_set_is_labelled(
    found: Path, stub: Stub, script: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that knows no tie names the first video of two equal ones, in both orders: a tie after all."""

    def behave(handler: Handler, asked: Asked) -> None:
        video = 1 if asked.truth >= 0 else 2
        handler.say(asked, think(f"<answer>Video {video} is better</answer>"))

    stub.behave = behave
    shown = works(capsys, *command(found, stub, preset="unifiedreward-think", question=script("unifiedreward-think")))
    assert "6 pairs labelled, 0 failed" in shown
    assert labels(found) == TRUTH
    assert facts(found)["vlm"]["preset"] == "unifiedreward-think"
    bodies: list[dict[str, Any]] = [asked.body for asked in stub.asked]
    assert all("response_format" not in body for body in bodies)
    assert all(body["messages"][0]["role"] == "user" for body in bodies)


def test_a_preset_without_its_question_asks_nothing(few: Path, stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, said = fails(capsys, *command(few, stub, preset="vq-insight"))
    assert status == 2
    assert "vlm.question=PATH" in said
    assert not stub.asked
