-- Crashes per thousand sessions, by version of the app
SELECT s.app_version, count(DISTINCT s.session_id) AS sessions,
       sum(CASE WHEN e.event_kind = 'crash' THEN 1 ELSE 0 END) AS crashes,
       round(1000.0 * sum(CASE WHEN e.event_kind = 'crash' THEN 1 ELSE 0 END) / count(DISTINCT s.session_id), 2)
           AS crashes_per_thousand
FROM sessions s
JOIN events e ON e.session_id = s.session_id
GROUP BY s.app_version
ORDER BY s.app_version;
