-- Requests of the last 24 hours, up to that of the newest record. Hours without a request are left out.
--
-- known_tokens and known_cost_usd are sums over the calls of which they are known; the two columns behind them say
-- how many calls are missing in them.
SELECT
    to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:00') AS hour_utc,
    count(*) AS requests,
    count(CASE WHEN status_code >= 500 THEN 1 END) AS server_errors,
    sum(llm_calls) AS llm_calls,
    sum(total_tokens) AS known_tokens,
    (sum(cost_nanousd) * 0.000000001)::numeric(20, 9) AS known_cost_usd,
    sum(unknown_usage_calls) AS unknown_usage_calls,
    sum(unpriced_calls) AS unpriced_calls
FROM usage_records
WHERE started_at >= date_trunc('hour', (SELECT max(started_at) FROM usage_records)) - interval '23 hours'
GROUP BY 1
ORDER BY 1;
