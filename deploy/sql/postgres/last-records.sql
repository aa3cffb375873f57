-- The 20 newest records: does anything come in, and does it look right?
--
-- known_tokens and cost_usd are those of the calls of which they are known; where they are of none, they are empty,
-- which is not zero. unknown_usage_calls and unpriced_calls say how many calls are missing in them.
SELECT
    to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS started_at_utc,
    tenant,
    user_id,
    endpoint,
    status_code,
    round(response_time_ms)::bigint AS response_time_ms,
    model,
    llm_calls,
    CASE WHEN unknown_usage_calls = llm_calls AND llm_calls > 0 THEN NULL ELSE total_tokens END AS known_tokens,
    (cost_nanousd * 0.000000001)::numeric(20, 9) AS cost_usd,
    unknown_usage_calls,
    unpriced_calls,
    trace_id
FROM usage_records
ORDER BY started_at DESC, trace_id, span_id
LIMIT 20;
