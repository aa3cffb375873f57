-- The 20 requests that cost most, of the last 30 days up to the newest record. Where unknown_usage_calls or
-- unpriced_calls is not zero, it cost more than that. A request of which no cost is known is not here;
-- without-tokens.sql and without-price.sql show those.
SELECT
    iif(cost_nanousd IS NULL, NULL, printf('%.9f', cost_nanousd / 1e9)) AS cost_usd,
    replace(substr(started_at, 1, 19), 'T', ' ') AS started_at_utc,
    tenant,
    user_id,
    service,
    endpoint,
    model,
    llm_calls,
    input_tokens,
    output_tokens,
    unknown_usage_calls,
    unpriced_calls,
    trace_id
FROM usage_records
WHERE cost_nanousd IS NOT NULL
    AND started_at >= (SELECT strftime('%Y-%m-%dT%H:%M:%f', max(started_at), '-30 days') FROM usage_records)
ORDER BY cost_nanousd DESC, started_at DESC, trace_id, span_id
LIMIT 20;
