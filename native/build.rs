//! Tells the compiler which Python this is for, and the module from which sources it was built.

use std::{fs, path::Path};

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-changed=Cargo.toml");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=CACHEKIT_BUILD={:016x}", digest());
}

/// FNV-1a over names and contents, so that a binary that is older than the sources beside it can be told.
/// `tests/l1/test_native_build.py` computes the same.
fn digest() -> u64 {
    let mut files: Vec<_> = fs::read_dir("src").expect("src").map(|entry| entry.expect("src").path()).collect();
    files.sort();
    files.push(Path::new("Cargo.toml").to_path_buf());
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for path in files {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        for byte in name.into_bytes().into_iter().chain(fs::read(&path).expect("a source")) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    state
}
