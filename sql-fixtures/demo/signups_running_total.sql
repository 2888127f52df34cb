-- Sign-ups by month, with the running total
SELECT date_trunc('month', signup_date)::date AS month, count(*) AS signups,
       sum(count(*)) OVER (ORDER BY date_trunc('month', signup_date) ROWS UNBOUNDED PRECEDING) AS users_so_far
FROM users
GROUP BY date_trunc('month', signup_date)
ORDER BY 1;
