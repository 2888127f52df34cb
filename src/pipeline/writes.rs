//! What a transaction has written, until it ends.

use std::collections::BTreeSet;

use crate::cache::{TagId, Tags, WriteGuard};
use crate::policy::Invalidation;

/// Relations noted one by one; beyond that everything counts as written.
const MAX_RELATIONS: usize = 4_096;

/// What was written and not yet committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is another kind of what was written"
)]
pub(super) struct Writes {
    relations: BTreeSet<u32>,
    everything: bool,
    definitions: bool,
    /// What sessions begin with may be among the definitions: `ALTER ROLE … SET`.
    defaults: bool,
    /// Code that other statements run may be among the definitions.
    code: bool,
    /// Definitions may have been changed without a word of it.
    unseen: bool,
}

impl Writes {
    /// Adds what a statement makes stale.
    pub(super) fn add(&mut self, invalidation: &Invalidation) {
        match invalidation {
            Invalidation::Nothing => {}
            Invalidation::Relations(relations) => {
                self.relations.extend(relations.iter().copied());
                if self.relations.len() > MAX_RELATIONS {
                    self.relations.clear();
                    self.everything = true;
                }
            }
            Invalidation::Everything => self.everything = true,
            Invalidation::Definitions => {
                self.everything = true;
                self.definitions = true;
            }
        }
    }

    /// Notes that what sessions begin with may have changed.
    pub(super) fn add_defaults(&mut self) {
        self.defaults = true;
    }

    /// Whether what sessions begin with may have changed.
    pub(super) fn defaults(&self) -> bool {
        self.defaults
    }

    /// Notes that other statements may run code that they did not.
    pub(super) fn add_code(&mut self) {
        self.code = true;
    }

    /// Whether other statements may run code that they did not.
    pub(super) fn code(&self) -> bool {
        self.code
    }

    /// Notes that definitions may have been changed without a word of it.
    pub(super) fn add_unseen(&mut self) {
        self.unseen = true;
    }

    /// Whether definitions may have been changed without a word of it.
    pub(super) fn unseen(&self) -> bool {
        self.unseen
    }

    /// Whether definitions were changed.
    pub(super) fn definitions(&self) -> bool {
        self.definitions
    }

    /// From here until the guard is dropped nothing that depends on these writes is answered from memory, and what was
    /// kept of it is stale.
    pub(super) fn begin(&self, tags: &Tags, scope: u32) -> Option<WriteGuard> {
        if self.everything {
            return Some(tags.begin_write_all());
        }
        if self.relations.is_empty() {
            return None;
        }
        let ids: Vec<TagId> = self
            .relations
            .iter()
            .map(|relation| TagId {
                scope,
                relation: *relation,
            })
            .collect();
        Some(tags.begin_write(&ids))
    }

    /// Forgets everything: the transaction has ended.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_add_up_until_everything_is_written() {
        let mut writes = Writes::default();
        writes.add(&Invalidation::Nothing);
        assert_eq!(writes, Writes::default());
        writes.add(&Invalidation::Relations([3, 1].into()));
        assert!(writes != Writes::default() && !writes.definitions());
        let many: Vec<u32> = (0..5_000).collect();
        writes.add(&Invalidation::Relations(many.into()));
        assert!(writes.everything && writes.relations.is_empty());
        writes.clear();
        writes.add(&Invalidation::Definitions);
        assert!(writes.definitions() && writes.everything);
    }

    #[test]
    fn a_guard_expires_what_depends_on_the_writes() {
        let tags = Tags::default();
        let read = |relation| tags.snapshot(&[TagId { scope: 7, relation }]);
        let (written, other) = (read(1), read(2));
        let mut writes = Writes::default();
        writes.add(&Invalidation::Relations([1].into()));
        drop(writes.begin(&tags, 7));
        assert!(!written.is_current() && other.is_current());
        writes.add(&Invalidation::Everything);
        drop(writes.begin(&tags, 7));
        assert!(!other.is_current());
    }
}
