"""What servers, models and people send, and the files that keep their answers."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from benchmarks.reliability.targets.stage import Read, Stage
from vpo_kit.errors import VpoError


def reward_request(folder: Path) -> Read:
    """Requests to a reward server: anything but an answer with scores is a status of 400 to 499 of one line."""
    from vpo_kit.rewards.base import Reward, RewardOutput, RewardSpec
    from vpo_kit.rewards.parts import wire
    from vpo_kit.rewards.server import create_app

    class Brightness(Reward):
        spec = RewardSpec(
            name="brightness",
            licence="none",
            source="closed form",
            scale="0 to 1",
            differentiable=True,
            per_segment=True,
            needs_prompt=False,
        )

        def forward(self, video: Any, prompts: Any = None, *, fps: float, segments: Any = None) -> RewardOutput:
            parts = (
                None if segments is None else torch.stack([video[:, a:b].flatten(1).mean(1) for a, b in segments], 1)
            )
            return RewardOutput(video.flatten(1).mean(1), parts)

    app = create_app(Brightness(), token="right", max_body_bytes=2**20)
    header = wire.Header(shape=(2, 3, 3, 8, 8), dtype="uint8", fps=8, prompts=["a", "b"], segments=[(0, 1), (1, 3)])
    line, frames = wire.encode(header, torch.rand(2, 3, 3, 8, 8)).split(b"\n", 1)

    def read(stage: Stage) -> None:
        rng = stage.rng
        if rng.random() < 0.7:
            body = stage.damage(line, json_too=True) + b"\n" + frames
        else:
            body = stage.damage(line + b"\n" + frames)
        token, length = (b"Bearer right", str(len(body)).encode())
        headers = [(b"authorization", token), (b"content-length", length)]
        if rng.random() < 0.2:
            headers = [(name, stage.damage(value).replace(b"\n", b"")) for name, value in headers]
        path = stage.damage(b"/score").decode(errors="replace") if rng.random() < 0.1 else "/score"
        status, answer = asyncio.run(_request(app, path, headers, body, rng))
        assert status == 200 or 400 <= status < 500, (status, answer[:300])
        if status != 200:
            assert "\n" not in str(json.loads(answer)["detail"])
            raise VpoError(f"{status}")
        if path == "/score":
            wire.ScoreReply.model_validate_json(answer)

    return read


async def _request(
    app: Any, path: str, headers: list[tuple[bytes, bytes]], body: bytes, rng: random.Random
) -> tuple[int, bytes]:
    """A request as a server hands it to an ASGI application, its body in pieces."""
    at, sent = 0, list[dict[str, Any]]()

    async def receive() -> dict[str, Any]:
        nonlocal at
        size = rng.choice((1, 100, 10_000)) if at < 200 else 10_000
        part, at = body[at : at + size], at + size
        return {"type": "http.request", "body": part, "more_body": at < len(body)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(errors="replace"), "query_string": b"", "root_path": "",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def vlm_answer(folder: Path) -> Read:
    """What a vision-language model says: a verdict or `ValueError`, which the labeller counts as no answer."""
    from vpo_kit.labelling.vlm import protocol

    seeds = [
        b'{"evidence": "the first clip flickers at 0.5 s", "verdict": "second"}',
        b'<think>{"verdict": "tie"}</think>```json\n{"evidence": "a", "verdict": "first"}\n```',
        b"The first clip seems\nfine to me.\n\n**Final verdict:** Tie.",
        b'{not json} {"verdict": "second"} {"a": [1, {"b": 2}]}',
    ]

    def read(stage: Stage) -> None:
        text = stage.damage(stage.rng.choice(seeds), json_too=True)
        if stage.rng.random() < 0.05 and not stage.sound:
            text = (text[: stage.rng.randint(1, 64)] * 2**20)[: stage.rng.choice((2**16, 2**20))]
        try:
            assert protocol.read(text.decode(errors="replace")).verdict in ("first", "second", "tie")
        except ValueError as error:
            raise VpoError(str(error)) from error

    return read


def completion(folder: Path) -> Read:
    """Bodies of chat completions."""
    from vpo_kit.labelling.vlm import completion as completions
    from vpo_kit.net.ask import line

    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    message = {"role": "assistant", "content": '{"verdict": "tie"}', "refusal": None}
    seed = {"choices": [{"message": message, "finish_reason": "stop"}], "model": "m", "usage": usage, "error": None}

    def read(stage: Stage) -> None:
        found = completions.parse(stage.damage(json.dumps(seed).encode(), json_too=True))
        assert found.cost is None or found.cost.total > 0
        try:
            reply = found.reply("m", 10)
        except ValueError as error:
            raise VpoError(line(str(error)) or "?") from error
        assert reply.model.isprintable()

    return read


def model_answers(folder: Path) -> Read:
    """A model's answers in an older version's file, as a kill or a disk leaves it: damaged lines are passed over."""
    from vpo_kit.labelling.older import MODELS, opened
    from vpo_kit.labelling.vlm.answers import ModelAnswers, Record

    records = [
        Record(key=f"k{i}", verdict="tie", evidence="e", pair="p", segment=(0, 3), swapped=False, model="m",
               input_tokens=1, output_tokens=1) for i in range(3)
    ]  # fmt: skip
    seed = b"".join(record.model_dump_json().encode() + b"\n" for record in records)

    def read(stage: Stage) -> None:
        path = stage.file("vlm.jsonl", stage.damage(seed, json_too=True))
        folder = path.with_name("set")
        shutil.rmtree(folder, ignore_errors=True)
        (folder / MODELS).parent.mkdir(parents=True)
        shutil.copy(path, folder / MODELS)
        with closing(opened(folder)) as store:
            found = ModelAnswers(store)
            found.get("new", lambda: records[0].model_copy(update={"key": "new"}))
            assert "new" in ModelAnswers(store)

    return read


def peoples_answers(folder: Path) -> Read:
    """The store of a set's answers (SQLite), with people's in it."""
    from vpo_kit.labelling.answers import FILE, FOLDER
    from vpo_kit.labelling.people.answers import Answer, PeopleAnswers
    from vpo_kit.labelling.people.questions import Question

    with closing(PeopleAnswers(folder / "people", create=True)) as answers:
        answers.settle({})
        for i in range(3):
            answers.add(
                Answer(
                    key=f"k{i}",
                    annotator="ann",
                    question=Question(pair="p", start=i, end=i + 1, videos="v"),
                    choice=1,
                    swapped=False,
                    seconds=1.0,
                )
            )
    seed = (folder / "people" / FOLDER / FILE).read_bytes()

    def read(stage: Stage) -> None:
        path = stage.file("people.sqlite", stage.damage(seed))
        whole = path.with_name("set") / FOLDER / FILE
        shutil.rmtree(whole.parent, ignore_errors=True)
        whole.parent.mkdir(parents=True)
        shutil.copy(path, whole)
        with closing(PeopleAnswers(path.with_name("set"), create=False)) as found:
            found.settle({})
            found.current()
            found.add(
                Answer(
                    key="new",
                    annotator="ann",
                    question=Question(pair="p", start=1, end=2, videos="v"),
                    choice=1,
                    swapped=False,
                    seconds=1.0,
                )
            )
            found.undo("undo", "ann", [Question(pair="p", start=1, end=2, videos="v")])

    return read
