-- Week over week: the last 7 days against the 7 before, by category of event
SELECT k.category,
       sum(CASE WHEN e.event_time >= current_date - 6 THEN 1 ELSE 0 END) AS this_week,
       sum(CASE WHEN e.event_time < current_date - 6 THEN 1 ELSE 0 END) AS week_before,
       round(100.0 * sum(CASE WHEN e.event_time >= current_date - 6 THEN 1 ELSE 0 END)
             / nullif(sum(CASE WHEN e.event_time < current_date - 6 THEN 1 ELSE 0 END), 0) - 100, 1) AS change_percent
FROM events e
JOIN event_kinds k ON k.event_kind = e.event_kind
WHERE e.event_time >= current_date - 13
GROUP BY k.category
ORDER BY this_week DESC, k.category;
