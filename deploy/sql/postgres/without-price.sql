-- Calls whose tokens are known and whose price is not, or not for all of them, of the last 7 days up to the newest
-- record. What has no price is in no sum of money. A price goes into the file of prices.override; see prices/README.md.
SELECT
    c.provider,
    c.model,
    c.service_tier,
    count(*) AS calls,
    count(c.cost_nanousd) AS partly_priced,
    sum(c.input_tokens) AS input_tokens,
    sum(c.output_tokens) AS output_tokens,
    to_char(max(c.started_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS newest_utc
FROM llm_calls c
WHERE c.usage = 'reported' AND (c.cost_nanousd IS NULL OR c.partly_priced)
    AND c.record_started_at >= (SELECT max(started_at) FROM usage_records) - interval '7 days'
GROUP BY 1, 2, 3
ORDER BY calls DESC, 1, 2, 3;
