-- Growth by country: sign-ups of the last 30 days against the 30 days before
SELECT c.region, c.name AS country,
       sum(CASE WHEN u.signup_date >= current_date - 29 THEN 1 ELSE 0 END) AS signups,
       sum(CASE WHEN u.signup_date < current_date - 29 THEN 1 ELSE 0 END) AS signups_before,
       round(100.0 * sum(CASE WHEN u.signup_date >= current_date - 29 THEN 1 ELSE 0 END)
             / nullif(sum(CASE WHEN u.signup_date < current_date - 29 THEN 1 ELSE 0 END), 0) - 100, 1) AS growth_percent
FROM users u
JOIN countries c ON c.country_code = u.country_code
WHERE u.signup_date >= current_date - 59
GROUP BY 1, 2
ORDER BY signups DESC, country;
