//! Which code of users may have an effect that nothing shows, and what runs that code.
//!
//! Code that names other code, or a relation, may do what that does. Names are compared as words: of several functions or
//! relations of one name the worst counts, whatever their schemas.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Definitions, IMPLIED_OPERATORS};
use crate::sql::{Code, Effect, Statement, StatementKind, kept_name};

/// Longer chains of code that names code are not followed: then everything may have the effect.
const MAX_ROUNDS: usize = 100;

/// What runs a piece of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A call of the function of this name.
    Called(Arc<str>),
    /// The operator with this symbol.
    Operator(Arc<str>),
    /// A read of this relation: a view's query.
    Read(u32),
    /// A write of this relation: a trigger, a rule, a default, a check, an index.
    Written(u32),
    /// A read and a write of this relation: a policy.
    Used(u32),
    /// Nothing that a statement names: a cast, a domain's check, a comparison.
    Unseen,
    /// A change of definitions: an event trigger.
    Ddl,
}

/// One piece of code of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeDefinition {
    /// What runs it.
    pub occasion: Occasion,
    /// What it says.
    pub code: Code,
}

/// What may have one effect, by name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Causes {
    effect: Effect,
    anything: bool,
    ddl: bool,
    functions: HashSet<Arc<str>>,
    symbols: HashSet<Arc<str>>,
    read: HashSet<Arc<str>>,
    written: HashSet<Arc<str>>,
    /// Relations of whatever effect.
    relations: HashSet<Arc<str>>,
}

impl Causes {
    /// Follows what names what until nothing is added.
    pub(super) fn new(definitions: &Definitions, effect: Effect) -> Self {
        let names: HashMap<u32, Arc<str>> = definitions
            .relations
            .iter()
            .map(|relation| (relation.oid, kept(&relation.name)))
            .collect();
        // a write of the first may be one of the second
        let edges: Vec<(&Arc<str>, &Arc<str>)> = [
            &definitions.children,
            &definitions.view_reads,
            &definitions.cascades,
        ]
        .into_iter()
        .flatten()
        .filter_map(|(from, to)| Some((names.get(from)?, names.get(to)?)))
        .collect();
        let mut causes = Self {
            effect,
            anything: false,
            ddl: false,
            functions: HashSet::new(),
            symbols: HashSet::new(),
            read: HashSet::new(),
            written: HashSet::new(),
            relations: names.values().cloned().collect(),
        };
        for _ in 0..MAX_ROUNDS {
            let mut grown = false;
            for definition in &definitions.code {
                grown |= causes.add(definition, &names);
            }
            for (from, to) in &edges {
                if causes.written.contains(*to) {
                    grown |= causes.written.insert(Arc::clone(from));
                }
            }
            if !grown {
                return causes;
            }
        }
        causes.anything = true;
        causes
    }

    /// Whether something was added.
    fn add(&mut self, definition: &CodeDefinition, names: &HashMap<u32, Arc<str>>) -> bool {
        // a function may write to what it names, as a rule may; a query or an expression only reads it
        let writes = matches!(
            definition.occasion,
            Occasion::Called(_) | Occasion::Written(_) | Occasion::Ddl
        );
        let name = |name: &str| {
            self.functions.contains(name)
                || self.read.contains(name)
                || (writes && self.written.contains(name))
        };
        let occasion = &definition.occasion;
        let own = |oid: &u32| names.get(oid).cloned();
        let known = match occasion {
            Occasion::Called(name) => self.functions.contains(kept_name(name)),
            Occasion::Operator(symbol) => self.symbols.contains(symbol),
            Occasion::Read(oid) => names.get(oid).is_none_or(|name| self.read.contains(name)),
            Occasion::Written(oid) => names.get(oid).is_none_or(|name| self.written.contains(name)),
            Occasion::Used(oid) => names
                .get(oid)
                .is_none_or(|name| self.read.contains(name) && self.written.contains(name)),
            Occasion::Unseen => self.anything,
            Occasion::Ddl => self.ddl,
        };
        if known
            || !definition
                .code
                .may(self.effect, name, |symbol| self.symbols.contains(symbol))
        {
            return false;
        }
        match occasion {
            Occasion::Called(name) => drop(self.functions.insert(kept(name))),
            Occasion::Operator(symbol) => {
                self.anything |= IMPLIED_OPERATORS.contains(&&**symbol);
                self.symbols.insert(Arc::clone(symbol));
            }
            Occasion::Read(oid) => self.read.extend(own(oid)),
            Occasion::Written(oid) => self.written.extend(own(oid)),
            Occasion::Used(oid) => {
                self.read.extend(own(oid));
                self.written.extend(own(oid));
            }
            Occasion::Unseen => self.anything = true,
            Occasion::Ddl => self.ddl = true,
        }
        true
    }

    /// Whether `statement` may run such code. `calls` tells of a word whether it may be a call there.
    pub(super) fn caused_by(&self, statement: &Statement, calls: impl Fn(&str) -> bool) -> bool {
        // what is written is not told of all of them; `SELECT … INTO` is a write, and makes a relation
        let (writes_unseen, ddl) = match statement.kind {
            StatementKind::Transaction | StatementKind::Setting => return false,
            StatementKind::Ddl | StatementKind::Utility => (true, true),
            StatementKind::Write | StatementKind::Session | StatementKind::Unparsed => (false, true),
            StatementKind::Read | StatementKind::Copy => (false, false),
        };
        let word = |word: &Arc<str>| {
            let word = kept_name(word);
            (self.functions.contains(word) && calls(word))
                || self.read.contains(word)
                || (writes_unseen && self.written.contains(word))
        };
        // every foreign key is followed; what is written then is found by these
        let truncates =
            self.effect != Effect::Rows && statement.mentions("truncate") && statement.mentions("cascade");
        // a name that is spelt with escapes may be any
        self.anything
            || (statement.mentions("uescape") && !self.is_empty())
            || (ddl && self.ddl)
            || statement.identifiers.iter().any(word)
            || statement
                .functions
                .iter()
                .any(|function| self.functions.contains(kept_name(&function.name)))
            || statement
                .operators
                .iter()
                .any(|symbol| self.symbols.contains(symbol))
            || statement
                .writes
                .iter()
                .any(|relation| self.written.contains(kept_name(&relation.name)))
            || ((truncates || self.maintains_unnamed(statement)) && !self.written.is_empty())
    }

    /// Whether `statement` computes expressions of indexes of relations that it does not name: `VACUUM`, `REINDEX SCHEMA s`.
    fn maintains_unnamed(&self, statement: &Statement) -> bool {
        const MAINTAINING: [&str; 5] = ["analyse", "analyze", "cluster", "reindex", "vacuum"];
        const WIDER: [&str; 4] = ["database", "index", "schema", "system"];
        // words that need name no relation, though one may be named so
        const OPTIONS: [&str; 26] = [
            "analyse",
            "analyze",
            "auto",
            "buffer_usage_limit",
            "cluster",
            "concurrently",
            "disable_page_skipping",
            "false",
            "freeze",
            "full",
            "index_cleanup",
            "off",
            "on",
            "only_database_stats",
            "parallel",
            "process_main",
            "process_toast",
            "reindex",
            "skip_database_stats",
            "skip_locked",
            "table",
            "tablespace",
            "true",
            "truncate",
            "vacuum",
            "verbose",
        ];
        statement.kind == StatementKind::Utility
            && MAINTAINING.iter().any(|word| statement.mentions(word))
            && (WIDER.iter().any(|word| statement.mentions(word))
                || !statement
                    .identifiers
                    .iter()
                    .any(|word| !OPTIONS.contains(&&**word) && self.relations.contains(kept_name(word))))
    }

    /// Whether there is no such code at all.
    fn is_empty(&self) -> bool {
        self.functions.is_empty()
            && self.symbols.is_empty()
            && self.read.is_empty()
            && self.written.is_empty()
    }
}

/// A name as far as PostgreSQL keeps it.
fn kept(name: &Arc<str>) -> Arc<str> {
    match kept_name(name) {
        whole if whole.len() == name.len() => Arc::clone(name),
        cut => Arc::from(cut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::samples::definitions;
    use crate::sql::{Analysis, Backslash};

    fn causes(effect: Effect, code: &[(Occasion, &str)]) -> Causes {
        let mut definitions = definitions();
        definitions.code = code
            .iter()
            .map(|(occasion, source)| CodeDefinition {
                occasion: occasion.clone(),
                code: if matches!(occasion, Occasion::Called(_)) {
                    Code::of_body(source)
                } else {
                    Code::of_expression(source)
                },
            })
            .collect();
        Causes::new(&definitions, effect)
    }

    fn touching(code: &[(Occasion, &str)]) -> Causes {
        causes(Effect::Session, code)
    }

    fn touches(touching: &Causes, sql: &str) -> bool {
        let analysis = Analysis::of(sql.as_bytes(), Backslash::Literal);
        touching.caused_by(analysis.single().unwrap(), |_| true)
    }

    fn called(name: &str) -> Occasion {
        Occasion::Called(name.into())
    }

    #[test]
    fn code_that_names_other_code_may_do_what_that_does() {
        let touching = touching(&[
            (called("outer"), "SELECT middle($1)"),
            (called("middle"), "SELECT \"inner\"($1)"),
            (called("inner"), "SELECT set_config('a.b', $1, false)"),
            (called("plain"), "SELECT lower($1)"),
            (Occasion::Operator("<=>".into()), "public.middle"),
            (Occasion::Operator("===".into()), "public.plain"),
            (called("by_operator"), "SELECT $1 <=> $2"),
        ]);
        for (sql, expected) in [
            ("SELECT outer_one(1)", false),
            ("SELECT public.middle('x')", true),
            ("SELECT \"outer\"('x')", true),
            ("SELECT plain('x') === plain('y')", false),
            ("SELECT 1 <=> 2", true),
            ("SELECT by_operator(1, 2)", true),
            ("INSERT INTO events SELECT middle('x')", true),
            ("PREPARE p AS SELECT middle('x')", true),
            ("BEGIN", false),
        ] {
            assert_eq!(touches(&touching, sql), expected, "{sql}");
        }
    }

    #[test]
    fn what_is_written_runs_code_by_children_views_and_foreign_keys() {
        let evil = (called("evil"), "BEGIN PERFORM set_config('a.b', 'c', false); END");
        let trigger = "CREATE TRIGGER e BEFORE INSERT ON x FOR EACH ROW EXECUTE FUNCTION public.evil()";
        // daily_2a is a partition of daily, which users refers to; `lines` refers to orders
        let touching = touching(&[
            (Occasion::Written(13), trigger),
            (Occasion::Written(51), "public.evil()"),
            (Occasion::Used(41), "public.evil() = owner"),
            (Occasion::Read(20), "SELECT * FROM public.accounts"),
            (called("copies"), "INSERT INTO daily VALUES ($1)"),
            (called("looks"), "SELECT count(*) FROM very_active"),
            evil,
        ]);
        for (sql, expected) in [
            ("INSERT INTO daily_2a VALUES (1)", true),
            ("INSERT INTO daily VALUES (1)", true),
            ("DELETE FROM users", true),
            ("UPDATE orders SET a = 1", true),
            ("COPY daily FROM STDIN", true),
            ("INSERT INTO daily_1 VALUES (1)", false),
            ("INSERT INTO events SELECT * FROM daily", false),
            ("SELECT * FROM daily", false),
            ("SELECT * FROM accounts", true),
            (r#"SELECT * FROM U&"account!0073" UESCAPE '!'"#, true),
            ("UPDATE accounts SET a = 1", true),
            ("SELECT * FROM active", true),
            ("SELECT copies(1)", true),
            ("TRUNCATE events", false),
            ("TRUNCATE events CASCADE", true),
            ("ALTER TABLE daily ADD COLUMN b int", true),
            ("ALTER TABLE events ADD COLUMN b int", false),
            ("ANALYZE daily", true),
            ("ANALYZE events", false),
        ] {
            assert_eq!(touches(&touching, sql), expected, "{sql}");
        }
    }

    #[test]
    fn what_no_statement_names_counts_for_all() {
        let evil = (called("evil"), "SELECT set_config('a.b', 'c', false)");
        for occasion in [Occasion::Unseen, Occasion::Operator("=".into())] {
            let touching = touching(&[(occasion, "public.evil"), evil.clone()]);
            assert!(touches(&touching, "SELECT 1"));
            assert!(!touches(&touching, "COMMIT"));
        }
        let touching = touching(&[(Occasion::Ddl, "public.evil"), evil]);
        assert!(touches(&touching, "CREATE TABLE fresh (a int)"));
        assert!(touches(&touching, "SELECT 1 AS a INTO fresh"));
        assert!(!touches(&touching, "SELECT 1"));
    }

    #[test]
    fn a_chain_that_is_too_long_counts_for_all() {
        let chain: Vec<(Occasion, String)> = (0..=MAX_ROUNDS)
            .map(|at| (called(&format!("f{at}")), format!("SELECT f{}()", at + 1)))
            .chain([(
                called(&format!("f{}", MAX_ROUNDS + 1)),
                "SELECT setseed(1)".to_owned(),
            )])
            .collect();
        let chain: Vec<(Occasion, &str)> = chain
            .iter()
            .map(|(occasion, source)| (occasion.clone(), source.as_str()))
            .collect();
        assert!(touching(&chain).anything);
    }

    #[test]
    fn maintenance_computes_the_expressions_of_indexes() {
        let causes = causes(
            Effect::Rows,
            &[
                (Occasion::Written(1), "public.notes(id)"),
                (called("notes"), "INSERT INTO daily VALUES ($1) RETURNING 1"),
            ],
        );
        for (sql, expected) in [
            ("VACUUM", true),
            ("ANALYZE", true),
            ("VACUUM ANALYZE events", true),
            ("ANALYZE public.events (id)", true),
            ("VACUUM (FREEZE) daily", false),
            ("CLUSTER daily USING daily_index", false),
            ("REINDEX TABLE daily", false),
            ("REINDEX INDEX daily_index", true),
            ("REINDEX SCHEMA public", true),
            ("LOCK TABLE daily", false),
        ] {
            assert_eq!(touches(&causes, sql), expected, "{sql}");
        }
    }
}
