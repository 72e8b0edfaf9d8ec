//! smoke
use immbuild::exec::sandbox::*;
use std::sync::atomic::AtomicBool;
fn main() {
    supervise_if_asked();
    let ids = enter_if_needed().expect("enter");
    let args: Vec<String> = std::env::args().collect();
    let scratch = std::path::PathBuf::from(&args[1]);
    let _ = std::fs::remove_dir_all(&scratch);
    std::fs::create_dir_all(&scratch).unwrap();
    let job = Job {
        lowers: &[args[2].clone().into()],
        scratch: &scratch,
        argv: args[3..].iter().map(|s| s.clone().into_bytes()).collect(),
        env: [(b"PATH".to_vec(), b"/bin".to_vec())].into(),
        directory: immbuild_cas::path::RelPath::root(),
        uid: 0,
        gid: 0,
        caches: vec![],
        secrets: vec![("k".into(), b"v".to_vec())],
        timeout: None,
        terminal: std::env::var_os("TTY").is_some(),
    };
    let start = std::time::Instant::now();
    let ended = run(
        &job,
        ids,
        &mut |b| {
            use std::io::Write;
            std::io::stdout().write_all(b).unwrap();
        },
        &AtomicBool::new(false),
    );
    eprintln!("{ended:?} {:?}", start.elapsed());
}
