-- Top 20 users by friends they brought
SELECT i.user_id, i.kind, i.country_code, count(*) AS friends_brought, max(n.signup_date) AS latest
FROM users n
JOIN users i ON i.user_id = n.invited_by
GROUP BY 1, 2, 3
ORDER BY friends_brought DESC, i.user_id
LIMIT 20;
