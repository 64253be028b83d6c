"""One set of rules for every server that is asked: what is asked again, when, and what is said at the end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

from vpo_kit.labelling.vlm.settings import Vlm
from vpo_kit.net.ask import Failure, HttpAnswer, Patience, Server, Unanswered, backoff, patiently
from vpo_kit.rewards.remote import RemoteConfig

Reply = Callable[[BaseHTTPRequestHandler], None]


def says(status: int, body: bytes = b"", **headers: str) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def hangs_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def breaks_off(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    handler.close_connection = True


def drips(handler: BaseHTTPRequestHandler) -> None:
    """Always something, and never all of it."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    for _ in range(20):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.05)


@contextmanager
def answering(*replies: Reply) -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """A server that gives these answers in turn, the last one for ever; its address and what it was asked."""
    asked: list[tuple[str, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.command, self.path, body))
            replies[min(len(asked), len(replies)) - 1](self)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def ask(
    url: str, *, waits: list[float] | None = None, seen: list[Failure] | None = None, **settings: float
) -> HttpAnswer:
    patience = Patience.model_validate({"timeout_s": 2.0, "retries": 3, "backoff_s": 4.0, **settings})
    server = Server(url, {"X-From": "test"}, patience, max_bytes=1000)
    pause = (waits if waits is not None else []).append
    told = (seen if seen is not None else []).append
    return patiently(lambda: server.send("/x", b"body"), patience, pause=pause, on_failure=told)


TROUBLES = [says(408), says(409), says(429), says(500), says(503), says(599), hangs_up, breaks_off]


def test_passing_troubles_are_waited_out_and_the_question_stays_the_same() -> None:
    waits: list[float] = []
    seen: list[Failure] = []
    with answering(*TROUBLES, says(200, b"yes")) as (url, asked):
        assert ask(url, waits=waits, seen=seen, retries=8) == HttpAnswer(200, b"yes")
    assert asked == [("POST", "/x", b"body")] * 9
    assert [failure.number for failure in seen] == list(range(1, 9))
    assert [failure.problem for failure in seen[:6]] == [f"answers {n}" for n in (408, 409, 429, 500, 503, 599)]
    assert all(failure.problem.startswith("does not answer (") for failure in seen[6:])
    assert all(failure.met for failure in seen)
    assert waits == [failure.wait_s for failure in seen]
    for number, wait in enumerate(waits):  # 4, 8, 16, 32, 60, 60, ...
        assert 0.75 <= wait / min(4.0 * 2**number, 60.0) <= 1.25
    assert len({wait / min(4.0 * 2**number, 60.0) for number, wait in enumerate(waits)}) > 1


@pytest.mark.parametrize("status", [201, 302, 400, 401, 403, 404, 413, 422])
def test_any_other_status_is_an_answer(status: int) -> None:
    with answering(says(status, b'{"detail": "a\\n\\u001b[31mb"}', location="/elsewhere")) as (url, asked):
        found = ask(url)
    assert (found.status, found.reason, len(asked)) == (status, "a [31mb", 1)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"detail": "no GPU left"}, "no GPU left"),
        ({"detail": [{"type": "missing", "loc": ["body", "model"], "msg": "Field required", "input": {}},
                     {"type": "int", "loc": ["body", "n", 0], "msg": "not a number"}]},
         "body.model: Field required; body.n.0: not a number"),
        ({"detail": {"message": "too long", "limit": 4}}, "too long"),
        ({"error": {"message": "no such model", "code": 7}}, "no such model"),
        ({"error": {"body": "the engine died", "status": 500}}, "the engine died"),
        ({"error": {"message": None, "body": {"detail": "out of memory"}}}, "out of memory"),
        ({"object": "error", "message": "context is 4096 tokens", "code": 400}, "context is 4096 tokens"),
        ({"error": "model 'x' not found"}, "model 'x' not found"),
        ({"error": None, "message": "busy"}, "busy"),
        ({"status": "bad"}, ""), ([], ""), (None, ""), ([[{"msg": "deep"}]], "deep"),
        (json.loads("[" * 500 + '"bottom"' + "]" * 500), ""),
    ],
)  # fmt: skip
def test_a_server_s_own_words_are_found(body: object, words: str) -> None:
    with answering(says(422, json.dumps(body).encode())) as (url, _):
        assert ask(url).reason == words


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("7", 7, 7), ("0", 0, 0), ("1e9", 120, 120), ("-3", 0, 0), ("nan", 0, 0), ("soon", 0, 0), ("", 0, 0),
        (timedelta(seconds=100), 60, 100), (timedelta(days=-1), 0, 0), (timedelta(days=1), 120, 120),
    ],
)  # fmt: skip
def test_a_server_gets_the_time_that_it_asks_for(header: str | timedelta, low: float, high: float) -> None:
    if isinstance(header, timedelta):  # a date, from now on
        header = format_datetime(datetime.now(UTC) + header, usegmt=True)
    waits: list[float] = []
    with answering(says(503, retry_after=header), says(200)) as (url, _):
        ask(url, waits=waits, backoff_s=0)
    assert low <= waits[0] <= high


def test_what_a_server_asks_for_never_shortens_a_wait() -> None:
    waits: list[float] = []
    with answering(says(429, retry_after="0.5"), says(200)) as (url, _):
        ask(url, waits=waits)
    assert 3 <= waits[0] <= 5


@pytest.mark.parametrize(
    ("reply", "words", "met"),
    [
        (says(503, b'{"detail": "busy"}'), "answers 503 (busy), also after 2 retries", True),
        (says(500, b'{"error": {"message": "oops"}}'), "answers 500 (oops), also after 2 retries", True),
        (says(500, b'{"error": "oops"}'), "answers 500 (oops), also after 2 retries", True),
        (says(500, b"<html>" + b"[" * 900), "answers 500, also after 2 retries", True),
        (drips, "does not answer (no whole answer within 0.2 s), also after 2 retries", True),
        (None, "refused), also after 2 retries", False),
    ],
)
def test_at_the_end_of_patience_one_line_says_why(reply: Reply | None, words: str, met: bool) -> None:
    with answering(reply or hangs_up) as (url, asked):
        if reply is None:
            url = "http://127.0.0.1:1"
        with pytest.raises(Unanswered) as caught:
            ask(url, retries=2, timeout_s=0.2)
    assert str(caught.value).endswith(words)
    assert "\n" not in str(caught.value)
    assert caught.value.last.met == met
    assert (caught.value.last.number, caught.value.last.wait_s) == (3, None)
    assert len(asked) == (3 if reply else 0)


def test_a_pause_may_end_the_asking() -> None:
    class Enough(Exception):
        pass

    def pause(seconds: float) -> None:
        raise Enough

    with answering(says(503)) as (url, asked):
        server = Server(url, {}, Patience(), max_bytes=10)
        with pytest.raises(Enough):
            patiently(lambda: server.send("/"), Patience(), pause=pause)
    assert asked == [("GET", "/", b"")]


def test_no_more_is_read_than_is_wanted() -> None:
    with answering(says(200, b"x" * 1000)) as (url, _):
        assert ask(url).whole
    with answering(says(200, b"x" * 10**7)) as (url, _):
        found = ask(url)
    assert not found.whole
    assert 1000 < len(found.body) < 10**6


def test_without_kept_connections_a_restarted_server_is_found_and_nothing_stays_open() -> None:
    with answering(says(200, b"one")) as (url, _):
        server = Server(url, {}, Patience(timeout_s=2), max_bytes=10)
        assert server.send("/").body == b"one"
    with pytest.raises(httpx2.ConnectError):
        server.send("/")


def test_kept_connections_are_used_again() -> None:
    ports: set[int] = set()

    def reply(handler: BaseHTTPRequestHandler) -> None:
        ports.add(handler.client_address[1])
        says(200, b"{}")(handler)

    with answering(reply) as (url, asked):
        server = Server(url, {}, Patience(timeout_s=2), max_bytes=10, kept=1)
        for _ in range(3):
            server.send("/")
        server.close()
    assert (len(ports), len(asked)) == (1, 3)


def test_the_waits_have_an_end() -> None:
    assert [backoff(Patience(backoff_s=1), number) for number in (1, 2, 3, 7, 10**6)] == [1, 2, 4, 60, 60]


def test_whatever_asks_has_the_same_settings() -> None:
    for kind in (Vlm, RemoteConfig):
        for name, field in Patience.model_fields.items():
            assert kind.model_fields[name].default == field.default
    assert json.loads(Vlm(retries=2).model_dump_json())["retries"] == 2
