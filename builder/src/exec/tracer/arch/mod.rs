//! What depends on the processor: registers, system calls that only old architectures have, the layout
//! of `struct stat`, the time stamp counter. Another architecture is another file here.

use super::call::Call;
use super::filter::Rule;

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64 as here;

/// The code of answers that a process gives itself.
pub(super) use here::inside;

/// The registers of a thread, in the kernel's layout.
pub(super) use here::Registers;

/// What the tracer wants of registers.
pub(super) trait Machine: Clone + PartialEq {
    /// The number of the call the thread is in.
    fn number(&self) -> i64;
    /// Makes another call of the one that is about to be made.
    fn set_number(&mut self, number: i64);
    /// An argument of the call, from 0.
    fn argument(&self, at: usize) -> u64;
    /// All arguments of the call.
    fn arguments(&self) -> [u64; 6] {
        std::array::from_fn(|at| self.argument(at))
    }
    /// Changes an argument of a call that is about to be made.
    fn set_argument(&mut self, at: usize, value: u64);
    /// What the call gave; negative: an error number.
    fn result(&self) -> i64;
    /// Changes what the call gave.
    fn set_result(&mut self, result: i64);
    /// The call that is about to be made is not made, and gives this.
    fn skip(&mut self, result: i64);
    /// The call that was interrupted is over; it is not made again.
    fn forget_call(&mut self);
    /// From the end of a call: the thread makes this call next, from the same instruction.
    fn call_again(&mut self, number: i64, arguments: &[u64]);
    /// Where the thread is in its program.
    fn instruction(&self) -> u64;
    /// The thread goes on at this place, which returns to where it is now. Gives where the address to return to has to be
    /// written.
    fn call_first(&mut self, place: u64) -> u64;
    /// Where it is in the call that it makes next, after [`Machine::call_again`].
    fn instruction_after_call(&self) -> u64;
    /// As if it were there.
    #[cfg(test)]
    fn set_instruction(&mut self, at: u64);
    /// The stack pointer.
    fn stack(&self) -> u64;
    /// If these bytes at the current instruction read the time stamp counter: does so.
    fn read_time_stamp(&mut self, code: &[u8], ticks: u64) -> bool;
}

/// Calls that only this architecture has.
pub(super) fn decode(number: i64, arguments: &[u64; 6]) -> Option<Call> {
    here::decode(number, arguments)
}

/// A call that only this architecture has, as the one that all have; others as they are.
pub(super) fn modern(number: i64, arguments: &[u64; 6]) -> (i64, [u64; 6]) {
    here::modern(number, arguments)
}

/// When the filter stops at them.
pub(super) fn rules() -> Vec<Rule> {
    here::rules()
}

/// Calls of this architecture only that can wait for another thread.
pub(super) fn blocking_rules() -> Vec<Rule> {
    here::blocking_rules()
}

/// `struct stat` from what statx(2) says.
pub(super) fn to_stat(from: &libc::statx) -> Vec<u8> {
    here::to_stat(from)
}

/// Code that reads the time stamp counter, changed so that it does not, where that is possible.
pub(super) fn quiet_time_stamp(code: [u8; 8]) -> Option<[u8; 8]> {
    here::quiet_time_stamp(code)
}

/// Code that makes the call which a function of the vDSO stands for; `None` for a function that tells nothing.
pub(super) fn vdso_call(name: &[u8]) -> Option<[u8; 8]> {
    here::vdso_call(name)
}

/// The reverse, as far as `struct stat` says it.
pub(super) fn from_stat(bytes: &[u8; STAT]) -> libc::statx {
    here::from_stat(bytes)
}

/// Where user and group stand in `struct stat`.
pub(super) const STAT_OWNER: u64 = here::STAT_OWNER;
/// Bytes of `struct stat`.
pub(super) const STAT: usize = here::STAT;
/// The audit number of this architecture (seccomp(2)).
pub(super) const AUDIT: u32 = here::AUDIT;
/// What uname(2) says of the machine.
pub(super) const MACHINE: &str = here::MACHINE;
/// Instructions that read the machine and cannot be caught here.
pub(super) const UNCAUGHT: &[&str] = here::UNCAUGHT;
