//! SQL text to facts.

mod statement;

pub use statement::*;
