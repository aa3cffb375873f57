"""A small bot, instrumented the ordinary way. Nothing in here knows of Tacho, unless TACHO_URL says where to ask it for
limits; `tacho_limits` must be importable then (PYTHONPATH=../python/src).

Where the spans go is said by the standard variables: OTEL_SERVICE_NAME, OTEL_EXPORTER_OTLP_ENDPOINT,
OTEL_EXPORTER_OTLP_PROTOCOL (`grpc` or `http/protobuf`), OTEL_EXPORTER_OTLP_COMPRESSION, OTEL_BSP_SCHEDULE_DELAY.
The model server is OPENAI_BASE_URL with OPENAI_API_KEY.
"""

import argparse
import os
import signal
import socket
import sys
import uuid
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Header
from fastapi.responses import PlainTextResponse, StreamingResponse
from openai import AsyncOpenAI
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from pydantic import BaseModel

if os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc") == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
OpenAIInstrumentor().instrument()


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with AsyncOpenAI() as app.state.llm:
        if address := getattr(app.state, "address", None):
            print(f"listening on {address}", flush=True)
        yield


app = FastAPI(lifespan=lifespan)
if tacho := os.environ.get("TACHO_URL"):
    from tacho_limits import TachoMiddleware

    app.add_middleware(TachoMiddleware, url=tacho, token=os.environ.get("TACHO_TOKEN"))  # the user is by default the header x-user-id
FastAPIInstrumentor.instrument_app(app)  # its span is around every middleware, so a check knows its trace


class Invocation(BaseModel):
    message: str
    calls: int = 1
    stream: bool = False
    model: str = "gpt-4o-mini"


async def talk(invocation: Invocation, headers: dict[str, str]):
    """Asks the model `calls` times, each time with all that was said before; yields the text as it comes."""
    messages = [{"role": "user", "content": invocation.message}]
    for _ in range(invocation.calls):
        question = {"model": invocation.model, "messages": messages, "extra_headers": headers}
        answer = ""
        if invocation.stream:
            # Without `include_usage` a streamed answer does not say what it used, and the call cannot be metered.
            chunks = await app.state.llm.chat.completions.create(
                **question, stream=True, stream_options={"include_usage": True}
            )
            async for chunk in chunks:
                for choice in chunk.choices:  # the last chunk has the usage and no choice
                    answer += choice.delta.content or ""
                    yield choice.delta.content or ""
        else:
            completion = await app.state.llm.chat.completions.create(**question)
            answer = completion.choices[0].message.content
            yield answer
        messages = [*messages, {"role": "assistant", "content": answer}, {"role": "user", "content": "Go on."}]


@app.post("/agents/{agent_id}/invoke")
async def invoke(
    agent_id: str,
    invocation: Invocation,
    x_user_id: Annotated[str | None, Header()] = None,
    x_request_id: Annotated[str | None, Header()] = None,
):
    if x_user_id:
        # The one line that instrumentation cannot know: who asks.
        trace.get_current_span().set_attribute("user.id", x_user_id)
    # These tell the stand-in for whom it answers, so that its log can be compared with the records.
    headers = {"x-request-id": x_request_id or uuid.uuid4().hex, "x-user-id": x_user_id or "", "x-agent-id": agent_id}
    if invocation.stream:
        return StreamingResponse(talk(invocation, headers), media_type="text/plain")
    return PlainTextResponse("\n".join([text async for text in talk(invocation, headers)]))


@app.get("/health")
async def health():
    return {"status": "ok"}


def main():
    options = argparse.ArgumentParser(description="An example bot")
    options.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container")
    options.add_argument("--port", type=int, default=0, help="0 picks a free one")
    given = options.parse_args()

    listener = socket.create_server((given.host, given.port), backlog=2048)
    app.state.address = f"{given.host}:{listener.getsockname()[1]}"
    # uvicorn ends cleanly on TERM and then raises the signal again, which would end us before the flush below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
    finally:
        provider.shutdown()  # sends what is still waiting


if __name__ == "__main__":
    main()
