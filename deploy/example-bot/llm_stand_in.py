"""Stands in for a model server: the OpenAI wire format, invented answers, and a log of what it would have billed.

The log is the truth that records are compared with: one JSON line per answered call, written before the answer ends,
so whoever has an answer finds its line. Token counts follow from the request alone: the same request, the same counts.
"""

import argparse
import asyncio
import hashlib
import json
import socket
import time
import uuid
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

# Asked for by the short name, a provider answers with the dated one.
DATED = {
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4o": "gpt-4o-2024-08-06",
    "o4-mini": "o4-mini-2025-04-16",
}
WORDS = ["One", " tachograph", " disc", " a", " day."]


@asynccontextmanager
async def lifespan(app: FastAPI):
    if app.state.log_path:
        app.state.log = open(app.state.log_path, "a", buffering=1)
    print(f"listening on {app.state.address}", flush=True)
    yield


app = FastAPI(lifespan=lifespan)
app.state.log = None


def invent_usage(request: Request, body: dict) -> dict:
    """Counts in the range of real ones. Cached is part of input, reasoning is part of output, as with OpenAI."""
    seed = json.dumps([request.headers.get("x-request-id"), body.get("messages"), body.get("input")])
    dice = hashlib.sha256(seed.encode()).digest()
    given = 50 + int.from_bytes(dice[0:2]) % 4000
    made = 10 + int.from_bytes(dice[2:4]) % 1000
    return {"input": given, "output": made, "cached": given * dice[4] // 512, "reasoning": made * dice[5] // 512}


def log(request: Request, body: dict, model: str, usage: dict):
    if not app.state.log:
        return
    line = {
        "request_id": request.headers.get("x-request-id"),
        "user": request.headers.get("x-user-id") or body.get("user"),
        "agent_id": request.headers.get("x-agent-id"),
        "model": model,
        "stream": bool(body.get("stream")),
    }
    app.state.log.write(json.dumps(line | usage) + "\n")


def wire_usage(usage: dict) -> dict:
    return {
        "prompt_tokens": usage["input"],
        "completion_tokens": usage["output"],
        "total_tokens": usage["input"] + usage["output"],
        "prompt_tokens_details": {"cached_tokens": usage["cached"], "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage["reasoning"], "audio_tokens": 0},
    }


@app.post("/v1/chat/completions")
async def chat(request: Request):
    body = await request.json()
    await asyncio.sleep(app.state.latency)
    model = DATED.get(body["model"], body["model"])
    usage = invent_usage(request, body)
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    if body.get("stream"):
        return StreamingResponse(chat_chunks(request, body, head, usage), media_type="text/event-stream")
    log(request, body, model, usage)
    message = {"role": "assistant", "content": "".join(WORDS)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return head | {"object": "chat.completion", "choices": [choice], "usage": wire_usage(usage)}


async def chat_chunks(request: Request, body: dict, head: dict, usage: dict):
    head = head | {"object": "chat.completion.chunk"}
    include_usage = (body.get("stream_options") or {}).get("include_usage")

    def event(choices: list, **more) -> str:
        return "data: " + json.dumps(head | {"choices": choices} | more) + "\n\n"

    def choice(delta: dict, finish_reason: str | None = None) -> list:
        return [{"index": 0, "delta": delta, "finish_reason": finish_reason}]

    yield event(choice({"role": "assistant", "content": ""}))
    for word in WORDS:
        yield event(choice({"content": word}))
        await asyncio.sleep(app.state.latency / len(WORDS))
    # A provider bills a streamed call whether it was asked for the usage or not.
    log(request, body, head["model"], usage)
    yield event(choice({}, "stop"))
    if include_usage:
        yield event([], usage=wire_usage(usage))
    yield "data: [DONE]\n\n"


@app.post("/v1/embeddings")
async def embeddings(request: Request):
    body = await request.json()
    await asyncio.sleep(app.state.latency)
    model = DATED.get(body["model"], body["model"])
    usage = invent_usage(request, body) | {"output": 0, "cached": 0, "reasoning": 0}
    log(request, body, model, usage)
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    # The official client asks for base64, and takes a list of numbers as well.
    data = [{"object": "embedding", "index": i, "embedding": [0.25, -0.5, 0.125]} for i in range(len(inputs))]
    given = {"prompt_tokens": usage["input"], "total_tokens": usage["input"]}
    return {"object": "list", "data": data, "model": model, "usage": given}


def main():
    options = argparse.ArgumentParser(description="A stand-in for a model server")
    options.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container")
    options.add_argument("--port", type=int, default=0, help="0 picks a free one")
    options.add_argument("--log", metavar="FILE", help="append one JSON line per answered call")
    options.add_argument("--latency-ms", type=float, default=20, help="wait before an answer; a stream takes it twice")
    given = options.parse_args()

    listener = socket.create_server((given.host, given.port), backlog=2048)
    app.state.address = f"{given.host}:{listener.getsockname()[1]}"
    app.state.log_path = given.log
    app.state.latency = given.latency_ms / 1000
    # Longer than a client keeps an idle connection: closing one just as it is used again would make the client retry.
    config = uvicorn.Config(app, log_level="warning", timeout_keep_alive=60)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
