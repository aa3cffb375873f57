#!/usr/bin/env python3
"""What genai-prices itself says of the calls in a database of Tacho (SQLite), as JSON: span id to nano-dollars.

    captured.py DATABASE >tests/golden/captured_costs.json

The database is what a Tacho wrote after all captures were sent to it. See README.md for the environment.
"""

import json
import sqlite3
import sys
from datetime import datetime
from decimal import ROUND_CEILING, Decimal

from genai_prices import Usage, calc_price

# Names of providers by the conventions, where the list has others.
PROVIDERS = {"aws.bedrock": "aws", "azure.ai.openai": "azure"}

CALLS = """SELECT span_id, provider, response_model, request_model, started_at,
                  input_tokens, output_tokens, cached_input_tokens, cache_write_tokens
           FROM llm_calls WHERE usage = 'reported' AND input_tokens + output_tokens > 0 ORDER BY span_id"""


def cost(provider, models, started_at, usage):
    for model in filter(None, models):
        try:
            price = calc_price(usage, model, provider_id=PROVIDERS.get(provider, provider), genai_request_timestamp=started_at)
        except LookupError:
            continue
        return int((price.total_price * Decimal(10**9)).to_integral_value(rounding=ROUND_CEILING))
    return None


def main():
    costs = {}
    for span, provider, given, asked, at, *tokens in sqlite3.connect(sys.argv[1]).execute(CALLS):
        names = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"]
        usage = Usage(**{name: count or None for name, count in zip(names, tokens)})
        costs[span] = cost(provider, [given, asked], datetime.fromisoformat(at), usage)
    json.dump(costs, sys.stdout, indent=0)
    print()


main()
