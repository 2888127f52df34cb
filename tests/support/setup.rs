//! What a gateway is started with: its config file and its environment.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::Postgres;

/// The role that the gateway asks the catalog with, and its password.
pub(crate) const CONTROL: (&str, &str) = ("tollgate_control", "control secret");
/// The role of the team `growth`.
pub(crate) const GROWTH: (&str, &str) = ("growth", "growth secret");
/// The role of the team `bi`.
pub(crate) const BI: (&str, &str) = ("bi", "bi secret");
/// A user of the team `growth`.
pub(crate) const ANA: (&str, &str) = ("ana", "ana");
/// Another user of the team `growth`.
pub(crate) const BEN: (&str, &str) = ("ben", "ben");
/// A user of the team `bi`.
pub(crate) const DASH: (&str, &str) = ("dash", "dash");
/// The administrator.
pub(crate) const ROOT: (&str, &str) = ("root", "root");

/// What to start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    listen: String,
    backend: String,
    team: String,
    growth: String,
    bi: String,
    cache: String,
    more: String,
    level: Option<String>,
    address: Option<SocketAddr>,
    control: Option<String>,
    environment: Vec<(String, String)>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Further settings of `[listen]`.
    pub(crate) fn listen(mut self, lines: &str) -> Self {
        self.listen.push_str(lines);
        self.listen.push('\n');
        self
    }

    /// Further settings of the backend.
    pub(crate) fn backend(mut self, lines: &str) -> Self {
        self.backend.push_str(lines);
        self.backend.push('\n');
        self
    }

    /// How many connections the backend has; without it 20.
    pub(crate) fn connections(self, count: usize) -> Self {
        self.backend(&format!("max_connections = {count}"))
    }

    /// Further settings of the team `growth`.
    pub(crate) fn team(mut self, lines: &str) -> Self {
        self.team.push_str(lines);
        self.team.push('\n');
        self
    }

    /// The quota of the team `growth`.
    pub(crate) fn quota(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.growth);
        self
    }

    /// The quota of the team `bi`.
    pub(crate) fn bi_quota(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.bi);
        self
    }

    /// The settings of `[cache]`.
    pub(crate) fn cache(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.cache);
        self
    }

    /// Further sections.
    pub(crate) fn more(mut self, sections: &str) -> Self {
        self.more.push_str(sections);
        self.more.push('\n');
        self
    }

    /// The level of the log; without it `debug`.
    pub(crate) fn log_level(mut self, level: &str) -> Self {
        self.level = Some(level.to_owned());
        self
    }

    /// Another address of the backend than the server's.
    pub(crate) fn backend_address(mut self, address: SocketAddr) -> Self {
        self.address = Some(address);
        self
    }

    /// Another source of the control user's password.
    pub(crate) fn control_password(mut self, source: &str) -> Self {
        self.control = Some(source.to_owned());
        self
    }

    /// A variable of the environment.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn text(&self, server: &Postgres, databases: &[&str], http: SocketAddr) -> String {
        let Self {
            listen,
            backend,
            team,
            growth,
            bi,
            cache,
            more,
            level,
            address,
            control,
            environment: _,
        } = self;
        let level = level.as_deref().unwrap_or("debug");
        let mut text = String::new();
        write!(
            text,
            r#"
[listen]
address = "127.0.0.1:0"
{listen}
[http]
address = "{http}"

[backend.warehouse]
address = "{address}"
databases = {databases:?}
control = {{ user = "{control_role}", password = {control} }}
{backend}
[team.growth]
backend = "warehouse"
login = {{ user = "{growth_role}", password = {{ env = "GROWTH_PASSWORD" }} }}
{team}
[team.growth.quota]
{growth}
[team.bi]
backend = "warehouse"
login = {{ user = "{bi_role}", password = {{ env = "BI_PASSWORD" }} }}
[team.bi.quota]
{bi}
[user.ana]
team = "growth"
password = {{ env = "ANA_PASSWORD" }}
[user.ben]
team = "growth"
password = {{ env = "BEN_PASSWORD" }}
[user.dash]
team = "bi"
password = {{ env = "DASH_PASSWORD" }}
[user.root]
admin = true
password = {{ env = "ROOT_PASSWORD" }}
[cache]
{cache}
[log]
format = "json"
level = "{level}"
{more}
"#,
            address = address.unwrap_or_else(|| server.address()),
            control_role = CONTROL.0,
            control = control.as_deref().unwrap_or("{ env = \"CONTROL_PASSWORD\" }"),
            growth_role = GROWTH.0,
            bi_role = BI.0,
        )
        .expect("a text");
        text
    }

    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let own = [
            ("CONTROL_PASSWORD", CONTROL.1),
            ("GROWTH_PASSWORD", GROWTH.1),
            ("BI_PASSWORD", BI.1),
            ("ANA_PASSWORD", ANA.1),
            ("BEN_PASSWORD", BEN.1),
            ("DASH_PASSWORD", DASH.1),
            ("ROOT_PASSWORD", ROOT.1),
        ];
        own.into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .chain(self.environment.iter().cloned())
            .collect()
    }
}

/// Makes the roles that the gateway logs in as; once per server.
pub(crate) fn add_roles(server: &Postgres) {
    use super::PasswordForm::{Md5, Scram};
    for ((name, password), form) in [(CONTROL, Scram), (GROWTH, Scram), (BI, Md5)] {
        server.add_user(name, password, form);
    }
}
