"""A Tacho that is slow, odd or away: what requests get, what it costs, what is told."""

import asyncio
import time
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bots import fastapi_bot, starlette_bot
from conftest import Serve
from stand_in import Asked, Reply, StandIn, allow
from tacho_limits import TachoMiddleware
from tacho_limits import client as way

NONSENSE = Reply(raw=b"HTTP/9 what\r\n\r\n")
CUT = Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way, "PAUSE", 0.3)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "tacho_limits"]


ODD = [Reply(500), Reply(503), Reply(404), Reply(302), Reply(200), Reply(200, body=b"["), NONSENSE]


@pytest.mark.parametrize("reply", ODD)
async def test_an_answer_that_is_none_leaves_it_to_on_error(tacho: StandIn, serve: Serve, reply: Reply) -> None:
    tacho.says(reply)
    free = await serve(fastapi_bot(url=tacho.url))
    answer = await free.get("/stream")
    assert (answer.status_code, answer.text) == (200, "one two three")
    assert "ratelimit" not in answer.headers

    strict = await serve(fastapi_bot(url=tacho.url, on_error="closed"))
    answer = await strict.get("/stream")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["status"] == 503
    assert "ratelimit" not in answer.headers


async def test_nobody_there(tacho: StandIn, serve: Serve) -> None:
    free = await serve(starlette_bot(url=tacho.url))
    strict = await serve(starlette_bot(url=tacho.url, on_error="closed"))
    await tacho.stop()
    assert (await free.get("/stream")).status_code == 200
    assert (await strict.get("/stream")).status_code == 503
    await tacho.start()


@pytest.mark.parametrize("slow", ["nothing", "dripping"])
async def test_waiting_has_an_end(tacho: StandIn, serve: Serve, slow: str) -> None:
    async def drip(reader: Any, writer: asyncio.StreamWriter) -> None:
        """Always within the time of one read, never within that of the whole."""
        try:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            while not writer.is_closing():
                writer.write(b" ")
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        finally:
            writer.close()

    tacho.answer = tacho.never
    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    url = tacho.url if slow == "nothing" else f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = await serve(fastapi_bot(url=url, timeout=0.15))
    start = time.monotonic()
    assert (await client.get("/stream")).status_code == 200
    assert 0.15 <= time.monotonic() - start < 0.4
    server.close()


async def test_a_slow_answer_in_time_counts(tacho: StandIn, serve: Serve) -> None:
    async def answer(_: Asked) -> Reply:
        await asyncio.sleep(0.1)
        return Reply(429)

    tacho.answer = answer
    client = await serve(fastapi_bot(url=tacho.url))
    assert (await client.get("/stream")).status_code == 429


async def test_a_dead_tacho_is_asked_once_a_pause_and_told_of_once(
    tacho: StandIn, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    client = await serve(fastapi_bot(url=tacho.url, timeout=0.1))
    tacho.answer = tacho.never
    for _ in range(2):
        for _ in range(20):
            assert (await client.get("/stream")).status_code == 200
        await asyncio.sleep(0.35)
    assert len(tacho.asked) == 2
    assert warnings(caplog) == ["tacho does not answer: TimeoutError"]

    tacho.says(allow())
    for _ in range(3):
        assert "ratelimit" in (await client.get("/stream")).headers
    assert warnings(caplog)[1:] == ["tacho answers again"]

    tacho.says(Reply(500))
    await client.get("/stream")
    assert warnings(caplog)[2:] == ["tacho does not answer: status 500"]


async def test_one_asks_whether_it_is_back_and_the_others_do_not_wait(tacho: StandIn, serve: Serve) -> None:
    client = await serve(fastapi_bot(url=tacho.url, timeout=0.1))
    tacho.answer = tacho.never
    await client.get("/stream")
    await asyncio.sleep(0.35)
    await asyncio.gather(*(client.get("/stream") for _ in range(20)))
    assert len(tacho.asked) == 2


async def test_one_odd_request_frees_no_other(
    tacho: StandIn, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(asked: Asked) -> Reply:
        return Reply(400, body=b"no such user") if asked.body.get("user") == "odd" else Reply(429)

    tacho.answer = answer
    client = await serve(fastapi_bot(url=tacho.url))
    for _ in range(2):
        assert (await client.get("/stream", headers={"x-user-id": "odd"})).status_code == 200
        assert (await client.get("/stream", headers={"x-user-id": "ada"})).status_code == 429
    assert warnings(caplog) == ["tacho answered with status 400: no such user"]


@pytest.mark.parametrize("header", ["accept", "traceparent", "x-user-id"])
async def test_no_header_of_a_client_makes_asking_fail(tacho: StandIn, header: str) -> None:
    """Some servers let through what is no valid header."""
    tacho.says(Reply(429))
    app = TachoMiddleware(starlette_bot(url=tacho.url), url=tacho.url)
    for value in (b"\xff\xfe", b"a\x00b", b"a\r\nx: y", b"\xed\xa0\x80", b"x" * 70_000):
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/stream", "headers": [(header.encode(), value)]}
        await app(scope, tacho.never, send)  # type: ignore[arg-type]
        assert sent[0]["status"] == 429
    await app.aclose()


async def test_tacho_starts_anew_between_two_requests(tacho: StandIn, serve: Serve) -> None:
    client = await serve(fastapi_bot(url=tacho.url, on_error="closed"))
    for _ in range(3):
        assert (await client.get("/stream")).status_code == 200
        await tacho.stop()
        await tacho.start()


async def test_a_connection_given_up_makes_room_for_another(
    tacho: StandIn, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(way, "CONNECTIONS", 2)
    monkeypatch.setattr(way, "PAUSE", 0)
    client = await serve(fastapi_bot(url=tacho.url, timeout=0.05))
    tacho.answer = tacho.never
    for _ in range(5):
        await asyncio.gather(*(client.get("/stream") for _ in range(4)))
    tacho.says(allow())
    assert "ratelimit" in (await client.get("/stream")).headers


async def test_an_answer_cut_off_is_none(tacho: StandIn, serve: Serve) -> None:
    async def answer(_: Asked) -> Reply:
        asyncio.get_running_loop().call_later(0.05, tacho.hang_up)
        return CUT

    tacho.answer = answer
    client = await serve(fastapi_bot(url=tacho.url, on_error="closed"))
    assert (await client.get("/stream")).status_code == 503


async def test_a_handler_always_has_a_hold(tacho: StandIn, serve: Serve) -> None:
    async def handler(request: Request) -> Response:
        hold = request.scope["tacho"]
        return JSONResponse([hold.reservation, await hold.settle(input_tokens=1), await hold.release()])

    tacho.says(Reply(500))
    app = starlette_bot(url=tacho.url)
    app.add_route("/hold", handler)
    client = await serve(app)
    assert (await client.get("/hold")).json() == [None, False, False]


def test_a_wrong_option_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="on_error"):
        TachoMiddleware(None, on_error="ajar")  # type: ignore[arg-type]
