-- Message sizes: median, 90th and 99th percentile by kind of chat
SELECT chat_kind, count(*) AS messages,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY message_bytes) AS median_bytes,
       percentile_cont(0.9) WITHIN GROUP (ORDER BY message_bytes) AS p90_bytes,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY message_bytes) AS p99_bytes
FROM events
WHERE event_kind = 'message_sent'
GROUP BY chat_kind
ORDER BY messages DESC, chat_kind;
