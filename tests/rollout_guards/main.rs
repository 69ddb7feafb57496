//! What is read of a gateway, what guards find in it, and what a rollout would write: small clusters in YAML, changed a little in each
//! case.

mod guards;
mod objects;
mod read;
mod world;
