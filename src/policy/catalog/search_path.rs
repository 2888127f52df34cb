//! The setting `search_path`, as PostgreSQL reads it.
//!
//! Source: <https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-SEARCH-PATH>.

use std::sync::Arc;

/// More schemas than this are not followed; a longer path finds nothing, so nothing is kept.
const MAX_SCHEMAS: usize = 64;

/// The schemas that `value` names, in order, `"$user"` replaced by `role`. Unquoted names are folded to lower case;
/// names in single quotes (as in `SET search_path = 'A'`) are taken as they are. What PostgreSQL would refuse gives an
/// empty path, in which nothing but `pg_catalog` is found. Temporary schemas are left out.
pub fn search_path(value: &str, role: &str) -> Vec<Arc<str>> {
    let mut schemas = Vec::new();
    let mut rest = value.trim_matches(is_space);
    if rest.is_empty() {
        return schemas;
    }
    loop {
        let Some((name, after)) = element(rest) else {
            return Vec::new();
        };
        let name = if name == "$user" { role.to_owned() } else { name };
        if !name.is_empty()
            && !name.starts_with("pg_temp")
            && !schemas.iter().any(|known: &Arc<str>| **known == *name)
        {
            schemas.push(Arc::from(name));
        }
        if schemas.len() > MAX_SCHEMAS {
            return Vec::new();
        }
        match after.trim_start_matches(is_space).strip_prefix(',') {
            Some(next) => rest = next.trim_start_matches(is_space),
            None if after.trim_matches(is_space).is_empty() => return schemas,
            None => return Vec::new(),
        }
    }
}

/// One name and what follows it.
fn element(text: &str) -> Option<(String, &str)> {
    let first = text.chars().next()?;
    if matches!(first, '"' | '\'') {
        return quoted(text.get(1..)?, first);
    }
    let end = text
        .find(|c: char| matches!(c, ',' | '"' | '\'') || is_space(c))
        .unwrap_or(text.len());
    let (name, after) = text.split_at_checked(end)?;
    (!name.is_empty()).then(|| (name.to_ascii_lowercase(), after))
}

/// A quoted name, the opening quote apart; a doubled quote stands for one.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let end = rest.find(quote)?;
        name.push_str(rest.get(..end)?);
        rest = rest.get(end + 1..)?;
        match rest.strip_prefix(quote) {
            Some(after) => {
                name.push(quote);
                rest = after;
            }
            None => return Some((name, rest)),
        }
    }
}

/// As `scanner_isspace` of PostgreSQL.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_postgresql_reads_it() {
        for (value, expected) in [
            ("\"$user\", public", "ana public"),
            ("public", "public"),
            ("Sales,PUBLIC", "sales public"),
            ("\"Sales\", \"a\"\"b\"", "Sales a\"b"),
            ("'Sales', public", "Sales public"),
            ("'a''b'", "a'b"),
            ("$user", "ana"),
            ("  a ,\n b  ", "a b"),
            ("a, a, b", "a b"),
            ("\"\"", ""),
            ("''", ""),
            ("", ""),
            ("pg_temp, a", "a"),
            ("a, pg_catalog", "a pg_catalog"),
            ("a,", ""),
            (",a", ""),
            ("a b", ""),
            ("a \"b\"", ""),
            ("\"a", ""),
            ("é, ü", "é ü"),
        ] {
            assert_eq!(search_path(value, "ana").join(" "), expected, "{value}");
        }
    }

    #[test]
    fn a_path_is_bounded() {
        let long: Vec<String> = (0..1_000).map(|number| format!("s{number}")).collect();
        assert!(search_path(&long.join(","), "ana").is_empty());
    }
}
