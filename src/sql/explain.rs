//! Facts in words, for `tollgate explain`.

use std::fmt::Write;

use super::cache::Analysis;
use super::statement::{
    Located, PinReason, ProcessUse, RelationName, SessionUse, SettingChange, StatementKind,
    TransactionControl,
};

/// One block per statement, one aligned line per fact; facts that say nothing are left out.
///
/// `text` is the text that `analysis` is of.
pub fn describe(analysis: &Analysis, text: &[u8]) -> String {
    let mut out = String::new();
    let statements = analysis.statements();
    if statements.is_empty() {
        out.push_str("no statement\n");
    }
    for (at, located) in statements.iter().enumerate() {
        if statements.len() > 1 {
            if at > 0 {
                out.push('\n');
            }
            let text = String::from_utf8_lossy(text.get(located.span.clone()).unwrap_or_default());
            line(
                &mut out,
                "statement",
                &format!("{} of {}: {}", at + 1, statements.len(), excerpt(&text)),
            );
        }
        facts(&mut out, located);
    }
    if analysis.moment_literal() {
        line(
            &mut out,
            "moment",
            "a literal may mean a date or time of the moment",
        );
    }
    out
}

fn facts(out: &mut String, located: &Located) {
    let statement = &located.statement;
    line(out, "kind", kind(statement.kind));
    names(out, "reads", &statement.reads);
    names(out, "writes", &statement.writes);
    if statement.writes_unknown() {
        line(out, "writes", "perhaps more than is named");
    }
    names(out, "functions", &statement.functions);
    if statement.aggregate {
        line(out, "aggregate", "yes");
    }
    if statement.locking {
        line(out, "locks rows", "yes");
    }
    if statement.parameters > 0 {
        line(out, "parameters", &statement.parameters.to_string());
    }
    if statement.casts.unsure {
        line(
            out,
            "moment",
            "a text may be read as a date or time of the moment",
        );
    }
    if !statement.casts.columns.is_empty() {
        line(out, "times", &statement.casts.columns.join(", "));
    }
    if !statement.casts.named.is_empty() {
        line(out, "no texts", &statement.casts.named.join(", "));
    }
    if let Some(control) = statement.transaction {
        line(out, "transaction", transaction(control));
    }
    if let Some(change) = &statement.setting {
        line(out, "setting", &setting(change));
    }
    if let Some(session) = &statement.session {
        line(out, "session", &in_session(session));
    }
    if let Some(usage) = statement.process {
        line(out, "process", process(usage));
    }
    if let Some(reason) = statement.pin {
        line(out, "pins", pin(reason));
    }
    line(out, "fingerprint", &statement.fingerprint.to_string());
}

fn line(out: &mut String, name: &str, value: &str) {
    writeln!(out, "{name:<12} {value}").expect("writing to a String does not fail");
}

fn names(out: &mut String, name: &str, relations: &[RelationName]) {
    if !relations.is_empty() {
        let list: Vec<String> = relations.iter().map(ToString::to_string).collect();
        line(out, name, &list.join(", "));
    }
}

/// The first 60 characters, on one line.
fn excerpt(text: &str) -> String {
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = words.char_indices().nth(60) {
        words.truncate(at);
        words.push('…');
    }
    words
}

/// The kind as it is written in the console, metrics and fixtures.
pub(super) fn kind(kind: StatementKind) -> &'static str {
    match kind {
        StatementKind::Read => "read",
        StatementKind::Write => "write",
        StatementKind::Ddl => "ddl",
        StatementKind::Transaction => "transaction",
        StatementKind::Setting => "setting",
        StatementKind::Session => "session",
        StatementKind::Copy => "copy",
        StatementKind::Utility => "utility",
        StatementKind::Unparsed => "unparsed",
    }
}

fn transaction(control: TransactionControl) -> &'static str {
    match control {
        TransactionControl::Begin => "begins one",
        TransactionControl::Commit => "commits",
        TransactionControl::Rollback => "rolls back",
        TransactionControl::Savepoint => "savepoint",
        TransactionControl::Other => "its modes, or two phases",
    }
}

fn setting(change: &SettingChange) -> String {
    match change {
        SettingChange::Set {
            name,
            value: Some(value),
        } => format!("set {name} = {value}"),
        SettingChange::Set { name, value: None } => format!("set {name} to its default"),
        SettingChange::SetConfig { name, value } => format!("set {name} to the text {value}"),
        SettingChange::SetLocal { name } => format!("set {name} for the transaction"),
        SettingChange::Reset { name } => format!("reset {name}"),
        SettingChange::ResetAll => "reset all".to_owned(),
        SettingChange::Show { name } => format!("show {name}"),
    }
}

fn in_session(session: &SessionUse) -> String {
    match session {
        SessionUse::Prepare(name) => format!("prepares {name}"),
        SessionUse::Execute(name) => format!("executes {name}"),
        SessionUse::Deallocate(Some(name)) => format!("deallocates {name}"),
        SessionUse::Deallocate(None) => "deallocates all".to_owned(),
        SessionUse::DeclareHeld(name) => format!("declares {name}, which outlives its transaction"),
        SessionUse::CloseCursor(Some(name)) => format!("closes {name}"),
        SessionUse::CloseCursor(None) => "closes all cursors".to_owned(),
        SessionUse::Passing => "leaves nothing there".to_owned(),
        SessionUse::Listen(channel) => format!("listens to {channel}"),
        SessionUse::Unlisten(Some(channel)) => format!("listens no more to {channel}"),
        SessionUse::Unlisten(None) => "listens no more".to_owned(),
        SessionUse::SetRole => "takes a role".to_owned(),
        SessionUse::ResetRole => "puts its role down".to_owned(),
        SessionUse::SetAuthorization => "becomes another user".to_owned(),
        SessionUse::ResetAuthorization => "becomes itself again".to_owned(),
        SessionUse::DiscardAll => "discards everything".to_owned(),
        SessionUse::DiscardTemporary => "discards temporary tables".to_owned(),
        SessionUse::UnlockAll => "releases every advisory lock".to_owned(),
    }
}

fn process(usage: ProcessUse) -> &'static str {
    match usage {
        ProcessUse::Number => "asks for its own number",
        ProcessUse::Cancel => "cancels what one runs, by its number",
        ProcessUse::Terminate => "ends one, by its number",
    }
}

fn pin(reason: PinReason) -> &'static str {
    match reason {
        PinReason::TemporaryTable => "temporary table",
        PinReason::PreparedStatement => "prepared statement",
        PinReason::Cursor => "cursor",
        PinReason::Listen => "listen",
        PinReason::AdvisoryLock => "advisory lock",
        PinReason::Role => "role",
        PinReason::Setting => "setting",
        PinReason::BackendPid => "process id",
        PinReason::Procedure => "procedure",
        PinReason::Unparsed => "not understood",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Backslash;

    #[test]
    fn facts_are_said_in_aligned_lines() {
        let text = b"SELECT count(*) FROM s.t WHERE d > 'yesterday'; SET a = on";
        let said = describe(&Analysis::of(text, Backslash::Literal), text);
        let without_fingerprints: Vec<&str> = said
            .lines()
            .filter(|line| !line.starts_with("fingerprint"))
            .collect();
        assert_eq!(
            without_fingerprints,
            [
                "statement    1 of 2: SELECT count(*) FROM s.t WHERE d > 'yesterday'",
                "kind         read",
                "reads        s.t",
                "functions    count",
                "aggregate    yes",
                "",
                "statement    2 of 2: SET a = on",
                "kind         setting",
                "setting      set a = on",
                "moment       a literal may mean a date or time of the moment",
            ]
        );
    }
}
