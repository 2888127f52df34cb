-- When people write: sessions by local hour, working days against weekends
SELECT extract(hour FROM started_local)::int AS local_hour,
       sum(CASE WHEN extract(dow FROM started_local) IN (0, 6) THEN 0 ELSE 1 END) AS working_days,
       sum(CASE WHEN extract(dow FROM started_local) IN (0, 6) THEN 1 ELSE 0 END) AS weekends
FROM (
    SELECT s.started_at + c.utc_offset_minutes * interval '1 minute' AS started_local
    FROM sessions s
    JOIN users u ON u.user_id = s.user_id
    JOIN countries c ON c.country_code = u.country_code
) AS local_times
GROUP BY 1
ORDER BY 1;
