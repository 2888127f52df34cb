-- Funnel of newcomers, last 60 days: signed up, wrote, joined a group, invited someone, paid
WITH newcomers AS (
    SELECT user_id FROM users WHERE signup_date >= current_date - 60
), steps AS (
    SELECT n.user_id,
           max(CASE WHEN e.event_kind = 'message_sent' THEN 1 ELSE 0 END) AS wrote,
           max(CASE WHEN e.event_kind = 'group_joined' THEN 1 ELSE 0 END) AS joined,
           max(CASE WHEN e.event_kind = 'contact_invited' THEN 1 ELSE 0 END) AS invited,
           max(CASE WHEN e.event_kind = 'purchase' THEN 1 ELSE 0 END) AS paid
    FROM newcomers n
    LEFT JOIN events e ON e.user_id = n.user_id
    GROUP BY n.user_id
)
SELECT count(*) AS signed_up, sum(wrote) AS wrote, sum(wrote * joined) AS joined_a_group,
       sum(wrote * joined * invited) AS invited_someone, sum(wrote * joined * invited * paid) AS paid
FROM steps;
