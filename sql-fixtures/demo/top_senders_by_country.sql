-- The three most active senders of each country, last 7 days
SELECT country_code, place, user_id, messages
FROM (
    SELECT u.country_code, e.user_id, count(*) AS messages,
           row_number() OVER (PARTITION BY u.country_code ORDER BY count(*) DESC, e.user_id) AS place
    FROM events e
    JOIN users u ON u.user_id = e.user_id
    WHERE e.event_kind = 'message_sent' AND e.event_time >= current_date - 6
    GROUP BY u.country_code, e.user_id
) AS ranked
WHERE place <= 3
ORDER BY country_code, place;
