//! SQL text to facts.
//!
//! [`Analyzer`] remembers what [`analyze`] found; [`describe`] says it in words.

mod token;
mod lex;
mod vocabulary;
mod statement;
mod shape;
mod facts;
mod settings;
mod session;
mod process;
mod numbers;
mod classify;
mod code;
mod analyze;
mod template;
mod cache;
mod explain;

pub use analyze::{MAX_BYTES, MAX_TOKENS, analyze};
pub use cache::{Analysis, Analyzer};
pub use code::{Code, Effect, kept_name, touches_by_name};
pub use explain::describe;
pub use lex::Lexer;
pub use process::{ProcessCall, ProcessTarget};
pub use shape::{canonical_into, names_a_moment};
pub use statement::*;
pub use token::{Backslash, Token, TokenKind};

#[cfg(test)]
mod tests;
