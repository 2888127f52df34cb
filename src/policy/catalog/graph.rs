//! How relations hang together: by inheritance, by views, by foreign keys.

use std::collections::{BTreeSet, HashMap};

use super::{Definitions, RelationKind};

type Edges = HashMap<u32, Vec<u32>>;

/// Edges between oids. Walks end on cycles: each oid is visited once.
#[derive(Debug, Default)]
pub(super) struct Graph {
    children: Edges,
    parents: Edges,
    /// Of views only: a materialized view is read as it is stored.
    view_reads: Edges,
    cascades: Edges,
    references: Edges,
}

impl Graph {
    pub(super) fn new(definitions: &Definitions) -> Self {
        let views: BTreeSet<u32> = definitions
            .relations
            .iter()
            .filter(|relation| relation.kind == RelationKind::View)
            .map(|relation| relation.oid)
            .collect();
        Self {
            children: edges(definitions.children.iter().copied()),
            parents: edges(
                definitions
                    .children
                    .iter()
                    .map(|(parent, child)| (*child, *parent)),
            ),
            view_reads: edges(
                definitions
                    .view_reads
                    .iter()
                    .copied()
                    .filter(|(view, _)| views.contains(view)),
            ),
            cascades: edges(definitions.cascades.iter().copied()),
            references: edges(definitions.references.iter().copied()),
        }
    }

    /// The relation and what it reads through views, sorted.
    pub(super) fn reached_by_read(&self, start: u32) -> Vec<u32> {
        walk([start], &[&self.view_reads]).into_iter().collect()
    }

    /// The children of a relation, theirs, and so on; with itself.
    pub(super) fn descendants(&self, start: u32) -> BTreeSet<u32> {
        walk([start], &[&self.children])
    }

    /// Every relation whose rows a write to `start` may change.
    pub(super) fn touched(&self, start: u32, truncate: bool) -> BTreeSet<u32> {
        let keys = if truncate {
            &self.references
        } else {
            &self.cascades
        };
        walk([start], &[&self.children, &self.view_reads, keys])
    }

    /// Adds the ancestors, through which the rows of `touched` are read.
    pub(super) fn with_ancestors(&self, touched: BTreeSet<u32>) -> Vec<u32> {
        walk(touched, &[&self.parents]).into_iter().collect()
    }
}

fn edges(pairs: impl Iterator<Item = (u32, u32)>) -> Edges {
    let mut edges = Edges::new();
    for (from, to) in pairs {
        edges.entry(from).or_default().push(to);
    }
    edges
}

fn walk(start: impl IntoIterator<Item = u32>, along: &[&Edges]) -> BTreeSet<u32> {
    let mut open: Vec<u32> = start.into_iter().collect();
    let mut seen: BTreeSet<u32> = open.iter().copied().collect();
    while let Some(oid) = open.pop() {
        for next in along.iter().filter_map(|edges| edges.get(&oid)).flatten() {
            if seen.insert(*next) {
                open.push(*next);
            }
        }
    }
    seen
}
