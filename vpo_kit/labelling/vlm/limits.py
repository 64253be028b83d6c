"""Requests and tokens of one labelling: what may still be spent is known before a request leaves."""

from __future__ import annotations

from threading import Condition


class Spent(Exception):
    """No request may leave any more: the budget does not cover it, or the labelling stops."""


class CostLimit:
    """Limits that no request may break. A request's largest cost is put aside before it leaves, and its real cost
    booked when it is known; shared by threads.

    `requests` and `tokens` are what has been used, `max_requests` and `max_tokens` the limits, None for none.
    """

    def __init__(self, max_requests: int | None, max_tokens: int | None) -> None:
        self.requests = 0
        self.tokens = 0
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._aside = 0
        self._under_way = 0
        self._scale = 1.0
        self._seen = False
        self._stopped = False
        self._change = Condition()

    def put_aside(self, tokens_in: int, tokens_out: int) -> int:
        """Wait until a request of about `tokens_in` and at most `tokens_out` tokens is covered; what was put aside.

        Raises `Spent` when it cannot be, whatever the requests under way turn out to cost.
        """
        with self._change:
            # with a limit on tokens the first request leaves alone: what it costs corrects the estimate of the others
            self._change.wait_for(lambda: self._stopped or not self._must_wait(tokens_in, tokens_out))
            if self._stopped or not self._covered(tokens_in, tokens_out):
                raise Spent
            cost = self._cost(tokens_in, tokens_out)
            self.requests += 1
            self._aside += cost
            self._under_way += 1
            return cost

    def book(self, aside: int, used: int, *, tokens_in: tuple[int, int] | None = None) -> None:
        """A request that had `aside` put aside has cost `used`; `tokens_in` are its estimated and real tokens in."""
        with self._change:
            self.tokens += used
            self._aside -= aside
            self._under_way -= 1
            if tokens_in is not None:
                self._seen = True
                self._scale = max(self._scale, tokens_in[1] / tokens_in[0])
            self._change.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait so long, or less when the labelling stops. Raises `Spent` then."""
        with self._change:
            if self._change.wait_for(lambda: self._stopped, timeout=seconds):
                raise Spent

    def stop(self) -> None:
        """Let no more requests leave; those under way go on."""
        with self._change:
            self._stopped = True
            self._change.notify_all()

    def _must_wait(self, tokens_in: int, tokens_out: int) -> bool:
        if not self._under_way or self._max_tokens is None:
            return False
        return not self._seen or not self._covered(tokens_in, tokens_out)

    def _covered(self, tokens_in: int, tokens_out: int) -> bool:
        if self._max_requests is not None and self.requests >= self._max_requests:
            return False
        spent = self.tokens + self._aside + self._cost(tokens_in, tokens_out)
        return self._max_tokens is None or spent <= self._max_tokens

    def _cost(self, tokens_in: int, tokens_out: int) -> int:
        return round(tokens_in * self._scale) + tokens_out
