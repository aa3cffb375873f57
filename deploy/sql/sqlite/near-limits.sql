-- Who is near a limit: what is used of each quota in its present period, the nearest first.
--
-- The database knows how much there is only where a threshold (warn_at) was reached or somebody was refused, as it
-- then has an event that says so; elsewhere meter, max and percent are empty, and `tacho limits show` knows. Used
-- and max are in units of the meter: requests, tokens, or nano-dollars, for which the columns with usd are. Limits
-- on a rate are not here.
WITH told AS (
    SELECT limit_name, subject, period_started_at, max(id) AS newest,
        max(CASE WHEN kind = 'refusal' AND decision = 'deny' THEN created_at END) AS refused_at
    FROM limit_events
    GROUP BY limit_name, subject, period_started_at
)
SELECT
    u.limit_name,
    u.subject,
    e.meter,
    u.used,
    e.max,
    round(100.0 * u.used / e.max, 1) AS percent,
    CASE WHEN e.meter = 'cost' THEN printf('%.9f', u.used / 1e9) END AS used_usd,
    CASE WHEN e.meter = 'cost' THEN printf('%.9f', e.max / 1e9) END AS max_usd,
    replace(substr(t.refused_at, 1, 19), 'T', ' ') AS first_refused_at_utc,
    replace(substr(u.period_ends_at, 1, 19), 'T', ' ') AS period_ends_at_utc
FROM limit_usage u
LEFT JOIN told t
    ON t.limit_name = u.limit_name AND t.subject = u.subject AND t.period_started_at = u.period_started_at
LEFT JOIN limit_events e ON e.id = t.newest
WHERE u.period_ends_at IS NULL OR u.period_ends_at > strftime('%Y-%m-%dT%H:%M:%f', 'now')
ORDER BY percent DESC NULLS LAST, u.used DESC, u.limit_name, u.subject
LIMIT 50;
