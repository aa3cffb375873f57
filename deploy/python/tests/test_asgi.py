"""What passes untouched: bodies in both directions, lifespan, websockets; and what is kept between requests."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from bots import fastapi_bot, starlette_bot
from conftest import Serve, served
from stand_in import Asked, Reply, StandIn, allow
from tacho_limits import Hold, TachoMiddleware

REQUEST = {"type": "http", "method": "GET", "path": "/", "headers": []}


async def test_a_stream_is_not_held_back(tacho: StandIn, serve: Serve) -> None:
    """In either direction: each part comes back before the next one is sent."""

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        more = True
        while more:
            part = await receive()
            more = part["more_body"]
            await send({"type": "http.response.body", "body": part["body"], "more_body": more})

    middleware = TachoMiddleware(echo, url=tacho.url)
    client = await serve(middleware)
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    for part in (b"3\r\none\r\n", b"3\r\ntwo\r\n"):
        writer.write(part)
        async with asyncio.timeout(5):
            assert (await reader.readuntil(part)).endswith(part)
    assert len(tacho.asked) == 1
    writer.write(b"0\r\n\r\n")
    assert await reader.readuntil(b"0\r\n\r\n")
    writer.close()
    await middleware.aclose()


async def test_requests_at_the_same_time_keep_their_own_answers(tacho: StandIn, serve: Serve) -> None:
    async def answer(asked: Asked) -> Reply:
        user = asked.body["user"]
        await asyncio.sleep(0.01 * (int(user) % 3))
        if int(user) % 4 == 0:
            return Reply(429, {}, user.encode())
        return allow(f"r-{user}", headers={"X-RateLimit-Limit": user})

    async def handler(request: Request) -> Response:
        return PlainTextResponse(request.scope["tacho"].reservation)

    tacho.answer = answer
    app = starlette_bot(url=tacho.url, timeout=5)
    app.add_route("/hold", handler)
    client = await serve(app)

    async def ask(number: int) -> None:
        answer = await client.get("/hold", headers={"x-user-id": str(number)})
        if number % 4:
            assert (answer.text, answer.headers["x-ratelimit-limit"]) == (f"r-{number}", str(number))
        else:
            assert (answer.status_code, answer.text) == (429, str(number))

    await asyncio.gather(*(ask(number) for number in range(200)))
    assert len(tacho.asked) == 200


async def test_connections_are_kept(tacho: StandIn, serve: Serve) -> None:
    client = await serve(fastapi_bot(url=tacho.url))
    for _ in range(10):
        await client.get("/stream")
    assert tacho.connections == 1


async def test_two_apps_ask_each_their_own_tacho(tacho: StandIn, serve: Serve) -> None:
    async with StandIn() as other:
        other.says(Reply(429))
        one = await serve(fastapi_bot(url=tacho.url))
        two = await serve(starlette_bot(url=other.url))
        answers = await asyncio.gather(*(client.get("/stream") for client in (one, two) * 5))
        assert [answer.status_code for answer in answers] == [200, 429] * 5
        await other.stop()
        await two.get("/stream")
        assert "ratelimit" in (await one.get("/stream")).headers, "the breaker of one is not that of the other"
        await other.start()


async def test_an_app_in_an_app_asks_once(tacho: StandIn, serve: Serve) -> None:
    app = Starlette(routes=[Mount("/sub", starlette_bot(url=tacho.url))])
    app.add_middleware(TachoMiddleware, url=tacho.url)
    client = await serve(app)
    assert (await client.get("/sub/stream")).headers.get_list("x-ratelimit-limit") == ["60"]
    assert [asked.body["endpoint"] for asked in tacho.asked] == ["/sub/stream"]


async def test_state_of_the_lifespan_and_of_other_middleware_stays(tacho: StandIn, serve: Serve) -> None:
    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[dict[str, str]]:
        yield {"of": "lifespan"}

    async def handler(request: Request) -> Response:
        assert isinstance(request.scope["tacho"], Hold)
        return PlainTextResponse(request.state.of)

    app = Starlette(routes=[Route("/", handler)], lifespan=lifespan)
    app.add_middleware(TachoMiddleware, url=tacho.url)
    client = await serve(app)
    for _ in range(2):
        assert (await client.get("/")).text == "lifespan"
    assert len(tacho.asked) == 2


async def test_a_state_that_a_server_shares_between_requests_is_no_check(tacho: StandIn) -> None:
    middleware, state = TachoMiddleware(answer_ok, url=tacho.url), dict[str, Any]()

    async def send(_: Any) -> None: ...

    for _ in range(2):
        await middleware({**REQUEST, "state": state}, nothing_comes, send)
    assert len(tacho.asked) == 2
    await middleware.aclose()


async def test_connections_end_with_the_app(tacho: StandIn) -> None:
    """As the last thing: the app itself may still settle something on its way out."""
    settled = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        settled.append(await app.state.hold.settle(input_tokens=1))

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(TachoMiddleware, url=tacho.url)

    async def handler(request: Request) -> Response:
        app.state.hold = request.scope["tacho"]
        return PlainTextResponse("x")

    app.add_route("/hold", handler)
    for rounds in (1, 2):
        async with served(app) as client:
            await client.get("/hold")
            assert len(tacho.writers) == 1
        assert settled == [True] * rounds
        await asyncio.sleep(0.05)
        assert not tacho.writers


def test_each_loop_has_its_own_connections() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    middleware = TachoMiddleware(answer_ok, url=f"http://127.0.0.1:{port}", on_error="closed")

    async def once() -> list[int]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        tacho = StandIn()
        tacho.port = port
        async with tacho:
            await middleware(dict(REQUEST), nothing_comes, send)
            await middleware.aclose()
        return [message["status"] for message in sent if "status" in message]

    for _ in range(3):
        assert asyncio.run(once()) == [200]


async def answer_ok(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})


async def nothing_comes() -> Any:
    raise AssertionError("nobody reads the body")


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "something.new"])
async def test_other_scopes_pass(tacho: StandIn, kind: str) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await receive())
        await send({"type": "x"})

    async def receive() -> Any:
        return {"type": "y"}

    async def send(message: Any) -> None:
        seen.append(message)

    await TachoMiddleware(app, url=tacho.url)({"type": kind}, receive, send)
    assert seen == [{"type": "y"}, {"type": "x"}]
    assert tacho.asked == []


async def test_an_error_of_the_app_is_the_apps(tacho: StandIn) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("of the app")

    async def send(_: Any) -> None:
        raise AssertionError("there is nothing to send")

    middleware = TachoMiddleware(app, url=tacho.url)
    with pytest.raises(KeyError, match="of the app"):
        await middleware(dict(REQUEST), nothing_comes, send)
    assert [asked.path for asked in tacho.asked] == ["/v1/check"], "its spans will settle it"
    await middleware.aclose()


async def test_a_client_that_goes_away_is_no_failure_of_tacho(tacho: StandIn, serve: Serve) -> None:
    async def answer(_: Asked) -> Reply:
        await asyncio.sleep(0.1)
        return allow()

    tacho.answer = answer
    client = await serve(fastapi_bot(url=tacho.url))
    with pytest.raises(httpx.ReadTimeout):
        await client.get("/stream", timeout=0.03)
    assert "ratelimit" in (await client.get("/stream")).headers
