-- Engagement by kind of user, last 30 days
SELECT u.kind, count(DISTINCT u.user_id) AS active_users, count(*) AS events,
       sum(CASE WHEN k.is_engagement THEN 1 ELSE 0 END) AS engaged_events,
       round(1.0 * sum(CASE WHEN k.is_engagement THEN 1 ELSE 0 END) / count(DISTINCT u.user_id), 1) AS engaged_events_per_user
FROM events e
JOIN users u ON u.user_id = e.user_id
JOIN event_kinds k ON k.event_kind = e.event_kind
WHERE e.event_time >= current_date - 29
GROUP BY u.kind
ORDER BY engaged_events_per_user DESC, u.kind;
