"""Places at a server for those who have a request: who says nothing is sent away, in time and when places are short.

A connection that sends no whole head of a request in time is closed, also between two requests. Where all places are
taken a new connection gets that of the one which has waited longest without a request. So only requests in progress
hold places, and one without the token is refused before its body is read (extra ``server``).
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, cast

from uvicorn.protocols.http.h11_impl import H11Protocol


class Placed(H11Protocol):
    """uvicorn's protocol with these rules; `uvicorn.Config.limit_concurrency` says how many places there are."""

    head_s: ClassVar[float] = 10.0
    """The seconds in which the head of a request has to be there."""
    _due: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> bool:
        """Whether no request is in progress."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        places = self.limit_concurrency
        while places is not None and len(self.connections) >= places - 1:
            silent = min((one for one in self._others() if one.waiting), key=lambda one: one.since, default=None)
            if silent is None:
                break  # all have requests: uvicorn answers 503
            self.connections.discard(silent)
            silent.transport.abort()
        super().connection_made(transport)
        self._expect()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._due is not None:
            self._due.cancel()
        super().connection_lost(exc)

    def _others(self) -> list[Placed]:
        return [cast(Placed, one) for one in self.connections]

    def _expect(self) -> None:
        self.since = self.loop.time()
        if self._due is not None:
            self._due.cancel()
        self._due = self.loop.call_later(self.head_s, self._late)

    def _late(self) -> None:
        if self.waiting:
            self.transport.abort()
