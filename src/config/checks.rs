//! Contradictions: settings that are each right and together wrong.

use super::address::Address;
use super::reader::{Reader, Table, quoted};
use super::secrets::LoginPassword;
use super::sections::{Backend, CacheWhat, Config, Http, Listen, ListenTls, Login, Quota, TlsMode, User};
use crate::types::ByteSize;

/// The database that is the console.
const CONSOLE: &str = "tollgate";

pub(super) fn listen(listen: &Listen, table: &Table<'_>, reader: &mut Reader<'_>) {
    tcp_only(&listen.address, table, reader);
    if let Some(path) = &listen.take_over_socket {
        socket_path(path, table, reader);
    }
    let (all, each) = (listen.max_connections, listen.max_connections_per_address);
    let sound = table.sound(reader, &["max_connections", "max_connections_per_address"]);
    if each > all && sound && table.has("max_connections_per_address") {
        let message =
            format!("{each} connections from one address are more than max_connections allows, {all}");
        table.note(
            reader,
            "max_connections_per_address",
            message,
            "raise max_connections, or lower this",
        );
    }
}

/// The longest path that a Unix socket can have, with room for the process id that a draining process adds.
const MAX_SOCKET_PATH: usize = 96;

fn socket_path(path: &str, table: &Table<'_>, reader: &mut Reader<'_>) {
    if !path.starts_with('/') || path.ends_with('/') {
        let hint = "write e.g. \"/run/tollgate/take-over.sock\"";
        let message = format!("{} is not the absolute path of a socket", quoted(path));
        table.note(reader, "take_over_socket", message, hint);
    } else if path.len() > MAX_SOCKET_PATH {
        let message = format!(
            "a socket's path has at most {MAX_SOCKET_PATH} bytes here, this one has {}",
            path.len()
        );
        table.note(reader, "take_over_socket", message, "choose a shorter one");
    }
}

pub(super) fn listen_tls(tls: &ListenTls, table: &Table<'_>, reader: &mut Reader<'_>) {
    certificates(tls.certificate.text.expose(), "certificate", table, reader);
    if let Some(authorities) = &tls.client_ca {
        certificates(authorities.text.expose(), "client_ca", table, reader);
    }
    let key = tls.key.text.expose();
    if key.contains("ENCRYPTED") {
        let hint = "decrypt it, and let only the gateway's user read it";
        table.note(reader, "key", "the private key is encrypted", hint);
    } else if !key.contains("PRIVATE KEY-----") {
        table.note(
            reader,
            "key",
            "the file has no private key",
            "name the file that begins with BEGIN PRIVATE KEY",
        );
    }
}

fn certificates(text: &str, setting: &str, table: &Table<'_>, reader: &mut Reader<'_>) {
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        let hint = "name the file that begins with BEGIN CERTIFICATE";
        table.note(reader, setting, "the file has no certificate", hint);
    }
}

pub(super) fn http(http: &Http, table: &Table<'_>, reader: &mut Reader<'_>) {
    tcp_only(&http.address, table, reader);
}

fn tcp_only(address: &Address, table: &Table<'_>, reader: &mut Reader<'_>) {
    if address.socket().is_some() {
        let hint = "write a TCP address such as \"127.0.0.1:5439\"";
        table.note(
            reader,
            "address",
            "the gateway does not listen on Unix sockets",
            hint,
        );
    }
}

/// The servers beside the one at `address`.
fn endpoints(backend: &Backend, table: &Table<'_>, reader: &mut Reader<'_>) {
    for (setting, addresses) in [("fallbacks", &backend.fallbacks), ("readers", &backend.readers)] {
        for address in addresses {
            if address.port() == 0 {
                let message = format!(
                    "port 0 of {} is not one that a server can have",
                    quoted(&address.to_string())
                );
                table.note(reader, setting, message, "write the server's port");
            }
            if backend.tls != TlsMode::Off && address.socket().is_some() {
                let message = format!(
                    "tls = \"{}\" is not possible over the Unix socket {address}",
                    backend.tls
                );
                table.note(reader, setting, message, "write a TCP address");
            }
        }
    }
    if backend.fallbacks.contains(&backend.address) {
        let message = format!("{} is the address already", quoted(&backend.address.to_string()));
        table.note(reader, "fallbacks", message, "name other servers, or remove it");
    }
}

pub(super) fn backend(backend: &Backend, table: &Table<'_>, reader: &mut Reader<'_>) {
    let (min, max) = (backend.min_connections, backend.max_connections);
    if min > max && table.sound(reader, &["min_connections", "max_connections"]) {
        let message = format!("{min} connections are more than max_connections allows, {max}");
        table.note(
            reader,
            "min_connections",
            message,
            "raise max_connections, or lower this",
        );
    }
    if backend.address.port() == 0 {
        table.note(
            reader,
            "address",
            "port 0 is not one that a server can have",
            "write the server's port",
        );
    }
    endpoints(backend, table, reader);
    let sound = table.sound(reader, &["kind", "tls", "ca"]);
    if sound && backend.tls != TlsMode::Off && backend.address.socket().is_some() {
        let message = format!("\"{}\" is not possible over a Unix socket", backend.tls);
        table.note(reader, "tls", message, "write tls = \"off\"");
    }
    match (&backend.ca, backend.tls) {
        (None, TlsMode::VerifyFull) if sound => {
            let hint =
                "add ca with the authorities' certificates, e.g. ca = \"/etc/ssl/certs/ca-certificates.crt\"";
            table.note(reader, "tls", "\"verify-full\" needs authorities to trust", hint);
        }
        (Some(_), TlsMode::Off | TlsMode::Require) if sound => {
            let message = format!("tls = \"{}\" verifies no certificate", backend.tls);
            table.note(reader, "ca", message, "write tls = \"verify-full\", or remove ca");
        }
        (Some(ca), _) => certificates(ca.text.expose(), "ca", table, reader),
        (None, _) => {}
    }
    if backend
        .databases
        .iter()
        .any(|database| database.as_str() == CONSOLE)
    {
        let message = format!("the database {} is the gateway's console", quoted(CONSOLE));
        table.note(
            reader,
            "databases",
            message,
            "clients could not reach the backend's own; rename it there",
        );
    }
}

pub(super) fn login(login: &Login, table: &Table<'_>, reader: &mut Reader<'_>) {
    if !table.sound(reader, &["user", "password", "as_user"]) {
        return;
    }
    if login.as_user {
        for setting in ["user", "password"] {
            if table.has(setting) {
                let hint = "remove it: each user logs in as itself";
                table.note(reader, setting, "has no meaning with as_user = true", hint);
            }
        }
    } else if login.user.is_none() {
        let hint = "write user = \"growth\", or as_user = true";
        table.note(reader, "user", "is missing", hint);
    }
}

pub(super) fn quota(_: &Quota, table: &Table<'_>, reader: &mut Reader<'_>) {
    for (setting, needs) in [
        ("queue_length", "concurrent_queries"),
        ("queue_wait", "concurrent_queries"),
        ("burst", "queries_per_minute"),
    ] {
        if table.has(setting) && !table.has(needs) {
            let message = format!("has no meaning without {needs}");
            table.note(reader, setting, message, &format!("add {needs}, or remove this"));
        }
    }
}

pub(super) fn user(user: &User, table: &Table<'_>, reader: &mut Reader<'_>) {
    if !table.has("password") && !table.has("certificate") {
        let hint = "write password = { env = \"ANA_PASSWORD\" }";
        table.note(reader, "password", "is missing", hint);
    }
    if user.team.is_none() && !user.admin && table.sound(reader, &["team", "admin"]) {
        let hint = "write team = \"…\", or admin = true for somebody who only uses the console";
        table.note(reader, "team", "is missing", hint);
    }
}

pub(super) fn cache(cache: &super::sections::Cache, table: &Table<'_>, reader: &mut Reader<'_>) {
    let ByteSize(memory) = cache.memory;
    let sound = table.sound(reader, &["what", "memory", "max_entry"]);
    if sound && cache.what != CacheWhat::Off && cache.max_entry.0 > memory {
        let message = format!(
            "one entry of {} does not fit into memory = \"{}\"",
            cache.max_entry, cache.memory
        );
        let setting = if table.has("max_entry") {
            "max_entry"
        } else {
            "memory"
        };
        table.note(reader, setting, message, "lower max_entry, or raise memory");
    }
}

pub(super) fn whole(config: &Config, table: &Table<'_>, reader: &mut Reader<'_>) {
    if let Some(http) = config
        .http
        .as_ref()
        .filter(|http| http.address == config.listen.address)
        && http.address.port() != 0
    {
        let message = format!("listen.address is {} too", http.address);
        reader.note(
            "http.address",
            message,
            Some("give each a port of its own".to_owned()),
        );
    }

    unprotected_passwords(config, table, reader);
    let asked = config
        .listen
        .tls
        .as_ref()
        .is_some_and(|tls| tls.client_ca.is_some());
    for (name, user) in &config.users {
        if user.certificate.is_some() && !asked && !reader.mistaken("listen.tls.client_ca") {
            let path = super::reader::join(&table.path_of("user"), name.as_str());
            let hint = "add client_ca to [listen.tls]";
            reader.note(
                &format!("{path}.certificate"),
                "no client is asked for a certificate",
                Some(hint.to_owned()),
            );
        }
    }
    let mut logins = std::collections::BTreeMap::new();
    for (name, team) in &config.teams {
        let path = format!("{}.{name}", table.path_of("team"));
        if let Some(user) = &team.login.user {
            let login = format!("{path}.login.user");
            let line = reader.line_of(&login);
            logins
                .entry((&team.backend, user.as_str()))
                .or_insert_with(Vec::new)
                .push((line, name, login));
        }
        let places = config
            .backends
            .get(&team.backend)
            .map(|backend| backend.max_connections);
        if let (Some(own), Some(places)) = (team.max_connections, places)
            && own > places
        {
            let message = format!(
                "{own} is more than backend.{}.max_connections, {places}",
                team.backend
            );
            let hint = "lower it, or raise that of the backend";
            reader.note(&format!("{path}.max_connections"), message, Some(hint.to_owned()));
        }
        if let (Some(queries), Some(places)) = (team.quota.concurrent_queries, places)
            && queries > places
        {
            let message = format!(
                "{queries} is more than backend.{}.max_connections, {places}",
                team.backend
            );
            let hint = "lower it, or raise max_connections";
            reader.note(
                &format!("{path}.quota.concurrent_queries"),
                message,
                Some(hint.to_owned()),
            );
        }
    }

    for (name, user) in &config.users {
        let team = user.team.as_ref().and_then(|team| config.teams.get(team));
        let Some(team) = team.filter(|team| team.login.as_user) else {
            continue;
        };
        if user.password.is_none() && user.certificate.is_some() {
            let path = format!(
                "{}.team",
                super::reader::join(&table.path_of("user"), name.as_str())
            );
            let message = "logs in at the backend as itself, which takes a password";
            reader.note(
                &path,
                message,
                Some("add a password, or choose another team".to_owned()),
            );
        }
        // the same role is the same connections
        let key = (&team.backend, name.as_str());
        if let Some((_, other, _)) = logins.get(&key).and_then(|teams| teams.first()) {
            let path = format!(
                "{}.team",
                super::reader::join(&table.path_of("user"), name.as_str())
            );
            let message = format!(
                "logs in at {} as itself, and that role is team {other}'s",
                team.backend
            );
            let hint = "rename the user, or give that team a role of its own";
            reader.note(&path, message, Some(hint.to_owned()));
        }
    }
    for ((backend, user), mut teams) in logins {
        teams.sort();
        for ((_, first, _), (_, _, path)) in teams.iter().zip(teams.iter().skip(1)) {
            let message = format!("team {first} logs in at {backend} as {} too", quoted(user));
            let hint = "give each team a role of its own, so that it sees only what it may see";
            reader.note(path, message, Some(hint.to_owned()));
        }
    }
}

/// What a command prints is often the password for everything: it does not leave the machine unprotected.
fn unprotected_passwords(config: &Config, table: &Table<'_>, reader: &mut Reader<'_>) {
    let by_command = |password: &Option<LoginPassword>| matches!(password, Some(LoginPassword::Command(_)));
    let exposed = |backend: &Backend| {
        let mut servers = std::iter::once(&backend.address)
            .chain(&backend.fallbacks)
            .chain(&backend.readers);
        backend.tls == TlsMode::Off && servers.any(|address| !address.is_local())
    };
    let control = config.backends.iter().filter_map(|(name, backend)| {
        let path = super::reader::join(&table.path_of("backend"), name.as_str());
        (by_command(&backend.control.password) && exposed(backend))
            .then(|| (format!("{path}.control.password"), name))
    });
    let logins = config.teams.iter().filter_map(|(name, team)| {
        let path = super::reader::join(&table.path_of("team"), name.as_str());
        let exposed = config.backends.get(&team.backend).is_some_and(exposed);
        (by_command(&team.login.password) && exposed)
            .then(|| (format!("{path}.login.password"), &team.backend))
    });
    for (path, backend) in control.chain(logins) {
        let message = format!(
            "a command's password would leave this machine without TLS: backend.{backend} has tls = \"off\""
        );
        let hint = "write tls = \"verify-full\" or \"require\" for the backend";
        reader.note(&path, message, Some(hint.to_owned()));
    }
}
