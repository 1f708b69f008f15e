//! How the shared library is linked.

/// The part of the version that says which programs still run with the library.
const SONAME: &str = "libsdp.so.0";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,{SONAME}");
    // Its progress thread and its fork handler outlive a dlclose.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
