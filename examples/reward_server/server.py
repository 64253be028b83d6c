"""A reward from any environment, for `vpo train --reward remote:http://127.0.0.1:8000`: put your model into `judge`."""

import hmac
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

LIMIT, TOKEN = 2**28, os.environ["VPO_REWARD_TOKEN"]
ABOUT = {"name": "brightness", "licence": "Apache-2.0", "scale": "0 to 255"}


def judge(video: bytes, shape: list[int], prompt: str, fps: float) -> float:
    """Higher is better. `video` is uint8 `[frames, 3, height, width]`: numpy.frombuffer(video, "u1").reshape(shape)."""
    return sum(video) / len(video)


class Handler(BaseHTTPRequestHandler):
    judge, about = staticmethod(judge), ABOUT

    def answer(self, status: int, reply: dict) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def handle_request(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        if not hmac.compare_digest(self.headers.get("Authorization", "").encode(), f"Bearer {TOKEN}".encode()):
            return self.answer(401, {"detail": "wrong token"})
        if self.command == "GET":
            return self.answer(200, {**self.about, "max_body_bytes": LIMIT})
        if size > LIMIT:
            return self.answer(413, {"detail": "too large"})
        line, _, frames = self.rfile.read(size).partition(b"\n")
        head = json.loads(line)
        count, each = head["shape"][0], len(frames) // head["shape"][0]
        videos = [frames[i * each : (i + 1) * each] for i in range(count)]
        prompts = head.get("prompts") or [""] * count
        scores = [self.judge(v, head["shape"][1:], p, head["fps"]) for v, p in zip(videos, prompts, strict=True)]
        return self.answer(200, {"scores": scores})

    do_GET = do_POST = handle_request


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
