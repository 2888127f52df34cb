-- Messages by region and week, from the daily summary
SELECT date_trunc('week', m.day)::date AS week, c.region, sum(m.messages) AS messages,
       round(sum(m.message_bytes) / 1048576.0, 1) AS mebibytes
FROM messages_daily m
JOIN countries c ON c.country_code = m.country_code
GROUP BY 1, 2
ORDER BY 1, 3 DESC, 2;
