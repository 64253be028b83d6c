"""A real server of the page on which people answer, and a client that is not a browser."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.forks import Fork, vpo


@dataclass
class Served:
    """A process that serves the page, and a client that has been let in as its owner."""

    folder: Path
    process: Fork
    url: str
    token: str
    cookie: str = ""
    keys: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
        with closing(http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=20)) as link:
            sent = {"Cookie": self.cookie, **headers} if self.cookie else headers
            content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            if content is not None:
                sent = {"Content-Type": "application/json", **sent}
            link.request(method, path, content, sent)
            reply = link.getresponse()
            return reply.status, reply.read(), {key.lower(): value for key, value in reply.getheaders()}

    def enter(self) -> None:
        status, _, headers = self.ask("GET", f"/?token={self.token}")
        assert (status, headers["location"]) == (303, "/")
        self.cookie = headers["set-cookie"].partition(";")[0]

    def tasks(self, annotator: str) -> list[dict[str, Any]]:
        status, body, _ = self.ask("GET", f"/tasks?annotator={annotator}")
        assert status == 200, body
        return list(json.loads(body)["pairs"])

    def answer(self, annotator: str, pair: str, segment: int, choice: str, **changes: object) -> tuple[int, Any]:
        given = {"key": f"{next(self.keys):032x}", "annotator": annotator, "pair": pair, "segment": segment}
        status, body, _ = self.ask("POST", "/answers", {**given, "choice": choice, "seconds": 1.5, **changes})
        return status, json.loads(body)

    def undo(self, annotator: str, key: str = "") -> Any:
        key = key or f"{next(self.keys):032x}"
        status, body, _ = self.ask("POST", "/undo", {"key": key, "annotator": annotator})
        assert status == 200, body
        return json.loads(body)

    def stop(self) -> str:
        """Ctrl-C; what the server said last."""
        self.process.send(signal.SIGINT)
        assert self.process.wait(20) == 0
        return self.process.output


@contextmanager
def serving_with(folder: Path, *arguments: object) -> Iterator[Served]:
    """``vpo ARGUMENTS`` until its page is there."""
    with vpo(*arguments) as process:
        found = process.until(r"^(http://\S+)/\?token=(\S{32})$")
        served = Served(folder, process, found[1], found[2])
        served.enter()
        yield served
