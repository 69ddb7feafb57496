//! The registry of rules, sorted by code; a test fails when a rule's file is not in it.

use std::sync::LazyLock;

use super::{Rule, control_plane, gateway, namespace, rollout, upgrade, webhook_config, workload};

/// Every rule, sorted by code.
pub static RULES: LazyLock<Vec<&'static Rule>> = LazyLock::new(|| {
    let families = [
        control_plane::ALL,
        gateway::ALL,
        namespace::ALL,
        rollout::ALL,
        upgrade::ALL,
        webhook_config::ALL,
        workload::ALL,
    ];
    let mut all: Vec<&'static Rule> = families.concat();
    all.sort_by_key(|r| r.code);
    all
});

/// The rule of a code.
pub fn find(code: &str) -> Option<&'static Rule> {
    RULES.iter().find(|r| r.code == code).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_sorted_and_complete() {
        assert!(RULES.windows(2).all(|w| w[0].code < w[1].code));
        let mut files = 0;
        for family in ["control_plane", "gateway", "namespace", "rollout", "upgrade", "webhook_config", "workload"] {
            let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rules").join(family);
            for entry in std::fs::read_dir(dir).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let stem = name.trim_end_matches(".rs").to_owned();
                if stem == "mod" || !stem.split('_').next().is_some_and(|c| c.ends_with(|d: char| d.is_ascii_digit())) {
                    continue;
                }
                files += 1;
                let code = stem.split('_').next().unwrap().to_uppercase();
                let rule = find(&code).unwrap_or_else(|| panic!("{name} is not in the catalogue"));
                let expected = format!("{}_{}", rule.code.to_lowercase(), rule.name.replace('-', "_"));
                assert_eq!(stem, expected, "file and rule must have one name");
                assert!(rule.doc().contains("# "), "{code} has no documentation");
            }
        }
        assert_eq!(files, RULES.len());
    }
}
