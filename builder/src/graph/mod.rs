//! The build graph: ops, their ids, actions, and the plan that makes them from a spec.

pub mod action;
pub mod apply;
pub mod file_op;
pub mod install;
pub mod libraries;
pub mod op;
pub mod plan;

use std::collections::{BTreeMap, BTreeSet, btree_map};

use crate::graph::op::{Op, OpId, OpKind};

/// Where an op comes from, for people. In no id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The n-th step of a stage, counted from 1.
    Step {
        /// The stage.
        stage: String,
        /// Which of its steps.
        number: usize,
        /// The step in one line, as the user wrote it.
        text: String,
    },
    /// A source.
    Source {
        /// Its name.
        name: String,
    },
    /// The root of a stage that has no `from`.
    Start,
}

impl Origin {
    /// `build.2`, `source tools`, `start`.
    pub fn label(&self) -> String {
        match self {
            Self::Step { stage, number, .. } => format!("{stage}.{number}"),
            Self::Source { name } => format!("source {name}"),
            Self::Start => "start".into(),
        }
    }
}

/// Ops that need each other. Every input of an op is in the graph, and there is no cycle: an op's id is made of its inputs' ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    ops: BTreeMap<OpId, Op>,
    origins: BTreeMap<OpId, Origin>,
    order: Vec<OpId>,
}

impl Graph {
    /// Adds an op whose inputs are there already, and says its id. The first origin of an op stays.
    pub fn add(&mut self, op: Op, origin: Origin) -> OpId {
        let id = op.id();
        debug_assert!(op.inputs.iter().all(|input| self.ops.contains_key(input)));
        if let btree_map::Entry::Vacant(entry) = self.ops.entry(id) {
            entry.insert(op);
            self.origins.insert(id, origin);
            self.order.push(id);
        }
        id
    }

    /// The op of this id.
    pub fn op(&self, id: OpId) -> &Op {
        &self.ops[&id]
    }

    /// Where it comes from.
    pub fn origin(&self, id: OpId) -> &Origin {
        &self.origins[&id]
    }

    /// All ops, inputs first.
    pub fn ids(&self) -> impl Iterator<Item = OpId> {
        self.order.iter().copied()
    }

    /// What these ops need, themselves included, inputs first.
    pub fn reachable(&self, wants: &[OpId]) -> Vec<OpId> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<OpId> = wants.to_vec();
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                open.extend(&self.ops[&id].inputs);
            }
        }
        self.order
            .iter()
            .copied()
            .filter(|id| seen.contains(id))
            .collect()
    }

    /// The roots that `id` came to be from, oldest first, itself last: a source or an empty root, then every step.
    pub fn lineage(&self, id: OpId) -> Vec<OpId> {
        let mut line = vec![id];
        while let Some(base) = self.ops[&line[line.len() - 1]].base() {
            line.push(base);
        }
        line.reverse();
        line
    }

    /// Does anything that `wants` need execute a process?
    pub fn executes(&self, wants: &[OpId]) -> bool {
        self.reachable(wants)
            .iter()
            .any(|id| matches!(self.ops[id].kind, OpKind::Exec(_)))
    }
}
