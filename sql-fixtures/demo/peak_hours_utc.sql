-- Peak and off-peak hours of the service (UTC), last 28 days
SELECT extract(hour FROM event_time)::int AS hour, count(*) / 28 AS events_per_day,
       round(100.0 * count(*) / sum(count(*)) OVER (), 1) AS share_percent
FROM events
WHERE event_time >= current_date - 27
GROUP BY 1
ORDER BY 1;
