-- Session length by platform, last 30 days
SELECT platform, count(*) AS sessions, round(avg(duration_seconds), 0) AS average_seconds,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY duration_seconds) AS median_seconds,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_seconds) AS p95_seconds,
       round(avg(event_count), 1) AS events_per_session
FROM sessions
WHERE started_at >= current_date - 29
GROUP BY platform
ORDER BY sessions DESC, platform;
