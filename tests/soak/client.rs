//! One client of the soak: sessions one after the other, each with some operations.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt as _, TryStreamExt as _, pin_mut};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio_postgres::types::Type;
use tokio_postgres::{Error, NoTls, SimpleQueryMessage};

use crate::support::gateway::{ANA, BEN};

/// How long an operation may take in a calm.
const PATIENCE: Duration = Duration::from_secs(20);
/// After this it is given up in a storm.
const PATIENCE_IN_A_STORM: Duration = Duration::from_secs(2);

/// What the clients share.
pub(crate) struct Shared {
    addresses: [SocketAddr; 2],
    /// Odd in a storm.
    pub(crate) storms: AtomicU64,
    pub(crate) over: AtomicBool,
    pub(crate) operations: AtomicU64,
    pub(crate) sessions: AtomicU64,
    pub(crate) provoked: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) rows: AtomicU64,
    /// Errors that nothing provoked.
    pub(crate) errors: Mutex<Vec<String>>,
}

impl Shared {
    pub(crate) fn new(addresses: [SocketAddr; 2]) -> Self {
        Self {
            addresses,
            storms: AtomicU64::new(0),
            over: AtomicBool::new(false),
            operations: AtomicU64::new(0),
            sessions: AtomicU64::new(0),
            provoked: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            errors: Mutex::default(),
        }
    }

    /// Waits for `future`, in a storm not for long.
    async fn patiently<T>(&self, future: impl Future<Output = T>) -> Result<T, Failure> {
        let (start, before) = (Instant::now(), self.storms.load(Ordering::Acquire));
        let mut looks = tokio::time::interval(Duration::from_millis(200));
        pin_mut!(future);
        loop {
            tokio::select! {
                done = &mut future => return Ok(done),
                _ = looks.tick() => {
                    let now = self.storms.load(Ordering::Acquire);
                    let calm = now == before && now.is_multiple_of(2);
                    if start.elapsed() > if calm { PATIENCE } else { PATIENCE_IN_A_STORM } {
                        return Err(Failure::Slow);
                    }
                }
            }
        }
    }
}

/// A client, and what it knows of its own row: the least and the most that it can be.
pub(crate) struct Client {
    number: usize,
    shared: Arc<Shared>,
    random: StdRng,
    least: i64,
    most: i64,
}

/// Why an operation ended early.
enum Failure {
    Postgres(Error),
    /// It took too long.
    Slow,
    /// A row that is not the client's, or is too old.
    Wrong(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
    }
}

impl Client {
    pub(crate) fn new(number: usize, shared: Arc<Shared>) -> Self {
        Self {
            number,
            shared,
            random: StdRng::seed_from_u64(number as u64),
            least: 0,
            most: 0,
        }
    }

    /// Until it is over; what it then knows of its row.
    pub(crate) async fn run(mut self) -> (i64, i64) {
        while !self.shared.over.load(Ordering::Acquire) {
            let storm = self.shared.storms.load(Ordering::Acquire);
            let result = self.session().await;
            self.shared.sessions.fetch_add(1, Ordering::Relaxed);
            let Err(failure) = result else { continue };
            // the session began and ended in the same calm, and so did all it has met
            let calm =
                storm.is_multiple_of(2) && storm == self.shared.storms.load(Ordering::Acquire) && storm > 0;
            let text = match failure {
                Failure::Wrong(text) => text,
                Failure::Slow if calm => "an operation took too long".to_owned(),
                Failure::Postgres(error) if calm => format!("{error:?}"),
                Failure::Slow | Failure::Postgres(_) => {
                    self.shared.provoked.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            };
            let mut errors = self.shared.errors.lock().unwrap();
            if errors.len() < 100 {
                errors.push(format!("client {}: {text}", self.number));
            }
        }
        (self.least, self.most)
    }

    async fn session(&mut self) -> Result<(), Failure> {
        let address = self.shared.addresses[self.random.random_range(0..2)];
        let (user, password) = if self.number.is_multiple_of(2) { ANA } else { BEN };
        let mut config = tokio_postgres::Config::new();
        config
            .host(address.ip().to_string())
            .port(address.port())
            .user(user)
            .password(password)
            .dbname("soak")
            .connect_timeout(PATIENCE);
        let shared = Arc::clone(&self.shared);
        let (mut client, connection) = shared.patiently(config.connect(NoTls)).await??;
        let driver = tokio::spawn(connection);
        let mut result = Ok(());
        for _ in 0..self.random.random_range(1..30) {
            if self.shared.over.load(Ordering::Acquire) {
                break;
            }
            let operation = shared.patiently(self.operation(&mut client));
            result = operation.await.and_then(|result| result);
            self.shared.operations.fetch_add(1, Ordering::Relaxed);
            if result.is_err() {
                break;
            }
        }
        if self.random.random_range(0..4) == 0 {
            // goes without a word, while something runs
            let running = client.simple_query("SELECT pg_sleep(1)");
            drop(tokio::time::timeout(Duration::from_millis(5), running).await);
            driver.abort();
        }
        drop(client);
        // ended or aborted
        drop(shared.patiently(driver).await);
        result
    }

    async fn operation(&mut self, client: &mut tokio_postgres::Client) -> Result<(), Failure> {
        let who = i32::try_from(self.number).unwrap();
        let mark = self.random.random::<i32>();
        let text = format!("SELECT {who}, {mark}, g FROM generate_series(1, 20) g");
        let typed = "SELECT $1::int, $2::int, g FROM generate_series(1, 20) g";
        match self.random.random_range(0..9) {
            0 => {
                let rows = client.simple_query(&text).await?;
                for row in &rows {
                    if let SimpleQueryMessage::Row(row) = row {
                        let number = |at: usize| row.get(at).and_then(|text| text.parse().ok());
                        self.own((number(0), number(1)), who, mark)?;
                    }
                }
            }
            1 => {
                let rows = client
                    .query_typed(typed, &[(&who, Type::INT4), (&mark, Type::INT4)])
                    .await?;
                self.all_own(&rows, who, mark)?;
            }
            2 => {
                let statement = client.prepare(typed).await?;
                for step in 0..3 {
                    let mark = mark.wrapping_add(step);
                    let rows = client.query(&statement, &[&who, &mark]).await?;
                    self.all_own(&rows, who, mark)?;
                }
            }
            3 => {
                let statement = client.prepare(typed).await?;
                let marks: Vec<i32> = (0..8).map(|step| mark.wrapping_add(step)).collect();
                let queries = marks.iter().map(|mark| {
                    let (client, statement, who) = (&*client, &statement, &who);
                    async move { client.query(statement, &[who, mark]).await }
                });
                let answers = futures_util::future::try_join_all(queries).await?;
                for (rows, mark) in answers.iter().zip(marks) {
                    self.all_own(rows, who, mark)?;
                }
            }
            4 => self.write(client, who).await?,
            5 => {
                client
                    .execute_typed("DELETE FROM copied WHERE who = $1", &[(&who, Type::INT4)])
                    .await?;
                let sink = client.copy_in("COPY copied FROM STDIN").await?;
                pin_mut!(sink);
                for n in 0..50 {
                    sink.send(Bytes::from(format!("{who}\t{n}\n"))).await?;
                }
                sink.finish().await?;
            }
            6 => {
                let stream = client
                    .copy_out(&format!(
                        "COPY (SELECT {who}, {mark}, g FROM generate_series(1, 2000) g) TO STDOUT"
                    ))
                    .await?;
                let parts: Vec<Bytes> = stream.try_collect().await?;
                let bytes = parts.concat();
                for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let line = String::from_utf8_lossy(line);
                    let mut numbers = line.split('\t').map(|text| text.parse().ok());
                    let pair = (numbers.next().flatten(), numbers.next().flatten());
                    self.own(pair, who, mark)?;
                }
            }
            7 => {
                let token = client.cancel_token();
                let slow = client.simple_query("SELECT pg_sleep(0.05)");
                let (slow, _) = tokio::join!(slow, token.cancel_query(NoTls));
                match slow {
                    Err(error) if error.code().is_some_and(|code| code.code() == "57014") => {
                        self.shared.cancelled.fetch_add(1, Ordering::Relaxed);
                    }
                    other => drop(other?),
                }
            }
            _ => {
                let sql = format!("SELECT who, sum(v) FROM marks WHERE who = {who} GROUP BY who");
                let rows = client.query(&sql, &[]).await?;
                let seen: i64 = rows[0].get(1);
                if rows[0].get::<_, i32>(0) != who || !(self.least..=self.most).contains(&seen) {
                    return Err(Failure::Wrong(format!(
                        "its row is {rows:?} with {seen}, not {} to {}",
                        self.least, self.most
                    )));
                }
                self.least = seen;
            }
        }
        Ok(())
    }

    /// Adds one to its row, in a transaction or not, and perhaps takes it back.
    async fn write(&mut self, client: &mut tokio_postgres::Client, who: i32) -> Result<(), Failure> {
        let update = "UPDATE marks SET v = v + 1 WHERE who = $1";
        match self.random.random_range(0..3) {
            0 => {
                let transaction = client.transaction().await?;
                transaction.execute_typed(update, &[(&who, Type::INT4)]).await?;
                transaction.rollback().await?;
            }
            1 => {
                let transaction = client.transaction().await?;
                transaction.execute_typed(update, &[(&who, Type::INT4)]).await?;
                // from here on the outcome may get lost
                self.most += 1;
                transaction.commit().await?;
                self.least += 1;
            }
            _ => {
                self.most += 1;
                client.execute_typed(update, &[(&who, Type::INT4)]).await?;
                self.least += 1;
            }
        }
        Ok(())
    }

    fn all_own(&self, rows: &[tokio_postgres::Row], who: i32, mark: i32) -> Result<(), Failure> {
        if rows.len() != 20 {
            return Err(Failure::Wrong(format!("{} rows instead of 20", rows.len())));
        }
        rows.iter()
            .try_for_each(|row| self.own((Some(row.get(0)), Some(row.get(1))), who, mark))
    }

    fn own(&self, row: (Option<i32>, Option<i32>), who: i32, mark: i32) -> Result<(), Failure> {
        self.shared.rows.fetch_add(1, Ordering::Relaxed);
        if row == (Some(who), Some(mark)) {
            return Ok(());
        }
        Err(Failure::Wrong(format!("asked for {who}, {mark} and got {row:?}")))
    }
}
