"""A study from an evaluation to win rates: blind, killed and taken up, by keyboard in a real browser."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch

from tests.support.browser import browsing, until
from tests.support.commands import fails, main_ok
from tests.support.desk import Served, serving_with
from vpo_kit.evaluation import people
from vpo_kit.evaluation.samples import Results
from vpo_kit.judged.reader import read
from vpo_kit.labelling.people.answers import Answer, PeopleAnswers
from vpo_kit.labelling.people.questions import Survey
from vpo_kit.pairing import store
from vpo_kit.video import write_video

LEVELS = {"base": 0.25, "dense": 0.75, "sft": 0.5}
PROMPTS = [f"prompt {i}" for i in range(3)]


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rows of three prompts, of which the brighter one is better."""
    folder = tmp_path_factory.mktemp("study") / "eval"
    for name, level in LEVELS.items():
        place = folder / "videos" / name
        for i in range(len(PROMPTS)):
            video = torch.full((8, 3, 32, 48), level + i / 50)
            video[:, :, 8:16, 8:16] = torch.linspace(0, 1, 8)[:, None, None, None]
            write_video(place / f"{i:03d}-0.mp4", video, 8.0)
        files = [f"{i:03d}-0.mp4" for i in range(len(PROMPTS))]
        Results(name=name, prompts=PROMPTS, groups=[0, 1, 2], files=files, metrics={"motion": [0.0] * 3}).save(place)
    return folder


@contextmanager
def asking(source: Path, output: Path, *options: object) -> Iterator[Served]:
    options = options if "--port" in options else (*options, "--port", 0)
    with serving_with(output, "study", source, "--output", output, *options) as served:
        yield served


def better(served: Served, folder: Path, person: str, pair: str) -> str:
    """The side of the better row, by the bytes of the video that this person is shown."""
    found = {one.id: one for one in store.read(folder).pairs}[pair]
    assert found.models is not None
    shown = served.ask("GET", f"/videos/{pair}/a?annotator={person}")[1]
    is_first = shown == (folder / found.first_file_name).read_bytes()
    first_better = LEVELS[found.models[0]] > LEVELS[found.models[1]]
    return "a" if is_first == first_better else "b"


def answer_all(served: Served, folder: Path, person: str) -> None:
    for row in served.tasks(person):
        side = better(served, folder, person, row["id"])
        for part, choice in enumerate(row["choices"]):
            if choice is None:
                assert served.answer(person, row["id"], part, side if part != 1 else "tie", key=uuid4().hex)[0] == 200


def test_a_study_is_killed_goes_on_and_becomes_a_set_for_judges(
    evaluation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    with asking(evaluation, folder) as served:
        body = json.loads(served.ask("GET", "/tasks?annotator=ann")[1])
        assert (body["dimensions"], len(body["pairs"])) == (["quality", "motion", "text"], 9)
        assert [row["id"] for row in body["pairs"]] == [f"{i:06d}" for i in range(9)]  # as the design has them
        text = json.dumps(body)
        assert not [name for name in (*LEVELS, str(evaluation)) if re.search(rf"\b{re.escape(name)}\b", text)]
        answer_all(served, folder, "ann")
        served.process.kill()
        assert served.process.wait(10) == -signal.SIGKILL
    with asking(evaluation, folder) as served:
        assert all(None not in row["choices"] for row in served.tasks("ann"))  # nothing is lost
        answer_all(served, folder, "bob")
        said = served.stop()
    assert "9 of 9 pairs labelled by 2 annotators" in said
    found = read(folder)
    assert (len(found.pairs), found.dimensions) == (9, ["quality", "motion", "text"])
    for pair in found.pairs:
        one, other = (LEVELS[found.clips[place].model] for place in (pair.first, pair.second))
        assert pair.verdicts["quality"] == pair.verdicts["text"] == (1 if one > other else -1)
        assert pair.verdicts["motion"] == 0
        assert pair.shares["quality"] == (one > other)
    facts = json.loads((folder / "results.json").read_text())
    quality, motion = facts["dimensions"]["quality"], facts["dimensions"]["motion"]
    assert quality["rows"]["dense"]["log_odds"] > quality["rows"]["sft"]["log_odds"] > 0
    assert quality["direct"]["dense"] == [1.0, 6]
    assert quality["alpha"] == 1
    assert motion["rows"]["dense"]["win_rate"] == pytest.approx(0.5)
    assert (motion["alpha"], motion["ties"]) == (None, 1)
    assert "ann" not in (folder / "results.json").read_text()
    assert "| dense |" in (folder / "results.md").read_text()
    main_ok(["study", evaluation, "--output", folder, "--finish", "--without", "Bob"])
    assert "left out: bob" in capsys.readouterr().out
    assert "another --pairs" in fails(capsys, "study", evaluation, "--output", folder, "--pairs", 3, "--finish")[1]


def test_another_board_does_not_take_over_a_study(
    evaluation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its rows are called alike, and what people said of other videos would stand beside its judges."""
    source, folder = Path(shutil.copytree(evaluation, tmp_path / "eval")), tmp_path / "study"
    with asking(source, folder) as served:
        answer_all(served, folder, "ann")
        served.stop()
    (source / people.FILE).unlink(missing_ok=True)
    other = Path(shutil.copytree(source, tmp_path / "other"))
    for path in (other / "videos" / "dense").glob("*.mp4"):
        write_video(path, torch.full((8, 3, 32, 48), 0.9), 8.0)
    code, said = fails(capsys, "study", other, "--output", folder, "--finish")
    assert (code, "shows videos of dense that" in said, "does not have" in said) == (2, True, True)
    assert not (other / people.FILE).exists()
    for path in (source / "videos" / "sft").glob("*.mp4"):
        path.unlink()  # to save room: nothing speaks against the rest
    main_ok(["study", source, "--output", folder, "--finish"])
    assert (source / people.FILE).is_file()


def test_a_panel_of_known_strengths_joins_the_evaluation(
    evaluation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Simulated people, by the model that the strengths are found with: found again, and shown with the evaluation."""
    folder = tmp_path / "study"
    command = (
        "study",
        evaluation,
        "--output",
        folder,
        "--rows",
        "dense",
        "--dimension",
        "quality",
        "--dimension",
        "text",
    )
    with asking(evaluation, folder, *command[4:]) as served:
        (row,) = served.tasks("rater0")[:1]
        assert served.answer("rater0", row["id"], 0, "tie")[0] == 200
        served.stop()
    draw, true, log_nu = random.Random(0), 1.5, -0.5
    weights = [math.exp(true / 2), math.exp(log_nu), math.exp(-true / 2)]
    with closing(PeopleAnswers(folder, create=False)) as answers:
        survey = Survey(store.read(folder), answers.settle({}))
        for rater, pair in product(range(1, 25), survey.questions):
            question = survey.questions[pair][0]
            better = draw.choices([1, 0, -1], weights)[0]
            models = survey.pairs[pair].models
            assert models is not None
            answers.add(
                Answer(
                    key=uuid4().hex,
                    annotator=f"rater{rater}",
                    question=question,
                    choice=better if models[0] == "dense" else -better,
                    swapped=False,
                    seconds=1.0,
                )
            )
    main_ok([*command, "--finish"])
    assert "the same vpo eval as before shows this" in capsys.readouterr().out
    said = people.read(evaluation)
    assert {row: list(of) for row, of in said.items()} == {
        "dense": ["quality"]
    }  # nobody was asked of sft, or answered text
    found = said["dense"]["quality"]
    assert found.log_odds_low < true < found.log_odds_high
    assert found.low < (weights[0] + weights[1] / 2) / sum(weights) < found.high
    assert (found.significant, found.study, found.raters, found.verdicts) == (True, "study", 25, 24 * 3 + 1)
    facts = json.loads((folder / "results.json").read_text())["dimensions"]["quality"]
    row = facts["rows"]["dense"]
    keys = ("log_odds", "win_rate", "verdicts", "raters")
    assert [getattr(found, key) for key in keys] == [row[key] for key in keys]
    assert found.alpha == facts["alpha"]
    (evaluation / people.FILE).unlink()
    evaluation.rename(evaluation.with_name("elsewhere"))
    try:
        main_ok([*command, "--finish"])
    finally:
        evaluation.with_name("elsewhere").rename(evaluation)
    assert "eval is not here: what people said stands in" in " ".join(capsys.readouterr().out.split())


def test_known_questions_and_overlap(evaluation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who fails the known ones does not count; each other pair is for one person."""
    folder, gold = tmp_path / "study", tmp_path / "gold.jsonl"
    rows = [{"id": f"{i:06d}", "dimension": "quality", "label": 0} for i in range(3)]
    gold.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"id": "000000", "dimension": "taste", "label": 0}\n')
    command = ("study", evaluation, "--output", folder)
    assert "dimension must be one of quality, motion, text" in fails(capsys, *command, "--gold", wrong)[1]
    with asking(evaluation, folder, "--overlap", 1, "--gold", gold) as served:
        for person, pair, part in product(["ann", "bob"], range(3), range(3)):
            assert served.answer(person, f"{pair:06d}", part, "tie" if person == "ann" else "a")[0] == 200
        for part in range(3):
            told = served.answer("ann", "000005", part, "a")[1]
        assert told["closed"] == []  # one's own is not closed to oneself
        seen = json.loads(served.ask("GET", "/tasks?annotator=bob")[1])
        assert seen["closed"] == ["000005"]
        told = json.loads(served.ask("GET", "/progress")[1])
        assert [(one["name"], one["gold"]) for one in told["people"]] == [("ann", [3, 3]), ("bob", [0, 3])]
        assert told["alpha"] is not None
        guests = re.search(r"for the others, who cannot end it: \S+token=(\S{32})", served.process.output)
        assert guests is not None
        guest = Served(folder, served.process, served.url, guests[1])
        guest.enter()
        assert guest.tasks("cem")
        assert guest.ask("POST", "/finish", {})[0] == guest.ask("GET", "/progress")[0] == 403
        key = {"key": "c" * 32, "annotator": "cem", "pair": "000001"}
        assert guest.ask("POST", "/comments", {**key, "text": "B flickers"})[0] == 200
        assert guest.ask("POST", "/comments", {**key, "text": ""})[0] == 422
        comments = json.loads(served.ask("GET", "/progress")[1])["comments"]
        assert comments == [{"who": "cem", "pair": "000001", "text": "B flickers"}]
        served.stop()
    main_ok([*command, "--finish", "--least-gold", 0.5])
    said = capsys.readouterr().out
    assert "without bob, who failed known questions" in " ".join(said.split())
    main_ok(["label", folder, "--agreement"])
    said = " ".join(capsys.readouterr().out.split())
    assert "cem, pair 000001: B flickers" in said
    assert "Krippendorff's alpha of all: " in said
    judged = {pair.id: pair.judged for pair in store.read(folder).pairs}
    assert judged["000000"] == {"quality": 0, "motion": 0, "text": 0}
    with closing(PeopleAnswers(folder, create=False)) as answers:
        assert {answer.annotator for answer in answers.all()} == {"ann", "bob"}  # nothing is deleted


def test_what_is_refused_and_planned(evaluation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "study"
    assert "holds no board and no evaluation" in fails(capsys, "study", tmp_path, "--output", output)[1]
    assert "is no study yet" in fails(capsys, "study", evaluation, "--output", output, "--finish")[1]
    idle = fails(capsys, "study", evaluation, "--output", output, "--finish", "--overlap", 3, "--port", 0)
    assert idle == (2, "vpo: vpo study: --finish asks nobody: leave --overlap, --port out\n"), idle
    assert "1 to 60 letters" in fails(capsys, "study", evaluation, "--output", output, "--without", " ")[1]
    assert not output.exists()
    assert "no row 'dens'" in fails(capsys, "study", evaluation, "--output", output, "--rows", "dens")[1]
    main_ok(["study", evaluation, "--output", output, "--rows", "dense", "--dry-run"])
    said = capsys.readouterr().out
    assert "2 rows: base, dense" in said
    assert "3 pairs, 3 questions each" in said
    assert "more pairs" in said
    assert not output.exists()


def test_a_browser_answers_a_study_by_keyboard(evaluation: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    with browsing() as seen, asking(evaluation, folder, "--rows", "dense") as served:
        page = seen.page
        page.goto(f"{served.url}/?token={served.token}")
        page.keyboard.type("Ann")
        page.keyboard.press("Enter")
        until(page, lambda: page.evaluate("ready"))
        assert page.inner_text("#line").split() == ["quality", "motion", "text"]
        assert page.inner_text("#tie") == "same"
        looks(page)
        page.keyboard.press("s")
        until(page, lambda: "Skipped" in page.inner_text("#status"))
        for done in range(9):
            until(page, lambda: page.evaluate("ready && !busy"))
            part = page.evaluate("part")
            page.keyboard.press("3" if part == 1 else bright(page))
            until(page, lambda count=done + 1: f"{count} of 9 questions" in page.inner_text("#count"))
        assert "All 9 questions are answered" in page.inner_text("#status")
        page.keyboard.press("i")
        until(page, lambda: "9 of 9 questions" in page.inner_text("#sum"))
        assert page.inner_text("#people td") == "ann"
        page.keyboard.press("Escape")
        assert served.stop()
    assert not seen.errors
    for pair in store.read(folder).pairs:
        assert pair.models is not None
        better_first = pair.models[0] == "dense"
        assert pair.judged == {"quality": 1 if better_first else -1, "motion": 0, "text": 1 if better_first else -1}


def bright(page: Any) -> str:
    """The key of the brighter video."""
    levels = page.evaluate(
        """() => videos.map(video => {
  const canvas = new OffscreenCanvas(8, 8), pen = canvas.getContext("2d");
  pen.drawImage(video, 24, 20, 20, 10, 0, 0, 8, 8);
  return pen.getImageData(4, 4, 1, 1).data[0];
})"""
    )
    return "1" if levels[0] > levels[1] else "2"


def looks(page: Any) -> None:
    """Help, speed, zoom and a comment by their keys; nothing overflows at any width, and everything has a name."""
    page.keyboard.press("?")
    until(page, lambda: page.evaluate("document.getElementById('help').open"))
    assert "skip" in page.inner_text("#keys")
    assert "motion" in page.inner_text("#again")
    page.keyboard.press("Escape")
    page.keyboard.press("h")
    assert page.evaluate("videos.map(video => video.playbackRate)") == [0.5, 0.5]
    page.keyboard.press("h")
    page.keyboard.press("z")
    assert page.get_attribute("#zoom", "aria-pressed") == "true"
    page.keyboard.press("z")
    page.keyboard.press("c")
    page.keyboard.type("A flickers; 3 times")
    page.click("#note button[value=yes]")
    until(page, lambda: "Comment saved" in page.inner_text("#status"))
    page.evaluate("document.activeElement.blur()")
    for width in (400, 1000, 1600):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    nameless = "[...document.querySelectorAll('button')].filter(b => !b.textContent.trim() && !b.ariaLabel).length"
    assert page.evaluate(nameless) == 0
