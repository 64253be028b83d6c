"""A vision-language model as labeller: every pair is labelled once or listed as failed, whatever the server does.

The server here is a stub that speaks the protocol and looks at the pictures it gets: red is brightness, which it judges
by, blue tells the pair.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageStat

from tests.support.bright_pairs import edit, fails, pair, works
from tests.support.forks import vpo
from tests.support.vlm_server import KEY, TRUTH, Asked, Handler, Stub, command, facts, labels, opened
from tests.support.vlm_server import few as few
from tests.support.vlm_server import found as found
from tests.support.vlm_server import planted as planted
from tests.support.vlm_server import stub as stub
from vpo_kit.labelling import agreement
from vpo_kit.labelling.answers import Store
from vpo_kit.labelling.vlm import answers, forms, limits, pictures, protocol, tally
from vpo_kit.labelling.vlm.settings import Vlm
from vpo_kit.pairing import store
from vpo_kit.pairing.records import Hashes, Pair
from vpo_kit.pairing.segments import vote

QUESTIONS = 2 * sum(map(len, TRUTH))


def state(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "metadata.jsonl").read_bytes(), (folder / "dataset.yaml").read_bytes()


def test_a_model_that_tells_the_truth_gives_the_right_labels(
    found: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    before, seen = state(found), []

    def behave(handler: Handler, asked: Asked) -> None:
        seen.append(state(found))
        handler.truth(asked)

    stub.behave = behave
    shown = works(capsys, *command(found, stub))
    assert set(seen) == {before}  # the old labels stay until the new ones are whole
    pairs = store.read(found).pairs
    assert [p.labels for p in pairs] == TRUTH
    assert [p.label for p in pairs] == [vote(truth) for truth in TRUTH]
    assert {p.labeller for p in pairs} == {"vlm:stub"}
    assert all(p.motion and p.scores is None for p in pairs)
    assert stub.answered.total() == len(stub.asked) == QUESTIONS
    assert f"{QUESTIONS} questions, 0 of them answered before" in shown
    assert "6 pairs labelled, 0 failed" in shown
    about = facts(found)
    assert (about["labeller"], about["answered_by"], about["failed"]) == ("vlm:stub", ["stub-1"], {})
    assert (about["consistency"], about["first_position_share"]) == (1.0, 0.5)
    assert (about["input_tokens"], about["output_tokens"]) == (700 * QUESTIONS, 50 * QUESTIONS)
    assert all("temperature" not in asked.body for asked in stub.asked)
    assert stub.keys == {f"Bearer {KEY}"}
    assert not any(KEY.encode() in file.read_bytes() for file in found.rglob("*") if file.is_file())
    works(capsys, "pair", "check", found)
    works(capsys, "pair", "inspect", found)


def test_a_question_shows_both_clips_with_times_in_both_orders(
    few: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    works(capsys, *command(few, stub, temperature=0, detail="low", extra="{seed: 5}", max_pixels=1024))
    orders = Counter()
    for asked in stub.asked:
        body = asked.body
        assert (body["model"], body["temperature"], body["max_completion_tokens"], body["seed"]) == ("stub", 0, 2048, 5)
        assert body["response_format"]["json_schema"]["strict"] is True
        assert list(body["response_format"]["json_schema"]["schema"]["properties"]) == ["evidence", "verdict"]
        parts = body["messages"][1]["content"]
        words = [part["text"] for part in parts if part["type"] == "text"]
        assert words[:3] == ["First clip, 2 frames:", "0.00 s", "0.25 s"]
        assert words[3:6] == ["Second clip, 2 frames:", "0.00 s", "0.25 s"]
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        assert [opened(url).size for url in urls] == [(32, 32)] * 4
        assert {part["image_url"]["detail"] for part in parts if part["type"] == "image_url"} == {"low"}
        orders[frozenset((tuple(urls[:2]), tuple(urls[2:])))] += 1
    assert set(orders.values()) == {2}


def test_a_planted_first_position_bias_is_found_and_changes_no_label(
    found: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.behave = lambda handler, asked: handler.verdict(asked, asked.verdict if asked.truth else "first")
    shown = works(capsys, *command(found, stub))
    assert labels(found) == TRUTH
    ties = sum(truth.count(0) for truth in TRUTH)
    decided = QUESTIONS // 2 - ties
    about = facts(found)
    assert about["consistency"] == pytest.approx(decided / (decided + ties), abs=1e-4)
    assert about["first_position_share"] == pytest.approx((decided + 2 * ties) / QUESTIONS, abs=1e-4)
    assert "this model judges by position" in shown


def test_a_model_that_sees_nothing_but_the_order_gives_ties(
    few: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.behave = lambda handler, asked: handler.verdict(asked, "second")
    works(capsys, *command(few, stub, answers="text"))
    assert not any("response_format" in asked.body for asked in stub.asked)
    assert labels(few) == [[0] * 4] * 3
    assert (facts(few)["consistency"], facts(few)["first_position_share"]) == (0.0, 0.0)


def slow(handler: Handler, asked: Asked) -> None:
    time.sleep(2)
    handler.truth(asked)


def drip(handler: Handler, _: Asked) -> None:
    """An answer that never stalls and never ends."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(20):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)
    handler.close_connection = True


FAULTS: dict[str, Callable[[Handler, Asked], None]] = {
    "429": lambda h, _: h.send(429, {"error": {"message": "slow down", "code": "rate_limit"}}, retry_after="0.01"),
    "500": lambda h, _: h.send(500, b"oops"),
    "503": lambda h, _: h.send(503, {"error": {"message": "loading"}}),
    "hang up": lambda h, _: h.cut(),
    "half an answer": lambda h, _: h.cut(b'{"choices": [{"mess'),
    "slow": slow,
    "drip": drip,
    "prose": lambda h, asked: h.say(asked, "They both look nice to me."),
    "no words": lambda h, asked: h.say(asked, None),
    "another verdict": lambda h, asked: h.say(asked, '{"evidence": "", "verdict": "third"}'),
    "two verdicts": lambda h, asked: h.say(asked, '{"verdict": "first"} {"verdict": "second"}'),
    "refusal": lambda h, asked: h.say(asked, None, refusal="I cannot look at this."),
    "cut short": lambda h, asked: h.say(asked, '{"verdict": "first"}', finish_reason="length"),
    "no JSON": lambda h, _: h.send(200, b"<html>gateway</html>"),
    "no choices": lambda h, _: h.send(200, {"choices": None, "error": {"message": "no"}}),
}


def test_faults_of_all_kinds_end_in_the_right_labels(
    found: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each kind of fault strikes on its own question's first request, all of them in one labelling."""
    struck: dict[str, str] = {}

    def behave(handler: Handler, asked: Asked) -> None:
        left = [name for name in FAULTS if name not in struck.values()]
        if left and asked.content not in struck:
            struck[asked.content] = left[0]
            FAULTS[left[0]](handler, asked)
        else:
            handler.truth(asked)

    stub.behave = behave
    shown = works(capsys, *command(found, stub, timeout_s=1, concurrency=1))
    assert set(struck.values()) == set(FAULTS)
    assert labels(found) == TRUTH
    assert facts(found)["failed"] == {}
    assert "1 x the server answers 429" in shown
    assert "1 x the server does not answer (no whole answer within 1 s)" in shown  # the drip
    assert "8 x an answer that could not be read" in shown
    again = [asked.body["messages"][1]["content"][-1]["text"] for asked in stub.asked]
    assert again.count(protocol.AGAIN) == 8


LASTING = {
    "500": "answers 500",
    "hang up": "does not answer",
    "prose": "no verdict",
    "refusal": "refuses: I cannot look",
    "cut short": "vlm.max_completion_tokens",
    "no JSON": "no chat completion",
    "400": "answers 400",
}


@pytest.mark.parametrize("fault", LASTING)
def test_a_pair_that_gets_no_answer_is_listed_and_the_others_are_labelled(
    few: Path, stub: Stub, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    strike = FAULTS.get(fault, lambda h, _: h.send(400, {"error": {"message": "a \x1b[31mbad\n picture"}}))
    stub.behave = lambda handler, asked: strike(handler, asked) if asked.pair == 2 else handler.truth(asked)
    shown = works(capsys, *command(few, stub, retries=2, tries=2))
    assert labels(few) == [*TRUTH[:2], None]
    lost = store.read(few).pairs[2]
    assert (lost.label, lost.labeller) == (None, None)
    assert list(facts(few)["failed"]) == ["000002"]
    assert LASTING[fault] in facts(few)["failed"]["000002"]
    assert "2 pairs labelled, 1 failed" in shown
    assert "failed: 000002: " in shown
    assert "\x1b" not in shown
    assert set(stub.answered.values()) == {1}


def test_the_same_command_asks_for_the_failed_pairs_alone(
    few: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.behave = lambda h, asked: FAULTS["500"](h, asked) if asked.pair == 2 else h.truth(asked)
    works(capsys, *command(few, stub, retries=0))
    stub.behave, before = Handler.truth, len(stub.asked)
    works(capsys, *command(few, stub))
    assert labels(few) == TRUTH[:3]
    assert len(stub.asked) - before == 8


def test_a_changed_video_fails_its_pair_without_a_question(
    found: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    (found / "videos/000003-second.mp4").write_bytes((found / "videos/000000-second.mp4").read_bytes())
    (found / "videos/000004-first.mp4").unlink()
    works(capsys, *command(found, stub))
    assert [i for i, value in enumerate(labels(found)) if value is None] == [3, 4]
    assert "has changed" in facts(found)["failed"]["000003"]
    assert "is missing" in facts(found)["failed"]["000004"]
    assert {asked.pair for asked in stub.asked} == {0, 1, 2, 5}


def test_when_all_pairs_fail_the_old_labels_stay(few: Path, stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(few)
    stub.behave = FAULTS["500"]
    code, _, error = fails(capsys, *command(few, stub, retries=0))
    assert (code, "no pair could be labelled" in error) == (1, True)
    count = len(stub.asked)
    code, _, error = fails(capsys, *command(few, stub, retries=0, max_failed=2, concurrency=1))
    assert (code, "2 pairs in a row failed" in error) == (1, True)
    assert len(stub.asked) - count <= 3
    assert state(few) == before


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}, "OPENAI_API_KEY"),
        (
            404,
            {"error": {"message": "no such model"}},
            "(no such model): it serves no model 'stub', or the address lacks",
        ),
        (404, {"detail": "Not Found"}, "404 (Not Found): it serves no model 'stub', or the address lacks its /v1"),
        (429, {"error": {"message": "you are broke", "code": "insufficient_quota"}}, "you are broke"),
    ],
)
def test_a_server_that_will_answer_nothing_ends_the_labelling_at_once(
    found: Path, stub: Stub, capsys: pytest.CaptureFixture[str], status: int, body: object, words: str
) -> None:
    before = state(found)
    stub.behave = lambda handler, asked: handler.send(status, body)
    code, _, error = fails(capsys, *command(found, stub, concurrency=1))
    assert (code, words in error, KEY in error) == (2, True, False)
    assert len(stub.asked) == 1
    assert state(found) == before


def test_nothing_is_asked_twice_after_a_kill(
    found: Path, tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed in the middle of the 21st question; the same set, never stopped, ends with the same files."""
    undisturbed = Path(shutil.copytree(found, tmp_path / "undisturbed"))
    works(capsys, *command(undisturbed, stub))
    assert set(stub.answered.values()) == {1}
    stub.answered.clear()
    stub.asked.clear()
    reached, over = threading.Event(), threading.Event()

    def behave(handler: Handler, asked: Asked) -> None:
        if asked.number == 20:
            reached.set()
            over.wait(60)
            handler.close_connection = True
        else:
            handler.truth(asked)

    stub.behave = behave
    with vpo(*command(found, stub, concurrency=1)):
        assert reached.wait(120)
    over.set()
    assert stub.answered.total() == 20
    assert state(found)[0] != state(undisturbed)[0]
    stub.behave = Handler.truth
    shown = works(capsys, *command(found, stub, concurrency=1))
    assert f"{QUESTIONS} questions, 20 of them answered before" in shown
    assert stub.answered.total() == QUESTIONS
    assert set(stub.answered.values()) == {1}
    assert state(found)[0] == state(undisturbed)[0]
    count = len(stub.asked)
    works(capsys, *command(found, stub))
    assert len(stub.asked) == count  # all of it is on disk now


def test_the_budget_in_requests_is_never_exceeded(found: Path, stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    before = state(found)
    stub.behave = lambda h, asked: FAULTS["500"](h, asked) if asked.number % 3 == 0 else h.truth(asked)
    code, lines, error = fails(capsys, *command(found, stub, budget_requests=20))
    assert (code, "the budget is spent" in error) == (1, True)
    assert len(stub.asked) == 20
    assert "used: 20 requests" in lines[-1]
    assert state(found) == before
    works(capsys, *command(found, stub, budget_requests=200))
    assert labels(found) == TRUTH
    assert set(stub.answered.values()) == {1}


@pytest.mark.parametrize("limit", [749, 3_100, 20_000])
def test_the_budget_in_tokens_is_never_exceeded(
    found: Path, stub: Stub, capsys: pytest.CaptureFixture[str], limit: int
) -> None:
    """A question costs more than the estimate says, and only the first one may find that out."""

    def behave(handler: Handler, asked: Asked) -> None:
        time.sleep(0.6 if asked.number < 6 else 0)  # the other pairs are ready to ask by then
        handler.truth(asked)

    stub.behave = behave
    changes = {"budget_tokens": limit, "tokens_per_frame": 1, "max_completion_tokens": 60, "concurrency": 8}
    code, _, error = fails(capsys, *command(found, stub, **changes))
    assert (code, "the budget is spent" in error) == (1, True)
    spent = 750 * len(stub.told)
    assert limit < 750 or limit - 810 < spent <= limit
    assert len(stub.told) <= max(1, limit // 750)


def test_a_server_without_json_schema_is_read_as_text(
    few: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    def behave(handler: Handler, asked: Asked) -> None:
        if "response_format" in asked.body:
            handler.send(400, {"error": {"message": "response_format is not supported"}})
        elif asked.number % 2:
            handler.say(asked, f"The first clip seems\nfine to me.\n\n**Verdict:** {asked.verdict.title()}.")
        else:
            handler.say(asked, f'<think>{{"verdict": "tie"}}</think>```json\n{{"verdict": "{asked.verdict}"}}\n```')

    stub.behave = behave
    works(capsys, *command(few, stub, concurrency=1))
    assert labels(few) == TRUTH[:3]
    assert len(stub.asked) == QUESTIONS // 2 + 1  # refused once


def test_a_server_that_knows_the_older_limit_alone_gets_that(
    few: Path, stub: Stub, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def behave(handler: Handler, asked: Asked) -> None:
        if "max_completion_tokens" in asked.body:
            extra = {"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"], "msg": "not permitted"}
            handler.send(422, {"detail": [extra]})
        else:
            handler.truth(asked)

    stub.behave = behave
    works(capsys, *command(few, stub, concurrency=1))
    assert labels(few) == TRUTH[:3]
    assert len(stub.asked) == QUESTIONS // 2 + 1  # refused once
    assert {asked.body["max_tokens"] for asked in stub.asked[1:]} == {2048}
    assert all("response_format" in asked.body for asked in stub.asked)
    assert [record.message for record in caplog.records] == [
        "the server does not know max_completion_tokens: it gets max_tokens"
    ]


def test_a_limit_refused_for_its_number_keeps_its_name(
    few: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    def behave(handler: Handler, asked: Asked) -> None:
        if "max_tokens" in asked.body:
            handler.send(400, {"error": {"message": "max_tokens is not supported, use max_completion_tokens"}})
        else:
            handler.send(400, {"error": {"message": "max_completion_tokens is larger than 1024"}})

    stub.behave = behave
    _, _, error = fails(capsys, *command(few, stub, concurrency=1, answers="text"))
    assert "max_completion_tokens is larger than 1024" in error


SPELLINGS: dict[str, Callable[[str], dict[str, Any]]] = {
    "parts": lambda text: {"content": [{"type": "text", "text": text}]},
    "parts in pieces": lambda text: {
        "content": [text[:9], {"type": "output_text", "text": text[9:], "annotations": []}]
    },
    "thoughts apart": lambda text: {
        "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": text}]
    },
    "fields of its own": lambda text: {"content": text, "reasoning_content": "hm", "tool_calls": None},
}
USES: list[object] = [None, {"prompt_tokens": None, "completion_tokens": None}, {"completion_tokens": 5}, {}]


def test_completions_are_read_as_servers_spell_them(
    found: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    def behave(handler: Handler, asked: Asked) -> None:
        text = json.dumps({"evidence": "seen", "verdict": asked.verdict})
        message = list(SPELLINGS.values())[asked.number % len(SPELLINGS)](text)
        use = USES[asked.number // len(SPELLINGS) % len(USES)]
        handler.send(200, {"choices": [{"message": message}], "usage": use})

    stub.behave = behave
    works(capsys, *command(found, stub, tries=1))
    assert labels(found) == TRUTH
    assert facts(found)["failed"] == {}


def test_mistakes_of_the_user_are_one_line(
    found: Path, stub: Stub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_vlm = ["label", found, "--with", "vlm"]
    given = [*with_vlm, "--base-url", stub.url, "--model", "m"]
    for arguments, words in [
        (with_vlm, "give --base-url URL and --model NAME"),
        ([*with_vlm, "--base-url", "localhost:8000", "--model", "m"], "write http://HOST:PORT/v1"),
        ([*with_vlm, "--base-url", "http://key@host/v1", "--model", "m"], "OPENAI_API_KEY"),
        ([*given, "--set", "vlm.concurency=2"], "did you mean 'concurrency'"),
        ([*given, "--set", "vlm.extra={model: x}"], "model cannot be set here"),
        (["label", found, "--model", "m"], "go with --with vlm"),
        ([*with_vlm, "--judge-against", found], "leave --with out"),
        ([*with_vlm, "--base-url", "http://127.0.0.1:1/v1", "--model", "m", "--set", "vlm.retries=0"], "refused"),
    ]:
        code, _, error = fails(capsys, *arguments)
        assert (code, words in error) == (2, True), error
    monkeypatch.setenv("OPENAI_API_KEY", "")
    code, _, error = fails(capsys, *with_vlm, "--base-url", "https://api.openai.com/v1", "--model", "m")
    assert (code, "set OPENAI_API_KEY" in error) == (2, True)
    edit(found, 2, lambda row: row["labels"].pop())
    monkeypatch.undo()
    code, _, error = fails(capsys, *given)
    assert (code, "line 3 (000002)" in error) == (1, True)
    assert not stub.asked


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"evidence": "a", "verdict": "first"}', "first"),
        ('Here: ```json\n{"verdict": " TIE "}\n```', "tie"),
        ('{not json} {"verdict": "second"}', "second"),
        ('<think>verdict: first</think>\nVerdict: second', "second"),
        ("I say\n- final verdict: **tie**", "tie"),
        ('{"verdict": "first", "evidence": "{odd"}', "first"),
        ('{"verdict": "first"} or {"verdict": "second"}', None),
        ("verdict: first\nverdict: second", None),
        ("the verdict: first or second?", None),
        ('{"verdict": 1}', None),
        ('{"verdict": null}', None),
        ("[" * 100_000, None),
        ('{"a":' * 5_000, None),
        ("", None),
    ],
)  # fmt: skip
def test_a_verdict_is_read_or_refused(text: str, verdict: str | None) -> None:
    if verdict is None:
        with pytest.raises(ValueError, match=r"verdict"):
            protocol.read(text)
    else:
        assert protocol.read(text).verdict == verdict


def test_two_orders_fold_into_one_label() -> None:
    """Only two verdicts for the same member decide; swapping the members negates the label."""
    signs: dict[protocol.Verdict, int] = {"first": 1, "second": -1, "tie": 0}
    for a, label in signs.items():
        for b, other in signs.items():
            assert protocol.fold(a, b) == (label if label == -other else 0)
            assert protocol.fold(b, a) == -protocol.fold(a, b)


def test_frames_are_shown_at_the_rate_asked_for() -> None:
    assert pictures.frames_shown((0, 16), 16, 8) == list(range(0, 16, 2))
    assert pictures.frames_shown((24, 48), 24, 8) == list(range(24, 48, 3))
    assert pictures.frames_shown((4, 8), 4, 8) == [4, 5, 6, 7]
    for fps in (8, 10, 12.5, 15, 23.976, 29.97, 30, 60):
        length = round(2 * fps)
        shown = pictures.frames_shown((7, 7 + length), fps, 8)
        assert len(shown) == 16
        assert shown[0] == 7
        assert shown[-1] < 7 + length
        for i, frame in enumerate(shown):
            assert -1e-3 < i / 8 - (frame - 7) / fps < 1 / fps, "a frame stands for the time at which it is on screen"


def test_large_frames_are_scaled_within_the_limit_and_keep_their_shape() -> None:
    frame = torch.rand(3, 90, 160)
    small = Image.open(io.BytesIO(pictures.jpeg(frame, Vlm(max_pixels=3600))))
    assert small.size == (80, 45)
    whole = Image.open(io.BytesIO(pictures.jpeg(torch.full((3, 16, 24), 0.25), Vlm())))
    assert whole.size == (24, 16)
    assert max(abs(value - 64) for value in ImageStat.Stat(whole).mean) < 2


def key(model: str, of: Pair, segment: tuple[int, int], swapped: bool, settings: Vlm) -> str:
    return protocol.key(model, of, segment, swapped, settings, forms.of(settings).said(of.prompt))


def test_a_question_is_known_by_all_that_its_answer_depends_on() -> None:
    one = pair(0, None, None, sha256={"first": "a", "second": "b", "latents": "c"})
    base = key("m", one, (0, 2), False, Vlm())
    renamed = store.renamed(one, "other").model_copy(update={"prompt": "x"})
    assert key("m", renamed, (0, 2), False, Vlm(concurrency=1, max_completion_tokens=9)) == base
    changed = one.model_copy(update={"sha256": Hashes(first="z", second="b", latents="c")})
    others = [
        key("n", one, (0, 2), False, Vlm()),
        key("m", one, (2, 4), False, Vlm()),
        key("m", one, (0, 2), True, Vlm()),
        key("m", changed, (0, 2), False, Vlm()),
        *(
            key("m", one, (0, 2), False, Vlm.model_validate(values))
            for values in (
                {"temperature": 0},
                {"extra": {"seed": 1}},
                {"detail": "low"},
                {"max_pixels": 2000},
                {"fps": 2},
                {"jpeg_quality": 50},
                {"checklist": ["noise"]},
            )
        ),
    ]
    assert len({base, *others}) == 1 + len(others)
    mirrored = one.model_copy(update={"sha256": Hashes(first="b", second="a", latents="c")})
    assert key("m", mirrored, (0, 2), True, Vlm()) == base  # the same pictures in the same order


def test_two_threads_with_one_question_ask_once(tmp_path: Path) -> None:
    store, asked = Store(tmp_path), []
    cache = answers.ModelAnswers(store)

    def ask() -> answers.Record:
        asked.append(1)
        time.sleep(0.05)
        if len(asked) == 1:
            raise ValueError("the first try fails")
        return answers.Record(
            key="k", verdict="tie", evidence="\u2028", pair="p", segment=(0, 2), swapped=False, model="m",
            input_tokens=1, output_tokens=1,
        )  # fmt: skip

    def get() -> answers.Record | None:
        try:
            return cache.get("k", ask)
        except ValueError:
            return None

    with ThreadPoolExecutor(6) as pool:
        results = [future.result() for future in [pool.submit(get) for _ in range(6)]]
    assert len(asked) == 2
    assert results.count(None) == 1
    assert answers.ModelAnswers(store).get("k", ask) == next(r for r in results if r)
    store.close()


def test_a_budget_waits_for_what_requests_under_way_give_back() -> None:
    """Two of 60 fit into 100 only one after the other, because each turns out to cost 40."""
    purse, order = limits.CostLimit(None, 100), []
    aside = purse.put_aside(50, 10)

    def second() -> None:
        order.append("waits")
        purse.book(purse.put_aside(50, 10), 40)
        order.append("goes")

    thread = threading.Thread(target=second)
    thread.start()
    time.sleep(0.1)
    assert order == ["waits"]
    purse.book(aside, 40, tokens_in=(50, 30))
    thread.join(5)
    assert (order, purse.tokens, purse.requests) == (["waits", "goes"], 80, 2)
    with pytest.raises(limits.Spent):
        purse.put_aside(50, 10)


def test_the_tally_tells_bias_from_chance() -> None:
    fair = tally.tally([("first", "second")] * 50 + [("second", "first")] * 10 + [("tie", "tie")] * 40)
    assert (fair.consistency, fair.first_share, fair.biased) == (1.0, 0.5, False)
    lucky = tally.tally([("first", "first")] * 3 + [("second", "second")] * 2)
    assert (lucky.consistency, lucky.first_share, lucky.biased) == (0.0, 0.6, False)
    leaning = tally.tally([("first", "second")] * 30 + [("first", "first")] * 20)
    assert (leaning.consistency, leaning.first_share, leaning.biased) == (0.6, 0.7, True)
    assert tally.tally([("tie", "tie")]).first_share is None


def test_the_tally_tells_guesses_from_agreement(found: Path, stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    every: list[protocol.Verdict] = ["first", "second", "tie"]
    guesses = tally.tally([(a, b) for a in every for b in every] * 20)
    assert (guesses.consistency, guesses.chance, guesses.guessing) == (pytest.approx(1 / 3), pytest.approx(1 / 3), True)
    better = tally.tally([(a, b) for a in every for b in every] * 20 + [("first", "second"), ("second", "first")] * 15)
    assert (better.guessing, better.consistency > better.chance) == (False, True)
    assert tally.tally([("tie", "tie")] * 50).guessing  # it says the same of everything
    assert tally.tally([("first", "first")] * 50).guessing
    coin = random.Random(3)
    stub.behave = lambda handler, asked: handler.verdict(asked, coin.choice(every))
    assert "better than guesses" in works(capsys, *command(found, stub))
    assert 0 < facts(found)["chance_consistency"] < 0.6
    stub.behave = Handler.truth
    shown = works(capsys, *command(found, stub, jpeg_quality=80))
    assert "agree in 100% of 24 segments, where guesses would in 3" in shown
    assert "better than guesses" not in shown


def test_kappa_is_cohens() -> None:
    """A table worked by hand: 20 + 15 of 50 agree, chance gives (25 x 30 + 25 x 20) / 50^2 = 1/2."""
    first = {i: 1 if i < 25 else -1 for i in range(50)}
    second = {i: 1 if i < 20 or 25 <= i < 35 else -1 for i in range(50)}
    found = agreement.agreement(first, second)
    assert (found.items, found.agreeing, found.share) == (50, 35, 0.7)
    assert found.kappa == pytest.approx(0.4)
    assert agreement.agreement(second, first).kappa == pytest.approx(0.4)
    assert agreement.agreement(first, first).kappa == 1
    assert agreement.agreement(first, {i: -v for i, v in first.items()}).kappa == -1
    tied = agreement.agreement({"a": 1, "b": 0, "c": -1, "d": 1}, {"a": 1, "b": 1, "c": 0, "e": 1})
    assert (tied.items, tied.agreeing, tied.decided.items, tied.decided.share) == (3, 1, 1, 1.0)
    assert tied.decided.kappa is None  # one label throughout: chance explains all of it
    assert (agreement.agreement(first, {}).share, agreement.agreement(first, {}).kappa) == (None, None)


def test_labels_of_two_sets_are_compared_by_their_videos(
    found: Path, stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(found, tmp_path / "other"))
    works(capsys, *command(found, stub))
    edit(other, 5, lambda row: row.update(labels=None, label=None, labeller=None))
    lines = (other / "metadata.jsonl").read_text().splitlines()
    (other / "metadata.jsonl").write_text("\n".join(reversed(lines[1:])) + "\n")
    edit(other, 4, lambda row: row.update(id="renamed"))
    before = state(found), state(other)
    shown = works(capsys, "label", found, "--judge-against", other).splitlines()
    assert (state(found), state(other)) == before
    assert shown[0] == f"{found}: labels by vlm:stub"
    assert shown[1] == f"{other}: labels by reward:vqa"
    assert shown[2] == f"4 pairs with labels in both; 1 without in one of them, 1 that {other} lacks"
    # the old labels are the truth negated: of pairs 1 to 4, the 10 ties agree and nothing else
    row = next(line.split() for line in shown if line.split()[:1] == ["segments"] and "%" in line)
    assert row[1:3] == ["16", "62.5%"]
    assert row[4:] == ["6", "0.0%", "-0.800"]
    clips = next(line.split() for line in shown if line.split()[:2] == ["whole", "clips"])
    assert clips[2:4] == ["4", "50.0%"]
    code, _, error = fails(capsys, "label", found, "--judge-against", tmp_path / "nothing")
    assert (code, "is no pair set" in error) == (1, True)
