"""Writes tests/golden/prices.json: what the package itself charges, for every model of every provider.

A line per model reference: [provider asked for (null: the package guesses it), reference, id of the model found (null:
none), calls], each call as [input, output, cached, written, written for an hour, audio, cached audio, reasoning,
spoken, Unix seconds, service tier, cost]. The cost is in nano-dollars, rounded up once; null means that the package found no price for tokens
or requests, and `~` before it that one of the prices is among those that convert.py rounds, so that the last digit may
differ.
"""

import json
import re
from datetime import UTC, datetime, time, timedelta
from decimal import ROUND_CEILING, getcontext
from itertools import islice

from convert import CARRIED, HERE, ROUNDED, clause
from genai_prices import Usage, calc_price, types
from genai_prices.data import providers
from genai_prices.data_snapshot import get_snapshot

getcontext().prec = 80
NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
PLAIN, CACHED = (1446, 92, 0, 0, 0, 0, 0, 0, 0), (1446, 92, 270, 0, 0, 0, 0, 0, 0)
WRITTEN, BIG = (1447, 93, 271, 78, 0, 0, 0, 31, 0), (2_000_003, 100_001, 999_983, 1_009, 0, 0, 0, 7, 0)
# With parts that few models have a price for: written for an hour, heard, spoken.
KEPT, ALL_KEPT = (5_003, 207, 271, 900, 601, 0, 0, 31, 0), (2_000_003, 100_001, 999_983, 500_009, 500_009, 0, 0, 7, 0)
HEARD, ALL_HEARD = (5_003, 207, 271, 0, 0, 1_501, 0, 0, 101), (5_003, 207, 0, 0, 0, 5_003, 0, 0, 207)
HEARD_FROM_CACHE, TOLD = (5_003, 207, 3_001, 0, 0, 4_001, 0, 0, 101), (5_003, 207, 1_501, 0, 0, 2_003, 701, 0, 101)
PARTS = (KEPT, ALL_KEPT, HEARD, ALL_HEARD, HEARD_FROM_CACHE, TOLD)
PART_PRICES = ('cache_write_1h_mtok', 'input_audio_mtok', 'output_audio_mtok', 'cache_audio_read_mtok')
KEYS = (
    'input_tokens', 'output_tokens', 'cache_read_tokens', 'cache_write_tokens', 'cache_write_1h_tokens',
    'input_audio_tokens', 'cache_audio_read_tokens', 'output_reasoning_tokens', 'output_audio_tokens',
)


def charge(provider, ref, tokens, at, tier):
    """Id of the model found, and the cost as text; None for either."""
    try:
        found = calc_price(
            Usage(**dict(zip(KEYS, tokens, strict=True)) | {'cache_audio_read_tokens': heard_from_cache(tokens)}),
            ref,
            provider_id=provider,
            genai_request_timestamp=at,
            price_context={'service_tier': tier} if tier else None,
        )
    except LookupError:
        return None, None
    carried = [price for key, price in vars(found.model_price).items() if key in CARRIED and price is not None]
    if not carried:
        return found.model.id, None
    parts = [part for price in carried for part in single_prices(price)]
    cost = str(int((found.total_price * 10**9).to_integral_value(ROUND_CEILING)))
    return found.model.id, ('~' if ROUNDED.intersection(parts) else '') + cost


def heard_from_cache(tokens):
    """As many as were told, and as must be: audio and cached tokens are parts of the input."""
    whole, cached, audio, told = tokens[0], tokens[2], tokens[5], tokens[6]
    return max(cached + audio - whole, told)


def single_prices(price):
    return [price.base, *(tier.price for tier in price.tiers)] if isinstance(price, types.TieredPrices) else [price]


def texts(matcher):
    """A text for each leaf of a matcher that asks for something to be there."""
    (kind, value), = matcher.items()
    match kind:
        case 'any_of' | 'all_of':
            return [text for part in value for text in texts(part)]
        case 'not':
            return []
    shown = {'starts_with': '{}-x', 'ends_with': 'a/{}', 'contains': 'a.{}:b'}.get(kind, '{}').format(value)
    return [shown.replace('*', '9').replace('#', '2')]


def references(info):
    """Other ways to ask for the model: what its matcher names, upper case, a date written without dashes."""
    for text in islice(dict.fromkeys(texts(clause(info.match))), 2):
        yield text
    yield info.id.upper()
    if any(char.isdigit() for char in info.id):
        yield info.id + '-20251211'
    parts = info.id.rsplit('-', 3)
    if len(parts) == 4 and all(part.isdigit() for part in parts[1:]):
        yield parts[0] + '-' + ''.join(parts[1:])


def constrained(info):
    yield from info.prices if isinstance(info.prices, list) else [types.ConditionalPrice(prices=info.prices)]
    yield from info.price_variants or []


def moments(info):
    """The seconds on both sides of each change of the price."""
    for limit in (price.constraint for price in constrained(info)):
        match limit:
            case types.StartDateConstraint():
                edges = [datetime.combine(limit.start_date, time(), UTC)]
            case types.TimeOfDateConstraint():
                edges = [datetime.combine(NOON.date(), edge) for edge in (limit.start_time, limit.end_time)]
            case _:
                edges = []
        for edge in edges:
            yield from (edge - timedelta(seconds=1), edge)


def thresholds(info):
    for prices in (price.prices for price in constrained(info)):
        for price in vars(prices).values():
            if isinstance(price, types.TieredPrices):
                yield from (tier.start for tier in price.tiers)


def calls(info):
    parts = PARTS if prices_parts(info) else (KEPT, HEARD)
    yield from ((tokens, NOON, None) for tokens in (PLAIN, CACHED, WRITTEN, BIG, *parts))
    yield from ((WRITTEN, at, None) for at in moments(info))
    for start in thresholds(info):
        for tokens in (start, start + 1):
            yield from (((tokens, 77, 11, 5, 0, 0, 0, 3, 0), NOON, None), ((tokens, 77, 11, 7, 5, 0, 0, 3, 0), NOON, None))
    tiers = {variant.when.get('service_tier') for variant in info.price_variants or []} - {None}
    for tier in sorted(tiers | {'no-such-tier'} if tiers else ()):
        yield from ((tokens, NOON, tier) for tokens in (WRITTEN, BIG, *parts))
        yield from ((WRITTEN, at, tier) for at in moments(info))


def prices_parts(info):
    return any(getattr(price.prices, key) is not None for price in constrained(info) for key in PART_PRICES)


def line(provider, ref, mixes):
    rows, model = [], None
    for tokens, at, tier in dict.fromkeys(mixes):
        model, cost = charge(provider, ref, tokens, at, tier)
        rows.append([*tokens, int(at.timestamp()), tier, cost])
    return [provider, ref, model, rows]


def fallbacks(source):
    """Models of the providers that stand in for this one; their service tiers do not count here."""
    for other in providers:
        if other.id in (source.fallback_model_providers or []):
            for info in other.models:
                yield line(source.id, info.id, [(WRITTEN, NOON, None), (WRITTEN, NOON, 'flex')])


def lines():
    unnamed = set()
    for source in providers:
        for info in source.models:
            yield line(source.id, info.id, calls(info))
            for ref in dict.fromkeys(references(info)):
                if ref != info.id:
                    yield line(source.id, ref, [(WRITTEN, NOON, None)])
            if not re.search('[/:]', info.id):  # the package takes no provider from the start of a name
                unnamed.add(info.id)
        yield from fallbacks(source)
    for ref in sorted(unnamed):
        yield line(None, ref, [(PLAIN, NOON, None)])


def main():
    assert not get_snapshot().from_auto_update, 'the prices must be the ones in the package'
    made = [json.dumps(row, ensure_ascii=False, separators=(',', ':')) for row in lines()]
    target = HERE.parent / 'tests' / 'golden' / 'prices.json'
    target.write_text('[\n' + ',\n'.join(made) + '\n]\n', encoding='utf-8')


if __name__ == '__main__':
    main()
