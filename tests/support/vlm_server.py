"""A server that speaks the protocol of vision-language models and looks at the pictures that it gets."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image, ImageStat

from tests.support.bright_pairs import FPS, FRAMES, pair
from vpo_kit.pairing import store
from vpo_kit.pairing.segments import vote
from vpo_kit.video import write_video

TRUTH = [[1, 1, 0, -1], [0, 0, 0, 0], [-1, -1, -1, 0], [1, 0, 0, 0], [1, -1, 0, 0], [1, 1, 1, 1]]
VERDICTS = {1: "first", -1: "second", 0: "tie"}
KEY = "sk-a-secret-that-stays-out-of-files"


@dataclass(frozen=True)
class Asked:
    """One request as the stub understands it."""

    number: int
    body: dict[str, Any]
    pair: int
    truth: int
    """+1 when the clip shown first is the brighter one."""
    content: str
    """Hash of the pictures in their order: which question this is."""

    @property
    def verdict(self) -> str:
        return VERDICTS[self.truth]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Stub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = self.server.understand(body)
        self.server.keys.add(self.headers["Authorization"])
        with suppress(ConnectionError):
            self.server.behave(self, asked)

    def say(self, asked: Asked, text: str | None, **choice: Any) -> None:
        """A completion with these words."""
        message = {"role": "assistant", "content": text, "refusal": choice.pop("refusal", None)}
        self.send(200, {
            "id": "x", "object": "chat.completion", "created": 0, "model": "stub-1",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
            "usage": {"prompt_tokens": 700, "completion_tokens": 50, "total_tokens": 750},
        })  # fmt: skip
        self.server.told.append(asked)

    def verdict(self, asked: Asked, verdict: str) -> None:
        self.say(asked, json.dumps({"evidence": f"seen in pair {asked.pair}", "verdict": verdict}))
        self.server.answered[asked.content] += 1

    def truth(self, asked: Asked) -> None:
        self.verdict(asked, asked.verdict)

    def send(self, status: int, value: object, **headers: str) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, header in headers.items():
            self.send_header(name.replace("_", "-"), header)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def cut(self, part: bytes = b"") -> None:
        """Hang up, after `part` of an answer."""
        if part:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + part)
            self.wfile.flush()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Stub(ThreadingHTTPServer):
    """`behave` answers; `asked` are all requests, `told` those with a whole answer, `answered` verdicts by question."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave: Callable[[Handler, Asked], None] = Handler.truth
        self.asked: list[Asked] = []
        self.told: list[Asked] = []
        self.answered: Counter[str] = Counter()
        self.keys: set[str] = set()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def understand(self, body: dict[str, Any]) -> Asked:
        parts = body["messages"][-1]["content"]
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        means = [ImageStat.Stat(opened(url)).mean for url in urls]
        half = len(means) // 2
        difference = sum(red for red, *_ in means[:half]) / half - sum(red for red, *_ in means[half:]) / half
        truth = 0 if abs(difference) < 15 else 1 if difference > 0 else -1
        number = round(means[0][2] / 40)
        content = hashlib.sha256("".join(urls).encode()).hexdigest()
        with self._lock:
            self.asked.append(Asked(len(self.asked), body, number, truth, content))
            return self.asked[-1]


def opened(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pairs whose brighter member is known in each segment; their old labels are all wrong or ties."""
    folder = tmp_path_factory.mktemp("planted") / "set"
    pairs = []
    for index, truth in enumerate(TRUTH):
        made = pair(index, [-label for label in truth], -vote(truth))
        for sign, name in ((1, made.first_file_name), (-1, made.second_file_name)):
            video = torch.zeros(FRAMES, 3, 32, 32)
            video[:, 2] = index * 40 / 255
            video[:, 1, : 8 + sign] = 0.3  # so that no two members are the same file
            for (start, end), label in zip(made.segments, truth, strict=True):
                video[start:end, 0] = 0.5 + 0.1 * sign * label
                video[start:end, 0, 4 * start : 4 * start + 4] += 0.3  # so that no two segments look the same
            write_video(folder / name, video, FPS)
        store.write_latents(folder / made.latents, {n: torch.zeros(4, 2, 4, 4) for n in ("first", "second", "source")})
        pairs.append(made.model_copy(update={"sha256": store.hashes(folder, made.files)}))
    store.write(folder, {"format": 1, "model": "sprites", "labels": {"labeller": "reward:vqa"}}, pairs)
    return folder


@pytest.fixture
def found(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return Path(shutil.copytree(planted, tmp_path / "set"))


@pytest.fixture
def few(found: Path) -> Path:
    """The first three pairs alone."""
    lines = (found / "metadata.jsonl").read_text().splitlines()
    (found / "metadata.jsonl").write_text("\n".join(lines[:3]) + "\n")
    return found


def command(folder: Path, server: Stub, **settings: object) -> list[str]:
    """`vpo label` with hardly a wait before a retry."""
    values = {"backoff_s": 0.005, "timeout_s": 20, "concurrency": 4, **settings}
    changes = [part for name, value in values.items() for part in ("--set", f"vlm.{name}={value}")]
    return ["label", str(folder), "--with", "vlm", "--base-url", server.url, "--model", "stub", *changes]


def facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "dataset.yaml").read_text())["labels"]
    return found


def labels(folder: Path) -> list[list[int] | None]:
    return [p.labels and list(p.labels) for p in store.read(folder).pairs]
