//! Rules about webhook configurations. The API server sends writes of those to no webhook, so these rules judge what
//! exists.

use super::Rule;

mod mw001_double_injection;
mod mw002_dangling_injector;
mod mw003_two_defaults;
mod mw004_tag_named_like_revision;
mod mw006_no_default_left;
mod mw007_injector_without_ca;
mod mw008_half_made_tag;
mod scene;
mod vw001_not_one_validator;
mod vw002_dangling_validator;
mod vw003_mislabelled_validator;
mod vw004_stuck_validator;
mod vw005_split_default;
mod vw006_legacy_validator;
mod vw008_revision_without_validator;
mod vw009_validator_without_ca;
mod vw010_validator_taken_away;
mod vw011_injector_in_use;

pub use vw010_validator_taken_away::is_approved;

pub static ALL: &[&Rule] = &[
    &mw001_double_injection::RULE,
    &mw002_dangling_injector::RULE,
    &mw003_two_defaults::RULE,
    &mw004_tag_named_like_revision::RULE,
    &mw006_no_default_left::RULE,
    &mw007_injector_without_ca::RULE,
    &mw008_half_made_tag::RULE,
    &vw001_not_one_validator::RULE,
    &vw002_dangling_validator::RULE,
    &vw003_mislabelled_validator::RULE,
    &vw004_stuck_validator::RULE,
    &vw005_split_default::RULE,
    &vw006_legacy_validator::RULE,
    &vw008_revision_without_validator::RULE,
    &vw009_validator_without_ca::RULE,
    &vw010_validator_taken_away::RULE,
    &vw011_injector_in_use::RULE,
];
