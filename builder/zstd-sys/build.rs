//! Compiles zstd 1.5.7 as its authors released it, and nothing else, whatever the environment says.
//!
//! The crate that this one stands for takes the system's library when a variable asks for it. An encoder id stands for exact
//! bytes, so its sources are here, and no variable leads away from them (book, decision 22).

use std::env;
use std::fs;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=zstd");
    let mut build = cc::Build::new();
    for directory in ["common", "compress", "decompress"] {
        let mut sources: Vec<PathBuf> = fs::read_dir(format!("zstd/lib/{directory}"))
            .expect("the sources are in the repository")
            .map(|entry| entry.expect("a name").path())
            // `XXH_PRIVATE_API` has its functions in a header.
            .filter(|path| {
                path.extension().is_some_and(|end| end == "c") && !path.ends_with("xxhash.c")
            })
            .collect();
        sources.sort();
        build.files(sources);
    }
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        build.file("zstd/lib/decompress/huf_decompress_amd64.S");
    } else {
        build.define("ZSTD_DISABLE_ASM", Some(""));
    }
    build
        .include("zstd/lib")
        .include("zstd/lib/common")
        .warnings(false)
        .define("XXH_PRIVATE_API", Some(""))
        .define("ZSTDLIB_VISIBILITY", Some(""))
        .define("ZSTDERRORLIB_VISIBILITY", Some(""))
        .define("ZSTD_LEGACY_SUPPORT", Some("0"))
        // Another zstd in the same process keeps to itself.
        .flag("-fvisibility=hidden")
        .flag_if_supported("-ffunction-sections")
        .flag_if_supported("-fdata-sections")
        .compile("zstd");
}
