//! The gateway's config for the demo, as a user would write it.

use std::net::SocketAddr;
use std::path::Path;

use super::{BackendLogin, DATABASE, StandIn};

/// The config of a gateway in front of `stand_in`, listening at `listen` for SQL and at `http` for the rest, in
/// TOML. Passwords are in files; the demo's users have their own names as passwords, so both addresses should be
/// of the loopback interface.
pub fn demo_config_toml(stand_in: &StandIn, listen: SocketAddr, http: SocketAddr) -> String {
    let file = |path: &Path| format!("{{ file = {} }}", quoted(path));
    let login = |login: &BackendLogin| {
        format!(
            "{{ user = \"{}\", password = {} }}",
            login.user,
            file(&login.password_file)
        )
    };
    let team = |name: &str| stand_in.team_login(name).map(login).unwrap_or_default();
    let user = |name: &str| file(&stand_in.user_password_file(name));
    format!(
        r#"# The demo: a gateway in front of a private PostgreSQL.

[listen]
address = "{listen}"

[http]
address = "{http}"

[backend.warehouse]
kind = "postgres"
address = {address}
databases = ["{DATABASE}"]
tls = "off"
max_connections = 20
control = {control}

# a team with room
[team.growth]
backend = "warehouse"
login = {growth}
quota = {{ concurrent_queries = 4, queue_length = 50, queue_wait = "30s", queries_per_minute = 600, burst = 50, query_time = "5min" }}

# a team whose limit is easily seen
[team.bi]
backend = "warehouse"
login = {bi}
quota = {{ concurrent_queries = 2, queue_length = 10, queue_wait = "10s", queries_per_minute = 20, burst = 5, query_time = "1min" }}

[user.ana]
team = "growth"
password = {ana}

[user.dash]
team = "bi"
password = {dash}

[user.root]
admin = true
password = {root}

[cache]
what = "aggregates"
memory = "256MiB"
max_entry = "8MiB"
ttl = "10min"
"#,
        address = quoted(stand_in.socket_directory()),
        control = login(stand_in.control_login()),
        growth = team("growth"),
        bi = team("bi"),
        ana = user("ana"),
        dash = user("dash"),
        root = user("root"),
    )
}

/// A path as a TOML string; the paths of a stand-in are UTF-8.
fn quoted(path: &Path) -> String {
    toml::Value::String(path.to_string_lossy().into_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_any_shape_are_toml_strings() {
        for path in ["/srv/demo", "/srv/a \"b\"", "/srv/a\\b'c", "/srv/ü\n"] {
            let text = format!("path = {}", quoted(Path::new(path)));
            let table: toml::Table = text.parse().unwrap();
            assert_eq!(table["path"].as_str(), Some(path));
        }
    }
}
