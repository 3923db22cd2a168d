//! Rebuilds the binary when the pages were built anew.

fn main() {
    // Cargo watches a folder only if it is there; an empty one means "no pages yet".
    std::fs::create_dir_all("web/dist").expect("the folder of the built pages can be made");
    println!("cargo::rerun-if-changed=web/dist");
    println!("cargo::rerun-if-changed=build.rs");
}
