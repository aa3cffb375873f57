"""The example bot as it is shipped, with the instrumentation it has."""

import asyncio
import os
import sys
from pathlib import Path

import httpx

from stand_in import Reply, StandIn

PACKAGE = Path(__file__).parent.parent


async def test_it_asks_for_its_limits(tacho: StandIn) -> None:
    tacho.says(Reply(429, {"Retry-After": "7"}, b"no"))
    bot = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PACKAGE.parent / "example-bot/bot.py"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(PACKAGE / "src"), "TACHO_URL": tacho.url, "OPENAI_API_KEY": "none"},
    )
    assert bot.stdout is not None
    address = (await bot.stdout.readline()).decode().removeprefix("listening on ").strip()
    async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
        assert (await client.get("/health")).status_code == 200
        answer = await client.post(
            "/agents/support/invoke", json={"message": "Where is my parcel?"}, headers={"x-user-id": "ada"}
        )
    bot.kill()
    await bot.wait()
    assert (answer.status_code, answer.content, answer.headers["retry-after"]) == (429, b"no", "7")
    [asked] = tacho.asked
    trace_id = asked.body.pop("trace_id")
    assert asked.headers["traceparent"].startswith(f"00-{trace_id}-")
    assert asked.body == {"user": "ada", "endpoint": "/agents/{agent_id}/invoke", "agent": "support"}
