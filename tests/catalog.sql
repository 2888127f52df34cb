-- A database with everything that a verdict may depend on.
CREATE SCHEMA sales;
CREATE SCHEMA "Odd Schema";
CREATE ROLE reader;

CREATE TABLE users (id int PRIMARY KEY, country text, kind text, born timestamptz);
CREATE TABLE countries (code text PRIMARY KEY);
ALTER TABLE users ADD FOREIGN KEY (country) REFERENCES countries;
CREATE TABLE events (id bigserial PRIMARY KEY, user_id int, at timestamptz, kind text);
CREATE TABLE sessions (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE);
CREATE TABLE messages (id int PRIMARY KEY, session_id int REFERENCES sessions ON UPDATE SET NULL);
CREATE TABLE notes (id int REFERENCES messages ON DELETE SET DEFAULT);
CREATE TABLE sales.events (id int);
CREATE TABLE "Odd Schema"."Odd ""Table""" (id int);

-- inheritance with two parents, and partitions in two levels
CREATE TABLE parent (id int);
CREATE TABLE other_parent (id int);
CREATE TABLE child () INHERITS (parent, other_parent);
CREATE TABLE daily (at date, n int) PARTITION BY RANGE (at);
CREATE TABLE daily_2024 PARTITION OF daily FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE daily_2025 PARTITION OF daily FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY RANGE (at);
CREATE TABLE daily_2025_01 PARTITION OF daily_2025 FOR VALUES FROM ('2025-01-01') TO ('2025-02-01');

-- functions, operators, types
CREATE FUNCTION double_it(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2';
CREATE FUNCTION log_it(int) RETURNS int VOLATILE LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO events (user_id) VALUES ($1); RETURN $1; END $$;
CREATE FUNCTION look(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT count(*)::int FROM events WHERE user_id = $1';
CREATE FUNCTION owner_name(users) RETURNS text STABLE LANGUAGE sql AS 'SELECT $1.country';
CREATE FUNCTION sales.upper(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE FUNCTION same(int, text) RETURNS boolean STABLE LANGUAGE sql AS 'SELECT $1::text = $2';
CREATE OPERATOR <=> (FUNCTION = same, LEFTARG = int, RIGHTARG = text);
CREATE FUNCTION also(int, int) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT $1 = $2';
CREATE OPERATOR === (FUNCTION = also, LEFTARG = int, RIGHTARG = int);
CREATE DOMAIN lucky AS int CHECK (look(VALUE) >= 0);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN clock AS timetz;
CREATE DOMAIN workday AS date;
CREATE TYPE stay AS (since timestamptz, room int);
CREATE TYPE mood AS ENUM ('good', 'bad');

CREATE TABLE clocks (id int, at timetz);
CREATE TABLE clock_domains (id int, at clock);
CREATE TABLE clock_arrays (id int, at timetz[]);
CREATE TABLE shifts (id int, begins time);
CREATE TABLE moods (id positive, mood mood);

-- writes that run code
CREATE FUNCTION on_write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TABLE audited (id int);
CREATE TRIGGER audit AFTER INSERT ON audited FOR EACH ROW EXECUTE FUNCTION on_write();
CREATE TABLE quiet (id int);
CREATE TRIGGER audit AFTER INSERT ON quiet FOR EACH ROW EXECUTE FUNCTION on_write();
ALTER TABLE quiet DISABLE TRIGGER audit;
CREATE TABLE builtin_trigger (id int);
CREATE TRIGGER skip BEFORE UPDATE ON builtin_trigger FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE TABLE split (id int) PARTITION BY LIST (id);
CREATE TABLE split_1 PARTITION OF split FOR VALUES IN (1);
CREATE TRIGGER audit AFTER INSERT ON split FOR EACH ROW EXECUTE FUNCTION on_write();
CREATE TABLE ruled (id int);
CREATE RULE also AS ON INSERT TO ruled DO ALSO INSERT INTO quiet VALUES (NEW.id);
CREATE TABLE defaulted (id int DEFAULT log_it(1));
CREATE TABLE checked (id int CHECK (look(id) >= 0));
CREATE TABLE feeding (id int PRIMARY KEY);
CREATE TABLE fed (id int REFERENCES feeding ON DELETE CASCADE);
CREATE TRIGGER audit AFTER DELETE ON fed FOR EACH ROW EXECUTE FUNCTION on_write();

-- reads that depend on who asks
CREATE TABLE accounts (id int, owner text);
ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON accounts USING (owner = current_user);
CREATE TABLE logged_accounts (id int);
ALTER TABLE logged_accounts ENABLE ROW LEVEL SECURITY;
CREATE POLICY logged ON logged_accounts USING (log_it(id) > 0);

-- views
CREATE VIEW active_users AS SELECT u.id, count(*) AS n FROM users u JOIN events e ON e.user_id = u.id GROUP BY 1;
CREATE VIEW busy_users AS SELECT * FROM active_users WHERE n > 10;
CREATE VIEW with_daily AS SELECT b.id, d.at FROM busy_users b, daily d;
CREATE VIEW recent AS SELECT * FROM events WHERE at > now() - interval '1 day';
CREATE VIEW over_recent AS SELECT count(*) FROM recent;
CREATE VIEW todays AS SELECT * FROM events WHERE at >= ('to' || 'day')::date OR kind = 'today'::text;
CREATE VIEW dated AS SELECT at::date AS day, kind FROM events;
CREATE VIEW textual AS SELECT id FROM events WHERE at > kind::date;
CREATE VIEW frozen AS SELECT * FROM events WHERE at >= date '2024-01-01';
CREATE VIEW mine AS SELECT * FROM events WHERE kind = current_user;
CREATE VIEW relations AS SELECT relname FROM pg_class;
CREATE VIEW columns AS SELECT column_name FROM information_schema.columns;
CREATE VIEW logging AS SELECT log_it(user_id) FROM events;
CREATE VIEW doubling AS SELECT double_it(user_id) FROM events;
CREATE VIEW comparing AS SELECT * FROM users WHERE id <=> country;
CREATE VIEW comparing_well AS SELECT * FROM users WHERE id === id;
CREATE VIEW secured AS SELECT * FROM accounts;
CREATE VIEW lucky_view AS SELECT user_id::lucky FROM events;
CREATE VIEW local_hours AS SELECT (begins AT TIME ZONE 'Europe/Berlin')::text AS local FROM shifts;
CREATE VIEW formatted AS SELECT to_char(at, 'YYYY') AS year, extract(dow FROM at), coalesce(kind, '-') FROM events;
CREATE VIEW instead AS SELECT * FROM quiet;
CREATE TRIGGER instead INSTEAD OF INSERT ON instead FOR EACH ROW EXECUTE FUNCTION on_write();
CREATE RECURSIVE VIEW counting (n) AS SELECT id FROM users UNION ALL SELECT n + 1 FROM counting WHERE n < 10;
CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS n FROM events;
CREATE VIEW over_totals AS SELECT * FROM totals;

-- foreign tables
CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
CREATE FOREIGN TABLE remote (id int) SERVER nowhere;
CREATE TABLE spread (id int) PARTITION BY LIST (id);
CREATE FOREIGN TABLE spread_far PARTITION OF spread FOR VALUES IN (1) SERVER nowhere;
