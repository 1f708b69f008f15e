//! How the library is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libsdp_preload.so");
    // Its progress thread and its fork handler outlive a dlclose.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // The functions of libsdp, which it is made of, are not for the program.
    println!("cargo::rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
}
