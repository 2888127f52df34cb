//! Every setting there is: the one place where a setting is declared.
//!
//! The doc comment of a field is its text in the reference and in the generated example, so it says what the
//! setting does; type, default, range, meaning of 0 and reload are told from the methods behind `=>`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::address::Address;
use super::checks;
use super::kind::Kind;
use super::network::Networks;
use super::password::Password;
use super::schema::{choice, section};
use super::secrets::{LoginPassword, Pem};
use crate::types::{BackendName, ByteSize, DatabaseName, TeamName, UserName};

/// One second, minute, hour, day in the unit of a range of durations.
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// One KiB and GiB in the unit of a range of sizes.
const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

const NEW_CONNECTIONS: &str = "for connections made afterwards";
const NEW_LOGINS: &str = "for logins afterwards";
const NEW_QUERIES: &str = "for queries that arrive afterwards";

section! {
    /// The whole configuration.
    pub struct Config checked by checks::whole {
        /// Where and how clients connect.
        pub listen: Listen => default("{}");
        /// Metrics and health over HTTP.
        pub http: Option<Http> => absent("no HTTP listener", "{}"), shown();
        /// The databases that queries go to, one section each.
        pub backends: BTreeMap<BackendName, Backend> => key("backend"), required("warehouse");
        /// Who shares a budget and a login at a backend, one section each.
        pub teams: BTreeMap<TeamName, Team> => key("team"), required("growth");
        /// Who may log in, one section each.
        pub users: BTreeMap<UserName, User> => key("user"), required("ana");
        /// Which answers are kept in memory, and how many.
        pub cache: Cache => default("{}");
        /// What the gateway writes to its standard error.
        pub log: Log => default("{}");
        /// What all backends share.
        pub pool: Pool => default("{}");
    }
}

section! {
    /// Where and how clients connect: PostgreSQL's wire protocol, as Redshift speaks it.
    pub struct Listen checked by checks::listen {
        /// The TCP address for clients. `0.0.0.0` and `[::]` mean every network of the machine.
        pub address: Address => default("127.0.0.1:5439"), kind(Kind::TcpAddress), zero("as the port: any free one, told in the log"),
            restart(), elsewhere(&["listen_addr", "listen_port", "listen_addresses", "port", "host", "bind"]);
        /// TLS for clients that ask for it. Without it such clients are told that there is none.
        pub tls: Option<ListenTls> =>
            absent("no TLS", "{ certificate = \"server.crt\", key = \"server.key\", required = false }"),
            elsewhere(&["ssl", "client_tls_sslmode"]);
        /// How many clients may be connected; one more is refused with SQLSTATE 53300.
        pub max_connections: u32 => default("2000"), within(1, 1_000_000), zero("to refuse everybody, stop the gateway"),
            reload(NEW_CONNECTIONS), elsewhere(&["max_client_conn", "max_clients"]);
        /// How many of them may come from one IP address. Mind that a BI server is one address for all its users.
        pub max_connections_per_address: u32 => default("500"), within(0, 1_000_000), zero("no limit of its own"),
            reload(NEW_CONNECTIONS), elsewhere(&["max_connections_per_ip"]);
        /// How long a client may take from connecting to the end of its login.
        pub login_timeout: Duration => default("15s"), within(100, 10 * MINUTE),
            zero("a login without a limit would let strangers hold connections"),
            reload(NEW_CONNECTIONS), elsewhere(&["client_login_timeout", "authentication_timeout"]);
        /// How long a client outside of a transaction may ask for nothing; then it is told so with SQLSTATE 57P05, and its
        /// session ends.
        pub client_idle: Duration => default("0s"), within(0, 30 * DAY), zero("no limit"),
            reload("at once"), elsewhere(&["client_idle_timeout", "idle_session_timeout"]);
        /// How long a client may ask for nothing while its transaction is open, which holds a connection and locks; then it is
        /// told so with SQLSTATE 25P03, its session ends, and the transaction is rolled back.
        pub idle_in_transaction: Duration => default("0s"), within(0, 30 * DAY), zero("no limit"),
            reload("at once"), elsewhere(&["idle_transaction_timeout", "idle_in_transaction_session_timeout"]);
        /// How long SIGTERM waits for running queries. Then they are cancelled and the process ends.
        pub drain_timeout: Duration => default("30s"), within(0, DAY), zero("running queries are cancelled at once"),
            reload("for the next SIGTERM"), elsewhere(&["shutdown_timeout"]);
        /// A Unix socket by which `tollgate serve --take-over` takes the listening sockets over from the gateway that runs,
        /// so that a restart refuses nobody. An absolute path in a directory that only the gateway's user may write to.
        pub take_over_socket: Option<String> => absent("a restart refuses clients for a moment", "/run/tollgate/take-over.sock"),
            restart(), elsewhere(&["unix_socket_dir", "so_reuseport", "control_socket"]);
        /// How long sessions of the old process may go on after a take-over. Then it drains as at SIGTERM. As long as it
        /// lives no answer comes from memory, in either process: neither hears of the other's writes.
        pub take_over_patience: Duration => default("5min"), within(0, 7 * DAY), zero("it drains at once"),
            reload("for the next take-over"), elsewhere(&["shutdown_wait_for_clients"]);
        /// How many threads serve clients.
        pub workers: usize => default("0"), within(0, 1024), zero("one for every two cores"),
            restart(), elsewhere(&["worker_threads", "threads"]);
        /// Finds out that a client's machine is gone.
        pub tcp_keepalive: TcpKeepalive => default("{}"),
            elsewhere(&["tcp_keepidle", "tcp_keepintvl", "tcp_keepcnt"]);
        /// How long bytes for a client may stay unacknowledged before its connection is closed. Linux counts time in which a
        /// client that is there takes no bytes: a reader that pauses for longer is closed, too.
        pub tcp_user_timeout: Duration => default("0s"), within(0, DAY), zero("as the system has it, about 15 minutes"),
            reload(NEW_CONNECTIONS);
        /// How many logins from one IP address (of IPv6: one /64 network) may fail in a minute; then that address is
        /// refused with SQLSTATE 28000 until some are forgotten. Mind that a BI server is one address for all its users.
        pub failed_logins_per_address: u32 => default("60"), within(0, 1_000_000), zero("no limit"), reload(NEW_LOGINS),
            elsewhere(&["max_failed_logins", "auth_failure_limit"]);
        /// How many logins of one user may fail in a minute, from wherever the user's `allow` lets in; then the user is
        /// refused with SQLSTATE 28000 until some are forgotten.
        pub failed_logins_per_user: u32 => default("20"), within(0, 1_000_000), zero("no limit"), reload(NEW_LOGINS);
    }
}

section! {
    /// TLS between clients and the gateway.
    pub struct ListenTls checked by checks::listen_tls {
        /// The certificate, with those of the intermediate authorities behind it.
        pub certificate: Pem => required("server.crt"), reload(NEW_CONNECTIONS),
            elsewhere(&["client_tls_cert_file", "ssl_cert_file", "cert"]);
        /// The certificate's private key, not encrypted.
        pub key: Pem => required("server.key"), reload(NEW_CONNECTIONS),
            elsewhere(&["client_tls_key_file", "ssl_key_file", "private_key"]);
        /// Whether a client without TLS is refused.
        pub required: bool => default("false"), reload(NEW_CONNECTIONS);
        /// The certificates of the authorities that sign those of clients. Clients are asked for one then; one that is
        /// shown must be right, and users with `certificate` must show theirs.
        pub client_ca: Option<Pem> => absent("clients are asked for no certificate", "clients.crt"),
            reload(NEW_CONNECTIONS), elsewhere(&["client_tls_ca_file", "ssl_ca_file", "clientcert"]);
    }
}

section! {
    /// Probes on idle TCP connections. Keep `idle` below the idle timeout of load balancers on the way: 350 s at AWS.
    pub struct TcpKeepalive {
        /// How long a connection is silent before the first probe.
        pub idle: Duration => default("1min"), within(0, DAY), zero("no probes"), reload(NEW_CONNECTIONS),
            elsewhere(&["tcp_keepidle", "tcp_keepalives_idle"]);
        /// The time between probes that nobody answers.
        pub interval: Duration => default("10s"), within(SECOND, HOUR), zero("for no probes write idle = \"0s\""),
            reload(NEW_CONNECTIONS), elsewhere(&["tcp_keepintvl", "tcp_keepalives_interval"]);
        /// How many unanswered probes end the connection.
        pub probes: u32 => default("6"), within(1, 100), zero("for no probes write idle = \"0s\""),
            reload(NEW_CONNECTIONS), elsewhere(&["tcp_keepcnt", "tcp_keepalives_count"]);
    }
}

section! {
    /// Metrics (`/metrics`) and health (`/livez`, `/readyz`) over HTTP. Without this section nothing listens.
    pub struct Http checked by checks::http {
        /// The TCP address. Whoever reaches it may read every metric.
        pub address: Address => default("127.0.0.1:8439"), kind(Kind::TcpAddress), zero("as the port: any free one, told in the log"),
            restart(), elsewhere(&["listen", "port"]);
    }
}

choice! {
    /// What a backend is.
    pub enum BackendKind redshift when Redshift {
        /// A PostgreSQL that stands in for Redshift.
        Postgres = "postgres",
        /// Amazon Redshift, a cluster or a workgroup.
        Redshift = "redshift",
    }
}

choice! {
    /// How a connection to a backend is protected.
    pub enum TlsMode {
        /// Not at all.
        Off = "off",
        /// Encrypted, whatever certificate the server shows.
        Require = "require",
        /// Encrypted, and the certificate is for the host of `address` and signed by an authority in `ca`.
        VerifyFull = "verify-full",
    }
}

choice! {
    /// Where a session reads after it has written.
    pub enum ReadAfterWrite {
        /// At the primary, until the reader is sure to have what the session wrote.
        Primary = "primary",
        /// At any reader: a session may miss for a moment what it just wrote.
        Reader = "reader",
    }
}

section! {
    /// A database server that queries go to. NAME is what the file and the console call it.
    pub struct Backend checked by checks::backend {
        /// What the server is.
        pub kind: BackendKind => default("postgres"), restart(), elsewhere(&["type"]);
        /// Where it listens: `host:port`, or the directory of its Unix socket, with `:port` behind it if that is
        /// not 5432.
        pub address: Address => required("127.0.0.1:5432"), restart(), elsewhere(&["host", "port", "url"]);
        /// The databases that clients may name when they connect.
        pub databases: Vec<DatabaseName> => required("[\"dev\"]"), reload(NEW_LOGINS),
            elsewhere(&["database", "dbname"]);
        /// How connections to it are protected.
        pub tls: TlsMode => default("off"), on_redshift("require"), restart(),
            elsewhere(&["sslmode", "server_tls_sslmode", "ssl"]);
        /// The certificates of the authorities that `tls = "verify-full"` trusts.
        pub ca: Option<Pem> => absent("none, which `tls = \"verify-full\"` does not accept", "ca.crt"), restart(),
            elsewhere(&["server_tls_ca_file", "sslrootcert", "ca_file"]);
        /// How many connections are open to it at most, over all teams. Those of `control`, at most two, come on top.
        pub max_connections: u32 => default("20"), on_redshift("50"), within(1, 10_000),
            zero("to keep queries away, use PAUSE in the console"),
            reload("for connections made afterwards; those above a lower limit close as they become free"),
            elsewhere(&["default_pool_size", "max_db_connections", "pool_size", "max_user_connections"]);
        /// The login for the gateway's own questions: the catalog's tables, views and functions. It needs no
        /// rights on data.
        pub control: Control => required("{ user = \"tollgate\", password = { file = \"control.secret\" } }"),
            elsewhere(&["auth_user", "user", "password"]);
        /// How long a query waits for a connection before it fails with SQLSTATE 53300.
        pub checkout_timeout: Duration => default("30s"), within(0, DAY), zero("it fails at once"),
            reload("for queries that begin to wait afterwards"), elsewhere(&["query_wait_timeout"]);
        /// How long making a connection may take, login included.
        pub connect_timeout: Duration => default("10s"), within(100, 10 * MINUTE),
            zero("a server that does not answer would hold queries for ever"),
            reload(NEW_CONNECTIONS), elsewhere(&["server_connect_timeout"]);
        /// How long a connection that nobody uses stays open.
        pub idle_timeout: Duration => default("10min"), within(0, 30 * DAY), zero("as long as `lifetime` allows"),
            reload("at once"), elsewhere(&["server_idle_timeout"]);
        /// How old a connection may become; an older one is closed when nobody uses it. Each connection gets a little
        /// less, at random, up to a tenth, so that not all close at once.
        pub lifetime: Duration => default("1h"), within(0, 365 * DAY), zero("any age"),
            reload("at once"), elsewhere(&["server_lifetime", "max_lifetime"]);
        /// How long a request to cancel a query may take before it is given up.
        pub cancel_timeout: Duration => default("10s"), within(100, 10 * MINUTE),
            zero("a cancel that hangs would keep its connection from being used again"),
            reload("for cancels afterwards"), elsewhere(&["cancel_wait_timeout"]);
        /// How often the catalog is read again. A change that a query through the gateway makes is seen at once; one
        /// made past it within this time.
        pub catalog_refresh: Duration => default("1min"), within(SECOND, DAY),
            zero("the cache must hear of changes made past the gateway"), restart();
        /// How many prepared statements a connection keeps for the sessions that share it; beyond that the one that was
        /// used the longest time ago is closed, and prepared again when it is needed.
        pub max_prepared_statements: u32 => default("200"), within(1, 100_000),
            zero("sessions share connections, so these have to keep the statement that is used"),
            reload("for statements prepared afterwards");
        /// Finds out that the server's machine is gone.
        pub tcp_keepalive: TcpKeepalive => default("{}"),
            elsewhere(&["tcp_keepidle", "tcp_keepintvl", "tcp_keepcnt"]);
        /// How many connections are kept open for each database and login that was used in the last hour, as far as
        /// `max_connections` allows. They are opened in the background.
        pub min_connections: u32 => default("0"), within(0, 10_000), zero("they are opened when they are needed"),
            reload("at once"), elsewhere(&["min_pool_size"]);
        /// A connection that nobody used for so long is asked, before a query gets it, whether it still answers. One that
        /// does not is closed, with all that were idle for as long, and the query gets another.
        pub check_after_idle: Duration => default("30s"), within(0, 30 * DAY), zero("connections are not asked"),
            reload("at once"), elsewhere(&["server_check_delay"]);
        /// The longest pause between attempts to connect while the server does not answer. It begins at a tenth of a
        /// second and doubles, less a random part; a query that needs a new connection meanwhile is told the last error.
        pub connect_retry: Duration => default("5s"), within(100, HOUR),
            zero("a server in trouble must not be asked without a pause"), reload("for failures afterwards");
        /// After how many failures to connect in a row the circuit opens: queries that find no open connection are refused
        /// at once with SQLSTATE 08006, and only the gateway itself tries again, every `connect_retry`.
        pub circuit_breaker: u32 => default("5"), within(0, 1_000), zero("queries go on trying to connect"),
            reload("for failures afterwards");
        /// How long a refused login is remembered. Queries that need a new connection with it are told the same meanwhile,
        /// and the server is not asked again. A reload forgets it.
        pub login_retry: Duration => default("15s"), within(100, HOUR),
            zero("a wrong password must not be sent without a pause"), reload("for failures afterwards"),
            elsewhere(&["server_login_retry"]);
        /// How long bytes for the server may stay unacknowledged before the connection counts as lost. Linux counts time in
        /// which a server that is there takes no bytes: leave time for COPY and for long queries with more behind them.
        pub tcp_user_timeout: Duration => default("5min"), within(0, DAY),
            zero("as the system has it, about 15 minutes"), reload(NEW_CONNECTIONS);
        /// Where the primary may be, too: tried in this order when nobody answers at `address`, or when a standby does.
        pub fallbacks: Vec<Address> => default("[]"), restart(), elsewhere(&["addresses", "hosts", "failover"]);
        /// Servers that have a copy of the data, such as hot standbys or Redshift's consumer clusters. Statements that only
        /// read, outside of transactions, go to the least busy of those that answer, and each may have `max_connections`.
        pub readers: Vec<Address> => default("[]"), restart(), elsewhere(&["replicas", "read_replicas", "standbys"]);
        /// How often the servers are asked how they do, where there are `fallbacks` or `readers`. One that does not answer
        /// gets no queries, and is asked again after a second, two, four, up to a minute.
        pub health_interval: Duration => default("1s"), within(100, HOUR), zero("servers that are not asked get no queries"),
            restart(), elsewhere(&["healthcheck_delay", "health_check_period", "healthcheck_interval"]);
        /// How far a reader may be behind the primary to get queries.
        pub reader_max_lag: Duration => default("10s"), within(0, DAY), zero("any"),
            restart(), elsewhere(&["max_replication_lag", "delay_threshold"]);
        /// Where a session reads after it has written.
        pub read_after_write: ReadAfterWrite => default("primary"), restart();
    }
}

section! {
    /// What the pools of all backends share.
    pub struct Pool {
        /// How many connections are open to all backends together at most. Each backend's own limit holds beside it.
        pub max_connections: Option<u32> => absent("no limit but those of the backends", "100"), within(1, 1_000_000),
            zero("to keep queries away, use PAUSE in the console"),
            reload("for connections made afterwards; those above a lower limit close as they become free"),
            elsewhere(&["max_server_connections", "max_server_conn", "max_total_connections"]);
    }
}

section! {
    /// The gateway's own login at a backend.
    pub struct Control {
        /// The role's name at the backend.
        pub user: String => required("tollgate"), restart(), elsewhere(&["role", "username", "name"]);
        /// The role's password; of a command the line that it prints, as for `login` of a team.
        pub password: Option<LoginPassword> =>
            absent("none: the server trusts the connection", "{ file = \"control.secret\" }"), shown(), restart();
    }
}

section! {
    /// A login at a backend.
    pub struct Login checked by checks::login {
        /// The role's name at the backend.
        pub user: Option<String> => absent("that of each user, with `as_user`", "growth"), shown(),
            reload(NEW_CONNECTIONS), elsewhere(&["role", "username", "name"]);
        /// The role's password. Of a `command` it is the line that it prints: it is run when the gateway starts, and
        /// again whenever `refresh` (10min) is over; while it fails, the password before stays in use. There is no
        /// shell: the command is a list of words, or a text that is cut at spaces, where quotation marks and
        /// backslashes keep a word together.
        pub password: Option<LoginPassword> =>
            absent("none: the server trusts the connection", "{ env = \"GROWTH_PASSWORD\" }"), shown(),
            reload(NEW_CONNECTIONS);
        /// Whether each user logs in at the backend under its own name, with what its login at the gateway shows. Its
        /// `password` must be what the backend stores of it (the same SCRAM verifier, hash or digest), or the password
        /// itself. Nothing is shared between users then, neither connections nor answers.
        pub as_user: bool => default("false"), reload(NEW_CONNECTIONS),
            elsewhere(&["passthrough_auth", "auth_passthrough", "pass_through"]);
    }
}

section! {
    /// A team: users who share a login at a backend and a quota. NAME appears in metrics and in the console.
    pub struct Team {
        /// The backend that the team's queries go to.
        pub backend: BackendName => required("warehouse"), reload(NEW_LOGINS);
        /// How the team's queries log in there. Each team needs a role of its own, so that it sees what that role may
        /// see and nothing else.
        pub login: Login => required("{ user = \"growth\", password = { env = \"GROWTH_PASSWORD\" } }");
        /// What the team may spend.
        pub quota: Quota => default("{}"), elsewhere(&["quotas", "limits"]);
        /// How many connections its sessions may have open at the backend, those of transactions that idle and of pinned
        /// sessions included. A further query waits for one of them.
        pub max_connections: Option<u32> => absent("as many as the backend has", "10"), within(1, 10_000),
            zero("leave the line out for as many as the backend has"),
            reload("for connections made afterwards"), elsewhere(&["max_user_connections", "pool_size"]);
        /// How long a query of the team waits, for a place or for a connection, before its client is sent a notice that
        /// says what for, and how many of the team's queries are before it.
        pub queue_notice: Duration => default("5s"), within(0, DAY), zero("no notice"),
            reload(NEW_LOGINS), elsewhere(&["query_wait_notify"]);
        /// The networks from which its users may log in; an address alone is a network of one. A user's own `allow`
        /// narrows it further.
        pub allow: Option<Networks> => absent("from everywhere", "[\"10.0.0.0/8\", \"::1\"]"), reload(NEW_LOGINS),
            elsewhere(&["hba", "allowed_networks", "cidr"]);
        /// How long its sessions keep a connection to the backend.
        pub pooling: Pooling => default("transaction"), reload(NEW_LOGINS), elsewhere(&["pool_mode"]);
    }
}

choice! {
    /// How long a session keeps a connection to its backend.
    pub enum Pooling {
        /// For a query or a transaction, unless the session uses what cannot be shared.
        Transaction = "transaction",
        /// From its first query that the backend answers to its end: for clients that rely on `currval`, `lastval`, or
        /// other things that PostgreSQL keeps per session and no statement shows. Then give the team as many connections
        /// as it has sessions at once.
        Session = "session",
    }
}

section! {
    /// What a team may spend at its backend. Answers from memory cost nothing and are never limited. Each limit that is
    /// not written is no limit. A query over a limit is refused with SQLSTATE 53400, and the error says which limit,
    /// how much of it is used, and when to try again.
    pub struct Quota checked by checks::quota {
        /// How many of the team's queries run at the same time; more wait in the team's queue.
        pub concurrent_queries: Option<u32> => absent("no limit", "4"), within(1, 10_000),
            zero("leave the line out for no limit"),
            reload(NEW_QUERIES), elsewhere(&["max_concurrent_queries", "concurrency", "pool_size"]);
        /// How many queries wait in that queue; one more is refused.
        pub queue_length: Option<u32> => absent("no limit", "50"), within(0, 1_000_000),
            zero("nothing waits: a query over `concurrent_queries` is refused at once"),
            reload(NEW_QUERIES), elsewhere(&["max_queue_size"]);
        /// How long a query waits there before it is refused.
        pub queue_wait: Option<Duration> => absent("no limit", "30s"), within(0, DAY),
            zero("nothing waits: a query over `concurrent_queries` is refused at once"),
            reload("for queries that begin to wait afterwards"), elsewhere(&["max_queue_time", "queue_timeout"]);
        /// How many queries per minute may begin, on average.
        pub queries_per_minute: Option<u32> => absent("no limit", "600"), within(1, 1_000_000),
            zero("leave the line out for no limit"),
            reload(NEW_QUERIES), elsewhere(&["requests_per_minute", "rate_limit"]);
        /// How many of them may begin at once after a rest.
        pub burst: Option<u32> => absent("as many as `queries_per_minute`", "50"), within(1, 1_000_000),
            zero("leave the line out for as many as `queries_per_minute`"), reload(NEW_QUERIES);
        /// How long one query may run; then it is cancelled with SQLSTATE 57014.
        pub query_time: Option<Duration> => absent("no limit", "5min"), within(1, 30 * DAY),
            zero("leave the line out for no limit"),
            reload(NEW_QUERIES), elsewhere(&["query_timeout", "max_execution_time", "statement_timeout"]);
    }
}

section! {
    /// The certificate that a user shows when it connects with TLS; `client_ca` of `[listen.tls]` says who signs it.
    pub struct UserCertificate {
        /// Its common name.
        pub cn: String => required("ana"), reload(NEW_LOGINS), elsewhere(&["common_name", "name"]);
    }
}

section! {
    /// A user: somebody, or some program, that logs in at the gateway. NAME is the name of the login.
    pub struct User checked by checks::user {
        /// What the client's password is checked against: in this file a SCRAM verifier, which `tollgate password`
        /// makes, PostgreSQL's MD5 hash, or Redshift's digest `sha256|hash|salt`; in a file or a variable also the
        /// password itself. Amazon's drivers can use a SCRAM verifier, and the others a digest, only over TLS.
        pub password: Option<Password> => absent("none, with `certificate`", "{ env = \"ANA_PASSWORD\" }"), shown(),
            reload(NEW_LOGINS), elsewhere(&["auth"]);
        /// The team that the user's queries belong to.
        pub team: Option<TeamName> => absent("none, which only an admin may have", "growth"), shown(),
            reload(NEW_LOGINS), elsewhere(&["group"]);
        /// Whether the user may connect to the database `tollgate`, which is the console.
        pub admin: bool => default("false"), reload(NEW_LOGINS), elsewhere(&["admin_users", "superuser"]);
        /// The networks from which the user may log in; an address alone is a network of one.
        pub allow: Option<Networks> => absent("from everywhere", "[\"10.0.0.0/8\", \"::1\"]"), reload(NEW_LOGINS),
            elsewhere(&["hba", "allowed_networks", "cidr"]);
        /// The certificate that the user must show. Without a `password` it is enough; with one both are needed.
        pub certificate: Option<UserCertificate> => absent("none is needed", "{ cn = \"ana\" }"),
            elsewhere(&["cert", "clientcert"]);
    }
}

choice! {
    /// Which answers are kept.
    pub enum CacheWhat {
        /// Those of queries that group or aggregate.
        Aggregates = "aggregates",
        /// Those of every query that only reads.
        Reads = "reads",
        /// None.
        Off = "off",
    }
}

section! {
    /// Answers kept in memory, so that the same question costs nothing the next time. A write through the gateway removes
    /// what it makes stale before the writer hears that it is done.
    pub struct Cache checked by checks::cache {
        /// Which answers are kept.
        pub what: CacheWhat => default("aggregates"), reload(NEW_QUERIES), elsewhere(&["mode", "enabled"]);
        /// How much memory they may take together.
        pub memory: ByteSize => default("256MiB"), within(KIB, 1024 * GIB), zero("for no cache write what = \"off\""),
            restart(), elsewhere(&["max_size", "size", "max_memory"]);
        /// How much one answer may take; a larger one is passed on and not kept.
        pub max_entry: ByteSize => default("8MiB"), within(KIB, 2 * GIB), zero("for no cache write what = \"off\""),
            reload("for answers that arrive afterwards"), elsewhere(&["max_entry_size", "max_payload_size"]);
        /// How old an answer may become: the bound on staleness after writes that went past the gateway.
        pub ttl: Duration => default("10min"), within(SECOND, 30 * DAY), zero("for no cache write what = \"off\""),
            reload("for answers that arrive afterwards"), elsewhere(&["expire", "max_age", "max_staleness"]);
    }
}

choice! {
    /// How a line of the log is written.
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object per line, for machines.
        Json = "json",
    }
}

choice! {
    /// From which level on events are logged.
    pub enum LogLevel {
        /// Somebody must act.
        Error = "error",
        /// Also what was unexpected, though the gateway went on.
        Warn = "warn",
        /// Also changes of state: start, reload, drain.
        Info = "info",
        /// Also one line per query.
        Debug = "debug",
        /// Also every step of a query.
        Trace = "trace",
    }
}

section! {
    /// What the gateway writes to its standard error. The text of queries appears only at `debug` and `trace`.
    pub struct Log {
        /// How a line is written.
        pub format: LogFormat => default("text"), restart(), elsewhere(&["log_format"]);
        /// From which level on events are written.
        pub level: LogLevel => default("info"), reload("at once"), elsewhere(&["verbose", "log_level"]);
    }
}
