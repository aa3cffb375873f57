"""Stands in for Tacho: a real HTTP server on a free port that answers what it is told and remembers what it was asked.

    python stand_in.py          # for the bench: allows everything, says `listening on ADDRESS`
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

LIMITS = [{"name": "user-requests", "remaining": 59}]
RATE = {
    "RateLimit": '"user-requests";r=59;t=3',
    "RateLimit-Policy": '"user-requests";q=60;w=60',
    "X-RateLimit-Limit": "60",
    "X-RateLimit-Remaining": "59",
}


@dataclass
class Asked:
    """One request."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Reply:
    """One answer; `raw` in the place of a well-formed one."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: dict(RATE))
    body: bytes = b"{}"
    raw: bytes | None = None

    def wire(self) -> bytes:
        if self.raw is not None:
            return self.raw
        lines = [f"HTTP/1.1 {self.status} X", *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\r\n".join([*lines, f"content-length: {len(self.body)}", "", ""]).encode() + self.body


def allow(reservation: str = "r-1", *, degraded: bool = False, headers: dict[str, str] | None = None) -> Reply:
    said = {"decision": "allow", "reservation": reservation, "degraded": degraded, "limits": LIMITS}
    return Reply(200, {"content-type": "application/json", **RATE, **(headers or {})}, json.dumps(said).encode())


class StandIn:
    """`answer` is asked for each reply. Use it as an async context manager; `stop` and `start` keep the port."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answer: Callable[[Asked], Awaitable[Reply]] = self._allow
        self.connections = 0
        self.writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._hung_up = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def says(self, reply: Reply) -> None:
        async def answer(_: Asked) -> Reply:
            return reply

        self.answer = answer

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()
        await self._server.wait_closed()

    async def never(self, _: Asked) -> Reply:
        """An answer that does not come."""
        await self._hung_up.wait()
        raise ConnectionError

    def hang_up(self) -> None:
        self._hung_up.set()
        self._hung_up = asyncio.Event()
        for writer in list(self.writers):
            writer.close()

    async def __aenter__(self) -> "StandIn":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _allow(self, _: Asked) -> Reply:
        return allow()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.add(writer)
        try:
            while True:
                asked = await self._read(reader)
                self.asked.append(asked)
                writer.write((await self.answer(asked)).wire())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side has gone
        finally:
            self.writers.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Asked:
        head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        return Asked(head.split(" ")[1], headers, json.loads(body))


async def main() -> None:
    async with StandIn() as tacho:
        print(f"listening on {tacho.url}", flush=True)
        while True:
            await asyncio.sleep(60)
            tacho.asked.clear()


if __name__ == "__main__":
    asyncio.run(main())
