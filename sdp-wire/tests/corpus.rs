//! Replays the inputs that fuzzing of the decoders has kept.

#[path = "../../fuzz/src/decode.rs"]
mod decode;

#[test]
fn the_corpus_finds_nothing() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/decode");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus is checked in") {
        let path = entry.expect("an entry").path();
        decode::run(&std::fs::read(&path).expect("an input"));
        count += 1;
    }
    assert!(count > 0, "{folder} is empty");
}
