//! Replays the inputs that fuzzing of the C functions has kept.

#[path = "../../fuzz/src/handles.rs"]
mod handles;

#[test]
fn the_corpus_finds_nothing() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/handles");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus is checked in") {
        let path = entry.expect("an entry").path();
        handles::run(&std::fs::read(&path).expect("an input"));
        count += 1;
    }
    assert!(count > 0, "{folder} is empty");
}
