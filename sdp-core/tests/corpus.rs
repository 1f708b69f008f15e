//! Replays the inputs that fuzzing of a live engine has kept.

#[path = "../../fuzz/src/sequence.rs"]
mod sequence;

#[test]
fn the_corpus_finds_nothing() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/sequence");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus is checked in") {
        let path = entry.expect("an entry").path();
        sequence::run(&std::fs::read(&path).expect("an input"));
        count += 1;
    }
    assert!(count > 0, "{folder} is empty");
}
