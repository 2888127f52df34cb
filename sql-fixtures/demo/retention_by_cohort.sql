-- Weekly retention by cohort: how many of a week's newcomers were back in each later week
WITH cohorts AS (
    SELECT user_id, date_trunc('week', signup_date)::date AS cohort
    FROM users
    WHERE signup_date >= date_trunc('week', current_date) - interval '10 weeks'
), activity AS (
    SELECT DISTINCT user_id, date_trunc('week', started_at)::date AS week
    FROM sessions
), sizes AS (
    SELECT cohort, count(*) AS newcomers FROM cohorts GROUP BY cohort
)
SELECT c.cohort, (a.week - c.cohort) / 7 AS weeks_later, count(*) AS returned,
       round(100.0 * count(*) / max(s.newcomers), 1) AS returned_percent
FROM cohorts c
JOIN activity a ON a.user_id = c.user_id AND a.week >= c.cohort
JOIN sizes s ON s.cohort = c.cohort
GROUP BY 1, 2
ORDER BY 1, 2;
