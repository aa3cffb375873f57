"""The endpoint is the route template, in whatever way the route got there."""

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor, _get_route_details
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router

from tacho_limits.routing import Route as Found
from tacho_limits.routing import resolve


async def page(_: Any) -> Response:
    return PlainTextResponse("x")


async def bare(scope: Any, receive: Any, send: Any) -> None: ...


def starlette() -> Starlette:
    inner = Starlette(routes=[Route("/agents/{agentId}", page), Route("/x/{number:int}", page)])
    return Starlette(
        routes=[
            Route("/agents/{agent_id}/invoke", page, methods=["POST"]),
            Route("/agents/{id}/{verb}", page, methods=["GET"]),
            Mount("/tenants/{tenant}", inner),
            Mount("/files", bare),
            Host("api.example", Router(routes=[Route("/on-host", page)])),
        ]
    )


def fastapi() -> FastAPI:
    app, outer, inner = FastAPI(), APIRouter(prefix="/v1"), APIRouter(prefix="/bots")

    @app.get("/items/{number}")
    def item(number: int) -> None: ...

    @inner.post("/{agent_name}/ask")
    def ask(agent_name: str) -> None: ...

    outer.include_router(inner)
    outer.add_route("/plain/{rest:path}", page)
    app.include_router(outer, prefix="/api")
    mounted = FastAPI()
    mounted.add_api_route("/deep/{agent}", item_of)
    app.mount("/sub", mounted)
    return app


def item_of(agent: str) -> None: ...


def scope_of(app: Any, line: str) -> dict[str, Any]:
    method, path, *host = line.split()
    headers = [(b"host", (host or ["x.example"])[0].encode())]
    return {"type": "http", "method": method, "path": path, "root_path": "", "headers": headers, "app": app}


@pytest.mark.parametrize(
    ("line", "template", "agent"),
    [
        ("POST /agents/a-1/invoke", "/agents/{agent_id}/invoke", "a-1"),
        ("GET /agents/a-1/invoke", "/agents/{id}/{verb}", None),
        ("PUT /agents/a-1/invoke", "/agents/{agent_id}/invoke", "a-1"),
        ("GET /tenants/t/agents/b", "/tenants/{tenant}/agents/{agentId}", "b"),
        ("GET /tenants/t/x/7", "/tenants/{tenant}/x/{number}", None),
        ("GET /tenants/t/nowhere", "/tenants/{tenant}", None),
        ("GET /files/a/b.txt", "/files", None),
        ("GET /on-host api.example", "/on-host", None),
        ("GET /nowhere", None, None),
    ],
)
def test_starlette(line: str, template: str | None, agent: str | None) -> None:
    app = starlette()
    for scope in (scope_of(app, line), {**scope_of(app, line), "app": app}):
        before = dict(scope)
        found = resolve(scope, bare)
        assert (found.template, found.agent) == (template, agent)
        assert scope == before
    without = scope_of(app, line)
    del without["app"]
    assert resolve(without, app).template == template


@pytest.mark.parametrize(
    ("line", "template", "agent"),
    [
        ("GET /items/7", "/items/{number}", None),
        ("POST /api/v1/bots/b-1/ask", "/api/v1/bots/{agent_name}/ask", "b-1"),
        ("GET /api/plain/a/b", "/api/plain/{rest}", None),
        ("GET /sub/deep/c", "/sub/deep/{agent}", "c"),
        ("GET /docs", "/docs", None),
        ("GET /api/v1/nowhere", None, None),
    ],
)
def test_fastapi(line: str, template: str | None, agent: str | None) -> None:
    scope = scope_of(fastapi(), line)
    found = resolve(scope, bare)
    assert (found.template, found.agent) == (template, agent)


@pytest.mark.parametrize("line", ["GET /items/7", "POST /api/v1/bots/b-1/ask", "GET /docs", "GET /nowhere"])
def test_the_instrumentation_names_them_the_same(line: str) -> None:
    assert FastAPIInstrumentor is not None
    scope = scope_of(fastapi(), line)
    assert resolve(scope, bare).template == _get_route_details(scope)


def test_no_routes_no_template() -> None:
    for app in (bare, None, object()):
        scope = scope_of(app, "GET /x")
        assert resolve(scope, bare) == Found()
