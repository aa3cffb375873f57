"""What is asked, and what becomes of each answer, in both frameworks."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bots import fastapi_bot, starlette_bot
from conftest import Serve
from stand_in import LIMITS, Asked, Reply, StandIn, allow
from tacho_limits import Estimate, from_header

Bot = Callable[..., Any]
both = pytest.mark.parametrize("bot", [fastapi_bot, starlette_bot])

PROBLEM = b'{"type":"about:blank",  "title":"Too Many Requests","status":429,"limit":"user-requests"}\n'
REFUSAL = {
    "Retry-After": "7",
    "RateLimit": '"user-requests";r=0;t=7',
    "RateLimit-Policy": '"user-requests";q=60;w=60',
    "X-RateLimit-Remaining": "0",
    "Content-Type": "application/problem+json",
    "Date": "Thu, 01 Jan 1970 00:00:00 GMT",
    "X-Internal": "not for clients",
}


@both
async def test_the_question_names_what_is_known(tacho: StandIn, serve: Serve, bot: Bot) -> None:
    client = await serve(bot(url=tacho.url))
    answer = await client.post("/agents/support/invoke", content=b"x" * 100_000, headers={"x-user-id": "ada"})
    assert answer.json() == {"agent": "support", "read": 100_000}
    [asked] = tacho.asked
    assert asked.path == "/v1/check"
    assert asked.body == {"user": "ada", "endpoint": "/agents/{agent_id}/invoke", "agent": "support"}
    assert asked.headers["content-type"] == "application/json"


async def test_a_token_is_shown_with_each_question(tacho: StandIn, serve: Serve) -> None:
    client = await serve(fastapi_bot(url=tacho.url, token="tacho_check_1"))
    await client.post("/agents/support/invoke", content=b"x")
    assert {asked.headers.get("authorization") for asked in tacho.asked} == {"Bearer tacho_check_1"}


@both
async def test_everything_can_be_told(tacho: StandIn, serve: Serve, bot: Bot) -> None:
    def estimate(scope: Any) -> Estimate:
        return {"input_tokens": 12, "max_output_tokens": 0}

    client = await serve(
        bot(
            url=tacho.url + "/",
            user=from_header("X-Account"),
            tenant=lambda scope: scope["headers"] and "acme",
            agent=lambda _: "planner",
            model=lambda _: "gpt-4o",
            endpoint=lambda scope: scope["path"],
            estimate=estimate,
        )
    )
    await client.get("/stream", headers={"x-account": "grace", "x-user-id": "ada"})
    assert tacho.asked[0].body == {
        "tenant": "acme",
        "user": "grace",
        "endpoint": "/stream",
        "agent": "planner",
        "model": "gpt-4o",
        "input_tokens": 12,
        "max_output_tokens": 0,
    }


@both
async def test_an_unknown_user_is_left_out(tacho: StandIn, serve: Serve, bot: Bot) -> None:
    client = await serve(bot(url=tacho.url))
    await client.get("/stream", headers={"x-user-id": ""})
    await client.get("/nowhere")
    assert [asked.body for asked in tacho.asked] == [{"endpoint": "/stream"}, {}]


@both
async def test_limits_are_told_with_the_answer(tacho: StandIn, serve: Serve, bot: Bot) -> None:
    tacho.says(allow(headers={"Retry-After": "9", "X-Internal": "1"}))
    client = await serve(bot(url=tacho.url))
    answer = await client.get("/stream")
    assert answer.text == "one two three"
    assert answer.headers["ratelimit"] == '"user-requests";r=59;t=3'
    assert answer.headers["ratelimit-policy"] == '"user-requests";q=60;w=60'
    assert answer.headers["x-ratelimit-limit"] == "60"
    assert not {"retry-after", "x-internal"} & set(answer.headers)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


async def test_the_headers_of_the_app_stay(tacho: StandIn, serve: Serve) -> None:
    app = starlette_bot(url=tacho.url)

    async def own(_: Request) -> Response:
        return Response("x", headers={"X-RateLimit-Limit": "mine"})

    app.add_route("/own", own)
    client = await serve(app)
    answer = await client.get("/own")
    assert answer.headers.get_list("x-ratelimit-limit") == ["mine"]
    assert answer.headers.get_list("x-ratelimit-remaining") == ["59"]


async def test_a_header_given_twice_is_told_twice(tacho: StandIn, serve: Serve) -> None:
    body = allow().body
    head = f"HTTP/1.1 200 OK\r\nratelimit: a\r\nRateLimit: b\r\ncontent-length: {len(body)}\r\n\r\n"
    tacho.says(Reply(raw=head.encode() + body))
    client = await serve(starlette_bot(url=tacho.url))
    assert (await client.get("/stream")).headers.get_list("ratelimit") == ["a", "b"]


@both
async def test_a_refusal_is_passed_on_as_it_is(tacho: StandIn, serve: Serve, bot: Bot) -> None:
    tacho.says(Reply(429, REFUSAL, PROBLEM))
    client = await serve(bot(url=tacho.url))
    for _ in range(2):
        answer = await client.post("/agents/support/invoke", content=b"x" * 1000)
        assert (answer.status_code, answer.content) == (429, PROBLEM)
        for name in ("Retry-After", "RateLimit", "RateLimit-Policy", "X-RateLimit-Remaining", "Content-Type"):
            assert answer.headers.get_list(name) == [REFUSAL[name]]
        assert "x-internal" not in answer.headers
        assert "1970" not in answer.headers["date"]
    assert len(tacho.asked) == 2, "a refusal is no failure"


async def test_the_client_chooses_the_shape_of_a_refusal(tacho: StandIn, serve: Serve) -> None:
    async def answer(asked: Asked) -> Reply:
        return Reply(429, {}, asked.headers["accept"].encode())

    tacho.answer = answer
    client = await serve(fastapi_bot(url=tacho.url))
    for accept in ("application/json, */*;q=0.1", "application/problem+json"):
        assert (await client.get("/stream", headers={"accept": accept})).text == accept
    assert (await client.get("/stream", headers={"accept": "a" * 5000})).text == "*/*"


@both
async def test_what_is_not_recorded_is_not_asked(tacho: StandIn, serve: Serve, bot: Bot) -> None:
    client = await serve(bot(url=tacho.url))
    answer = await client.get("/health")
    assert answer.json() == {"status": "ok"}
    assert "ratelimit" not in answer.headers
    assert tacho.asked == []


@pytest.mark.parametrize(
    ("pattern", "asked"),
    [
        ("/stream", 0),
        ("GET /str*", 0),
        ("* /st*am", 0),
        ("*t*r*m", 0),
        ("POST /stream", 1),
        ("/stre", 1),
        ("GET *.eam", 1),
        ("*r*t*m", 1),
    ],
)
async def test_patterns_say_what_is_not_asked(tacho: StandIn, serve: Serve, pattern: str, asked: int) -> None:
    client = await serve(fastapi_bot(url=tacho.url, exclude=[pattern]))
    await client.get("/stream")
    assert len(tacho.asked) == asked


async def test_no_path_makes_a_pattern_slow(tacho: StandIn, serve: Serve) -> None:
    client = await serve(fastapi_bot(url=tacho.url, exclude=["* /a*/a*/a*/b"]))
    start = time.monotonic()
    await client.get("/%20/a" * 2000)
    assert time.monotonic() - start < 1
    assert len(tacho.asked) == 1


async def test_a_function_says_what_is_asked(tacho: StandIn, serve: Serve) -> None:
    client = await serve(fastapi_bot(url=tacho.url, include=lambda scope: scope["method"] == "POST"))
    await client.get("/stream")
    await client.post("/agents/a/invoke")
    assert [asked.body["endpoint"] for asked in tacho.asked] == ["/agents/{agent_id}/invoke"]


async def test_a_handler_sees_its_hold(tacho: StandIn, serve: Serve) -> None:
    app = starlette_bot(url=tacho.url)

    async def handler(request: Request) -> Response:
        hold = request.scope["tacho"]
        told = [await hold.settle(input_tokens=3, output_tokens=0, cost_usd="0.0042"), await hold.release()]
        return JSONResponse([hold.reservation, hold.limits, hold.degraded, told])

    app.add_route("/hold", handler)
    tacho.says(allow("r-7", degraded=True))
    client = await serve(app)
    assert (await client.get("/hold")).json() == ["r-7", LIMITS, True, [True, True]]
    settled, released = tacho.asked[1:]
    used = {"input_tokens": 3, "output_tokens": 0, "cost_usd": "0.0042"}
    assert (settled.path, settled.body) == ("/v1/settle", {"reservation": "r-7", **used})
    assert (released.path, released.body) == ("/v1/release", {"reservation": "r-7"})


async def test_a_hold_that_tacho_does_not_know_is_told_so(tacho: StandIn, serve: Serve) -> None:
    async def answer(asked: Asked) -> Reply:
        return allow() if asked.path == "/v1/check" else Reply(404)

    async def handler(request: Request) -> Response:
        return JSONResponse(await request.scope["tacho"].release())

    tacho.answer = answer
    app = starlette_bot(url=tacho.url)
    app.add_route("/hold", handler)
    client = await serve(app)
    assert (await client.get("/hold")).json() is False
