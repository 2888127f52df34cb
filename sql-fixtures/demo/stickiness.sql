-- Stickiness: daily over monthly active users, last 30 days
WITH daily AS (
    SELECT date_trunc('day', started_at) AS day, count(DISTINCT user_id) AS users
    FROM sessions
    WHERE started_at >= current_date - 29
    GROUP BY 1
), monthly AS (
    SELECT count(DISTINCT user_id) AS users
    FROM sessions
    WHERE started_at >= current_date - 29
)
SELECT round(avg(daily.users), 0) AS daily_active_users, max(monthly.users) AS monthly_active_users,
       round(100.0 * avg(daily.users) / nullif(max(monthly.users), 0), 1) AS stickiness_percent
FROM daily CROSS JOIN monthly;
