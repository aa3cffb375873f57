-- Calls whose tokens are not known, of the last 7 days up to the newest record: which bot makes them, with which
-- model, and why. The provider bills them and no record shows it; docs/runbook.md says under TachoUsageUnknown what
-- to do.
SELECT
    r.service,
    c.provider,
    c.model,
    c.unknown_reason,
    CASE WHEN c.streaming THEN 'yes' ELSE 'no' END AS streaming,
    count(*) AS calls,
    replace(substr(max(c.started_at), 1, 19), 'T', ' ') AS newest_utc,
    max(c.trace_id) AS one_trace_id
FROM llm_calls c
JOIN usage_records r
    ON r.started_at = c.record_started_at AND r.trace_id = c.trace_id AND r.span_id = c.record_span_id
WHERE c.usage = 'unknown'
    AND c.record_started_at >= (SELECT strftime('%Y-%m-%dT%H:%M:%f', max(started_at), '-7 days') FROM usage_records)
GROUP BY 1, 2, 3, 4, 5
ORDER BY calls DESC, 1, 2, 3, 4, 5;
