"""A reward behind HTTP: the same scores, no way in without the token, and one line for whatever goes wrong."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
import uvicorn
from safetensors.torch import load_file
from torch import Tensor

from tests.support.forks import Fork, vpo
from tests.support.places import ROOT
from tests.support.sockets import free_port, raw
from vpo_kit.cli import main
from vpo_kit.errors import ConfigError, DataError, ModelError, VpoError
from vpo_kit.net import serve
from vpo_kit.net.places import Placed
from vpo_kit.rewards.base import Reward, RewardOutput, RewardSpec
from vpo_kit.rewards.loading import load, plan
from vpo_kit.rewards.parts import wire
from vpo_kit.rewards.remote import Remote, RemoteConfig
from vpo_kit.rewards.server import create_app
from vpo_kit.rewards.vqa import VQA, GoldVQA
from vpo_kit.video import write_video

TOKEN = "a-token-for-tests"
CPU = torch.device("cpu")
VIDEO = torch.rand(5, 6, 3, 40, 48, generator=torch.Generator().manual_seed(0))
SEGMENTS = [(0, 2), (2, 6), (1, 4)]
QUICK: dict[str, float] = {"retries": 2, "backoff_s": 0.05, "timeout_s": 5}


class Wordy(Reward):
    """The length of the prompt plus the mean pixel; slow enough to show requests that overlap."""

    spec = RewardSpec(
        name="wordy",
        licence="Apache-2.0",
        source="closed form",
        scale="0 and up",
        differentiable=True,
        per_segment=False,
        needs_prompt=True,
    )
    active, most, batches = 0, 0, []  # type: ignore[var-annotated]

    def forward(self, video, prompts=None, *, fps, segments=None):  # type: ignore[no-untyped-def]
        kind = type(self)
        kind.active += 1
        kind.most = max(kind.most, kind.active)
        kind.batches.append(len(video))
        time.sleep(0.02)
        kind.active -= 1
        return RewardOutput(video.flatten(1).mean(1) + torch.tensor([float(len(p)) for p in prompts]))


class Broken(Wordy):
    spec = RewardSpec(
        name="broken",
        licence="none",
        source="closed form",
        scale="nan",
        differentiable=False,
        per_segment=False,
        needs_prompt=False,
    )

    def forward(self, video, prompts=None, *, fps, segments=None):  # type: ignore[no-untyped-def]
        if fps > 100:
            raise ZeroDivisionError("fps\nis too high")
        return RewardOutput(torch.full((len(video),), torch.nan))


class Mortal(VQA):
    """Kills its own process in the middle of a request, after as many as the environment grants."""

    lives = int(os.environ.get("VPO_TEST_LIVES", "-1"))

    def forward(self, video, prompts=None, *, fps, segments=None):  # type: ignore[no-untyped-def]
        if Mortal.lives == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        Mortal.lives -= 1
        return super().forward(video, prompts, fps=fps, segments=segments)


@contextmanager
def serving(reward: Reward, token: str | None = TOKEN, limit: int = 2**28, port: int = 0) -> Iterator[str]:
    """A real server on a free port; leaving the block stops it."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        server = uvicorn.Server(serve.settings(create_app(reward, token=token, max_body_bytes=limit), connections=8))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VPO_REWARD_TOKEN", TOKEN)


@pytest.fixture(scope="module")
def vqa() -> Iterator[str]:
    with serving(VQA()) as url:
        yield url


def remote(url: str, **settings: object) -> Remote:
    return Remote(RemoteConfig.model_validate({"url": url, **QUICK, **settings}))


def score(reward: Reward, video: Tensor = VIDEO) -> RewardOutput:
    with torch.no_grad():
        found = reward(video, [f"prompt {i}" for i in range(len(video))], fps=8, segments=SEGMENTS)
    assert isinstance(found, RewardOutput)
    return found


def assert_same(found: RewardOutput, expected: RewardOutput, **tolerance: float) -> None:
    torch.testing.assert_close(found.score, expected.score, **tolerance)
    torch.testing.assert_close(found.segments, expected.segments, **tolerance)
    torch.testing.assert_close(found.components, expected.components, **tolerance)


# -- the same scores


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_scores_are_those_in_process(vqa: str, batch: int) -> None:
    assert_same(score(remote(vqa, batch=batch)), score(VQA()), atol=0, rtol=0)


def test_smaller_frames_score_as_rounded_videos(vqa: str) -> None:
    rounded = {"uint8": VIDEO.mul(255).round() / 255, "float16": VIDEO.half().float()}
    for dtype, video in rounded.items():
        found = score(remote(vqa, dtype=dtype))
        assert_same(found, score(VQA(), video), atol=0, rtol=0)
        assert_same(found, score(VQA()), atol=0.02, rtol=0)
        assert not torch.equal(found.score, score(VQA()).score)


def test_any_dtype_and_layout_of_the_video(vqa: str) -> None:
    strided = VIDEO.transpose(0, 1).contiguous().transpose(0, 1)
    assert_same(score(remote(vqa), strided), score(VQA()), atol=0, rtol=0)
    assert_same(score(remote(vqa), VIDEO.bfloat16()), score(VQA(), VIDEO.bfloat16().float()), atol=0, rtol=0)


def test_the_server_says_what_the_reward_is(vqa: str) -> None:
    (part,) = plan(f"remote:{vqa}", {})
    expected = RewardSpec(
        name="remote:vqa", licence="Apache-2.0", source=VQA.spec.source, scale=VQA.spec.scale,
        differentiable=False, per_segment=True, needs_prompt=False, mean=VQA.spec.mean, std=VQA.spec.std,
    )  # fmt: skip
    assert part.spec == expected
    assert load([part], CPU).parts[0].spec == expected
    assert Remote.spec.name == "remote"
    with serving(GoldVQA()) as url:
        assert not plan(f"remote:{url}", {})[0].spec.for_training
    with serving(Wordy()) as url:
        assert plan(f"remote:{url}", {})[0].spec.needs_prompt
        assert score(remote(url)).segments is None


def test_a_mixture_of_here_and_there(vqa: str) -> None:
    mixture = load(plan(f"remote:{vqa}:0.5+vqa:0.5", {"remote": QUICK}), CPU)
    found = mixture(VIDEO[:4], ["a", "a", "b", "b"], fps=8, group=2)
    assert set(found.components) == {"remote:vqa", "vqa"}
    torch.testing.assert_close(found.components["remote:vqa"], found.components["vqa"], atol=0, rtol=0)
    with pytest.raises(ConfigError, match="two rewards are called 'remote:vqa'"):
        load(plan(f"remote:{vqa}+remote:{vqa}/", {}), CPU)


def test_each_prompt_goes_with_its_video_one_batch_at_a_time() -> None:
    Wordy.most, Wordy.batches[:] = 0, []
    with serving(Wordy()) as url:
        reward = remote(url, batch=2, timeout_s=20)
        found: dict[int, Tensor] = {}

        def ask(i: int) -> None:
            found[i] = reward(VIDEO, ["x" * (10 * i + k) for k in range(5)], fps=8).score

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    means = VIDEO.flatten(1).mean(1)
    for i in range(4):
        torch.testing.assert_close(found[i], means + torch.arange(5) + 10 * i)
    assert Wordy.most == 1
    assert sorted(Wordy.batches) == [1] * 4 + [2] * 8


# -- the token, and the size of a body


@pytest.mark.parametrize("given", ["", "wrong", TOKEN + "x", TOKEN[:-1]])
def test_a_wrong_token_is_refused(vqa: str, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("VPO_REWARD_TOKEN", given)
    with pytest.raises(ModelError, match="refuses the token: set VPO_REWARD_TOKEN"):
        remote(vqa)
    # the answer comes although the announced body never does
    head = f"POST /score HTTP/1.1\r\nAuthorization: Bearer {given}\r\nContent-Length: 1000000"
    assert raw(vqa, head)[0] == 401
    assert raw(vqa, "GET /spec HTTP/1.1")[0] == 401
    assert raw(vqa, "GET /health HTTP/1.1")[:2] == (200, '{"status":"ok"}')


def test_a_server_that_says_little_is_taken_at_face_value() -> None:
    """A mixture adds such a reward as it comes, and frames go to it as bytes."""
    about = wire.About.model_validate({"name": "x", "licence": "none", "scale": "0 to 1"})
    assert (about.mean, about.std, about.dtypes, about.max_body_bytes) == (0.0, 1.0, ["uint8"], None)
    assert (about.per_segment, about.needs_prompt, about.for_training) == (False, False, True)


def test_without_a_token_everyone_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VPO_REWARD_TOKEN")
    with serving(VQA(), token=None) as url:
        torch.testing.assert_close(score(remote(url)).score, score(VQA()).score, atol=2e-2, rtol=0)
        assert raw(url, "GET /spec HTTP/1.1")[0] == 200


def test_another_variable_may_hold_the_token(vqa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VPO_REWARD_TOKEN", "of another server")
    monkeypatch.setenv("SECOND", f"{TOKEN}\n")
    assert remote(vqa, token_env="SECOND").spec.name == "remote:vqa"
    monkeypatch.setenv("SECOND", "two\nlines")
    with pytest.raises(ConfigError, match="SECOND: a token is one line"):
        remote(vqa, token_env="SECOND")


def test_the_api_describes_itself(vqa: str) -> None:
    api = json.loads(raw(vqa, "GET /openapi.json HTTP/1.1\r\nConnection: close")[1])
    assert set(api["paths"]) == {"/health", "/spec", "/score"}
    assert "application/octet-stream" in api["paths"]["/score"]["post"]["requestBody"]["content"]
    assert "security" in api["paths"]["/score"]["post"]
    assert "security" not in api["paths"]["/health"]["get"]


def test_a_body_that_is_too_large_is_not_read() -> None:
    limit, auth = 2**20, f"Authorization: Bearer {TOKEN}"
    with serving(VQA(), limit=limit) as url:
        status, answer, sent = raw(url, f"POST /score HTTP/1.1\r\n{auth}\r\nContent-Length: 300000000")
        assert (status, sent) == (413, 0)
        assert "larger than 1 MB" in json.loads(answer)["detail"]
        # without a length: read up to the limit (and what the sockets' buffers hold), not to the end
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        status, _, sent = raw(url, f"POST /score HTTP/1.1\r\n{auth}\r\nTransfer-Encoding: chunked", chunk * 1024)
        assert status in (413, 422, 0)
        assert sent < 32 * limit
        # a line that announces too many frames is enough
        line = json.dumps({"shape": [1, 99, 3, 1000, 1000], "dtype": "uint8", "fps": 8}).encode() + b"\n"
        head = f"POST /score HTTP/1.1\r\n{auth}\r\nTransfer-Encoding: chunked"
        assert raw(url, head, b"%x\r\n" % len(line) + line + b"\r\n")[0] == 413
        # and the server goes on; a client keeps to the limit by itself
        reward = remote(url)
        assert_same(
            score(reward, VIDEO.repeat(8, 1, 1, 1, 1)), score(VQA(), VIDEO.repeat(8, 1, 1, 1, 1)), atol=0, rtol=0
        )
        with pytest.raises(DataError, match=r"one video is 2 MB as float32.* takes 1 MB: set reward.dtype=uint8"):
            score(reward, torch.rand(1, 40, 3, 64, 72))
        assert score(remote(url, dtype="uint8"), torch.rand(1, 40, 3, 64, 72)).score.shape == (1,)


def test_a_body_without_a_header_is_not_read_to_its_end(vqa: str) -> None:
    """A megabyte without a line's end is no header, however much the server would take."""
    head, chunk = f"POST /score HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked", b"x" * 0x10000
    status, _, sent = raw(vqa, head, (b"10000\r\n" + chunk + b"\r\n") * 1024)
    assert status in (422, 0)
    assert sent < 32 * 2**20


# -- requests that make no sense


def header(**changes: object) -> bytes:
    values = {"shape": [1, 4, 3, 32, 32], "dtype": "uint8", "fps": 8, **changes}
    return json.dumps({key: value for key, value in values.items() if value is not None}).encode() + b"\n"


FRAMES = bytes(4 * 3 * 32 * 32)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no line of JSON"),
        (b"no line", "no line of JSON"),
        (b"x" * (2**20 + 1), "no line of JSON"),
        (b"\n" + FRAMES, "the header's JSON"),
        (b"\xff\xfe\n" + FRAMES, "the header's JSON"),
        (b"[" * 100_000 + b"\n", "the header's JSON"),
        (header(shape=None) + FRAMES, "the header's shape: Field required"),
        (header(shape=[1, 4, 3, 32]) + FRAMES, "the header's shape"),
        (header(shape=[1, 4, 1, 32, 32]) + FRAMES, "the header's shape.2"),
        (header(shape=[-1, -4, 3, 32, 32]) + FRAMES, "the header's shape.0"),
        (header(shape=[1, 2, 3, 1, 4000]) + bytes(24_000), "frames of 4000 x 1: the longer side is at most 8 times"),
        (
            header(shape=[90, 1000, 3, 1, 1]) + bytes(270_000),
            "90000 frames of 1 x 1 are 4.52e.09 pixels",
        ),
        (header(dtype="object") + FRAMES, "the header's dtype"),
        (header(fps=0) + FRAMES, "the header's fps"),
        (header() + FRAMES[:-1], "12287 bytes of frames, and 12288"),
        (header() + FRAMES + b"x", "12289 bytes of frames, and 12288"),
        (header(prompts=["a", "b"]) + FRAMES, "2 prompts for 1 videos"),
        (header(segments=[[2, 9]]) + FRAMES, r"segment \[2, 9\) is not within 4 frames"),
        (header(segments=[[2, 2]]) + FRAMES, r"segment \[2, 2\)"),
    ],
)
def test_a_bad_request_is_one_line_and_harms_nobody(vqa: str, body: bytes, reason: str) -> None:
    link = http.client.HTTPConnection(vqa.removeprefix("http://"), timeout=10)
    link.request("POST", "/score", body, {"Authorization": f"Bearer {TOKEN}"})
    response = link.getresponse()
    answer = json.loads(response.read())
    link.close()
    assert response.status == 422
    assert re.search(reason, answer["detail"])
    assert "\n" not in answer["detail"]
    assert_same(score(remote(vqa)), score(VQA()), atol=0, rtol=0)


def test_what_a_reward_refuses_reaches_the_client() -> None:
    with serving(Wordy()) as url, pytest.raises(ModelError, match=r"answers 422 \(wordy judges a video by its prompt"):
        remote(url)(VIDEO, fps=8)
    with serving(Broken()) as url:
        with pytest.raises(ModelError, match=r"answers 422 \(the reward's score is not finite\)"):
            remote(url)(VIDEO, fps=8)
        with pytest.raises(ModelError, match=r"the reward failed: ZeroDivisionError: fps is too high"):
            remote(url)(VIDEO, fps=200)


def test_a_client_that_leaves_in_mid_body_harms_nobody(vqa: str) -> None:
    host, port = vqa.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as link:
            link.sendall(f"POST /score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
                         "Content-Length: 99999\r\n\r\n".encode() + header())  # fmt: skip
    assert_same(score(remote(vqa)), score(VQA()), atol=0, rtol=0)


# -- clients that say nothing


def test_silent_connections_take_no_place_from_who_has_the_token(vqa: str) -> None:
    """Those that send no request at all, half of one, or one without the token; more of them than there are places."""
    host, port = vqa.removeprefix("http://").split(":")
    heads = ["", "POST /score HTTP/1.1\r\nHost: x\r\n", "POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"]
    with ExitStack() as held:
        links = [held.enter_context(socket.create_connection((host, int(port)))) for _ in range(24)]
        for number, link in enumerate(links):
            with suppress(OSError):  # the server has closed it for a later one
                link.sendall(heads[number % 3].encode())
        assert_same(score(remote(vqa, retries=0)), score(VQA()), atol=0, rtol=0)


def test_a_head_and_a_body_have_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Placed, "head_s", 0.4)
    monkeypatch.setattr(serve, "IDLE_S", 0.4)
    head = f"POST /score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 99999\r\n"
    with serving(VQA()) as url:
        host, port = url.removeprefix("http://").split(":")
        for sent, answer in ((head, b""), (head + "\r\n{", b"no byte of the body for 0.4 s")):
            with socket.create_connection((host, int(port)), timeout=10) as link:
                link.sendall(sent.encode())
                began, found = time.monotonic(), b""
                with suppress(ConnectionError):
                    while chunk := link.recv(65536):
                        found += chunk
                assert answer in found
                assert (found == b"") == (answer == b"")
                assert 0.3 < time.monotonic() - began < 5
        assert_same(score(remote(url)), score(VQA()), atol=0, rtol=0)


# -- a server that is down, slow, or no reward server


def test_a_server_that_stays_down_is_an_error_in_bounded_time(caplog: pytest.LogCaptureFixture) -> None:
    url, started = f"http://127.0.0.1:{free_port()}", time.monotonic()
    with pytest.raises(ModelError) as caught:
        remote(url, retries=3, backoff_s=0.1)
    spent = time.monotonic() - started
    assert 0.5 <= spent < 5  # 0.1 + 0.2 + 0.4 s of waiting, a quarter more or less
    line = str(caught.value)
    assert "\n" not in line
    assert url in line
    assert "also after 3 retries" in line
    assert "start it again; a run then goes on with --resume" in line
    waits = [float(record.message.rpartition(" in ")[2].removesuffix(" s")) for record in caplog.records]
    assert waits == pytest.approx([0.1, 0.2, 0.4], rel=0.26)


def test_a_server_that_comes_back_is_waited_for() -> None:
    port = free_port()
    with serving(VQA(), port=port) as url:
        reward = remote(url, retries=8, backoff_s=0.1)
    back = threading.Event()

    def later() -> None:
        time.sleep(0.4)
        with serving(VQA(), port=port):
            back.wait()

    thread = threading.Thread(target=later)
    thread.start()
    try:
        assert_same(score(reward), score(VQA()), atol=0, rtol=0)
    finally:
        back.set()
        thread.join()


ABOUT = {"name": "stub", "licence": "none", "scale": "any", "dtypes": ["float32"], "per_segment": True}
ONE = {"scores": [0.0] * 5, "segments": [[0.0] * 3] * 5}
Reply = tuple[int, bytes] | Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def answering(*replies: Reply, about: object = ABOUT) -> Iterator[str]:
    """A server that answers ``/score`` with each of `replies` in turn, the last one for ever."""
    left = list(replies)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(200, json.dumps(about).encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            reply = left.pop(0) if len(left) > 1 else left[0]
            self.reply(*reply) if isinstance(reply, tuple) else reply(self)

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def good(**changes: object) -> tuple[int, bytes]:
    return 200, json.dumps({**ONE, **changes}).encode()


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Announce more than is sent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"scores": [')


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def sleep(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.5)
    hang_up(handler)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, each within the time limit, and no end."""
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.05)
    except OSError:
        pass


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        ((200, b"no json"), ModelError, "something else than ScoreReply: Invalid JSON"),
        ((200, b""), ModelError, "something else than ScoreReply: Invalid JSON"),
        ((200, b"\xff\xfe\x00"), ModelError, "something else than ScoreReply"),
        ((200, b"[1, 2]"), ModelError, "something else than ScoreReply"),
        ((200, b"{}"), ModelError, "scores: Field required"),
        (good(scores=["high"] * 5), ModelError, r"scores.0: Input should be a valid number"),
        (good(scores=[None] * 5), ModelError, r"scores.0: Input should be a valid number"),
        (good(scores=[0.0] * 4), ModelError, "with 4 scores for 5 videos"),
        (good(scores=[]), ModelError, "with 0 scores for 5 videos"),
        (good(components={"part": [0.0]}), ModelError, "with 1 part for 5 videos"),
        (good(segments=None), ModelError, "without 3 segment scores"),
        (good(segments=[[0.0] * 2] * 5), ModelError, "without 3 segment scores"),
        (good(scores=[float("nan")] * 5), DataError, "scores that are not finite"),
        (good(scores=[1e300] * 5), DataError, "scores that are not finite"),
        (good(segments=[[float("inf")] * 3] * 5), DataError, "segments that are not finite"),
        (good(components={"part": [float("-inf")] * 5}), DataError, "part that are not finite"),
        ((200, b" " * (2**24 + 1)), ModelError, "more than 16 MB"),
        ((302, b""), ModelError, "answers 302: see that it is a reward server"),
        ((404, b'{"detail": "Not Found"}'), ModelError, r"answers 404 \(Not Found\)"),
        ((400, b'{"detail": "a\\n\\u001b[31mb"}'), ModelError, r"answers 400 \(a \[31mb\)"),
        ((413, b""), DataError, r"answers 413 to 0.7 MB: set reward.batch lower"),
        ((401, b""), ModelError, "refuses the token"),
        ((503, b'{"detail": "busy"}'), ModelError, r"answers 503 \(busy\), also after 2 retries"),
        (cut, ModelError, "does not answer .* also after 2 retries"),
        (hang_up, ModelError, "does not answer .* also after 2 retries"),
        (sleep, ModelError, "does not answer .* also after 2 retries"),
        (drip, ModelError, r"no whole answer within 0.2 s\), also after 2 retries"),
    ],
)
def test_nonsense_is_one_line(reply: Reply, kind: type[VpoError], message: str) -> None:
    with answering(reply) as url:
        reward = remote(url, timeout_s=0.2 if callable(reply) else 5)
        with pytest.raises(kind, match=message) as caught:
            score(reward)
    assert "\n" not in str(caught.value)
    assert url in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_server_with_hiccups_is_good_enough() -> None:
    with answering((503, b""), cut, (429, b""), hang_up, good(components={"part": [1.0] * 5})) as url:
        found = score(remote(url, retries=4))
    torch.testing.assert_close(found.components, {"part": torch.ones(5)})


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({**ABOUT, "name": "a b"}, "something else than About: name"),
        ({**ABOUT, "licence": "a\x1b[2J"}, "something else than About: licence"),
        ({"name": "stub"}, "something else than About: licence: Field required"),
        ({**ABOUT, "dtypes": []}, "something else than About: dtypes"),
        ({**ABOUT, "protocol": 2}, "something else than About: protocol"),
        ("hello", "something else than About"),
    ],
)
def test_a_server_must_say_what_it_serves(about: object, message: str) -> None:
    with answering(good(), about=about) as url, pytest.raises(ModelError, match=message):
        remote(url)


def test_frames_are_sent_as_the_server_prefers() -> None:
    with answering(good(), about={**ABOUT, "dtypes": ["uint8", "float16"]}) as url:
        score(remote(url))
        score(remote(url, dtype="float16"))
        with pytest.raises(ConfigError, match="takes uint8, float16, not float32"):
            remote(url, dtype="float32")


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "ftp://x", "http://", "http://user:secret@x", "http://x/?a=1", "http://x/#a"]
)
def test_an_address_that_cannot_be_one(url: str) -> None:
    with pytest.raises(ConfigError, match=r"reward\.url"):
        plan("remote", {"url": url})


def test_settings_stand_behind_the_name_or_in_the_recipe() -> None:
    (part,) = plan("remote:https://[::1]:8000/judge/:2", {"timeout_s": 9})
    assert isinstance(part.config, RemoteConfig)
    assert (part.config.url, part.config.timeout_s, part.weight) == ("https://[::1]:8000/judge", 9, 2)
    parts = plan("remote:http://a:1:0.5+remote:http://b+vqa", {"remote": {"batch": 3}})
    assert [(p.weight, getattr(p.config, "url", ""), getattr(p.config, "batch", 0)) for p in parts] == [
        (0.5, "http://a:1", 3), (1.0, "http://b", 3), (1.0, "", 0),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="its url is given twice"):
        plan("remote:http://a", {"url": "http://b"})
    with pytest.raises(ConfigError, match="'vqa' takes nothing but a weight behind its name, not 'best'"):
        plan("vqa:best", {})


def test_the_wire_format_is_what_its_page_says() -> None:
    """A body put together by hand, as a server in another language would read it."""
    video = torch.arange(24).view(1, 2, 3, 2, 2) / 255
    asked = wire.Header(shape=(1, 2, 3, 2, 2), dtype="uint8", fps=8, prompts=["ä\n"], segments=[(0, 1)])
    line, frames = wire.encode(asked, video).split(b"\n", 1)
    assert json.loads(line) == {
        "shape": [1, 2, 3, 2, 2], "dtype": "uint8", "fps": 8.0, "prompts": ["ä\n"], "segments": [[0, 1]],
    }  # fmt: skip
    assert frames == bytes(range(24))


# -- the commands


@contextmanager
def process(*arguments: object, lives: int = -1) -> Iterator[tuple[str, str, Fork]]:
    """``vpo reward serve``: its address, all that it printed, and the process."""
    environment = {"VPO_REWARD_TOKEN": None, "VPO_TEST_LIVES": str(lives)}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    with vpo("reward", "serve", *arguments, environment=environment) as server:
        found = server.until(r"vpo train --reward remote:(.*)\n")
        yield found[1].strip(), server.output, server
        server.send(signal.SIGTERM)
        server.wait(20)


def test_the_served_vqa_scores_as_the_one_in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with process("vqa", "--port", 0) as (url, shown, server):
        assert "vqa (Apache-2.0) on http://127.0.0.1:" in shown
        found = re.search(r"export VPO_REWARD_TOKEN=(\S{32,})", shown)
        assert found is not None
        with pytest.raises(ModelError, match="refuses the token"):
            remote(url)
        monkeypatch.setenv("VPO_REWARD_TOKEN", found[1])
        assert_same(score(remote(url)), score(VQA()), atol=0, rtol=0)
        with pytest.raises(SystemExit):
            main(["reward", "serve", "vqa", "--port", url.rpartition(":")[2]])
        assert "Address already in use: give another --port or --host" in capsys.readouterr().err
    assert server.code in (0, -signal.SIGTERM)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vqa", "--no-token", "--host", "0.0.0.0"], "--no-token: only with --host 127.0.0.1"),
        (["vqa", "--no-token"], "without --token or VPO_REWARD_TOKEN"),
        (["vqa", "--token", "a b\n"], "--token: one line of ASCII"),
        (["vqq"], "did you mean 'vqa'?"),
        (["vqa+gold"], "serve one reward"),
        (["vqa", "--set", "lora.rank=3"], "only reward.* can be set here"),
        (["vqa", "--set", "reward.weights=/none.safetensors", "--port", "0"], "no weights of a judge"),
        (["vqa", "--host", "203.0.113.1"], "cannot listen on 203.0.113.1:8000"),
    ],
)
def test_bad_options_of_the_server(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["reward", "serve", *arguments])
    assert caught.value.code in (1, 2)
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit):
        main(["reward", "serve", "vqa"])
    assert "vpo reward serve needs uvicorn: pip install 'vpo-kit[server]'" in capsys.readouterr().err


def test_the_example_serves_from_another_environment() -> None:
    port = free_port()
    example = ROOT / "examples" / "reward_server" / "server.py"
    command = [sys.executable, "-I", str(example), str(port)]  # -I: nothing of this project can be imported
    with subprocess.Popen(command, env={"VPO_REWARD_TOKEN": TOKEN}, stderr=subprocess.DEVNULL) as server:
        try:
            reward = remote(f"http://127.0.0.1:{port}", retries=8, batch=2)
            found = reward(VIDEO, ["p"] * 5, fps=8).score
            os.environ["VPO_REWARD_TOKEN"] = "wrong"
            with pytest.raises(ModelError, match="refuses the token"):
                remote(f"http://127.0.0.1:{port}")
        finally:
            server.terminate()
    torch.testing.assert_close(found, VIDEO.mul(255).round().flatten(1).mean(1))
    code = [line for line in example.read_text().splitlines() if line.strip()]
    assert len(code) < 45


def test_the_visionreward_example(tmp_path: Path) -> None:
    """In a folder that looks like a checkout of VisionReward, with its function `score` and another model behind it."""
    for name in ("server.py", "visionreward.py"):
        shutil.copy(ROOT / "examples" / "reward_server" / name, tmp_path)
    (tmp_path / "inference-video.py").write_text(
        "import imageio.v3 as imageio\n\ndef score(video_path, prompt):\n"
        "    return len(imageio.imread(video_path)) + len(prompt)\n"
    )
    port = free_port()
    command = [sys.executable, "visionreward.py", str(port)]
    with subprocess.Popen(
        command, cwd=tmp_path, env={"VPO_REWARD_TOKEN": TOKEN, "PATH": os.environ["PATH"]}, stderr=subprocess.DEVNULL
    ) as server:
        try:
            reward = remote(f"http://127.0.0.1:{port}", retries=8)
            found = reward(VIDEO, ["four", "a", "b", "c", "d"], fps=8).score
        finally:
            server.terminate()
    assert reward.spec.needs_prompt
    assert found.tolist() == [VIDEO.shape[1] + n for n in (4, 1, 1, 1, 1)]


# -- a run


def test_what_the_server_says_holds_before_a_run_starts(
    tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(GoldVQA()) as url:
        with pytest.raises(SystemExit):
            main(["train", "--reward", f"remote:{url}", "--model", str(tiny_wan), "--dry-run"])
        assert "reward 'remote:gold' is a held-out judge" in capsys.readouterr().err
    write_video(tmp_path / "clip.mp4", VIDEO[0], 8)
    with serving(Wordy()) as url, pytest.raises(SystemExit):
        main(["score", str(tmp_path / "clip.mp4"), "--reward", f"remote:{url}"])
    assert "reward 'remote:wordy' judges a video by its prompt: give --prompt" in capsys.readouterr().err


def test_a_server_killed_in_mid_run_stops_it_and_resume_ends_as_if_nothing_had_been(
    tiny_wan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def train(name: str, reward: str, *more: str) -> object:
        settings = {
            "batch_size": 2, "evaluation.num_prompts": 1, "checkpoints.every": 10, "method.num_candidates": 2,
            "method.updates_per_rollout": 1, "method.reference_update": "ema",
        }  # fmt: skip
        if reward != "vqa":
            settings |= {"reward.retries": 2, "reward.backoff_s": 0.05, "reward.batch": 3}
        assigned = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        with pytest.raises(SystemExit) as caught:
            main([
                "train", "--method", "online", "--reward", reward, "--model", str(tiny_wan), "--steps", "4",
                "--output", str(tmp_path / name), *assigned, *more,
            ])  # fmt: skip
        return caught.value.code

    def log(name: str) -> bytes:
        return (tmp_path / name / "metrics.jsonl").read_bytes()

    def lora(name: str) -> dict[str, Tensor]:
        # not the file's bytes: safetensors writes metadata in an order of its own each time
        return load_file(tmp_path / name / "lora" / "pytorch_lora_weights.safetensors")

    serve = ["tests.rewards.test_remote:Mortal", "--token", TOKEN, "--port", port]
    # one request measures the base, two make a step's four videos: it dies in step 3, half of whose scores are in
    with process(*serve, lives=6) as (_, _, server):
        assert train("killed", f"remote:{url}") == 1
        assert server.wait() == -signal.SIGKILL
    shown = capsys.readouterr().err
    assert re.search(rf"vpo: step 3, items \d+, \d+: reward server {url} does not answer", shown)
    assert "also after 2 retries" in shown
    assert "a run then goes on with --resume" in shown
    assert shown.splitlines()[-1].startswith("vpo: ")
    assert [path.name for path in (tmp_path / "killed" / "checkpoints").iterdir()] == ["step-000002"]
    assert (tmp_path / "killed" / "metrics.jsonl").read_text().count("\n") == 2
    with process(*serve):
        assert train("killed", f"remote:{url}", "--resume") == 0
        assert train("whole", f"remote:{url}") == 0
    assert train("here", "vqa") == 0
    assert log("killed") == log("whole") == log("here")
    for name in ("killed", "here"):
        torch.testing.assert_close(lora(name), lora("whole"), atol=0, rtol=0)
    for path in (tmp_path / "killed").rglob("*.*"):
        assert TOKEN.encode() not in path.read_bytes()
