//! (next)
/// Outcome.
#[derive(Debug)]
pub struct Outcome;
/// Probe.
#[derive(Debug)]
pub struct Probe;
/// probe
pub fn probe() {}
