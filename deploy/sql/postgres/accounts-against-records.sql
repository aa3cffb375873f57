-- Accounts that are not the sum of their records. No row is the right answer. Free requests are those of the whole
-- life of an account; all else is since the start of its period. Money is in nano-dollars, of which a thousand
-- million are a dollar. Where the columns of the account are empty, a user with records has no account.
--
-- It reads every record of the current periods. `tacho verify` proves the same, and the records against their
-- calls; `tacho rebuild` mends accounts.
WITH free AS (
    SELECT tenant, user_id, count(*) AS requests FROM usage_records WHERE free_request GROUP BY tenant, user_id
),
sums AS (
    SELECT
        a.tenant,
        a.user_id,
        a.free_requests_used AS free_in_account,
        coalesce(max(f.requests), 0) AS free_in_records,
        a.requests_used_current_period AS requests_in_account,
        count(CASE WHEN NOT r.free_request THEN 1 END) AS requests_in_records,
        a.tokens_used_current_period AS tokens_in_account,
        coalesce(sum(r.total_tokens), 0) AS tokens_in_records,
        a.cost_used_current_period_nanousd AS nanousd_in_account,
        coalesce(sum(r.cost_nanousd), 0) AS nanousd_in_records
    FROM billing_accounts a
    LEFT JOIN free f ON f.tenant = a.tenant AND f.user_id = a.user_id
    LEFT JOIN usage_records r ON r.tenant = a.tenant AND r.user_id = a.user_id AND r.started_at >= a.period_started_at
    GROUP BY a.tenant, a.user_id, a.free_requests_used, a.requests_used_current_period,
        a.tokens_used_current_period, a.cost_used_current_period_nanousd
    UNION ALL
    SELECT
        r.tenant, r.user_id,
        NULL, count(CASE WHEN r.free_request THEN 1 END),
        NULL, count(CASE WHEN NOT r.free_request THEN 1 END),
        NULL, sum(r.total_tokens),
        NULL, coalesce(sum(r.cost_nanousd), 0)
    FROM usage_records r
    LEFT JOIN billing_accounts a ON a.tenant = r.tenant AND a.user_id = r.user_id
    WHERE r.user_id IS NOT NULL AND a.user_id IS NULL
    GROUP BY r.tenant, r.user_id
)
SELECT *
FROM sums
WHERE free_in_account IS DISTINCT FROM free_in_records
    OR requests_in_account IS DISTINCT FROM requests_in_records
    OR tokens_in_account IS DISTINCT FROM tokens_in_records
    OR nanousd_in_account IS DISTINCT FROM nanousd_in_records
ORDER BY tenant, user_id;
