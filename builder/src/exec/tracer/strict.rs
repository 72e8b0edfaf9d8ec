//! One thread at a time.

use std::io;

use super::arch::Registers;
use super::filter::Rule;
use super::run::{Answer, Spin, Tracer};
use super::sys::{Event, Resume, Tid};

#[derive(Debug, Default)]
pub(super) struct Turns;

impl Turns {
    pub(super) fn start(&mut self, _: Tid) {}
    pub(super) fn ready(&mut self, _: Tid, _: Resume, _: i32) {}
    pub(super) fn gone(&mut self, _: Tid) {}
    pub(super) fn born(&mut self, _: Tid) {}
    pub(super) fn renamed(&mut self, _: Tid, _: Tid) {}
}

pub(super) fn add_rules(_: &mut Vec<Rule>) {}

impl Tracer {
    pub(super) fn next_in_turn(&mut self) -> io::Result<Result<(Tid, Event), Spin>> {
        todo!()
    }

    pub(super) fn blocking(&mut self, _: Tid, _: i64, _: &Registers) -> io::Result<Answer> {
        Ok(Answer::Native)
    }
}
