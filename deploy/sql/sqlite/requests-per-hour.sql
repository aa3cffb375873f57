-- Requests of the last 24 hours, up to that of the newest record. Hours without a request are left out.
--
-- known_tokens and known_cost_usd are sums over the calls of which they are known; the two columns behind them say
-- how many calls are missing in them.
SELECT
    replace(substr(started_at, 1, 13), 'T', ' ') || ':00' AS hour_utc,
    count(*) AS requests,
    count(CASE WHEN status_code >= 500 THEN 1 END) AS server_errors,
    sum(llm_calls) AS llm_calls,
    sum(total_tokens) AS known_tokens,
    iif(sum(cost_nanousd) IS NULL, NULL, printf('%.9f', sum(cost_nanousd) / 1e9)) AS known_cost_usd,
    sum(unknown_usage_calls) AS unknown_usage_calls,
    sum(unpriced_calls) AS unpriced_calls
FROM usage_records
WHERE started_at >= (SELECT strftime('%Y-%m-%dT%H', max(started_at), '-23 hours') FROM usage_records)
GROUP BY 1
ORDER BY 1;
