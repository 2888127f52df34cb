-- Monthly active users by platform
SELECT to_char(s.started_at, 'YYYY-MM') AS month, s.platform, count(DISTINCT s.user_id) AS active_users
FROM sessions s
GROUP BY 1, 2
ORDER BY 1, 3 DESC, 2;
