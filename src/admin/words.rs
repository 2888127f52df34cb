//! A command's text as words: comments and white space away, case folded where it does not matter.

use crate::sql::{Backslash, Lexer, Token, TokenKind};

/// Why a text cannot be read as one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotOne {
    /// Something follows its semicolon.
    Several,
}

/// One command's words.
pub(super) struct Words<'t> {
    text: &'t str,
    tokens: Vec<Token>,
}

impl<'t> Words<'t> {
    /// The words of `text`, which may end with semicolons.
    pub(super) fn of(text: &'t str) -> Result<Self, NotOne> {
        let mut tokens: Vec<Token> = Vec::new();
        let mut ended = false;
        for token in Lexer::new(text.as_bytes(), Backslash::Literal) {
            if token.is(text.as_bytes(), ";") {
                ended |= !tokens.is_empty();
            } else if ended {
                return Err(NotOne::Several);
            } else {
                tokens.push(token);
            }
        }
        Ok(Self { text, tokens })
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Whether the words in `name`, which is in capitals, come first.
    pub(super) fn begin_with(&self, name: &str) -> bool {
        name.split_ascii_whitespace().enumerate().all(|(index, word)| {
            self.tokens.get(index).is_some_and(|token| {
                token.kind == TokenKind::Word
                    && token
                        .bytes(self.text.as_bytes())
                        .eq_ignore_ascii_case(word.as_bytes())
            })
        })
    }

    /// What follows the words in `name`.
    pub(super) fn after(&self, name: &str) -> Arguments<'_> {
        let count = name.split_ascii_whitespace().count();
        Arguments {
            text: self.text,
            tokens: self.tokens.get(count..).unwrap_or_default(),
        }
    }

    /// All of them in lower case with one space between, at most `limit` bytes.
    pub(super) fn canonical(&self, limit: usize) -> String {
        let mut words = String::new();
        for token in &self.tokens {
            let word = piece(self.text, token.start, token.end);
            if words.len() + word.len() >= limit {
                break;
            }
            if !words.is_empty() {
                words.push(' ');
            }
            words.push_str(&word.to_ascii_lowercase());
        }
        words
    }

    /// The beginning of the text, for a message.
    pub(super) fn beginning(&self) -> String {
        const SHOWN: usize = 60;
        let all = Arguments {
            text: self.text,
            tokens: &self.tokens,
        };
        let all = all.written();
        match all.char_indices().nth(SHOWN) {
            None => all.to_owned(),
            Some((end, _)) => format!("{} …", piece(all, 0, end)),
        }
    }
}

/// What follows a command's name.
pub struct Arguments<'t> {
    text: &'t str,
    tokens: &'t [Token],
}

impl<'t> Arguments<'t> {
    /// Whether nothing follows.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// As it was written.
    pub fn written(&self) -> &str {
        match (self.tokens.first(), self.tokens.last()) {
            (Some(first), Some(last)) => piece(self.text, first.start, last.end),
            (None, _) | (_, None) => "",
        }
    }

    /// One name, in quotes of either kind or as it is; `None` when it is more or less than that.
    ///
    /// Names of the configuration may contain hyphens and points, so everything up to white space belongs to it.
    pub fn name(&self) -> Option<String> {
        match self.tokens {
            [] => None,
            [token] if matches!(token.kind, TokenKind::QuotedName | TokenKind::Text) => {
                Some(unquoted(piece(self.text, token.start, token.end)))
            }
            several => several
                .iter()
                .zip(several.iter().skip(1))
                .all(|(left, right)| left.end == right.start)
                .then(|| self.written().to_owned()),
        }
    }

    /// What follows `word`, which is in capitals, where that comes first and something follows.
    pub fn behind(&self, word: &str) -> Option<Arguments<'t>> {
        let (first, rest) = self.tokens.split_first()?;
        let found = first
            .bytes(self.text.as_bytes())
            .eq_ignore_ascii_case(word.as_bytes());
        (found && !rest.is_empty()).then_some(Arguments {
            text: self.text,
            tokens: rest,
        })
    }

    /// The parts of a dotted name, folded as PostgreSQL folds names; `None` when it is none.
    pub fn dotted_name(&self) -> Option<Vec<String>> {
        let mut parts = Vec::new();
        for (index, token) in self.tokens.iter().enumerate() {
            let word = piece(self.text, token.start, token.end);
            if index % 2 == 1 {
                if word != "." {
                    return None;
                }
                continue;
            }
            match token.kind {
                TokenKind::Word => parts.push(word.to_ascii_lowercase()),
                TokenKind::QuotedName => parts.push(unquoted(word)),
                TokenKind::UnicodeName
                | TokenKind::Text
                | TokenKind::EscapeText
                | TokenKind::NationalText
                | TokenKind::UnicodeText
                | TokenKind::DollarText
                | TokenKind::Bits
                | TokenKind::Number
                | TokenKind::GluedNumber
                | TokenKind::Parameter
                | TokenKind::Operator
                | TokenKind::Punctuation
                | TokenKind::Invalid => return None,
            }
        }
        (self.tokens.len() % 2 == 1).then_some(parts)
    }
}

/// Without the quotes around it; a doubled quote inside is one.
fn unquoted(word: &str) -> String {
    for quote in ['"', '\''] {
        if let Some(inner) = word.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner.replace(&format!("{quote}{quote}"), &quote.to_string());
        }
    }
    word.to_owned()
}

/// Tokens begin and end with whole characters.
fn piece(text: &str, start: usize, end: usize) -> &str {
    text.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_behind_comments_and_before_semicolons() {
        for (text, begins, rest) in [
            ("SHOW POOLS", true, ""),
            ("  show\n pools ;; ", true, ""),
            ("/* app */ -- note\nShow Pools", true, ""),
            ("SHOW POOLS growth ;", true, "growth"),
            ("SHOW \"POOLS\"", false, ""),
            ("SHOWPOOLS", false, ""),
            ("SHOW", false, ""),
            ("", false, ""),
        ] {
            let words = Words::of(text).expect("one command");
            assert_eq!(words.begin_with("SHOW POOLS"), begins, "{text}");
            if begins {
                assert_eq!(words.after("SHOW POOLS").written(), rest, "{text}");
            }
        }
        assert_eq!(Words::of("RELOAD; RELOAD").err(), Some(NotOne::Several));
        assert!(Words::of(" ; ; -- nothing").expect("nothing").is_empty());
    }

    #[test]
    fn names_are_read_in_all_their_forms() {
        for (text, name, dotted) in [
            ("X warehouse", Some("warehouse"), Some("warehouse")),
            ("X dwh-1.eu", Some("dwh-1.eu"), None),
            ("X 'dwh 1'", Some("dwh 1"), None),
            ("X \"Dwh\"\"1\"", Some("Dwh\"1"), Some("Dwh\"1")),
            (
                "X Public.\"Users\"",
                Some("Public.\"Users\""),
                Some("public|Users"),
            ),
            ("X a . b", None, Some("a|b")),
            ("X a b", None, None),
            ("X a.", Some("a."), None),
            ("X", None, None),
        ] {
            let words = Words::of(text).expect("one command");
            let arguments = words.after("X");
            assert_eq!(arguments.name().as_deref(), name, "{text}");
            let parts = arguments.dotted_name().map(|parts| parts.join("|"));
            assert_eq!(parts.as_deref(), dotted, "{text}");
        }
    }

    #[test]
    fn long_texts_are_shown_by_their_beginning() {
        let long = "ä ".repeat(1_000);
        let words = Words::of(&long).expect("one command");
        assert!(words.beginning().chars().count() < 64);
        assert!(words.canonical(100).len() < 200);
    }
}
