-- Messages per day with their 7-day moving average
SELECT day, messages,
       round(avg(messages) OVER (ORDER BY day ROWS BETWEEN 6 PRECEDING AND CURRENT ROW), 0) AS average_of_7_days
FROM (SELECT day, sum(messages) AS messages FROM messages_daily GROUP BY day) AS days
ORDER BY day;
