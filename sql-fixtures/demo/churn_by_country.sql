-- Share of last month's users who did not come back, by country
WITH month_before AS (
    SELECT DISTINCT user_id FROM sessions
    WHERE started_at >= current_date - 60 AND started_at < current_date - 30
), this_month AS (
    SELECT DISTINCT user_id FROM sessions WHERE started_at >= current_date - 30
)
SELECT c.name AS country, count(*) AS users_before,
       sum(CASE WHEN t.user_id IS NULL THEN 1 ELSE 0 END) AS lost,
       round(100.0 * sum(CASE WHEN t.user_id IS NULL THEN 1 ELSE 0 END) / count(*), 1) AS lost_percent
FROM month_before b
JOIN users u ON u.user_id = b.user_id
JOIN countries c ON c.country_code = u.country_code
LEFT JOIN this_month t ON t.user_id = b.user_id
GROUP BY c.name
ORDER BY lost_percent DESC, c.name;
