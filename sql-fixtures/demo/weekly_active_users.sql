-- Weekly active users, whole weeks, with the change from week to week
SELECT week, active_users,
       round(100.0 * (active_users - lag(active_users) OVER (ORDER BY week))
             / nullif(lag(active_users) OVER (ORDER BY week), 0), 1) AS change_percent
FROM (
    SELECT date_trunc('week', event_time)::date AS week, count(DISTINCT user_id) AS active_users
    FROM events
    WHERE event_time < date_trunc('week', current_date)
      AND event_time >= date_trunc('week', current_date) - interval '10 weeks'
    GROUP BY 1
) AS weeks
ORDER BY week;
