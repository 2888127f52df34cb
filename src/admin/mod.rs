//! placeholder
use crate::error::ClientError;
use crate::pipeline::{Answer, Commands, Gateway};
use crate::wire::Column;
use std::sync::Arc;
/// Console.
pub struct Console;
impl Console {
    /// New.
    pub fn new(_: Arc<Gateway>) -> Self {
        Self
    }
}
impl Commands for Console {
    fn columns(&self, _: &[u8]) -> Result<Option<&'static [Column]>, Box<dyn ClientError>> {
        Ok(None)
    }
    fn run(&mut self, _: &[u8]) -> Result<Option<Answer>, Box<dyn ClientError>> {
        Ok(None)
    }
}
