"""The way to Tacho: one connection pool for each event loop, a bound on the time, and a breaker."""

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from tacho_limits.asgi import Headers

log = logging.getLogger("tacho_limits")

PAUSE = 1.0
"""Seconds that nothing is asked after a failure, so that a dead Tacho costs the bot nothing."""

CONNECTIONS = 100
"""More would only queue in Tacho."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What Tacho said; the body as it came."""

    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class _Pool:
    """The connections of one event loop. Who finds all of them taken waits for `room`: in the queue that httpx has for
    it, a connection is lost for good when somebody who waits is cancelled (httpcore 1.0.9).
    """

    http: httpx.AsyncClient
    room: asyncio.Semaphore


class Client:
    """Asks, and says `None` where nobody answers. It never raises but for cancellation, and never asks twice: a
    question that got lost may have been counted.
    """

    def __init__(self, url: str, timeout: float, token: str | None = None, ssl_context: SSLContext | None = None) -> None:
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._headers = {"accept-encoding": "identity"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        # Reading the authorities takes 20 ms, which plain HTTP has no use for.
        self._verify = ssl_context or self._url.startswith("https:")
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = WeakKeyDictionary()
        self._away = False
        self._next = 0.0  # not asked before, while away
        self._surprises: set[int] = set()

    async def post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Answer | None:
        """The answer, if Tacho is there to give one. All of it must come within the timeout."""
        now = time.monotonic()
        if self._away:
            if now < self._next:
                return None
            self._next = now + PAUSE  # one asks whether it is back; the others do not wait for that
        try:
            answer = await self._send(path, body, headers or {})
        except Exception as error:  # whatever it is, a limiter is no reason for a bot to fail
            self._failed(str(error) or type(error).__name__)
            return None
        if answer.status >= 500:
            self._failed(f"status {answer.status}")
            return None
        if self._away:
            self._away = False
            log.warning("tacho answers again")
        return answer

    def surprise(self, answer: Answer) -> None:
        """Tells of a status that is no answer to the question; once, as clients may be able to provoke it. For the same
        reason the breaker stays closed: one odd request must not free all others of their limits.
        """
        if answer.status not in self._surprises:
            self._surprises.add(answer.status)
            log.warning("tacho answered with status %d: %s", answer.status, answer.body[:200].decode(errors="replace"))

    async def close(self) -> None:
        """Closes the connections of the running loop."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.http.aclose()

    async def _send(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
        content = json.dumps(body, separators=(",", ":")).encode()
        headers = {"content-type": "application/json", **headers}
        pool = self._pool()
        async with asyncio.timeout(self._timeout), pool.room:
            answer = await pool.http.post(self._url + path, content=content, headers=headers)
        raw = tuple((name.lower(), value) for name, value in answer.headers.raw)
        return Answer(answer.status_code, raw, answer.content)

    def _pool(self) -> _Pool:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            http = httpx.AsyncClient(
                timeout=None,  # for each step; ours is for the whole, as many short steps can take long
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=CONNECTIONS),
                verify=self._verify,
                # A proxy for the world outside is not the way to a neighbour on the same machine.
                trust_env=False,
                headers=self._headers,
            )
            pool = self._pools[loop] = _Pool(http, asyncio.Semaphore(CONNECTIONS))
        return pool

    def _failed(self, reason: str) -> None:
        if not self._away:
            log.warning("tacho does not answer: %s", reason)
        self._away = True
        self._next = time.monotonic() + PAUSE
