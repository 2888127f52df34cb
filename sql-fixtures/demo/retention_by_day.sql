-- Retention of the newcomers of the last 60 days after 1, 7 and 30 days, by platform
WITH newcomers AS (
    SELECT user_id, signup_date, platform FROM users WHERE signup_date >= current_date - 60
), days AS (
    SELECT DISTINCT user_id, started_at::date AS day FROM sessions
)
SELECT n.platform, count(DISTINCT n.user_id) AS newcomers,
       count(DISTINCT CASE WHEN d.day = n.signup_date + 1 THEN n.user_id END) AS after_1_day,
       count(DISTINCT CASE WHEN d.day BETWEEN n.signup_date + 7 AND n.signup_date + 13 THEN n.user_id END) AS after_7_days,
       count(DISTINCT CASE WHEN d.day >= n.signup_date + 30 THEN n.user_id END) AS after_30_days
FROM newcomers n
LEFT JOIN days d ON d.user_id = n.user_id
GROUP BY n.platform
ORDER BY newcomers DESC, n.platform;
