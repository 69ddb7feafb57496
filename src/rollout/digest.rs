//! Short hashes of JSON, which outlive the process: they stand in annotations and in the status.
//!
//! FNV-1a over the value with its keys sorted. Equal values have equal hashes in every release; it protects from nothing but accidents,
//! and nobody who could choose the input would gain anything by two of the same hash.

use serde_json::Value;

/// Of nothing.
pub const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Sixteen hexadecimal digits.
pub fn of(value: &Value) -> String {
    let mut hash = OFFSET;
    feed(value, &mut hash);
    format!("{hash:016x}")
}

fn feed(value: &Value, hash: &mut u64) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            bytes(b"{", hash);
            for key in keys {
                feed(&Value::String(key.clone()), hash);
                bytes(b":", hash);
                feed(&map[key], hash);
            }
            bytes(b"}", hash);
        }
        Value::Array(all) => {
            bytes(b"[", hash);
            for one in all {
                feed(one, hash);
                bytes(b",", hash);
            }
            bytes(b"]", hash);
        }
        scalar => bytes(scalar.to_string().as_bytes(), hash),
    }
}

/// The hash of what was fed before and of these bytes.
pub fn fed(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

fn bytes(all: &[u8], hash: &mut u64) {
    *hash = fed(*hash, all);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_hash_is_the_same_in_every_release_and_order_of_keys_means_nothing() {
        assert_eq!(of(&json!({"a": 1, "b": ["x", null]})), of(&json!({"b": ["x", null], "a": 1})));
        assert_eq!(of(&json!({})), "08f44b07b5901a25");
        assert_ne!(of(&json!(["ab", "c"])), of(&json!(["a", "bc"])));
        assert_ne!(of(&json!({"a": {"b": 1}})), of(&json!({"a": {}, "b": 1})));
    }
}
