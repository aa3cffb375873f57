"""The trace that Tacho is told of is the one that the bot's server span is in, with the real instrumentation."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, format_trace_id

from bots import fastapi_bot, starlette_bot
from conftest import Serve
from stand_in import Reply, StandIn
from tacho_limits import TachoMiddleware

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Spans:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def server(self) -> ReadableSpan:
        [span] = [span for span in self.exporter.get_finished_spans() if span.kind == SpanKind.SERVER]
        return span


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    yield spans
    spans.provider.shutdown()


def instrument_last(app: FastAPI, provider: TracerProvider, **options: Any) -> None:
    app.add_middleware(TachoMiddleware, **options)
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)


def instrument_first(app: FastAPI, provider: TracerProvider, **options: Any) -> None:
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    app.add_middleware(TachoMiddleware, **options)


orders = pytest.mark.parametrize("add", [instrument_last, instrument_first])


def assert_same(tacho: StandIn, span: ReadableSpan) -> None:
    """Trace, span and route as asked are those of the span as exported."""
    [asked] = tacho.asked
    assert span.context is not None
    trace_id = format_trace_id(span.context.trace_id)
    assert asked.body["trace_id"] == trace_id
    assert asked.headers["traceparent"] == f"00-{trace_id}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"
    assert span.attributes is not None
    assert asked.body.get("endpoint") == span.attributes.get("http.route")


def bot() -> FastAPI:
    app, inner = FastAPI(), FastAPI()

    @app.post("/agents/{agent_id}/invoke")
    @inner.post("/agents/{agent_id}/invoke")
    async def invoke(agent_id: str) -> str:
        return agent_id

    app.mount("/sub", inner)
    return app


@orders
@pytest.mark.parametrize("path", ["/agents/support/invoke", "/sub/agents/support/invoke", "/nowhere"])
@pytest.mark.parametrize("headers", [{}, {"traceparent": PARENT}])
async def test_fastapi(
    tacho: StandIn, serve: Serve, spans: Spans, add: Callable[..., None], path: str, headers: dict[str, str]
) -> None:
    app = bot()
    add(app, spans.provider, url=tacho.url)
    client = await serve(app)
    await client.post(path, headers=headers)
    assert_same(tacho, spans.server())
    assert (tacho.asked[0].body["trace_id"] == TRACE) == bool(headers)
    assert tacho.asked[0].body.get("agent") == (None if path == "/nowhere" else "support")


@orders
async def test_a_refusal_is_in_the_trace_too(
    tacho: StandIn, serve: Serve, spans: Spans, add: Callable[..., None]
) -> None:
    tacho.says(Reply(429))
    app = bot()
    add(app, spans.provider, url=tacho.url)
    client = await serve(app)
    assert (await client.post("/agents/support/invoke")).status_code == 429
    span = spans.server()
    assert_same(tacho, span)
    assert span.attributes is not None and span.attributes["http.status_code"] == 429


async def test_any_asgi_app(tacho: StandIn, serve: Serve, spans: Spans) -> None:
    """What is added last is outermost."""
    app = starlette_bot(url=tacho.url)
    app.add_middleware(OpenTelemetryMiddleware, tracer_provider=spans.provider)
    client = await serve(app)
    await client.get("/stream")
    span = spans.server()
    assert span.context is not None
    assert tacho.asked[0].body == {"endpoint": "/stream", "trace_id": format_trace_id(span.context.trace_id)}


async def test_a_span_that_is_not_sampled_has_a_trace(tacho: StandIn, serve: Serve) -> None:
    app = bot()
    instrument_last(app, TracerProvider(sampler=ALWAYS_OFF), url=tacho.url)
    client = await serve(app)
    await client.post("/agents/support/invoke", headers={"traceparent": PARENT})
    [asked] = tacho.asked
    assert asked.body == {"endpoint": "/agents/{agent_id}/invoke", "agent": "support", "trace_id": TRACE}
    assert asked.headers["traceparent"].endswith("-00")


@pytest.mark.parametrize(
    ("traceparent", "known"),
    [
        (PARENT, True),
        (PARENT + "-later", True),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (PARENT.upper(), False),
        ("ff" + PARENT[2:], False),
        (PARENT[:-1], False),
        ("x", False),
    ],
)
async def test_without_a_span_the_caller_names_the_trace(
    tacho: StandIn, serve: Serve, traceparent: str, known: bool
) -> None:
    client = await serve(fastapi_bot(url=tacho.url))
    await client.get("/stream", headers={"traceparent": traceparent})
    [asked] = tacho.asked
    assert asked.body.get("trace_id") == (TRACE if known else None)
    assert asked.headers.get("traceparent") == (traceparent if known else None)


def test_opentelemetry_and_frameworks_need_not_be_there() -> None:
    code = """
import sys
for name in ("opentelemetry", "opentelemetry.trace", "starlette", "fastapi"):
    sys.modules[name] = None
from tacho_limits import TachoMiddleware
from tacho_limits.tracing import current
assert current({"headers": []}) is None
assert current({"headers": [(b"traceparent", b"%s")]}).trace_id == "%s"
""" % (PARENT, TRACE)
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "src"})
