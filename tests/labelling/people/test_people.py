"""Labels from people: no answer is lost, no side matters, nothing but the set's videos gets out."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import socket
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.support.browser import browsing, until
from tests.support.desk import Served, serving_with
from tests.support.sockets import free_port, raw
from vpo_kit.cli import main
from vpo_kit.errors import OutputError
from vpo_kit.labelling.people import finish
from vpo_kit.labelling.people.answers import Answer, PeopleAnswers
from vpo_kit.labelling.people.questions import People, Question, Survey, plain_name, read_gold
from vpo_kit.labelling.people.server import meant, shown
from vpo_kit.pairing import store
from vpo_kit.testing.pairs import pair_row
from vpo_kit.video import write_video

FRAMES, FPS = 8, 8.0
PROMPTS = ["the brighter one", "the darker one", "neither", "the brighter one, please"]
SHOULD = [1, -1, 0, 1]
HALVES = [(0, 4), (4, 8)]
OLD = [[1, 1, 0, -1], [0, 0, 0, 0], [-1, -1, -1, 0], [1, 0, 0, 0]]
OLD_CLIPS = [1, 0, -1, 1]
CUT = ("--set", "segment_seconds=0.5")


def build(folder: Path) -> Path:
    """Four pairs of one second, labelled by a reward; every first member is bright, every second one dark."""
    pairs = []
    for i, prompt in enumerate(PROMPTS):
        name = f"{i:06d}"
        made = pair_row(
            name, prompt=prompt, strategy="independent", seeds=(2 * i, 2 * i + 1), fps=FPS, frames=FRAMES,
            labels=OLD[i], label=OLD_CLIPS[i], labeller="reward:vqa", motion={"first": [0.1] * 4, "second": [0.2] * 4},
            scores={"first": [1, 2, 3, 4], "second": [0, 0, 0, 0], "first_clip": 2, "second_clip": 0},
        )  # fmt: skip
        for file, level in ((made.first_file_name, 0.75), (made.second_file_name, 0.25)):
            video = torch.full((FRAMES, 3, 48, 64), level + i / 100)
            for k in range(FRAMES):
                video[k, :, 8:16, 6 * k : 6 * k + 8] = 1 - level
            write_video(folder / file, video, FPS)
        store.write_latents(folder / made.latents, {who: torch.randn(4, 2, 4, 4) for who in ("first", "second")})
        pairs.append(made.model_copy(update={"sha256": store.hashes(folder, made.files)}))
    store.write(folder, {"format": 1, "labels": {"labeller": "reward:vqa", "tie_margin": 0.5}}, pairs)
    return folder


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("people") / "set")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "set"))


# -- a real server, and a client that is not a browser


@contextmanager
def serving(folder: Path, *options: object) -> Iterator[Served]:
    options = options if "--port" in options else (*options, "--port", 0)
    with serving_with(folder, "label", folder, "--with", "people", *options) as served:
        yield served


@pytest.fixture(scope="module")
def desk(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for the tests that do not end it; each of them has annotators of its own."""
    folder = Path(shutil.copytree(original, tmp_path_factory.mktemp("desk") / "set"))
    outside = Path(shutil.copy(folder / "videos/000003-first.mp4", folder.parent / "outside.mp4"))
    (folder / "videos/000003-first.mp4").unlink()
    (folder / "videos/000003-first.mp4").symlink_to(outside)
    (folder / "videos/000003-second.mp4").unlink()
    with serving(folder, *CUT) as served:
        yield served


def survey_of(folder: Path, **settings: Any) -> Survey:
    return Survey(store.read(folder), People.model_validate({"segment_seconds": 0.5, **settings}))


def side(survey: Survey, annotator: str, pair: str, label: int) -> str:
    """What an annotator presses to mean a label; written without the product's own function."""
    if label == 0:
        return "tie"
    first = "b" if survey.swapped(annotator, pair) else "a"
    return first if label == 1 else {"a": "b", "b": "a"}[first]


def labels(folder: Path) -> dict[str, tuple[Any, Any, Any]]:
    return {pair.id: (pair.labels, pair.label, pair.labeller) for pair in store.read(folder).pairs}


# -- who is let in, and to what


ROUTES = [("GET", "/tasks?annotator=a"), ("GET", "/videos/000000/a?annotator=a"), ("POST", "/answers"),
          ("POST", "/undo"), ("POST", "/finish"), ("GET", "/")]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("cookie", ["", "none", "short", "other"])
def test_without_the_token_nothing_works(desk: Served, method: str, path: str, cookie: str) -> None:
    name, _, token = desk.cookie.partition("=")
    given = {"": "", "none": f"{name}=", "short": f"{name}={token[:-1]}", "other": f"vpo-label={token}"}[cookie]
    stranger = Served(desk.folder, desk.process, desk.url, desk.token, given)
    status, body, _ = stranger.ask(method, path, {} if method == "POST" else None)
    assert status == 401
    assert b"token" in body
    assert desk.token.encode() not in body
    # the answer comes although the announced body never does
    if method == "POST":
        assert raw(desk.url, f"POST {path} HTTP/1.1\r\nCookie: {given}\r\nContent-Length: 100000000")[0] == 401


def test_the_address_with_the_token_becomes_a_cookie(desk: Served) -> None:
    stranger = Served(desk.folder, desk.process, desk.url, desk.token)
    assert stranger.ask("GET", f"/?token={desk.token}x")[0] == 401
    status, _, headers = stranger.ask("GET", f"/?token={desk.token}")
    assert status == 303
    assert {"HttpOnly", "SameSite=lax"} < {part.strip() for part in headers["set-cookie"].split(";")}
    status, page, headers = desk.ask("GET", "/")
    assert status == 200
    assert desk.token.encode() not in page
    assert not re.findall(rb"https?://|src=\"/|@import", page), "the page must not ask anybody else for anything"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"


def test_only_this_user_of_this_machine_is_let_in(desk: Served) -> None:
    file = desk.folder / ".answers/token"
    assert file.read_text().strip() == desk.token
    assert file.stat().st_mode & 0o777 == 0o600
    assert desk.url.startswith("http://127.0.0.1:")
    with pytest.raises(ConnectionRefusedError):  # another address of this machine
        socket.create_connection(("127.0.0.2", int(desk.url.rpartition(":")[2])), timeout=2)


def test_videos_are_given_by_pair_and_side(desk: Served, original: Path) -> None:
    survey, sides = survey_of(original), Counter[bool]()
    for name, pair in product(["ann", "bob", "cem", "dora"], ["000000", "000001", "000002"]):
        found = {}
        for who in "ab":
            status, found[who], headers = desk.ask("GET", f"/videos/{pair}/{who}?annotator={name}")
            assert (status, headers["content-type"]) == (200, "video/mp4")
            assert "second" not in str(headers)
        swapped = found["a"] == (original / f"videos/{pair}-second.mp4").read_bytes()
        assert found["b" if swapped else "a"] == (original / f"videos/{pair}-first.mp4").read_bytes()
        assert swapped == survey.swapped(name, pair)
        sides[swapped] += 1
    assert min(sides.values()) >= 3
    part = desk.ask("GET", "/videos/000000/a?annotator=ann", Range="bytes=10-19")
    assert (part[0], len(part[1])) == (206, 10)


@pytest.mark.parametrize(
    "path",
    [
        "/metadata.jsonl", "/dataset.yaml", "/.answers/token", "/.answers/answers.sqlite", "/../outside.mp4",
        "/videos/000000-first.mp4", "/videos/000000/first?annotator=a", "/videos/000000/a/?annotator=a",
        "/videos/../metadata.jsonl?annotator=a", "/videos/../../etc/passwd/a?annotator=a",
        "/videos/..%2f..%2f..%2f..%2fetc%2fpasswd/a?annotator=a", "/videos/%2e%2e%2fmetadata.jsonl/a?annotator=a",
        "/videos/000000/..%2f..%2fmetadata.jsonl?annotator=a", "/videos//etc/passwd/a?annotator=a",
        "/videos/000000%00/a?annotator=a", "/videos/..%5c..%5cmetadata.jsonl/a?annotator=a", "//etc/passwd",
        "/videos/000000/a%2f..%2fb?annotator=a", "/videos/000003-first/a?annotator=a", "/openapi.json", "/docs",
    ],
)  # fmt: skip
def test_no_path_is_ever_served(desk: Served, path: str) -> None:
    status, body, _ = desk.ask("GET", path)
    assert status in (404, 422)
    assert len(body) < 600
    assert b"root:" not in body


def test_links_that_lead_out_of_the_set_are_not_followed(desk: Served) -> None:
    for name in ("ann", "bob", "cem", "dora"):  # one side is a link to outside.mp4, the other is missing
        for who in "ab":
            status, body, _ = desk.ask("GET", f"/videos/000003/{who}?annotator={name}")
            assert status == 404
            assert b"a video is missing" in body


def test_a_post_of_100_mb_is_refused_without_reading_it(desk: Served) -> None:
    head = f"POST /answers HTTP/1.1\r\nCookie: {desk.cookie}\r\nContent-Type: application/json"
    status, answer, sent = raw(desk.url, f"{head}\r\nContent-Length: 100000000")
    assert (status, sent) == (413, 0)
    assert json.loads(answer)["detail"] == "the body is larger than 16 KB"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    status, _, sent = raw(desk.url, f"{head}\r\nTransfer-Encoding: chunked", chunk * 1600)
    assert status in (413, 0)
    assert sent < 16 * 2**20  # what the sockets' buffers hold
    assert desk.tasks("ann")


GOOD = {"key": "0" * 32, "annotator": "eve", "pair": "000000", "segment": 0, "choice": "a", "seconds": 1.0}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pair": "../../etc/passwd"}, "no segment 0 of pair"), ({"pair": "000009"}, "no segment 0 of pair"),
        ({"segment": 2}, "no segment 2"), ({"segment": -1}, "segment:"), ({"choice": "first"}, "choice:"),
        ({"choice": 1}, "choice:"), ({"annotator": "  "}, "annotator:"), ({"annotator": "a\x00b"}, "annotator:"),
        ({"annotator": "x" * 61}, "annotator:"), ({"key": "short"}, "key:"), ({"seconds": -1}, "seconds:"),
        ({"seconds": 1e9}, "seconds:"), ({"path": "x"}, "path:"), (b"no json", "JSON:"), (b"", "JSON:"),
        (b"[" * 10000, "JSON:"), (b"\xff", "JSON:"),
    ],
)  # fmt: skip
def test_a_request_that_makes_no_sense_changes_nothing(desk: Served, change: Any, reason: str) -> None:
    body = change if isinstance(change, bytes) else {**GOOD, **change}
    status, answer, _ = desk.ask("POST", "/answers", body)
    assert status == 422
    assert json.loads(answer)["detail"].startswith(reason)
    assert all(set(row["choices"]) == {None} for row in desk.tasks("eve"))


def test_a_form_of_another_site_is_refused(desk: Served) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert desk.ask("POST", "/answers", json.dumps(GOOD).encode(), **{"Content-Type": kind})[0] == 415
    assert all(set(row["choices"]) == {None} for row in desk.tasks("eve"))


def test_an_annotator_sees_nothing_that_tells_the_members_apart(desk: Served) -> None:
    body = desk.ask("GET", "/tasks?annotator=Zoe%20%20B")[1]
    found = json.loads(body)
    assert found["annotator"] == "zoe b"
    # who labelled the others, and what to look for, say nothing of a pair's members
    body = json.dumps({**found, "rest": "", "instructions": ""}).encode()
    assert {key for row in found["pairs"] for key in row} == {"id", "prompt", "fps", "frames", "segments", "choices"}
    for word in (b"first", b"second", b"score", b"independent", b"vqa", b"label"):
        assert word not in body
    assert sorted(row["prompt"] for row in found["pairs"]) == sorted(PROMPTS)
    assert desk.ask("GET", "/tasks?annotator=%20")[0] == 422
    assert plain_name(" É  b") == plain_name("e\u0301 B")


# -- answers


def test_answers_are_as_seen_and_undo_goes_back_step_by_step(desk: Served) -> None:
    def seen() -> list[str | None]:
        (row,) = [row for row in desk.tasks("ulla") if row["id"] == "000001"]
        return list(row["choices"])

    assert desk.undo("ulla") == {"pair": None, "segment": None, "choice": None}
    assert desk.answer("ulla", "000001", 0, "a")[0] == 200
    assert desk.answer("Ulla ", "000001", 1, "tie")[0] == 200
    assert desk.answer("ulla", "000001", 0, "b") == (200, {"pair": "000001", "segment": 0, "choice": "b"})
    desk.answer("vic", "000001", 0, "tie")
    assert seen() == ["b", "tie"]
    assert desk.undo("ulla", "f" * 32) == {"pair": "000001", "segment": 0, "choice": "a"}
    assert desk.undo("ulla", "f" * 32) == {"pair": "000001", "segment": 0, "choice": "a"}  # the same one, sent again
    assert seen() == ["a", "tie"]
    assert desk.undo("ulla") == {"pair": "000001", "segment": 1, "choice": None}
    assert desk.undo("ulla") == {"pair": "000001", "segment": 0, "choice": None}
    assert desk.undo("ulla")["pair"] is None
    assert seen() == [None, None]
    assert desk.undo("vic")["pair"] == "000001"


def test_an_answer_sent_twice_counts_once(desk: Served) -> None:
    for _ in range(2):
        assert desk.answer("twice", "000000", 0, "a", key="a" * 32)[0] == 200
    assert desk.undo("twice")["pair"] == "000000"
    assert desk.undo("twice")["pair"] is None


def test_no_answer_is_lost_when_the_server_is_killed(folder: Path) -> None:
    """Killed in the middle of a stream of answers; what was acknowledged is there, and the page ends labelling."""
    with serving(folder, *CUT) as served:
        threading.Timer(0.5, served.process.kill).start()
        kept, turn = answer_until_it_dies(served)
        assert served.process.wait(10) == -signal.SIGKILL
    assert turn > 8
    with closing(sqlite3.connect(folder / ".answers/answers.sqlite")) as rows:
        assert rows.execute("SELECT count(*) FROM answers").fetchone()[0] in (turn, turn + 1)
        assert rows.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert labels(folder) == labels_before(folder)
    with serving(folder) as again:
        assert again.token == served.token  # pages that are open go on
        found = {(row["id"], i): choice for row in again.tasks("ann") for i, choice in enumerate(row["choices"])}
        assert len(found) == 8
        assert {place: found[place] for place in kept} == kept
        for pair, part in found:
            again.answer("ann", pair, part, "tie", key=f"{len(pair)}{part}{pair}".zfill(32))
        status, body, _ = again.ask("POST", "/finish", {})
        assert status == 200
        assert "4 of 4 pairs labelled by 1 annotator" in json.loads(body)["detail"]
        assert labels(folder) == {name: ([0, 0], 0, "people") for name, _ in found}
        assert again.process.wait(20) == 0
    assert "others" not in yaml.safe_load((folder / "dataset.yaml").read_text())["labels"]


def answer_until_it_dies(served: Served) -> tuple[dict[tuple[str, int], str], int]:
    """The acknowledged answers by pair and segment, and how many there were in all."""
    kept: dict[tuple[str, int], str] = {}
    for turn in count():
        asked, choice = (f"{turn // 2 % 4:06d}", turn % 2), ("a", "b", "tie")[turn % 3]
        try:
            status, _ = served.answer("ann", *asked, choice)
        except (OSError, http.client.HTTPException):
            kept.pop(asked, None)  # the new one may be there or not: nobody was told
            return kept, turn
        assert status == 200
        kept[asked] = choice
    raise AssertionError


def labels_before(folder: Path) -> dict[str, tuple[Any, Any, Any]]:
    return {pair.id: (OLD[i], OLD_CLIPS[i], "reward:vqa") for i, pair in enumerate(store.read(folder).pairs)}


def test_an_answer_that_cannot_be_written_is_not_acknowledged(desk: Served) -> None:
    with closing(sqlite3.connect(desk.folder / ".answers/answers.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        status, answer = desk.answer("lou", "000000", 0, "a", key="b" * 32)
        assert status == 503
        assert "answers.sqlite: database is locked" in answer["detail"]
        other.execute("ROLLBACK")
    assert {choice for row in desk.tasks("lou") for choice in row["choices"]} == {None}
    assert desk.answer("lou", "000000", 0, "a", key="b" * 32)[0] == 200
    assert {choice for row in desk.tasks("lou") for choice in row["choices"]} == {None, "a"}


def test_two_annotators_become_labels_whatever_side_they_saw(folder: Path) -> None:
    """Ctrl-C writes the majority; the swap of sides is undone; a draw is a tie; old labels stay where nobody looked."""
    survey = survey_of(folder, seed=5)
    wanted = {"ann": [[1, 1], [-1, -1], [0, 0]], "bob": [[1, -1], [-1, 0], [0, 1]], "cem": [[1, 1], [1, -1], [1, 1]]}
    swaps = {(name, f"{i:06d}"): survey.swapped(name, f"{i:06d}") for name in wanted for i in range(3)}
    assert set(swaps.values()) == {True, False}
    with serving(folder, *CUT, "--seed", 5) as served:
        for name, rows in wanted.items():
            for (i, row), k in product(enumerate(rows), range(2)):
                pair = f"{i:06d}"
                assert served.answer(name, pair, k, side(survey, name, pair, row[k]))[0] == 200
        served.answer("ann", "000003", 0, "a")
        assert labels(folder) == labels_before(folder)
        told = json.loads(served.ask("GET", "/tasks?annotator=ann")[1])["rest"]
        assert told == "Pairs that are not answered in all segments keep the labels that they have (by reward:vqa)."
        said = served.stop()
    assert "3 of 4 pairs labelled by 3 annotators; the other 1, 1 of them answered in part, keep the labels" in said
    assert "(1 by reward:vqa): --set data.labeller=people trains on people's alone" in said
    assert labels(folder) == {
        "000000": ([1, 1], 1, "people"), "000001": ([-1, -1], -1, "people"), "000002": ([0, 1], 1, "people"),
        "000003": (OLD[3], OLD_CLIPS[3], "reward:vqa"),
    }  # fmt: skip
    pairs = {pair.id: pair for pair in store.read(folder).pairs}
    assert pairs["000000"].segments == HALVES
    assert pairs["000000"].scores is None
    assert pairs["000003"].scores is not None
    assert yaml.safe_load((folder / "dataset.yaml").read_text())["labels"] == {
        "labeller": "people", "annotators": 3, "answers": 19, "pairs": 3, "segment_seconds": 0.5, "seed": 5,
        "others": {"labeller": "reward:vqa", "tie_margin": 0.5},
    }  # fmt: skip
    main_ok("pair", "check", folder)


def main_ok(*arguments: object) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 0


def main_fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    assert caught.value.code in (1, 2)
    assert shown.err.count("\n") == 1
    return shown.err


@pytest.mark.parametrize(
    "choices", [[1, 1, -1], [1, -1], [1, 0], [0, 0, 1], [1, 1, 0, 0], [1, -1, 0], [-1], [1, 1, -1, -1, 0]]
)
def test_the_majority_of_annotators(choices: list[int]) -> None:
    ranked = Counter(choices).most_common()
    expected = 0 if len(ranked) > 1 and ranked[0][1] == ranked[1][1] else ranked[0][0]
    assert finish.majority(choices) == expected
    assert finish.majority([-c for c in choices]) == -expected


@pytest.mark.parametrize(("label", "swapped"), [*product([1, 0, -1], [False, True])])
def test_what_is_shown_is_what_is_meant(label: int, swapped: bool) -> None:
    assert meant(shown(label, swapped), swapped) == label
    assert (shown(label, swapped) == "a") == (label == (-1 if swapped else 1))


# -- the file of answers, without a server


@contextmanager
def answers_of(
    folder: Path, given: Mapping[str, Mapping[Question, int]], seconds: float = 2.0
) -> Iterator[PeopleAnswers]:
    with closing(PeopleAnswers(folder, create=True)) as answers:
        answers.settle({"segment_seconds": 0.5})
        for name, rows in given.items():
            for question, choice in rows.items():
                key = f"{name}-{question.pair}-{question.start}-{choice}"
                answers.add(
                    Answer(key=key, annotator=name, question=question, choice=choice, swapped=False, seconds=seconds)
                )
        yield answers


def give(survey: Survey, rows: Mapping[int, list[int]]) -> dict[Question, int]:
    return {survey.questions[f"{i:06d}"][k]: c for i, row in rows.items() for k, c in enumerate(row)}


@pytest.mark.parametrize("drop", [False, True])
def test_verdicts_in_dimensions_leave_the_labels_whose_they_are(folder: Path, drop: bool) -> None:
    """A reward's labels of segments under people's name could be told from people's own by nobody."""
    with closing(PeopleAnswers(folder, create=True)) as answers:
        survey = Survey(store.read(folder), answers.settle({"dimensions": ["motion"]}))
        for i in range(3):
            (question,) = survey.questions[f"{i:06d}"]
            answers.add(Answer(key=f"{i}", annotator="ann", question=question, choice=-1, swapped=False, seconds=2.0))
        finish.finish(folder, answers, drop=drop)
    found = store.read(folder)
    assert [pair.judged for pair in found.pairs] == [{"motion": -1}] * 3 + [None]
    assert [(pair.labels, pair.labeller) for pair in found.pairs[:3]] == [(row, "reward:vqa") for row in OLD[:3]]
    assert (found.pairs[3].labels, found.pairs[3].labeller) == ((None, None) if drop else (OLD[3], "reward:vqa"))
    assert found.facts["labels"]["others"] == {"labeller": "reward:vqa", "tie_margin": 0.5}


def test_the_agreement_is_printed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: ann and bob agree in 5 of 8; chance is (4*3 + 2*3 + 2*2) / 64 = 22/64, so kappa is 18/42."""
    survey = survey_of(folder)
    first = give(survey, {0: [1, 1], 1: [1, 1], 2: [-1, -1], 3: [0, 0]})
    second = give(survey, {0: [1, 1], 1: [1, -1], 2: [-1, -1], 3: [0, 0]})
    second[survey.questions["000002"][0]] = 0
    second[survey.questions["000003"][1]] = -1
    gold = tmp_path / "gold.jsonl"
    rows = [
        {"id": "000000", "segment": 0, "label": 1}, {"id": "000002", "segment": 0, "label": -1},
        {"id": "000003", "label": 0}, {"id": "000001", "label": 1},
    ]  # fmt: skip
    gold.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with answers_of(folder, {"ann": first, "bob": second, "late": give(survey, {0: [1, 1]})}) as answers:
        answers.set_gold(read_gold(gold, survey))
        # an answer taken back costs no agreement, one given anew replaces the old one
        answers.add(
            Answer(
                key="x", annotator="bob", question=survey.questions["000000"][0], choice=-1, swapped=False, seconds=2.0
            )
        )
        assert answers.undo("y", "bob", survey.known) is not None
        answers.add(
            Answer(
                key="z", annotator="ann", question=survey.questions["000000"][0], choice=1, swapped=False, seconds=12.0
            )
        )
    main_ok("label", folder, "--agreement")
    lines = {tuple(line.split()) for line in capsys.readouterr().out.splitlines()}
    # ann: gold 000000.0 right, 000002.0 right, clip 000003 a tie: right, clip 000001 first: right
    assert ("ann", "8", "2", "(25%)", "66.7%", "4", "of", "4", "2.0", "0.5") in lines
    # bob: 000002.0 a tie: wrong; clip 000003 second: wrong; clip 000001 is a draw: wrong
    assert ("bob", "8", "2", "(25%)", "50.0%", "1", "of", "4", "2.0", "0.3") in lines
    assert ("late", "2", "0", "(0%)", "100.0%", "1", "of", "1", "2.0", "0.1") in lines
    # without ties: 4 of 5, chance is (4*3 + 1*2) / 25 = 14/25, kappa 6/11
    assert ("ann,", "bob", "8", "62.5%", f"{18 / 42:.3f}", "5", "80.0%", f"{6 / 11:.3f}") in lines
    assert ("ann,", "late", "2", "100.0%", "-", "2", "100.0%", "-") in lines
    assert labels(folder) == labels_before(folder)


def test_finish_from_the_command_line_keeps_or_drops(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "answers.sqlite is missing: nobody has answered" in main_fails(
        capsys, "label", folder, "--with", "people", "--finish"
    )
    assert not (folder / ".answers").exists()
    survey = survey_of(folder)
    with answers_of(folder, {"ann": {survey.questions["000001"][0]: 1}}) as answers:
        main_ok("label", folder, "--with", "people", "--finish", "--set", "unanswered=drop")
        assert "no pair is answered in all of its segments, the labels stay" in capsys.readouterr().out
        assert labels(folder) == labels_before(folder)
        answers.add(
            Answer(
                key="k", annotator="ann", question=survey.questions["000001"][1], choice=1, swapped=True, seconds=1.0
            )
        )
    main_ok("label", folder, "--with", "people", "--finish")
    expected = {**labels_before(folder), "000001": ([1, 1], 1, "people")}
    assert labels(folder) == expected
    main_ok("label", folder, "--with", "people", "--finish")  # again: nothing changes
    assert labels(folder) == expected
    facts = yaml.safe_load((folder / "dataset.yaml").read_text())["labels"]
    assert facts["others"]["labeller"] == "reward:vqa"
    main_ok("label", folder, "--with", "people", "--finish", "--set", "unanswered=drop")
    assert labels(folder) == dict.fromkeys(expected, (None, None, None)) | {"000001": ([1, 1], 1, "people")}
    assert "others" not in yaml.safe_load((folder / "dataset.yaml").read_text())["labels"]


def test_a_set_that_cannot_be_written_anew_keeps_its_labels(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    survey = survey_of(folder)
    with answers_of(folder, {"ann": give(survey, {0: [1, 1]})}):
        pass
    text = (folder / "metadata.jsonl").read_text()
    for broken, reason in ((f"{text}nonsense\n", "line 5"), (text + text.splitlines()[0] + "\n", "several pairs")):
        (folder / "metadata.jsonl").write_text(broken)
        assert reason in main_fails(capsys, "label", folder, "--with", "people", "--finish")
        assert (folder / "metadata.jsonl").read_text() == broken


def test_answers_about_other_videos_do_not_count(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    survey = survey_of(folder)
    with answers_of(folder, {"ann": give(survey, {0: [1, 1], 1: [-1, -1]})}):
        pass
    shutil.copy(folder / "videos/000000-first.mp4", folder / "videos/000001-first.mp4")
    found = store.read(folder)
    pairs = [p.model_copy(update={"sha256": store.hashes(folder, p.files)}) for p in found.pairs]
    store.write(folder, found.facts, pairs)
    main_ok("label", folder, "--with", "people", "--finish")
    assert "1 of 4 pairs" in (said := capsys.readouterr().out)
    assert "2 answers are about videos or segments that the set no longer has" in said
    assert labels(folder)["000001"] == (OLD[1], OLD_CLIPS[1], "reward:vqa")


def test_segments_and_seed_are_fixed_by_the_first_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    survey = survey_of(folder)
    with closing(PeopleAnswers(folder, create=True)) as answers:
        assert answers.settle({"segment_seconds": 0.25}).segment_seconds == 0.25
        assert answers.settle({"segment_seconds": 0.5}).segment_seconds == 0.5
        answers.add(
            Answer(
                key="k", annotator="ann", question=survey.questions["000000"][0], choice=1, swapped=False, seconds=1.0
            )
        )
        assert answers.settle({}).segment_seconds == 0.5
        assert answers.settle({"segment_seconds": 0.5, "seed": 0}).seed == 0
    people = ("label", folder, "--with", "people")
    assert "holds 1 answers given with segment_seconds=0.5: leave segment_seconds out" in main_fails(
        capsys, *people, "--set", "segment_seconds=1"
    )
    assert "given with seed=0" in main_fails(capsys, *people, "--seed", 3)


def test_a_file_that_holds_something_else_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / ".answers/answers.sqlite"
    file.parent.mkdir()
    file.write_bytes(b"a text, and not a short one" * 100)
    assert "is damaged or no file of answers" in main_fails(capsys, "label", folder, "--agreement")
    file.unlink()
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE answers (x)")
    assert "holds something else than answers" in main_fails(capsys, "label", folder, "--agreement")


def test_several_processes_may_add_answers_at_once(folder: Path) -> None:
    survey = survey_of(folder)
    questions = [question for parts in survey.questions.values() for question in parts]
    failed: list[OutputError] = []

    def work(name: str) -> None:
        with closing(PeopleAnswers(folder, create=True)) as answers:
            for i in range(24):
                try:
                    answers.add(
                        Answer(
                            key=f"{name}{i}",
                            annotator=name,
                            question=questions[i % 8],
                            choice=i % 3 - 1,
                            swapped=False,
                            seconds=1.0,
                        )
                    )
                except OutputError as error:
                    failed.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with closing(PeopleAnswers(folder, create=False)) as answers:
        assert not failed
        assert len(answers.all()) == 4 * 24
        assert len(answers.current()) == 4 * 8


# -- order, sides, gold


def test_the_order_is_drawn_once_and_gold_is_spread(folder: Path) -> None:
    found = store.read(folder)
    many = [found.pairs[0].model_copy(update={"id": f"{i:06d}"}) for i in range(40)]
    crowd = store.PairSet(folder, found.facts, many, [])
    plain = Survey(crowd, People())
    assert list(plain.pairs) == list(Survey(crowd, People()).pairs) != sorted(plain.pairs)
    assert list(plain.pairs) != list(Survey(crowd, People(seed=1)).pairs)
    gold = [plain.clip(f"{i:06d}") for i in (1, 2, 3, 4)]
    order = list(Survey(crowd, People(), gold).pairs)
    assert sorted(order) == sorted(plain.pairs)
    places = [i for i, name in enumerate(order) if name in {"000001", "000002", "000003", "000004"}]
    assert [place // 10 for place in places] == [0, 1, 2, 3]
    swaps = [plain.swapped(f"person {k}", name) for k in range(25) for name in plain.pairs]
    assert 0.45 < sum(swaps) / len(swaps) < 0.55
    again = Survey(crowd, People(), gold)
    assert swaps == [again.swapped(f"person {k}", name) for k in range(25) for name in plain.pairs]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": "000009", "label": 1}', "line 2: the set has no pair '000009'"),
        ('{"id": "000001", "segment": 2, "label": 1}', "line 2: pair 000001 has segments 0 to 1, not 2"),
        ('{"id": "000001", "label": 2}', "line 2: label: "), ('{"id": "000001"}', "line 2: label: Field required"),
        ('{"id": "000001", "lable": 1, "label": 1}', "line 2: lable: "), ("nonsense", "line 2: JSON: "),
        ('{"id": "000000", "segment": 0, "label": 1}', "line 2: pair 000000 is there before"),
    ],
)  # fmt: skip
def test_a_wrong_gold_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, reason: str
) -> None:
    gold = tmp_path / "gold.jsonl"
    gold.write_text('{"id": "000000", "segment": 0, "label": 1}\n' + line + "\n")
    assert reason in main_fails(capsys, "label", folder, "--with", "people", *CUT, "--gold", gold)
    gold.write_text("\n")
    assert "holds no gold question" in main_fails(capsys, "label", folder, "--with", "people", "--gold", gold)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--agreement", "--with", "reward:technical"], "--with"),
        (["--agreement", "--with", "vlm:Q", "--base-url", "http://127.0.0.1:1/v1"], "--with, --base-url"),
        (["--agreement", "--with", "tests.support.own:Labeller"], "--with"),
        (["--agreement", "--with", "people", "--set", "least_gold=0.7"], "--set"),
        (["--agreement", "--seed", "0", "--gold", "g.jsonl", "--overlap", "2"], "--gold, --overlap, --seed"),
        (["--judge-against", "other", "--agreement", "--port", "0"], "--port, --agreement"),
        (["--judge-against", "other", "--with", "people", "--finish", "--set", "a=1"], "--with, --finish, --set"),
        (["--with", "people", "--finish", "--gold", "g.jsonl", "--host", "localhost"], "--gold, --host"),
    ],
)
def test_an_option_without_effect_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], names: str
) -> None:
    """What looks at labels changes none, and what asks nobody takes nothing for a page."""
    before = (folder / "metadata.jsonl").read_bytes()
    assert main_fails(capsys, "label", folder, *arguments).endswith(f": leave {names} out\n")
    assert (folder / "metadata.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--finish"], "--overlap, --instructions and --finish go with --with people"),
        (
            ["--with", "vlm", "--seed", "1"],
            "--overlap, --instructions and --finish go with --with people",
        ),
        (["--with", "people", "--set", "tie_margin=1"], "tie_margin"),
        (["--with", "people", "--set", "unanswered=perhaps"], "unanswered"),
        (["--with", "people", "--host", "203.0.113.1"], "cannot listen on 203.0.113.1:8001"),
        (["--with", "people", "--gold", "none.jsonl"], "--gold none.jsonl cannot be read"),
        (["--agreement"], "answers.sqlite is missing"),
    ],
)
def test_wrong_options(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str) -> None:
    assert reason in main_fails(capsys, "label", folder, *arguments)


def test_no_set_and_no_extra(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is no pair set" in main_fails(capsys, "label", tmp_path, "--with", "people")
    assert not (tmp_path / ".answers").exists()
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "vpo label --with people needs uvicorn: pip install 'vpo-kit[server]'" in main_fails(
        capsys, "label", folder, "--with", "people"
    )


# -- a real browser, by keyboard alone

BRIGHTNESS = """() => videos.map(video => {
  const canvas = new OffscreenCanvas(8, 8), pen = canvas.getContext("2d");
  pen.drawImage(video, 0, 24, 64, 24, 0, 0, 8, 8);
  return pen.getImageData(4, 4, 1, 1).data[0];
})"""


def test_a_browser_labels_a_set_by_keyboard_and_loses_no_answer(folder: Path) -> None:
    """It looks at the pixels and presses what the prompt asks for, so a swap that is not undone would show."""
    port = free_port()
    with browsing() as seen:
        page = seen.page
        with serving(folder, *CUT, "--port", port) as served:
            page.goto(f"{served.url}/?token={served.token}")
            assert "token" not in page.url
            page.keyboard.type("Ann")
            page.keyboard.press("Enter")
            until(page, lambda: page.evaluate("ready"))
            look_around(page)
            for done in range(3):
                press_right(page, done)
            page.keyboard.press("u")
            until(page, lambda: "2 of 8" in page.inner_text("#count"))
            press_right(page, 2)
            served.process.kill()
            served.process.wait()
            bright = judge(page)
            page.keyboard.press(bright)
            until(page, lambda: "Not saved yet: the server does not answer" in page.inner_text("#status"))
            assert "3 of 8" in page.inner_text("#count")
        with serving(folder, *CUT, "--port", port) as served:
            until(page, lambda: "4 of 8" in page.inner_text("#count"))
            page.reload()  # the name is asked for once
            until(page, lambda: page.evaluate("ready") and "4 of 8" in page.inner_text("#count"))
            for done in range(4, 8):
                press_right(page, done)
            assert "All 8 segments are answered" in page.inner_text("#status")
            assert labels(folder) == labels_before(folder)
            page.keyboard.press("f")
            assert "keep the labels" not in page.inner_text("#sure")  # nothing is left open
            page.keyboard.press("Escape")
            until(page, lambda: page.evaluate("!busy"))
            assert page.inner_text("#over") == ""
            end(page, "Enter")  # the second question stays on no
            until(page, lambda: page.evaluate("!busy"))
            assert page.inner_text("#over") == ""
            end(page, "Tab", "Enter")
            until(page, lambda: "4 of 4 pairs labelled by 1 annotator" in page.inner_text("#over"))
            assert served.process.wait(20) == 0
    # the browser's own word for the time when there was no server
    assert all("net::ERR_" in error for error in seen.errors)
    assert all(address.startswith((f"http://127.0.0.1:{port}/", "blob:", "data:")) for address in seen.asked)
    assert labels(folder) == {f"{i:06d}": ([want] * 2, want, "people") for i, want in enumerate(SHOULD)}
    survey = survey_of(folder)
    assert {survey.swapped("ann", name) for name in survey.pairs} == {True, False}


def end(page: Any, *keys: str) -> None:
    """F, yes, and an answer to the second question."""
    page.keyboard.press("f")
    page.keyboard.press("Enter")
    until(page, lambda: page.evaluate("document.getElementById('really').open"))
    for key in keys:
        page.keyboard.press(key)


def judge(page: Any) -> str:
    """The key that the prompt asks for, by the pixels of the two videos."""
    until(page, lambda: page.evaluate("ready && !busy && videos.every(video => !video.seeking)"))
    prompt, (a, b) = page.inner_text("#prompt"), page.evaluate(BRIGHTNESS)
    assert abs(a - b) > 80
    return "3" if prompt == "neither" else "1" if ("brighter" in prompt) == (a > b) else "2"


def press_right(page: Any, done: int) -> None:
    assert f"{done} of 8" in page.inner_text("#count")
    page.keyboard.press(judge(page))
    until(page, lambda: f"{done + 1} of 8" in page.inner_text("#count"))


def look_around(page: Any) -> None:
    """Playing, frames, segments, focus and a narrow window, before the first answer."""

    def frames() -> list[int]:
        return list(page.evaluate("videos.map(video => Math.floor(video.currentTime * 8 + .01))"))

    seen = list[int]()
    for _ in range(40):  # the first segment repeats, both videos in step
        first, second = frames()
        seen.append(first)
        assert abs(first - second) <= 2
        page.wait_for_timeout(30)
    assert {0, 1, 2, 3} <= {*seen}
    assert sorted(seen)[int(0.9 * len(seen))] <= 4, "but for what a starved machine lets pass before it is mended"
    page.keyboard.press("l")
    until(page, lambda: frames()[0] >= 6)
    page.keyboard.press("l")
    page.keyboard.press("Space")
    until(page, lambda: page.evaluate("videos.every(video => video.paused && !video.seeking)"))
    for key, change in ((".", 1), (".", 1), (",", -1)):
        before = frames()
        page.keyboard.press(key)
        until(page, lambda: page.evaluate("videos.every(video => !video.seeking)"))
        assert frames() == [min(3, before[0] + change)] * 2
    page.keyboard.press("ArrowRight")
    until(page, lambda: frames() == [4, 4])
    assert page.get_attribute("#line button:nth-child(2)", "aria-current") == "true"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    held = page.evaluate_handle("document.activeElement")
    tag, style, width = held.evaluate(
        "held => [held.tagName, getComputedStyle(held).outlineStyle, parseFloat(getComputedStyle(held).outlineWidth)]"
    )
    assert (tag, style) == ("BUTTON", "solid")
    assert width >= 2
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    page.set_viewport_size({"width": 320, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.set_viewport_size({"width": 900, "height": 800})
