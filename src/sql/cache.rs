//! Facts remembered, so that a text or a shape that comes again costs no parse.
//!
//! Two stores: by exact text for long texts, where even lexing costs; by exact shape for single statements, so that
//! `… WHERE id = 12345` with ever-changing numbers costs one pass of the lexer. Keys are compared in full: two texts
//! cannot be taken for each other.

use std::cell::RefCell;
use std::ops::Deref;
use std::sync::Arc;

use moka::sync::Cache;

use super::analyze::{MAX_BYTES, analyze, shared_by_shape};
use super::facts::unread;
use super::shape::{canonical_into, survey};
use super::statement::{Located, RelationName, Statement};
use super::token::Backslash;
use crate::types::ByteSize;

/// From this length on a text is looked up as a whole before it is lexed.
const LONG_BYTES: usize = 200;
/// What an entry costs beside its key and value.
const ENTRY_BYTES: usize = 340;
/// A thread keeps at most this much room for shapes.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Shapes that a thread has at hand without asking the store; a power of two.
const RECENT: usize = 64;
/// The longest of them.
const RECENT_BYTES: usize = 1024;

/// A text that came several times: drivers send the same ones, with their values beside them.
#[derive(Default)]
struct Repeated {
    /// The hash of the text that came last to this place; a text is kept when it comes for the second time, so that one
    /// which does not come again costs no copy.
    seen: u64,
    known: Option<(Box<[u8]>, Analysis)>,
}

/// A shape and its facts.
type Recent = Option<(Arc<[u8]>, Arc<Statement>)>;

thread_local! {
    /// The shape of the text at hand.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Shapes seen last and their facts, which depend on nothing else. One place for each hash.
    static REPEATED: RefCell<[Repeated; RECENT]> = RefCell::new(std::array::from_fn(|_| Repeated::default()));
    static RECENTLY: RefCell<[Recent; RECENT]> = const { RefCell::new([const { None }; RECENT]) };
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
            .map(|name| NAME_BYTES + name.len())
            .sum::<usize>()
}

/// The facts of a shape that this thread saw a short while ago.
fn recent(shape: &[u8]) -> Option<Arc<Statement>> {
    RECENTLY.with_borrow(|recently| match recently.get(place(shape)) {
        Some(Some((known, statement))) if **known == *shape => Some(Arc::clone(statement)),
        _ => None,
    })
}

fn remember(shape: &[u8], statement: &Arc<Statement>) {
    if shape.len() > RECENT_BYTES {
        return;
    }
    RECENTLY.with_borrow_mut(|recently| {
        if let Some(place) = recently.get_mut(place(shape)) {
            *place = Some((Arc::from(shape), Arc::clone(statement)));
        }
    });
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

fn place(bytes: &[u8]) -> usize {
    // the product's upper bits are the mixed ones
    usize::try_from(hash(bytes) >> 58).unwrap_or(0) % RECENT
}

/// The analysis of exactly this text, if this thread had it several times.
fn repeated(text: &[u8], backslash: Backslash) -> Option<Analysis> {
    REPEATED.with_borrow(|repeated| match &repeated.get(place(text))?.known {
        Some((known, analysis)) if **known == *text && analysis.backslash == backslash => {
            Some(analysis.clone())
        }
        Some(_) | None => None,
    })
}

fn note_repeated(text: &[u8], analysis: &Analysis) {
    REPEATED.with_borrow_mut(|repeated| {
        let Some(place) = repeated.get_mut(place(text)) else {
            return;
        };
        let hash = hash(text);
        if place.seen == hash {
            place.known = Some((text.into(), analysis.clone()));
        }
        place.seen = hash;
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
        if text.len() >= LONG_BYTES {
            if let Some(analysis) = self.by_text(text, backslash) {
                return analysis;
            }
        } else if let Some(analysis) = repeated(text, backslash) {
            return analysis;
        }
        let analysis = SCRATCH.with_borrow_mut(|shape| {
            shape.clear();
            let survey = survey(text, backslash, shape);
            let analysis = if survey.single && !shape.is_empty() {
                let known = recent(shape).or_else(|| {
                    let statement = self.shapes.get(shape.as_slice())?;
                    remember(shape, &statement);
                    Some(statement)
                });
                known.map(|statement| Analysis {
                    statements: Statements::One(Located {
                        span: survey.span.clone(),
                        statement,
                    }),
                    moment_literal: survey.moment_literal,
                    backslash,
                    canonical: None,
                })
            } else {
                None
            };
            let analysis = analysis
                .or_else(|| {
                    (text.len() < LONG_BYTES)
                        .then(|| self.by_text(text, backslash))
                        .flatten()
                })
                .unwrap_or_else(|| self.learn(text, backslash, shape, survey.moment_literal));
            shape.shrink_to(SCRATCH_BYTES);
            analysis
        });
        if text.len() < LONG_BYTES {
            note_repeated(text, &analysis);
        }
        analysis
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
    fn a_text_that_is_repeated_is_read_once() {
        let analyzer = analyzer();
        let text = b"SELECT a FROM repeated WHERE id = $1";
        for _ in 0..2 {
            assert!(repeated(text, Backslash::Literal).is_none());
            analyzer.analyze(text, Backslash::Literal);
        }
        assert!(repeated(text, Backslash::Literal).is_some());
        assert!(
            repeated(text, Backslash::Escape).is_none(),
            "it is read by other rules"
        );
        assert!(repeated(b"SELECT a FROM repeated WHERE id = $2", Backslash::Literal).is_none());
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
