//! What is sure of an expression's value, when it is read as a date or a time: that it is no text that names the moment.

use sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, CharacterLength, DataType, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArguments, SelectItem, SetExpr, UnaryOperator, Value,
};

/// Types that read some texts as the moment, ranges of them too, as they are written in a call or after `::`. Sorted.
pub(super) const TIMES: &[&str] = &[
    "date",
    "datemultirange",
    "daterange",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "tsmultirange",
    "tsrange",
    "tstzmultirange",
    "tstzrange",
];

/// Functions whose result is no text, whatever they are given. Sorted.
const NO_TEXT: &[&str] = &[
    "abs",
    "age",
    "avg",
    "ceil",
    "count",
    "date",
    "date_add",
    "date_bin",
    "date_part",
    "date_subtract",
    "date_trunc",
    "dateadd",
    "datediff",
    "extract",
    "floor",
    "generate_series",
    "justify_days",
    "justify_hours",
    "justify_interval",
    "last_day",
    "length",
    "make_date",
    "make_interval",
    "make_time",
    "make_timestamp",
    "make_timestamptz",
    "mod",
    "now",
    "rank",
    "round",
    "row_number",
    "sum",
    "time",
    "timestamp",
    "timestamptz",
    "timezone",
    "to_date",
    "to_number",
    "to_timestamp",
    "trunc",
];

/// Functions whose result is their first argument, or one of those in it. Sorted.
const FIRST: &[&str] = &[
    "any_value",
    "array_agg",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "max",
    "min",
    "nth_value",
    "nullif",
    "unnest",
];

/// What is sure of an expression's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sure {
    /// It is no text.
    NoText,
    /// A text perhaps, but no literal's check is evaded: it is a literal, a parameter, or is printed from what is no text.
    NoMoment,
    /// Nothing.
    Not,
}

/// What an expression is, as long as these columns are no texts.
pub(super) type Meaning = (Sure, Vec<String>);

pub(super) fn meaning(expr: &Expr) -> Meaning {
    let mut columns = Vec::new();
    (sure(expr, &mut columns), columns)
}

/// The worst of all; nothing is sure of what is not there.
pub(super) fn worst<'e>(all: impl Iterator<Item = Option<&'e Expr>>) -> Meaning {
    let mut columns = Vec::new();
    let sure = all
        .map(|expr| expr.map_or(Sure::Not, |expr| sure(expr, &mut columns)))
        .max();
    (sure.unwrap_or(Sure::Not), columns)
}

/// The type of several that become one: one that is no text decides for literals.
fn joined<'e>(all: impl Iterator<Item = Option<&'e Expr>>, columns: &mut Vec<String>) -> Sure {
    let each: Vec<Sure> = all
        .map(|expr| expr.map_or(Sure::Not, |expr| sure(expr, columns)))
        .collect();
    if each.contains(&Sure::Not) {
        return Sure::Not;
    }
    each.into_iter().min().unwrap_or(Sure::Not)
}

/// What is sure of `expr` as long as `columns`, to which it adds, are no texts.
pub(super) fn sure(expr: &Expr, columns: &mut Vec<String>) -> Sure {
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "nothing is sure of most expressions"
    )]
    match expr {
        Expr::Nested(inner) => sure(inner, columns),
        Expr::Value(value) => match value.value {
            Value::Number(..) | Value::Boolean(_) => Sure::NoText,
            _ => Sure::NoMoment,
        },
        Expr::Identifier(ident) => {
            columns.push(ident.value.clone());
            Sure::NoText
        }
        Expr::CompoundIdentifier(idents) => {
            columns.extend(idents.last().map(|ident| ident.value.clone()));
            Sure::NoText
        }
        Expr::TypedString(literal) => cast(&literal.data_type, || Sure::NoMoment),
        Expr::Cast { expr, data_type, .. } => cast(data_type, || sure(expr, columns)),
        Expr::BinaryOp {
            op:
                BinaryOperator::Plus
                | BinaryOperator::Minus
                | BinaryOperator::Multiply
                | BinaryOperator::Divide
                | BinaryOperator::Modulo
                | BinaryOperator::Eq
                | BinaryOperator::NotEq
                | BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Gt
                | BinaryOperator::GtEq
                | BinaryOperator::And
                | BinaryOperator::Or,
            ..
        }
        | Expr::UnaryOp {
            op: UnaryOperator::Plus | UnaryOperator::Minus | UnaryOperator::Not,
            ..
        }
        | Expr::AtTimeZone { .. }
        | Expr::Extract { .. }
        | Expr::Ceil { .. }
        | Expr::Floor { .. }
        | Expr::Position { .. }
        | Expr::Interval(_)
        | Expr::Exists { .. }
        | Expr::Between { .. }
        | Expr::InList { .. }
        | Expr::InSubquery { .. }
        | Expr::Like { .. }
        | Expr::ILike { .. }
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_) => Sure::NoText,
        Expr::Case {
            conditions,
            else_result,
            ..
        } => {
            let results = conditions.iter().map(|when| Some(&when.result));
            joined(
                results.chain(else_result.iter().map(|result| Some(&**result))),
                columns,
            )
        }
        Expr::Array(array) => joined(array.elem.iter().map(Some), columns),
        Expr::Subquery(query) => match query.body.as_ref() {
            SetExpr::Select(select) => match select.projection.as_slice() {
                [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] => {
                    sure(expr, columns)
                }
                _ => Sure::Not,
            },
            _ => Sure::Not,
        },
        Expr::Function(function) => {
            let (sure, inner) = call(function_name(function), arguments(function));
            columns.extend(inner);
            sure
        }
        _ => Sure::Not,
    }
}

/// What a cast makes of an operand: a text that is cut may be a word that it was not.
fn cast(to: &DataType, operand: impl FnOnce() -> Sure) -> Sure {
    #[allow(clippy::wildcard_enum_match_arm, reason = "the parser knows a hundred types")]
    match to {
        DataType::Text
        | DataType::Varchar(None | Some(CharacterLength::Max))
        | DataType::CharVarying(None)
        | DataType::CharacterVarying(None) => operand().max(Sure::NoMoment),
        DataType::Date
        | DataType::Time(..)
        | DataType::Timestamp(..)
        | DataType::Interval { .. }
        | DataType::Numeric(_)
        | DataType::Decimal(_)
        | DataType::SmallInt(_)
        | DataType::Int(_)
        | DataType::Int2(_)
        | DataType::Int4(_)
        | DataType::Int8(_)
        | DataType::Integer(_)
        | DataType::BigInt(_)
        | DataType::Real
        | DataType::Float(_)
        | DataType::Float4
        | DataType::Float8
        | DataType::Double(_)
        | DataType::DoublePrecision
        | DataType::Bool
        | DataType::Boolean
        | DataType::JSON
        | DataType::JSONB
        | DataType::Uuid => Sure::NoText,
        to if is_time(to) => Sure::NoText,
        _ => Sure::Not,
    }
}

pub(super) fn call<'e>(name: Option<&str>, arguments: impl Iterator<Item = Option<&'e Expr>>) -> Meaning {
    let mut columns = Vec::new();
    let sure = match name {
        Some(name) if NO_TEXT.binary_search(&name).is_ok() || TIMES.binary_search(&name).is_ok() => {
            Sure::NoText
        }
        Some("coalesce" | "greatest" | "least") => joined(arguments, &mut columns),
        Some(name) if FIRST.binary_search(&name).is_ok() => {
            let mut each =
                arguments.map(|argument| argument.map_or(Sure::Not, |argument| sure(argument, &mut columns)));
            let first = each.next().unwrap_or(Sure::Not);
            if each.any(|sure| sure == Sure::Not) {
                Sure::Not
            } else {
                first
            }
        }
        Some(_) | None => Sure::Not,
    };
    (sure, columns)
}

/// The name of a function that is PostgreSQL's own, if any is.
pub(super) fn function_name(function: &Function) -> Option<&str> {
    let name = |at: usize| Some(function.name.0.get(at)?.as_ident()?.value.as_str());
    match function.name.0.len() {
        1 => name(0),
        2 if name(0) == Some("pg_catalog") => name(1),
        _ => None,
    }
}

pub(super) fn arguments(function: &Function) -> impl Iterator<Item = Option<&Expr>> {
    let list = match &function.args {
        FunctionArguments::List(list) => list.args.as_slice(),
        FunctionArguments::None | FunctionArguments::Subquery(_) => &[],
    };
    list.iter().map(argument)
}

pub(super) fn argument(argument: &FunctionArg) -> Option<&Expr> {
    let (FunctionArg::Unnamed(argument)
    | FunctionArg::Named { arg: argument, .. }
    | FunctionArg::ExprNamed { arg: argument, .. }) = argument;
    match argument {
        FunctionArgExpr::Expr(expr) => Some(expr),
        FunctionArgExpr::QualifiedWildcard(_)
        | FunctionArgExpr::Wildcard
        | FunctionArgExpr::WildcardWithOptions(_) => None,
    }
}

/// Whether a text that is cast to the type may be read as the moment.
pub(super) fn is_time(data_type: &DataType) -> bool {
    #[allow(clippy::wildcard_enum_match_arm, reason = "the parser knows a hundred types")]
    match data_type {
        DataType::Date
        | DataType::Date32
        | DataType::Time(..)
        | DataType::Datetime(_)
        | DataType::Timestamp(..)
        | DataType::TimestampNtz(_) => true,
        DataType::Array(
            ArrayElemTypeDef::SquareBracket(element, _)
            | ArrayElemTypeDef::AngleBracket(element)
            | ArrayElemTypeDef::Parenthesis(element),
        ) => is_time(element),
        DataType::Custom(name, _) => {
            let name = name.0.last().and_then(|part| part.as_ident());
            name.is_some_and(|name| {
                let name = name.value.strip_prefix('_').unwrap_or(&name.value);
                TIMES.binary_search(&name).is_ok()
            })
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_words_are_sorted() {
        for table in [TIMES, NO_TEXT, FIRST] {
            assert!(table.is_sorted(), "{table:?}");
        }
    }
}
