//! Facts remembered, so that a text or a shape that comes again costs no parse.
//!
//! Two stores: by exact text for long texts, where even lexing costs; by exact shape for single statements, so that
//! `… WHERE id = 12345` with ever-changing numbers costs one pass of the lexer. What a thread saw last it has at hand, and
//! needs not even that. Keys are compared in full: two texts cannot be taken for each other.

use std::cell::RefCell;
use std::ops::Deref;
use std::sync::Arc;

use moka::sync::Cache;

use super::analyze::{MAX_BYTES, analyze, shared_by_shape};
use super::facts::unread;
use super::shape::{canonical_into, survey};
use super::statement::{Located, RelationName, Statement};
use super::template::{MAX_TEXT, Template};
use super::token::Backslash;
use crate::types::ByteSize;

/// From this length on a text is looked up as a whole before it is lexed.
const LONG_BYTES: usize = 200;
/// What an entry costs beside its key and value.
const ENTRY_BYTES: usize = 340;
/// A thread keeps at most this much room for shapes.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Texts that a thread has at hand are looked for in one of so many sets, by how they begin.
const SETS: usize = 32;
/// How many of them a set holds.
const WAYS: usize = 4;
/// How many bytes tell the set.
const BEGINNING: usize = 16;

/// What is at hand of a text.
enum Recent {
    /// As it is.
    Text(Box<[u8]>, Analysis),
    /// A statement with any literals.
    Template(Template),
}

impl Recent {
    fn answer(&self, text: &[u8], backslash: Backslash) -> Option<Analysis> {
        match self {
            Self::Text(known, analysis) => {
                (analysis.backslash == backslash && **known == *text).then(|| analysis.clone())
            }
            Self::Template(template) => {
                let located = template.fits(text, backslash)?;
                Some(Analysis {
                    statements: Statements::One(located),
                    moment_literal: false,
                    backslash,
                    canonical: None,
                })
            }
        }
    }
}

/// Texts that begin alike. One is kept when it comes for the second time, so that one which does not come again costs no
/// copy; which one makes room goes round.
#[derive(Default)]
struct Set {
    kept: [Option<Recent>; WAYS],
    next_kept: usize,
    /// Hashes of what was seen last, of texts or shapes.
    seen: [u64; WAYS],
    next_seen: usize,
}

impl Set {
    /// Notes that something with this hash was seen; whether it was lately.
    fn see(&mut self, hash: u64) -> bool {
        if self.seen.contains(&hash) {
            return true;
        }
        if let Some(place) = self.seen.get_mut(self.next_seen) {
            *place = hash;
        }
        self.next_seen = (self.next_seen + 1) % WAYS;
        false
    }

    fn keep(&mut self, recent: Recent) {
        if let Some(place) = self.kept.get_mut(self.next_kept) {
            *place = Some(recent);
        }
        self.next_kept = (self.next_kept + 1) % WAYS;
    }
}

thread_local! {
    /// The shape of the text at hand.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Texts seen last and their facts, which depend on nothing else.
    static RECENT: RefCell<[Set; SETS]> = RefCell::new(std::array::from_fn(|_| Set::default()));
}

/// The facts of a text's statements. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Analysis {
    statements: Statements,
    moment_literal: bool,
    backslash: Backslash,
    canonical: Option<Arc<[u8]>>,
}

/// One statement, the usual case, takes no allocation.
#[derive(Clone, Debug)]
enum Statements {
    One(Located),
    Many(Arc<[Located]>),
}

impl Deref for Statements {
    type Target = [Located];

    fn deref(&self) -> &[Located] {
        match self {
            Self::One(statement) => std::slice::from_ref(statement),
            Self::Many(statements) => statements,
        }
    }
}

impl Analysis {
    /// Analyzes without remembering.
    pub fn of(text: &[u8], backslash: Backslash) -> Self {
        let moment_literal =
            text.len() > MAX_BYTES || survey(text, backslash, &mut Vec::new()).moment_literal;
        Self::new(analyze(text, backslash), moment_literal, backslash)
    }

    /// Of a text that is read by rules that are not known: it can do anything.
    pub fn unread(text: &[u8]) -> Self {
        let located = Located {
            span: 0..text.len(),
            statement: Arc::new(unread()),
        };
        Self::new(vec![located], true, Backslash::Literal)
    }

    fn new(statements: Vec<Located>, moment_literal: bool, backslash: Backslash) -> Self {
        let statements = match <[Located; 1]>::try_from(statements) {
            Ok([statement]) => Statements::One(statement),
            Err(statements) => Statements::Many(Arc::from(statements)),
        };
        Self {
            statements,
            moment_literal,
            backslash,
            canonical: None,
        }
    }

    /// The statements in order; none for a text of white space and comments.
    pub fn statements(&self) -> &[Located] {
        &self.statements
    }

    /// The statement, if there is exactly one.
    pub fn single(&self) -> Option<&Arc<Statement>> {
        match self.statements() {
            [statement] => Some(&statement.statement),
            _ => None,
        }
    }

    /// A string literal holds one of the words that PostgreSQL reads as a date or time of the moment, such as
    /// `'now'` or `'yesterday'`: then a result must not be kept. True as well where that is in doubt.
    pub fn moment_literal(&self) -> bool {
        self.moment_literal
    }

    /// Appends the exact form of `text`, the text that this is the analysis of: equal for two texts only if they
    /// are the same statements to the backend.
    pub fn canonical_into(&self, text: &[u8], out: &mut Vec<u8>) {
        match &self.canonical {
            Some(canonical) => out.extend_from_slice(canonical),
            None => canonical_into(text, self.backslash, out),
        }
    }

    fn bytes(&self) -> usize {
        self.statements
            .iter()
            .map(|located| 32 + weight(&located.statement))
            .sum::<usize>()
            + self.canonical.as_ref().map_or(0, |canonical| canonical.len())
    }
}

/// About how many bytes of memory a statement's facts take.
fn weight(statement: &Statement) -> usize {
    const NAME_BYTES: usize = 40;
    let relation = |relation: &RelationName| {
        2 * NAME_BYTES + relation.name.len() + relation.schema.as_ref().map_or(0, |schema| schema.len())
    };
    let relations = [&statement.reads, &statement.writes, &statement.functions];
    size_of::<Statement>()
        + relations.into_iter().flatten().map(relation).sum::<usize>()
        + statement
            .identifiers
            .iter()
            .chain(&statement.operators)
            .chain(&statement.casts.columns)
            .chain(&statement.casts.named)
            .map(|name| NAME_BYTES + name.len())
            .sum::<usize>()
}

/// A cheap hash: what shares a place takes turns, which costs a question to the store and nothing else.
fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let hash = words.iter().fold(bytes.len() as u64, |hash, word| {
        mix(hash, u64::from_le_bytes(*word))
    });
    rest.iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte)))
}

fn set_of(text: &[u8]) -> usize {
    let beginning = text.get(..BEGINNING).unwrap_or(text);
    // the product's upper bits are the mixed ones
    usize::try_from(hash(beginning) >> 32).unwrap_or(0) % SETS
}

/// The analysis of `text`, if this thread has it at hand.
fn recent(text: &[u8], backslash: Backslash) -> Option<Analysis> {
    RECENT.with_borrow(|sets| {
        let mut kept = sets.get(set_of(text))?.kept.iter().flatten();
        kept.find_map(|recent| recent.answer(text, backslash))
    })
}

/// Has `text` at hand from its second time on; `shape` is its shape, if what is known of it holds for the shape.
fn remember(text: &[u8], shape: Option<&[u8]>, analysis: &Analysis) {
    if text.len() > MAX_TEXT {
        return;
    }
    RECENT.with_borrow_mut(|sets| {
        let Some(set) = sets.get_mut(set_of(text)) else {
            return;
        };
        if !set.see(hash(shape.unwrap_or(text))) {
            return;
        }
        set.keep(match (shape, analysis.statements()) {
            (Some(_), [located]) => Recent::Template(Template::new(text, located, analysis.backslash)),
            _ => Recent::Text(text.into(), analysis.clone()),
        });
    });
}

fn saturated(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Analyzes texts and remembers what it found, in bounded memory. Shared by all sessions.
#[derive(Clone, Debug)]
pub struct Analyzer {
    texts: Cache<Arc<[u8]>, Analysis>,
    shapes: Cache<Arc<[u8]>, Arc<Statement>>,
}

impl Analyzer {
    /// Remembers as much as fits in about `memory`; 0 remembers nothing.
    pub fn new(memory: ByteSize) -> Self {
        let half = memory.0 / 2;
        Self {
            texts: Cache::builder()
                .max_capacity(half)
                .weigher(|text: &Arc<[u8]>, analysis: &Analysis| {
                    saturated(ENTRY_BYTES + text.len() + analysis.bytes())
                })
                .build(),
            shapes: Cache::builder()
                .max_capacity(half)
                .weigher(|shape: &Arc<[u8]>, statement: &Arc<Statement>| {
                    saturated(ENTRY_BYTES + shape.len() + weight(statement))
                })
                .build(),
        }
    }

    /// The facts of `text`; `backslash` must be that of the backend it is for.
    ///
    /// Takes a microsecond or less for a text or shape seen before; some tens of milliseconds at most for any other.
    pub fn analyze(&self, text: &[u8], backslash: Backslash) -> Analysis {
        if text.len() > MAX_BYTES {
            return Analysis::of(text, backslash);
        }
        if let Some(analysis) = recent(text, backslash) {
            return analysis;
        }
        if text.len() >= LONG_BYTES
            && let Some(analysis) = self.by_text(text, backslash)
        {
            remember(text, None, &analysis);
            return analysis;
        }
        SCRATCH.with_borrow_mut(|shape| {
            shape.clear();
            let survey = survey(text, backslash, shape);
            let by_shape = if survey.single && !shape.is_empty() {
                self.shapes.get(shape.as_slice())
            } else {
                None
            };
            let analysis = if let Some(statement) = by_shape {
                let analysis = Analysis {
                    statements: Statements::One(Located {
                        span: survey.span,
                        statement,
                    }),
                    moment_literal: survey.moment_literal,
                    backslash,
                    canonical: None,
                };
                let shape = Some(shape.as_slice()).filter(|_| !analysis.moment_literal);
                remember(text, shape, &analysis);
                analysis
            } else {
                let short = text.len() < LONG_BYTES;
                let known = short.then(|| self.by_text(text, backslash)).flatten();
                let analysis =
                    known.unwrap_or_else(|| self.learn(text, backslash, shape, survey.moment_literal));
                remember(text, None, &analysis);
                analysis
            };
            shape.shrink_to(SCRATCH_BYTES);
            analysis
        })
    }

    fn by_text(&self, text: &[u8], backslash: Backslash) -> Option<Analysis> {
        self.texts
            .get(text)
            .filter(|analysis| analysis.backslash == backslash)
    }

    /// Analyzes, and remembers by shape what holds for the shape, by text what does not or is long.
    fn learn(&self, text: &[u8], backslash: Backslash, shape: &[u8], moment_literal: bool) -> Analysis {
        let mut analysis = Analysis::new(analyze(text, backslash), moment_literal, backslash);
        let shared = analysis
            .single()
            .filter(|statement| shared_by_shape(statement))
            .cloned();
        if text.len() >= LONG_BYTES {
            let mut canonical = Vec::with_capacity(text.len());
            canonical_into(text, backslash, &mut canonical);
            analysis.canonical = Some(Arc::from(canonical));
        }
        if text.len() >= LONG_BYTES || shared.is_none() {
            self.texts.insert(Arc::from(text), analysis.clone());
        }
        if let Some(statement) = shared {
            self.shapes.insert(Arc::from(shape), statement);
        }
        analysis
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn analyzer() -> Analyzer {
        Analyzer::new(ByteSize(1 << 20))
    }

    #[test]
    fn texts_of_one_shape_share_their_facts_but_not_their_places() {
        let analyzer = analyzer();
        let first = analyzer.analyze(b"SELECT a FROM t WHERE id = 1", Backslash::Literal);
        let second = analyzer.analyze(b"  select a from t where id = 23456;", Backslash::Literal);
        let (Some(one), Some(two)) = (first.single(), second.single()) else {
            panic!("one statement each")
        };
        assert!(Arc::ptr_eq(one, two));
        assert_eq!(first.statements()[0].span, 0..28);
        assert_eq!(second.statements()[0].span, 2..34);
    }

    #[test]
    fn a_remembered_text_gives_the_facts_of_a_new_one() {
        let long = format!("SELECT '{}' FROM t", "x".repeat(300));
        let rows = [
            "SET a = 1",
            "SET a = 2",
            "SELECT 'now'",
            "SELECT 'then'",
            "BEGIN; SELECT 1; COMMIT",
            "EXPLAIN (ANALYZE 0) DELETE FROM t",
            "EXPLAIN (ANALYZE 1) DELETE FROM t",
            "garbage here",
            "",
            " -- nothing",
            ";;",
            "SELECT f(a FROM t;\n",
            "DELETE @ t WHEREINS a 1 =b",
            "DELETE @ t WHEREINS a 42 =b",
            "SELECT count(*) FROM @ t a 1",
            "SELECT count(*) FROM @ t a 2",
            "SELECT set_config('role', 'a', false)",
            "SELECT set_config('search_path', 'a', false)",
            "UNLOAD ('SELECT a FROM t') TO 's3://b'",
            "UNLOAD ('SELECT a FROM u') TO 's3://b'",
            r"SELECT 'a\' FROM t --'",
            long.as_str(),
        ];
        let analyzer = analyzer();
        for backslash in [Backslash::Literal, Backslash::Escape, Backslash::Literal] {
            for text in rows {
                let expected = Analysis::of(text.as_bytes(), backslash);
                for _ in 0..2 {
                    let got = analyzer.analyze(text.as_bytes(), backslash);
                    assert_eq!(got.statements(), expected.statements(), "{text}");
                    assert_eq!(got.moment_literal(), expected.moment_literal(), "{text}");
                    let (mut a, mut b) = (Vec::new(), Vec::new());
                    got.canonical_into(text.as_bytes(), &mut a);
                    expected.canonical_into(text.as_bytes(), &mut b);
                    assert_eq!(a, b, "{text}");
                }
            }
        }
    }

    #[test]
    fn a_text_that_comes_again_is_at_hand() {
        let analyzer = analyzer();
        for (text, like, unlike) in [
            (
                "SELECT a FROM t WHERE id = 1",
                Some("SELECT a FROM t WHERE id = 23"),
                "SELECT a FROM u WHERE id = 1",
            ),
            ("SET work_mem = 5", None, "SET work_mem = 6"),
            ("SELECT 1; SELECT 2", None, "SELECT 1; SELECT 3"),
            ("SELECT 'now'", None, "SELECT 'then'"),
        ] {
            // learned, known by its shape or text, and from then on at hand
            for _ in 0..3 {
                analyzer.analyze(text.as_bytes(), Backslash::Literal);
            }
            assert!(recent(text.as_bytes(), Backslash::Literal).is_some(), "{text}");
            assert!(
                recent(text.as_bytes(), Backslash::Escape).is_none(),
                "{text}: other rules"
            );
            assert!(
                recent(unlike.as_bytes(), Backslash::Literal).is_none(),
                "{unlike}"
            );
            let Some(like) = like else { continue };
            let got = recent(like.as_bytes(), Backslash::Literal).expect("at hand");
            let expected = Analysis::of(like.as_bytes(), Backslash::Literal);
            assert_eq!(got.statements(), expected.statements(), "{like}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let analyzer = Analyzer::new(ByteSize(200_000));
        for number in 0..2_000 {
            let text = format!("SELECT a{number} FROM t{number} WHERE x = '{}'", "y".repeat(300));
            analyzer.analyze(text.as_bytes(), Backslash::Literal);
        }
        analyzer.texts.run_pending_tasks();
        analyzer.shapes.run_pending_tasks();
        assert!(analyzer.texts.weighted_size() <= 100_000);
        assert!(analyzer.shapes.weighted_size() <= 100_000);
    }
}
