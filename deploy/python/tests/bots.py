"""Small bots in two frameworks: the same routes, the same answers."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse as StarletteJSON
from starlette.responses import Response, StreamingResponse as StarletteStream
from starlette.routing import Route

from tacho_limits import TachoMiddleware


async def words() -> AsyncIterator[bytes]:
    for word in (b"one ", b"two ", b"three"):
        yield word


def fastapi_bot(**options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(TachoMiddleware, **options)

    @app.post("/agents/{agent_id}/invoke")
    async def invoke(agent_id: str, request: Request) -> JSONResponse:
        body = await request.body()
        return JSONResponse({"agent": agent_id, "read": len(body)})

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(words(), media_type="text/plain")

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def starlette_bot(**options: Any) -> Starlette:
    async def invoke(request: StarletteRequest) -> Response:
        body = await request.body()
        return StarletteJSON({"agent": request.path_params["agent_id"], "read": len(body)})

    async def stream(_: StarletteRequest) -> Response:
        return StarletteStream(words(), media_type="text/plain")

    async def health(_: StarletteRequest) -> Response:
        return StarletteJSON({"status": "ok"})

    app = Starlette(
        routes=[
            Route("/agents/{agent_id}/invoke", invoke, methods=["POST"]),
            Route("/stream", stream),
            Route("/health", health),
        ]
    )
    app.add_middleware(TachoMiddleware, **options)
    return app
