"""Sends a bot some requests from a handful of users. Ends with 1 if any answer was not 200."""

import argparse
import collections
import http.client
import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

USERS = ["ada", "grace", "edsger", "barbara", "donald", "frances", "alan", "margaret"]
MODEL_OF_AGENT = {"support": "gpt-4o-mini", "research": "gpt-4o", "planner": "o4-mini"}
MESSAGES = ["Where is my parcel?", "Sum up the week.", "Plan a trip to Ulm.", "What is a tachograph?"]


def plan(count: int, users: list[str], seed: int):
    """The requests, the same ones for the same seed; a health check before every twentieth."""
    dice = random.Random(seed)
    for number in range(count):
        if number % 20 == 0:
            yield "GET", "/health", {}, None
        agent = dice.choice(list(MODEL_OF_AGENT))
        headers = {
            "content-type": "application/json",
            "x-user-id": dice.choice(users),
            "x-request-id": f"traffic-{seed}-{number}",
        }
        body = {
            "message": dice.choice(MESSAGES),
            "model": MODEL_OF_AGENT[agent],
            "calls": dice.choice([1, 1, 1, 2, 3]),
            "stream": dice.random() < 0.3,
        }
        yield "POST", f"/agents/{agent}/invoke", headers, json.dumps(body)


def send(address: str, method: str, path: str, headers: dict, body: str | None):
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


def main():
    options = argparse.ArgumentParser(description="Traffic for the example bot")
    options.add_argument("--url", required=True, help="of the bot, such as http://127.0.0.1:8000")
    options.add_argument("--requests", type=int, default=60)
    options.add_argument("--concurrency", type=int, default=10)
    options.add_argument("--users", type=int, default=5, help="how many users ask")
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()

    users = [USERS[n] if n < len(USERS) else f"user-{n}" for n in range(given.users)]
    address = urlsplit(given.url).netloc
    with ThreadPoolExecutor(given.concurrency) as pool:
        answers = [pool.submit(send, address, *one) for one in plan(given.requests, users, given.seed)]
        seen = collections.Counter(answer.result() for answer in answers)
    print("answers:", ", ".join(f"{count} × {status}" for status, count in seen.most_common()))
    sys.exit(0 if set(seen) <= {200} else 1)


if __name__ == "__main__":
    main()
