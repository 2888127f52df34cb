-- How much of everything the most active tenth does, last 30 days
SELECT tenth, count(*) AS users, sum(events) AS events,
       round(100.0 * sum(events) / sum(sum(events)) OVER (), 1) AS share_percent
FROM (
    SELECT user_id, count(*) AS events, ntile(10) OVER (ORDER BY count(*) DESC, user_id) AS tenth
    FROM events
    WHERE event_time >= current_date - 29
    GROUP BY user_id
) AS ranked
GROUP BY tenth
ORDER BY tenth;
