"""The few ASGI shapes that we need, so that no framework has to be installed for them."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

Headers = tuple[tuple[bytes, bytes], ...]
"""In order and with repeats; names in lower case."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first value of a request header; `name` in lower case."""
    return next((value for found, value in scope["headers"] if found == name), None)


async def respond(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
    """A whole answer. The request body stays unread: the server knows what to do with it."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def with_headers(send: Send, headers: Headers) -> Send:
    """Adds to the answer those headers that the app does not set itself. Bodies pass untouched."""
    if not headers:
        return send

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = list(message.get("headers", ()))
            taken = {name.lower() for name, _ in own}
            message = {**message, "headers": own + [pair for pair in headers if pair[0] not in taken]}
        await send(message)

    return send_with_headers
