//! The reference of every setting, and an example with every setting at its default; both from the declarations.

use super::kind::Kind;
use super::reader::join;
use super::schema::{Preset, Reload, Schema, Section, Setting};
use super::sections::Config;

/// The width to which comments in the example and paragraphs of the reference are wrapped, in characters.
const WIDTH: usize = 110;

const REFERENCE_INTRODUCTION: &str = "\
# Configuration

<!-- Generated from the declarations in src/config/sections.rs; `make docs` writes it anew. -->

Tollgate reads one file in [TOML](https://toml.io). `tollgate check --config FILE` tells every mistake in it at once,
each with its line and what to write instead. [`config/tollgate.toml`](../../config/tollgate.toml) has every setting at
its default, [`config/examples/`](../../config/examples/) has whole configurations.

- **Durations** are a whole number and a unit: `ms`, `s`, `min`, `h`, `d`, e.g. `\"30s\"`.
- **Sizes** are a whole number and a unit: `B`, `KiB`, `MiB`, `GiB`, e.g. `\"8MiB\"`.
- **Secrets** do not stand in the file. `{ file = \"path\" }` takes the file's only line, `{ env = \"NAME\" }` an environment
  variable.
- **Paths** that are relative start at the directory of the configuration file.
- **Reload**: SIGHUP, or `RELOAD` in the console. A file with a mistake changes nothing. The answer lists what changed and
  which of it waits for a restart.
- A setting that the file does not have is at its default. A setting that Tollgate does not have is a mistake.
";

const EXAMPLE_INTRODUCTION: &str = "\
# Every setting of Tollgate. Lines that begin with \"#\" and a name are settings at their defaults; where there is no
# default, the line is an example, and a comment behind it says what holds without it. The other lines are what a
# configuration needs at least, with names to replace.
#
# Generated from the declarations in src/config/sections.rs; `make docs` writes it anew.
";

/// The text of `docs/reference/config.md`.
pub fn markdown() -> String {
    let mut out = String::from(REFERENCE_INTRODUCTION);
    markdown_members(Config::SCHEMA, "", &mut out);
    out
}

/// The text of `config/tollgate.toml`.
pub fn example() -> String {
    let mut out = String::from(EXAMPLE_INTRODUCTION);
    example_members(Config::SCHEMA, "", &mut out);
    out
}

/// The settings without sections of their own come first, as TOML wants it.
fn own_first(schema: &'static Schema) -> impl Iterator<Item = &'static Setting> {
    let (own, sections): (Vec<_>, Vec<_>) = schema
        .settings
        .iter()
        .partition(|setting| setting.kind.section().is_none());
    own.into_iter().chain(sections)
}

fn markdown_members(schema: &'static Schema, path: &str, out: &mut String) {
    for setting in own_first(schema) {
        match setting.kind.section() {
            Some(section) => markdown_section(setting, section, path, out),
            None => markdown_setting(setting, path, out),
        }
    }
}

fn markdown_section(setting: &Setting, schema: &'static Schema, path: &str, out: &mut String) {
    let about = about(setting, schema, path);
    let named = if setting.kind.is_named() { ".NAME" } else { "" };
    let path = format!("{}{named}", join(path, setting.name));
    push(out, &format!("\n## `[{path}]`\n\n"));
    push(out, &wrap(&about, ""));
    let holds = match setting.preset {
        Preset::Required { .. } => "This section is required.".to_owned(),
        Preset::Default(_) => "Without this section every setting in it is at its default.".to_owned(),
        Preset::Absent { means, .. } => format!("Without this section: {means}."),
    };
    push(out, &format!("\n{}", wrap(&holds, "")));
    markdown_members(schema, &path, out);
}

/// What a section is for. One at the top of the file says it all by itself; one inside another has a purpose there.
fn about(setting: &Setting, schema: &'static Schema, path: &str) -> String {
    if path.is_empty() {
        sentence(schema.doc)
    } else {
        format!("{} {}", sentence(setting.doc), sentence(schema.doc))
    }
}

fn markdown_setting(setting: &Setting, path: &str, out: &mut String) {
    push(out, &format!("\n### `{}`\n\n", join(path, setting.name)));
    push(out, &wrap(&sentence(setting.doc), ""));
    push(out, "\n");
    if let Kind::Choice(words) = setting.kind {
        for (word, meaning) in words {
            push(out, &format!("- `\"{word}\"`: {}\n", sentence(&[meaning])));
        }
    } else {
        push(out, &format!("- Type: {}.\n", type_of(setting)));
    }
    push(out, &format!("- Default: {}.\n", default_of(setting)));
    if let Some(meaning) = zero_of(setting) {
        push(out, &format!("- 0: {meaning}.\n"));
    }
    push(out, &format!("- Reload: {}.\n", reload_of(setting)));
}

fn example_members(schema: &'static Schema, path: &str, out: &mut String) {
    let inline = |setting: &&Setting| setting.kind.section().is_none() || inline_example(setting).is_some();
    for setting in schema.settings.iter().filter(inline) {
        example_setting(setting, out);
    }
    for setting in schema.settings.iter().filter(|setting| !inline(setting)) {
        let Some(inner) = setting.kind.section() else {
            continue;
        };
        let about = about(setting, inner, path);
        let mut path = join(path, setting.name);
        if let (true, Preset::Required { example }) = (setting.kind.is_named(), setting.preset) {
            path = join(&path, example);
        }
        push(out, "\n");
        push(out, &wrap(&about, "# "));
        push(out, &format!("[{path}]\n"));
        example_members(inner, &path, out);
    }
}

/// How a section is written on one line, if it is in the example.
fn inline_example(setting: &Setting) -> Option<&'static str> {
    match setting.preset {
        Preset::Required { example } | Preset::Absent { example, .. } => {
            Some(example).filter(|example| *example != "{}" && !setting.kind.is_named())
        }
        Preset::Default(_) => None,
    }
}

fn example_setting(setting: &Setting, out: &mut String) {
    push(out, "\n");
    push(out, &wrap(&sentence(setting.doc), "# "));
    match (setting.kind.section(), setting.kind) {
        (Some(schema), _) => {
            for member in schema.settings {
                let text = format!("{}: {} {}", member.name, sentence(member.doc), facts(member));
                push(out, &wrap(&text, "#   "));
            }
        }
        (None, Kind::Choice(words)) => {
            for (word, meaning) in words {
                push(
                    out,
                    &wrap(&format!("\"{word}\": {}", sentence(&[meaning])), "#   "),
                );
            }
            push(out, &wrap(&facts(setting), "# "));
        }
        (None, _) => push(out, &wrap(&facts(setting), "# ")),
    }
    let (mark, text, behind) = match setting.preset {
        Preset::Required { example } => ("", example, String::new()),
        Preset::Default(text) => ("#", text, String::new()),
        Preset::Absent { example, .. } if setting.shown => ("", example, String::new()),
        Preset::Absent { means, example } => ("#", example, format!("  # without this line: {means}")),
    };
    push(
        out,
        &format!(
            "{mark}{} = {}{behind}\n",
            setting.name,
            setting.kind.written(text)
        ),
    );
}

/// Type, range, meaning of 0 and reload in a few sentences.
fn facts(setting: &Setting) -> String {
    // the words of a choice were listed, each on a line of its own
    let listed = matches!(setting.kind, Kind::Choice(_));
    let mut facts = if listed {
        String::new()
    } else {
        format!("Type: {}. ", type_of(setting))
    };
    if let Some(text) = setting.on_redshift {
        push(
            &mut facts,
            &format!("Default on Redshift: {}. ", setting.kind.written(text)),
        );
    }
    if let Some(meaning) = zero_of(setting) {
        push(&mut facts, &format!("0: {meaning}. "));
    }
    if setting.reload != Reload::Unsaid {
        push(&mut facts, &format!("Reload: {}.", reload_of(setting)));
    }
    facts
}

fn type_of(setting: &Setting) -> String {
    match setting.range {
        Some((smallest, largest)) => {
            let (smallest, largest) = (setting.kind.amount(smallest), setting.kind.amount(largest));
            format!("{}, from {smallest} to {largest}", setting.kind)
        }
        None => setting.kind.to_string(),
    }
}

fn default_of(setting: &Setting) -> String {
    let written = |text| format!("`{}`", setting.kind.written(text));
    match (setting.preset, setting.on_redshift) {
        (Preset::Required { example }, _) => {
            format!("none, the setting is required; e.g. {}", written(example))
        }
        (Preset::Default(text), None) => written(text),
        (Preset::Default(text), Some(other)) => {
            format!("{}; with `kind = \"redshift\"` {}", written(text), written(other))
        }
        (Preset::Absent { means, example }, _) => format!("{means}; e.g. {}", written(example)),
    }
}

fn zero_of(setting: &Setting) -> Option<String> {
    let refused = setting.range.is_some_and(|(smallest, _)| smallest > 0);
    setting.zero.map(|text| {
        if refused {
            format!("not possible; {text}")
        } else {
            text.to_owned()
        }
    })
}

fn reload_of(setting: &Setting) -> String {
    match setting.reload {
        Reload::Restart => "no, it takes a restart".to_owned(),
        Reload::Live(scope) => format!("yes, {scope}"),
        Reload::Unsaid => "as its settings say".to_owned(),
    }
}

/// The lines of a doc comment as one paragraph.
fn sentence(doc: &[&str]) -> String {
    doc.iter()
        .flat_map(|line| line.split_whitespace())
        .collect::<Vec<_>>()
        .join(" ")
}

/// `text` in lines of at most [`WIDTH`] characters, each with `prefix` in front.
fn wrap(text: &str, prefix: &str) -> String {
    let mut out = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let length = prefix.chars().count() + line.chars().count() + 1 + word.chars().count();
        if !line.is_empty() && length > WIDTH {
            push(&mut out, &format!("{prefix}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        push(&mut out, &format!("{prefix}{line}\n"));
    }
    out
}

fn push(out: &mut String, text: &str) {
    out.push_str(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every setting with its path, sections included.
    fn every_setting(schema: &'static Schema, path: &str, out: &mut Vec<(String, &'static Setting)>) {
        for setting in schema.settings {
            let path = join(path, setting.name);
            out.push((path.clone(), setting));
            if let Some(schema) = setting.kind.section() {
                assert!(
                    !sentence(schema.doc).is_empty(),
                    "{path}: the section has no description"
                );
                every_setting(schema, &path, out);
            }
        }
    }

    #[test]
    fn every_setting_says_what_it_does_what_zero_means_and_whether_a_reload_applies_it() {
        let mut settings = Vec::new();
        every_setting(Config::SCHEMA, "", &mut settings);
        assert!(settings.len() > 60, "{} settings", settings.len());
        for (path, setting) in settings {
            assert!(
                sentence(setting.doc).ends_with('.'),
                "{path}: no description in whole sentences"
            );
            let measured = matches!(setting.kind, Kind::Count | Kind::Duration | Kind::Size);
            assert!(!measured || setting.range.is_some(), "{path}: no range");
            assert!(
                !measured || setting.zero.is_some(),
                "{path}: not said what 0 means"
            );
            let section = setting.kind.section().is_some();
            assert_eq!(
                section,
                setting.reload == Reload::Unsaid,
                "{path}: whether a reload applies it"
            );
            if let Kind::Choice(words) = setting.kind {
                for (word, meaning) in words {
                    assert!(
                        sentence(&[meaning]).ends_with('.'),
                        "{path}: \"{word}\" has no description"
                    );
                }
            }
        }
    }

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrap("", "# "), "");
        assert_eq!(wrap("a  b\nc", "# "), "# a b c\n");
        let long = wrap(&"word ".repeat(60), "# ");
        assert!(
            long.lines().count() > 1
                && long
                    .lines()
                    .all(|line| line.starts_with("# word") && line.len() <= WIDTH)
        );
    }
}
