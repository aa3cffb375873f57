-- The 20 requests that cost most, of the last 30 days up to the newest record. Where unknown_usage_calls or
-- unpriced_calls is not zero, it cost more than that. A request of which no cost is known is not here;
-- without-tokens.sql and without-price.sql show those.
SELECT
    (cost_nanousd * 0.000000001)::numeric(20, 9) AS cost_usd,
    to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS started_at_utc,
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
    AND started_at >= (SELECT max(started_at) FROM usage_records) - interval '30 days'
ORDER BY cost_nanousd DESC, started_at DESC, trace_id, span_id
LIMIT 20;
