//! Loads the demo data, all or nothing: into a schema that nobody looks at, which one transaction then empties
//! into `public`. A row of `tollgate_demo.load` says that it was done; without it the load begins anew.

use std::future::Future;
use std::time::Instant;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::sync::mpsc;
use tokio_postgres::{Client, CopyInSink};

use super::error::{StandInError, database};
use super::generate::{Days, GENERATOR, SEED};
use super::rows::{
    COUNTRIES_TABLE, CopyStream, EVENT_KINDS_TABLE, EVENTS_TABLE, SESSIONS_TABLE, Table, USERS_TABLE,
    countries, event_kinds, whole,
};
use super::{Day, TEAMS};

/// How many chunks may wait for the server, for each table.
const CHUNKS_WAITING: usize = 8;

const PREPARE: &str = "
    CREATE SCHEMA IF NOT EXISTS tollgate_demo;
    CREATE TABLE IF NOT EXISTS tollgate_demo.load (
        generator integer NOT NULL, events bigint NOT NULL, last_day date NOT NULL,
        loaded_at timestamptz NOT NULL DEFAULT now()
    );
    DROP SCHEMA IF EXISTS tollgate_demo_loading CASCADE;
    CREATE SCHEMA tollgate_demo_loading";

/// The summary that a nightly job would load; from the rows themselves, so that it agrees with them.
const SUMMARIZE: &str = "
    BEGIN;
    CREATE TABLE tollgate_demo_loading.messages_daily (
        day date NOT NULL, country_code varchar(2) NOT NULL, chat_kind varchar(8) NOT NULL,
        senders bigint NOT NULL, messages bigint NOT NULL, message_bytes bigint NOT NULL
    );
    INSERT INTO tollgate_demo_loading.messages_daily
    SELECT e.event_time::date, u.country_code, e.chat_kind, count(DISTINCT e.user_id), count(*), sum(e.message_bytes)
    FROM tollgate_demo_loading.events e JOIN tollgate_demo_loading.users u ON u.user_id = e.user_id
    WHERE e.event_kind = 'message_sent'
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
    ALTER TABLE tollgate_demo_loading.messages_daily ADD PRIMARY KEY (day, country_code, chat_kind);
    COMMIT;
    ANALYZE tollgate_demo_loading.messages_daily";

const TABLES: [&str; 6] = [
    "countries",
    "event_kinds",
    "users",
    "sessions",
    "events",
    "messages_daily",
];

/// Loads `events` events up to `last_day`, unless data are there already; those are kept, whatever they are.
pub(super) async fn load<F, C>(
    connect: F,
    events: u64,
    last_day: Day,
    progress: &mut impl FnMut(&str),
) -> Result<(), StandInError>
where
    F: Fn() -> C,
    C: Future<Output = Result<Client, StandInError>>,
{
    let began = Instant::now();
    let client = connect().await?;
    client
        .batch_execute(PREPARE)
        .await
        .map_err(database("prepare the load of the demo data"))?;
    if let Some(kept) = loaded(&client, events, last_day).await? {
        client
            .batch_execute("DROP SCHEMA tollgate_demo_loading")
            .await
            .map_err(database("prepare the load of the demo data"))?;
        progress(&kept);
        return Ok(());
    }
    progress(&format!(
        "loading {events} events of the 90 days up to {last_day}"
    ));

    let mut days = Days::new(SEED, events, last_day);
    let users = whole(days.users().iter());
    let (to_sessions, sessions) = mpsc::channel(CHUNKS_WAITING);
    let (to_events, event_chunks) = mpsc::channel(CHUNKS_WAITING);
    // the generator computes, so it has a thread; it ends when a load fails, because nobody receives then
    let generator = tokio::task::spawn_blocking(move || generate(&mut days, &to_sessions, &to_events));
    let small = async {
        let client = connect().await?;
        copy(&client, &COUNTRIES_TABLE, &mut Whole(countries().into_iter())).await?;
        copy(&client, &EVENT_KINDS_TABLE, &mut Whole(event_kinds().into_iter())).await?;
        copy(&client, &USERS_TABLE, &mut Whole(users.into_iter())).await
    };
    let sessions = async { copy(&connect().await?, &SESSIONS_TABLE, &mut Streamed(sessions)).await };
    let events_copied = async { copy(&connect().await?, &EVENTS_TABLE, &mut Streamed(event_chunks)).await };
    tokio::try_join!(small, sessions, events_copied)?;
    if !generator.await.unwrap_or(false) {
        return Err(StandInError::Generator);
    }

    client
        .batch_execute(SUMMARIZE)
        .await
        .map_err(database("summarize the demo data"))?;
    client
        .batch_execute(&publish(events, last_day))
        .await
        .map_err(database("publish the demo data"))?;
    progress(&format!("loaded in {:.1} s", began.elapsed().as_secs_f64()));
    Ok(())
}

/// What data are there already, in words; `None` when there are none.
async fn loaded(client: &Client, events: u64, last_day: Day) -> Result<Option<String>, StandInError> {
    let doing = "read what demo data are there";
    let row = client
        .query_opt(
            "SELECT events, last_day::text, (last_day - date '1970-01-01')::integer, generator \
             FROM tollgate_demo.load ORDER BY loaded_at DESC LIMIT 1",
            &[],
        )
        .await
        .map_err(database(doing))?;
    let Some(row) = row else { return Ok(None) };
    let has: i64 = row.try_get(0).map_err(database(doing))?;
    let until: String = row.try_get(1).map_err(database(doing))?;
    let until_day: i32 = row.try_get(2).map_err(database(doing))?;
    let generator: i32 = row.try_get(3).map_err(database(doing))?;
    let differs = if u64::try_from(has) == Ok(events) {
        String::new()
    } else {
        format!(" (not the {events} asked for)")
    };
    let advice = if differs.is_empty() && until_day >= last_day.0 && generator == GENERATOR {
        ""
    } else {
        "; for new data remove the directory, or choose another with --data"
    };
    Ok(Some(format!(
        "keeping the demo data that are there: {has} events up to {until}{differs}{advice}"
    )))
}

/// Sends the rows of every day; false when nobody receives any more.
fn generate(days: &mut Days, to_sessions: &mpsc::Sender<Bytes>, to_events: &mpsc::Sender<Bytes>) -> bool {
    let mut sessions = CopyStream::new();
    let mut events = CopyStream::new();
    let send = |to: &mpsc::Sender<Bytes>, chunk: Option<Bytes>| {
        chunk.is_none_or(|chunk| to.blocking_send(chunk).is_ok())
    };
    for rows in days {
        if !rows
            .sessions
            .iter()
            .all(|row| send(to_sessions, sessions.push(row)))
            || !rows.events.iter().all(|row| send(to_events, events.push(row)))
        {
            return false;
        }
    }
    send(to_sessions, Some(sessions.finish())) && send(to_events, Some(events.finish()))
}

/// Where the chunks of a table come from.
trait Chunks {
    /// The next one; `None` after the last.
    async fn next(&mut self) -> Option<Bytes>;
}

struct Whole(std::vec::IntoIter<Bytes>);

impl Chunks for Whole {
    async fn next(&mut self) -> Option<Bytes> {
        self.0.next()
    }
}

struct Streamed(mpsc::Receiver<Bytes>);

impl Chunks for Streamed {
    async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}

/// Makes a table, fills it and indexes it.
async fn copy(client: &Client, table: &Table, chunks: &mut impl Chunks) -> Result<(), StandInError> {
    let Table {
        name,
        columns,
        key,
        time,
    } = table;
    let doing = "load the demo data";
    // rows that are loaded in the transaction that made their table need no write-ahead log and no vacuum
    client
        .batch_execute(&format!(
            "BEGIN; CREATE TABLE tollgate_demo_loading.{name} ({columns})"
        ))
        .await
        .map_err(database(doing))?;
    let statement = format!("COPY tollgate_demo_loading.{name} FROM STDIN (FORMAT binary, FREEZE)");
    let sink: CopyInSink<Bytes> = client.copy_in(&statement).await.map_err(database(doing))?;
    let mut sink = std::pin::pin!(sink);
    while let Some(chunk) = chunks.next().await {
        sink.feed(chunk).await.map_err(database(doing))?;
    }
    sink.finish().await.map_err(database(doing))?;
    let index = time.map_or_else(String::new, |time| {
        format!("CREATE INDEX ON tollgate_demo_loading.{name} USING brin ({time});\n")
    });
    let finish = format!(
        "ALTER TABLE tollgate_demo_loading.{name} ADD PRIMARY KEY ({key});\n{index}COMMIT;\n\
         ANALYZE tollgate_demo_loading.{name}"
    );
    client.batch_execute(&finish).await.map_err(database(doing))
}

/// The transaction that makes the loaded tables public.
fn publish(events: u64, last_day: Day) -> String {
    let teams = TEAMS.join(", ");
    let tables: Vec<String> = TABLES
        .iter()
        .map(|table| {
            format!(
                "ALTER TABLE tollgate_demo_loading.{table} SET SCHEMA public;\n\
                 GRANT SELECT, INSERT, UPDATE, DELETE ON public.{table} TO {teams};\n"
            )
        })
        .collect();
    format!(
        "BEGIN;\n{}DROP SCHEMA tollgate_demo_loading;\n\
         INSERT INTO tollgate_demo.load (generator, events, last_day) VALUES ({GENERATOR}, {events}, '{last_day}');\n\
         COMMIT",
        tables.concat()
    )
}
