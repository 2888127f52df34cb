-- The last 30 days at a glance
SELECT count(*) AS events, count(DISTINCT e.user_id) AS active_users, count(DISTINCT e.session_id) AS sessions,
       sum(CASE WHEN e.event_kind = 'message_sent' THEN 1 ELSE 0 END) AS messages,
       sum(CASE WHEN e.event_kind = 'crash' THEN 1 ELSE 0 END) AS crashes,
       round(sum(e.revenue_cents) / 100.0, 2) AS revenue
FROM events e
WHERE e.event_time >= current_date - interval '30 days';
