-- The 20 newest records: does anything come in, and does it look right?
--
-- known_tokens and cost_usd are those of the calls of which they are known; where they are of none, they are empty,
-- which is not zero. unknown_usage_calls and unpriced_calls say how many calls are missing in them.
SELECT
    replace(substr(started_at, 1, 19), 'T', ' ') AS started_at_utc,
    tenant,
    user_id,
    endpoint,
    status_code,
    CAST(round(response_time_ms) AS INTEGER) AS response_time_ms,
    model,
    llm_calls,
    CASE WHEN unknown_usage_calls = llm_calls AND llm_calls > 0 THEN NULL ELSE total_tokens END AS known_tokens,
    iif(cost_nanousd IS NULL, NULL, printf('%.9f', cost_nanousd / 1e9)) AS cost_usd,
    unknown_usage_calls,
    unpriced_calls,
    trace_id
FROM usage_records
ORDER BY started_at DESC, trace_id, span_id
LIMIT 20;
