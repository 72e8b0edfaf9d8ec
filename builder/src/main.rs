//! `immbuild`: arguments in, exit status out. What is in between lives in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // If this process was started as a sandbox's supervisor, it is one and never comes back.
    immbuild::exec::sandbox::supervise_if_asked();
    immbuild::cli::main()
}
