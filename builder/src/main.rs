//! The `immbuild` program.
fn main() {
    immbuild::exec::sandbox::supervise_if_asked();
}
