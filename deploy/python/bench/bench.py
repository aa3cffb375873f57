"""What the middleware adds to a request: the same bot without it, with it, and with it while nobody answers.

    python bench/bench.py [--requests 5000]

Each bot and the stand-in for Tacho is a process of its own. One client asks the bots in turn, one request at a time
over kept connections, so that what else the machine does falls on all of them alike.
"""

import argparse
import contextlib
import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
sys.path[:0] = [str(PACKAGE / "src")]

import uvicorn  # noqa: E402
from fastapi import FastAPI  # noqa: E402
from fastapi.responses import PlainTextResponse  # noqa: E402

from tacho_limits import TachoMiddleware  # noqa: E402

NOBODY = "http://127.0.0.1:9"
BOTS = {"without": None, "with": "TACHO", "with, nobody there": NOBODY}


def serve(url: str | None) -> None:
    app = FastAPI()
    if url:
        app.add_middleware(TachoMiddleware, url=url)

    @app.post("/agents/{agent_id}/invoke")
    async def invoke(agent_id: str) -> PlainTextResponse:
        return PlainTextResponse(agent_id)

    # asyncio sends small answers at once only where the socket says that it is TCP.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False)).run(sockets=[listener])


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[str]:
    """Runs it for as long as the block; its address."""
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        assert run.stdout is not None
        try:
            yield run.stdout.readline().removeprefix("listening on ").strip()
        finally:
            run.terminate()


def ask(connection: http.client.HTTPConnection) -> float:
    """Seconds that one request took."""
    start = time.perf_counter()
    connection.request("POST", "/agents/support/invoke", b"{}", {"x-user-id": "ada"})
    answer = connection.getresponse()
    body = answer.read()
    took = time.perf_counter() - start
    assert (answer.status, body) == (200, b"support")
    return took


def measure(requests: int) -> dict[str, list[float]]:
    with contextlib.ExitStack() as stack:
        tacho = stack.enter_context(program(str(PACKAGE / "tests/stand_in.py")))
        connections = {}
        for name, url in BOTS.items():
            given = [] if url is None else ["--tacho", tacho if url == "TACHO" else url]
            address = stack.enter_context(program(__file__, "--serve", *given))
            connections[name] = http.client.HTTPConnection(address.removeprefix("http://"))
        for connection in connections.values():
            for _ in range(200):
                ask(connection)
        took: dict[str, list[float]] = {name: [] for name in connections}
        for _ in range(requests):
            for name, connection in connections.items():
                took[name].append(ask(connection))
    return {name: sorted(times) for name, times in took.items()}


def main() -> None:
    options = argparse.ArgumentParser(description="What the middleware adds to a request")
    options.add_argument("--requests", type=int, default=5000, help="to each bot")
    options.add_argument("--serve", action="store_true", help="be one of the bots")
    options.add_argument("--tacho", help="whom that bot asks")
    given = options.parse_args()
    if given.serve:
        serve(given.tacho)
        return

    took = measure(given.requests)
    base = took["without"]
    at = {"p50": given.requests // 2, "p95": given.requests * 95 // 100}
    print(f"{'ms':20}" + "".join(f"{name:>8}{'added':>8}" for name in at))
    for name, times in took.items():
        cells = [f"{1000 * times[n]:8.2f}{1000 * (times[n] - base[n]):+8.2f}" for n in at.values()]
        print(f"{name:20}{''.join(cells)}")


if __name__ == "__main__":
    main()
