"""The middleware: asks, then lets the request through, or answers in the place of the app.

It never reads, changes or holds back a body, of the request or of the response.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any, Literal, TypedDict

from tacho_limits import tracing
from tacho_limits.asgi import App, Headers, Message, Receive, Scope, Send, header, respond, with_headers
from tacho_limits.client import Answer, Client
from tacho_limits.hold import Hold
from tacho_limits.routing import Route, resolve

Reader = Callable[[Scope], str | None]
"""Finds something in a request; `None` or an empty text where it is not there."""


class Estimate(TypedDict, total=False):
    """What a request may use, where that can be told before it runs."""

    input_tokens: int
    max_output_tokens: int


UNRECORDED = ("GET /health*", "GET /metrics")
"""What Tacho does not record by default (`assemble.ignore`): no span would ever settle a hold for it."""


@dataclass(frozen=True, slots=True)
class Allow:
    """The app answers; these headers go with it."""

    hold: Hold
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Refuse:
    """The app is not asked; this is the answer."""

    status: int
    headers: Headers
    body: bytes


UNCHECKED = Refuse(
    503,
    ((b"content-type", b"application/problem+json"), (b"retry-after", b"1")),
    json.dumps(
        {
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "the limits of this request cannot be checked at the moment",
        }
    ).encode(),
)

# Printable and not endless, as a client chooses it: no request may be one that cannot be asked about.
_ACCEPT = re.compile(rb"[\t -~]{1,1000}")


def from_header(name: str) -> Reader:
    """Reads a request header."""
    wanted = name.lower().encode()

    def read(scope: Scope) -> str | None:
        value = header(scope, wanted)
        return value.decode("latin-1") if value else None

    return read


def nothing(_: Scope) -> None:
    """For what nobody knows."""


class TachoMiddleware:
    """Asks Tacho before each HTTP request. `user`, `tenant`, `agent`, `model`, `endpoint` and `estimate` read from the
    ASGI scope what names the request; what they do not find is left out. `endpoint` is by default the route template,
    `agent` the path parameter that names one.

    `token` is one of the role `check`, which a Tacho on another host wants; `ssl_context` is for one whose certificate is
    of a private authority.

    `on_error` says what becomes of a request that nobody could check, `timeout` (seconds) how long to try. Requests are
    checked unless `include` says no or a pattern of `exclude` matches: a method, a blank, a route, with `*` for any
    characters, as in Tacho's `assemble.ignore`; without a method it is for all of them.
    """

    def __init__(
        self,
        app: App,
        *,
        url: str = "http://127.0.0.1:9464",
        token: str | None = None,
        ssl_context: SSLContext | None = None,
        on_error: Literal["open", "closed"] = "open",
        timeout: float = 0.25,
        user: Reader = from_header("x-user-id"),
        tenant: Reader = nothing,
        agent: Reader | None = None,
        model: Reader = nothing,
        endpoint: Reader | None = None,
        estimate: Callable[[Scope], Estimate | None] = nothing,
        include: Callable[[Scope], bool] | None = None,
        exclude: Sequence[str] = UNRECORDED,
    ) -> None:
        if on_error not in ("open", "closed"):
            raise ValueError(f'on_error is "open" or "closed", not {on_error!r}')
        self.app = app
        self._client = Client(url, timeout, token, ssl_context)
        self._closed = on_error == "closed"
        self._readers = {"tenant": tenant, "user": user, "model": model}
        self._endpoint = endpoint
        self._agent = agent
        self._estimate = estimate
        self._include = include
        self._exclude = [_pattern(text) for text in exclude]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._closing(send))
            return
        # Where this middleware is also around an app that is mounted in another, the outer one has asked.
        if scope["type"] != "http" or "tacho" in scope:
            await self.app(scope, receive, send)
            return
        route = resolve(scope, self.app)
        if not self._included(scope, route):
            await self.app(scope, receive, send)
            return

        decision = await self._decide(scope, route)
        if isinstance(decision, Refuse):
            await respond(send, decision.status, decision.headers, decision.body)
            return
        # Not into `state`, which some servers share between the requests of a connection.
        scope["tacho"] = decision.hold
        await self.app(scope, receive, with_headers(send, decision.headers))

    async def _decide(self, scope: Scope, route: Route) -> Allow | Refuse:
        answer = await self._ask(scope, route)
        if answer is not None:
            if answer.status == 429:
                return Refuse(429, _kept(answer.headers, b"content-type", b"retry-after"), answer.body)
            hold = self._hold(answer)
            if hold is not None:
                return Allow(hold, _kept(answer.headers))
        return UNCHECKED if self._closed else Allow(Hold(self._client))

    async def aclose(self) -> None:
        """Closes the connections of the running loop. Only needed where the app gets no lifespan: its end does it."""
        await self._client.close()

    def _included(self, scope: Scope, route: Route) -> bool:
        if self._include is not None and not self._include(scope):
            return False
        name = f"{scope['method']} {route.template or scope['path']}"
        return not any(pattern.fullmatch(name) for pattern in self._exclude)

    async def _ask(self, scope: Scope, route: Route) -> Answer | None:
        trace = tracing.current(scope)
        # The server span's word is what the record will say. Only where it says nothing we need our own.
        template = trace.route if trace and trace.route else route.template
        question: dict[str, Any] = {name: read(scope) for name, read in self._readers.items()}
        question["endpoint"] = self._endpoint(scope) if self._endpoint else template
        question["agent"] = self._agent(scope) if self._agent else route.agent
        question["trace_id"] = trace and trace.trace_id
        estimate: Mapping[str, Any] = self._estimate(scope) or {}
        question |= {name: estimate.get(name) for name in ("input_tokens", "max_output_tokens")}

        headers = {} if trace is None else {"traceparent": trace.traceparent}
        # Tacho chooses by it the shape of a refusal.
        accept = header(scope, b"accept")
        if accept is not None and _ACCEPT.fullmatch(accept):
            headers["accept"] = accept.decode()
        known = {name: value for name, value in question.items() if value not in (None, "")}
        return await self._client.post("/v1/check", known, headers)

    def _hold(self, answer: Answer) -> Hold | None:
        """What an answer of 200 says; `None` for any other, and for one that makes no sense."""
        try:
            said = json.loads(answer.body) if answer.status == 200 else None
        except ValueError:
            said = None
        if not isinstance(said, dict) or said.get("decision") != "allow":
            self._client.surprise(answer)
            return None
        return Hold(self._client, said.get("reservation"), said.get("limits", ()), said.get("degraded", False))

    def _closing(self, send: Send) -> Send:
        """Closes the connections when the app has shut down, before the server is told, who may stop the loop then."""

        async def send_closing(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self.aclose()
            await send(message)

        return send_closing


def _kept(headers: Headers, *more: bytes) -> Headers:
    """The headers of Tacho's answer that are meant for the client."""
    names = (b"ratelimit", b"ratelimit-policy", *more)
    return tuple(pair for pair in headers if pair[0] in names or pair[0].startswith(b"x-ratelimit-"))


def _pattern(text: str) -> re.Pattern[str]:
    """Parts in the middle are taken where they come first, for good: going back takes long where clients want it to."""
    whole = f"* {text}" if text.startswith("/") else text
    first, *rest = map(re.escape, whole.split("*"))
    between = "".join(f"(?>.*?{part})" for part in rest[:-1])
    return re.compile(first + between + (f".*{rest[-1]}" if rest else ""), re.DOTALL)
