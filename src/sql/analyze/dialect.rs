//! The parser's dialects.

use std::any::TypeId;
use std::cell::Cell;

use sqlparser::ast::{Expr, Statement};
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence, RedshiftSqlDialect};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};

/// Which of two readings is tried; a text that is valid in both means the same in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    /// Arrays with subscripts; `START`, `MINUS`, `TOP` are ordinary names.
    PostgreSql,
    /// Paths into semi-structured values, `TOP`, `MINUS`, `CONNECT BY`, `EXCLUDE`.
    Redshift,
}

/// Either dialect, with a cap on the parser's steps.
#[derive(Debug)]
pub(super) struct Warehouse {
    flavour: Flavour,
    steps_left: Cell<usize>,
}

impl Warehouse {
    /// For a text of so many tokens. An honest text takes one to three steps per token; one that makes the parser
    /// go back and try again takes more.
    pub(super) fn new(flavour: Flavour, tokens: usize) -> Self {
        Self {
            flavour,
            steps_left: Cell::new(1_000 + tokens * 8),
        }
    }

    /// Takes one step; an error that the parser does not recover from when none is left.
    fn step(&self) -> Result<(), ParserError> {
        let left = self
            .steps_left
            .get()
            .checked_sub(1)
            .ok_or(ParserError::RecursionLimitExceeded)?;
        self.steps_left.set(left);
        Ok(())
    }

    fn redshift(&self) -> bool {
        self.flavour == Flavour::Redshift
    }
}

const POSTGRESQL: PostgreSqlDialect = PostgreSqlDialect {};
const REDSHIFT: RedshiftSqlDialect = RedshiftSqlDialect {};

impl Dialect for Warehouse {
    /// The parser asks some of its questions by type; PostgreSQL's answers serve both.
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn parse_prefix(&self, _: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        self.step().err().map(Err)
    }

    fn parse_statement(&self, _: &mut Parser<'_>) -> Option<Result<Statement, ParserError>> {
        self.step().err().map(Err)
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        match self.step() {
            Ok(()) => POSTGRESQL.get_next_precedence(parser),
            Err(error) => Some(Err(error)),
        }
    }

    fn prec_value(&self, prec: Precedence) -> u8 {
        POSTGRESQL.prec_value(prec)
    }

    // the parser is given tokens, so what follows on characters is asked by nobody
    fn is_identifier_start(&self, ch: char) -> bool {
        REDSHIFT.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        REDSHIFT.is_identifier_part(ch)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        POSTGRESQL.is_custom_operator_part(ch)
    }

    fn is_reserved_for_identifier(&self, kw: Keyword) -> bool {
        POSTGRESQL.is_reserved_for_identifier(kw)
    }

    fn is_table_alias(&self, kw: &Keyword, parser: &mut Parser<'_>) -> bool {
        if self.redshift() {
            REDSHIFT.is_table_alias(kw, parser)
        } else {
            POSTGRESQL.is_table_alias(kw, parser)
        }
    }

    fn convert_type_before_value(&self) -> bool {
        self.redshift()
    }

    fn supports_connect_by(&self) -> bool {
        self.redshift()
    }

    fn supports_top_before_distinct(&self) -> bool {
        self.redshift()
    }

    fn supports_partiql(&self) -> bool {
        self.redshift()
    }

    fn supports_unpivot_expr(&self) -> bool {
        self.redshift()
    }

    fn supports_select_wildcard_exclude(&self) -> bool {
        self.redshift()
    }

    fn supports_select_exclude(&self) -> bool {
        self.redshift()
    }

    fn supports_window_function_null_treatment_arg(&self) -> bool {
        true
    }

    fn supports_parens_around_table_factor(&self) -> bool {
        true
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_within_after_array_aggregation(&self) -> bool {
        true
    }

    fn supports_group_by_expr(&self) -> bool {
        true
    }

    fn supports_order_by_all(&self) -> bool {
        self.redshift()
    }

    fn allow_extract_custom(&self) -> bool {
        true
    }

    fn allow_extract_single_quotes(&self) -> bool {
        true
    }

    fn supports_factorial_operator(&self) -> bool {
        true
    }

    fn supports_bitwise_shift_operators(&self) -> bool {
        true
    }

    fn supports_named_fn_args_with_colon_operator(&self) -> bool {
        !self.redshift()
    }

    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        !self.redshift()
    }

    fn supports_named_fn_args_with_assignment_operator(&self) -> bool {
        true
    }

    fn supports_empty_projections(&self) -> bool {
        true
    }

    fn supports_array_typedef_with_brackets(&self) -> bool {
        true
    }

    fn supports_geometric_types(&self) -> bool {
        true
    }

    fn supports_order_by_using_operator(&self) -> bool {
        true
    }

    fn supports_left_associative_joins_without_parens(&self) -> bool {
        false
    }

    fn supports_notnull_operator(&self) -> bool {
        true
    }

    fn supports_interval_options(&self) -> bool {
        true
    }

    fn supports_insert_table_alias(&self) -> bool {
        true
    }

    fn supports_select_wildcard_with_alias(&self) -> bool {
        true
    }

    fn supports_comma_separated_trim(&self) -> bool {
        true
    }

    fn supports_xml_expressions(&self) -> bool {
        true
    }

    fn supports_aliased_function_args(&self) -> bool {
        true
    }

    fn supports_data_type_signed_suffix(&self) -> bool {
        false
    }
}
