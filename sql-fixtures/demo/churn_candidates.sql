-- Churn candidates: active in the two weeks before, silent for the last two
SELECT s.user_id, u.kind, u.country_code, count(*) AS sessions_before, max(s.started_at)::date AS last_seen,
       current_date - max(s.started_at)::date AS days_silent
FROM sessions s
JOIN users u ON u.user_id = s.user_id
WHERE s.started_at >= current_date - 28
GROUP BY 1, 2, 3
HAVING max(s.started_at) < current_date - 14 AND count(*) >= 3
ORDER BY sessions_before DESC, s.user_id
LIMIT 50;
