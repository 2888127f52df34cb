//! placeholder
pub mod catalog;
