"""Plain sockets: a port that is free, and requests that no client would send."""

from __future__ import annotations

import socket
import time


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def raw(url: str, head: str, body: bytes = b"") -> tuple[int, str, int]:
    """Send a request by hand, as far as the server takes it: status, answer, bytes of body that went out.

    Status 0: the server hung up, and the reset overtook its answer.
    """
    host, port = url.removeprefix("http://").split(":")
    sent = 0
    with socket.create_connection((host, int(port)), timeout=10) as link:
        link.sendall(f"{head}\r\nHost: {host}\r\n\r\n".encode())
        link.setblocking(False)
        deadline = time.monotonic() + 10
        answer = b""
        while time.monotonic() < deadline and b"}" not in answer:
            try:
                sent += link.send(body[sent : sent + 65536]) if sent < len(body) else 0
                answer += link.recv(65536)
            except BlockingIOError:
                time.sleep(0.001)
            except ConnectionError:
                break
    if not answer:
        return 0, "", sent
    status, _, rest = answer.decode().partition("\r\n")
    return int(status.split()[1]), rest.rpartition("\r\n")[2], sent
