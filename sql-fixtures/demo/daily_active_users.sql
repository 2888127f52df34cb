-- Daily active users, last 30 days
SELECT date_trunc('day', event_time)::date AS day, count(DISTINCT user_id) AS active_users
FROM events
WHERE event_time >= current_date - 29
GROUP BY 1
ORDER BY 1;
