"""What programs do with psycopg, through the gateway: python psycopg_client.py URL URL-of-another-user CONSOLE-URL."""

import sys
import threading

import psycopg
from psycopg import errors

url, other_url, console_url = sys.argv[1:]

with psycopg.connect(url, autocommit=True) as conn:
    # server-side parameters, text and binary
    for binary in (False, True, False):
        with conn.cursor(binary=binary) as cur:
            cur.execute("SELECT count(*), max(score), min(born) FROM people WHERE id <= %s", (10,))
            count, score, born = cur.fetchone()
            assert (count, score, born.isoformat()) == (10, 2.5, "2000-01-02"), (count, score, born)
    # prepared after some uses by psycopg itself, and explicitly
    for number in range(1, 12):
        assert conn.execute("SELECT name FROM people WHERE id = %s", (number,)).fetchone() == (f"p{number}",)
    assert conn.execute("SELECT %s::int + 1", (41,), prepare=True).fetchone() == (42,)
    # None, text beyond ASCII, arrays, bytes, and the other way round
    row = conn.execute("SELECT %s::text, %s, %s::int[], %s::bytea", (None, "žluť 🐎", [1, None, 3], b"\x00\xff")).fetchone()
    assert row == (None, "žluť 🐎", [1, None, 3], b"\x00\xff"), row
    # errors have their fields
    try:
        conn.execute("SELECT nothing FROM people")
        raise AssertionError("no error")
    except errors.UndefinedColumn as error:
        assert error.diag.sqlstate == "42703" and error.diag.statement_position == "8"
    # notices
    notices = []
    conn.add_notice_handler(lambda diag: notices.append(diag.message_primary))
    conn.execute("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
    assert notices == ["hello"], notices

with psycopg.connect(url) as conn:
    # transactions, nested
    with conn.transaction():
        conn.execute("DELETE FROM people WHERE id > 50")
        try:
            with conn.transaction():
                conn.execute("DELETE FROM people")
                raise psycopg.Rollback()
        except psycopg.Rollback:
            pass
        assert conn.execute("SELECT count(*) FROM people").fetchone() == (50,)
        raise psycopg.Rollback()

with psycopg.connect(url) as conn:
    assert conn.execute("SELECT count(*) FROM people").fetchone() == (100,)
    assert conn.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    conn.rollback()
    # a failed transaction
    try:
        conn.execute("SELECT 1/0")
        raise AssertionError("no error")
    except errors.DivisionByZero:
        pass
    try:
        conn.execute("SELECT 1")
        raise AssertionError("no error")
    except errors.InFailedSqlTransaction:
        pass
    conn.rollback()
    # a cursor at the server
    with conn.cursor(name="parts") as cur:
        cur.itersize = 30
        cur.execute("SELECT id FROM people ORDER BY id")
        assert [row[0] for row in cur] == list(range(1, 101))
    conn.commit()
    # copy in both directions, rows and text
    with conn.cursor() as cur:
        with cur.copy("COPY people (id, name) FROM STDIN") as copy:
            for number in range(1000, 3000):
                copy.write_row((number, f"copied {number}"))
        assert cur.rowcount == 2000, cur.rowcount
        with cur.copy("COPY (SELECT id, name FROM people WHERE id >= 1000 ORDER BY id) TO STDOUT") as copy:
            rows = [row for row in copy.rows()]
        assert rows[0] == ("1000", "copied 1000") and len(rows) == 2000
        try:
            with cur.copy("COPY people (id, name) FROM STDIN (FORMAT binary)") as copy:
                copy.write(b"not binary")
            raise AssertionError("no error")
        except errors.BadCopyFileFormat:
            pass
    conn.rollback()
    try:
        with conn.cursor() as cur, cur.copy("COPY people (id, name) FROM STDIN") as copy:
            copy.write_row((5000, "x"))
            raise RuntimeError("changed my mind")
    except RuntimeError:
        pass
    conn.rollback()
    assert conn.execute("SELECT count(*) FROM people").fetchone() == (100,)

with psycopg.connect(url, autocommit=True) as conn:
    # pipelines, with an error in the middle
    with conn.pipeline():
        cursors = [conn.execute("SELECT %s::int", (number,)) for number in range(200)]
    assert [cur.fetchone()[0] for cur in cursors] == list(range(200))
    with conn.pipeline() as pipeline:
        good = conn.execute("SELECT 'good'")
        pipeline.sync()
        bad = conn.execute("SELECT 1/0")
        aborted = conn.execute("SELECT 'never'")
        try:
            pipeline.sync()
            raise AssertionError("no error")
        except errors.DivisionByZero:
            pass
        after = conn.execute("SELECT 'after'")
    assert (good.fetchone(), after.fetchone()) == (("good",), ("after",))
    with conn.pipeline():
        count = conn.execute("SELECT count(*) FROM people")
        conn.execute("INSERT INTO people (id) VALUES (9000)")
        more = conn.execute("SELECT count(*) FROM people")
    assert (count.fetchone(), more.fetchone()) == ((100,), (101,))
    conn.execute("DELETE FROM people WHERE id = 9000")
    conn.cursor().executemany("INSERT INTO people (id) VALUES (%s)", [(number,) for number in range(9000, 9100)])
    assert conn.execute("SELECT count(*) FROM people").fetchone() == (200,)
    conn.execute("DELETE FROM people WHERE id >= 9000")
    # a cached answer, and what is said of it
    for _ in range(3):
        assert conn.execute("SELECT name, count(*) FROM people WHERE id <= 2 GROUP BY name ORDER BY name").fetchall() == [("p1", 1), ("p2", 1)]
    assert conn.execute("SHOW tollgate.last").fetchone()[0] == "hit"
    # cancel from another thread
    begun = threading.Event()

    def sleep():
        begun.set()
        conn.execute("SELECT pg_sleep(600)")

    failures = []

    def guarded():
        try:
            sleep()
            failures.append("no error")
        except errors.QueryCanceled:
            pass

    thread = threading.Thread(target=guarded)
    thread.start()
    begun.wait()
    while thread.is_alive():
        conn.cancel_safe()
        thread.join(0.05)
    assert not failures, failures
    assert conn.execute("SELECT 1").fetchone() == (1,)

# notifications from one user to the other
with psycopg.connect(url, autocommit=True) as conn, psycopg.connect(other_url, autocommit=True) as other:
    conn.execute("LISTEN news")
    other.execute("NOTIFY news, 'hello'")
    assert [note.payload for note in conn.notifies(timeout=30, stop_after=1)] == ["hello"]
    other.execute("SET TIME ZONE 'Asia/Tokyo'")
    (at,) = other.execute("SELECT min(at) FROM people").fetchone()
    assert at.utcoffset().total_seconds() == 9 * 3600, at

with psycopg.connect(console_url, autocommit=True) as console:
    assert console.execute("SHOW VERSION").fetchone()[0].startswith("Tollgate")
    assert any("root" in row for row in console.execute("SHOW CLIENTS").fetchall())

with psycopg.connect(console_url) as console:
    console.execute("SHOW POOLS").fetchall()
    console.commit()

try:
    psycopg.connect(url.replace("ana:ana", "ana:wrong"))
    raise AssertionError("no error")
except psycopg.OperationalError as error:
    assert 'password authentication failed for user "ana"' in str(error), error

print("done")
