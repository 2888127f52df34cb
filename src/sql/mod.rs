//! SQL text to facts.
//!
//! [`Analyzer`] remembers what [`analyze`] found; [`describe`] says it in words.

mod lex;
mod statement;
mod shape;
mod facts;
mod settings;
mod classify;
mod analyze;
mod cache;
mod explain;

pub use analyze::{MAX_BYTES, MAX_TOKENS, analyze};
pub use cache::{Analysis, Analyzer};
pub use explain::describe;
pub use lex::{Backslash, Lexer, Token, TokenKind};
pub use shape::{canonical_into, names_a_moment};
pub use statement::*;
