//! The fuzz targets on stable: each over its committed corpus, and over inputs made from it.
//!
//! The mutations come from a fixed seed, so a failure repeats. `REVGUARD_PROVE=1` gives each target a minute instead of some
//! thousands; `make fuzz` runs the same functions under libfuzzer. `UPDATE=1` writes the seed inputs anew from the case table.

#[path = "case_table/mod.rs"]
mod case_table;
#[path = "../fuzz/targets/mod.rs"]
mod targets;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use case_table::Case;

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder(target)).expect("a committed corpus");
    let mut all: Vec<_> = entries
        .map(|e| e.expect("an entry").path())
        .map(|p| (p.file_name().expect("a name").to_string_lossy().into_owned(), std::fs::read(&p).expect("a file")))
        .collect();
    all.sort();
    assert!(!all.is_empty(), "{target}: no corpus");
    all
}

/// xorshift64: good enough to choose bytes, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() % n.max(1) as u64).expect("below a usize")
    }
}

/// Pieces that a JSON reader stumbles over.
const PIECES: [&[u8]; 20] = [
    b"null",
    b"{}",
    b"[]",
    b"\"\"",
    b"true",
    b"-1",
    b"1e400",
    b"\"\\ud800\"",
    b"\\u0000",
    b"\xff",
    b"\xc3",
    b",",
    b":",
    b"\"",
    b"{\"uid\":\"x\"}",
    b"\"uid\":\"y\",",
    b"\"istio.io/rev\":\"",
    b"\"spec\":null",
    b"[[[[[[[[[[[[[[[[",
    b"\r\n\t",
];

fn mutated(dice: &mut Dice, from: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = from[dice.below(from.len())].1.clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        let end = (at + dice.below(40)).min(bytes.len());
        match dice.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => bytes[at] = dice.roll().to_le_bytes()[0],
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            5 => {
                let other = &from[dice.below(from.len())].1;
                let start = dice.below(other.len() + 1);
                let stop = (start + dice.below(200)).min(other.len());
                bytes.splice(at..end, other[start..stop].iter().copied());
            }
            _ => drop(bytes.splice(at..at, PIECES[dice.below(PIECES.len())].iter().copied())),
        }
    }
    bytes
}

/// Runs a target over its corpus and over mutations of it; a panic names its input.
fn drive(target: &str, run: fn(&[u8])) {
    let corpus = corpus(target);
    for (name, bytes) in &corpus {
        println!("{target}/{name}");
        run(bytes);
    }
    let minute = std::env::var_os("REVGUARD_PROVE").map(|_| Instant::now() + Duration::from_secs(60));
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut ran = 0;
    while minute.map_or(ran < 3_000, |end| Instant::now() < end) {
        let bytes = mutated(&mut dice, &corpus);
        if std::panic::catch_unwind(|| run(&bytes)).is_err() {
            panic!("{target}: mutation {ran} fails: {}", bytes.escape_ascii());
        }
        ran += 1;
    }
    println!("{target}: {} inputs of the corpus, {ran} mutations", corpus.len());
}

#[test]
fn reviews() {
    if std::env::var_os("UPDATE").is_some() {
        seed_reviews();
    }
    drive("review", targets::review::run);
}

#[test]
fn selectors() {
    if std::env::var_os("UPDATE").is_some() {
        seed_bytes("selector");
    }
    drive("selector", targets::selector::run);
}

#[test]
fn builders() {
    if std::env::var_os("UPDATE").is_some() {
        seed_bytes("builder");
    }
    drive("builder", targets::builder::run);
}

/// Two cases of each rule, and what the codec must refuse in good order.
fn seed_reviews() {
    let dir = folder("review");
    std::fs::create_dir_all(&dir).expect("a folder");
    let cases = Case::all();
    let mut rules: Vec<&str> = cases.iter().map(Case::rule).collect();
    rules.dedup();
    for rule in rules {
        for (n, case) in cases.iter().filter(|c| c.rule() == rule).take(2).enumerate() {
            std::fs::write(dir.join(format!("{rule}-{n}.json")), case.body()).expect("a file");
        }
    }
    let whole = cases[0].body();
    let bad = [
        ("bad-empty", String::new()),
        ("bad-quarter", whole[..whole.len() / 4].to_owned()),
        ("bad-v1beta1", whole.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1")),
        ("bad-uid-twice", whole.replacen("\"uid\":", "\"uid\":\"z\",\"uid\":", 1)),
        ("bad-labels", r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u","kind":{"group":"","version":"v1","kind":"Namespace"},"operation":"CREATE","object":{"metadata":{"name":"n","labels":{"a":1}}}}}"#.to_owned()),
        ("bad-null-object", r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u","kind":{"group":"","version":"v1","kind":"Namespace"},"operation":"CREATE","object":null}}"#.to_owned()),
        ("bad-deep", format!(r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"u","object":{}}}}}"#, "[".repeat(1_000))),
        ("bad-request-null", r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":null}"#.to_owned()),
    ];
    for (name, text) in bad {
        std::fs::write(dir.join(name), text).expect("a file");
    }
}

/// Choices of different lengths; what they mean is the target's matter.
fn seed_bytes(target: &str) {
    let dir = folder(target);
    std::fs::create_dir_all(&dir).expect("a folder");
    let mut dice = Dice(42);
    for n in 0..16 {
        let bytes: Vec<u8> = (0..8 << (n / 4)).map(|_| dice.roll().to_le_bytes()[3]).collect();
        std::fs::write(dir.join(format!("seed-{n:02}")), bytes).expect("a file");
    }
}
