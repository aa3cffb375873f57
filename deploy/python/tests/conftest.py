"""A stand-in for Tacho, and bots served by a real server: streaming and keep-alive are only true on a socket."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from stand_in import StandIn

Serve = Callable[[Any], Any]
"""Serves an app until the test ends, and gives a client for it."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def tacho() -> AsyncIterator[StandIn]:
    async with StandIn() as stand_in:
        yield stand_in


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    # asyncio sends small answers at once only where the socket says that it is TCP.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        assert not running.done(), "the server has ended"
        await asyncio.sleep(0.005)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", trust_env=False, timeout=10
    ) as client:
        yield client
    server.should_exit = True
    await running


@pytest.fixture
async def serve(tacho: StandIn) -> AsyncIterator[Serve]:
    """Depends on `tacho`, so that the bots end before it does."""
    async with AsyncExitStack() as stack:

        async def start(app: Any) -> httpx.AsyncClient:
            return await stack.enter_async_context(served(app))

        yield start
