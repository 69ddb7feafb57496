//! Our own custom resources, as the API server holds them. The CRDs in the chart are generated from these types.

pub mod duration;
// Columns of one type repeat it, and the attributes of a derive are no duplicates.
#[allow(clippy::duplicated_attributes)]
pub mod gateway_rollout;
pub mod guard_parameters;
pub mod guardrails;
#[allow(clippy::duplicated_attributes)]
pub mod mesh_state;
pub mod probe;
#[allow(clippy::duplicated_attributes)]
pub mod prometheus_source;
pub mod rollout_status;
pub mod strategy;

pub use duration::Duration;
pub use gateway_rollout::{GatewayRollout, GatewayRolloutSpec};
pub use guard_parameters::{GuardParameters, GuardParametersSpec};
pub use mesh_state::{MeshState, MeshStateSpec, MeshStateStatus};
pub use prometheus_source::{PrometheusSource, PrometheusSourceSpec};
pub use rollout_status::GatewayRolloutStatus;

/// Every custom resource definition of ours, in the chart's file name and as a value.
pub fn definitions() -> Vec<(&'static str, serde_json::Value)> {
    use kube::CustomResourceExt as _;
    [
        ("gatewayrollouts", GatewayRollout::crd()),
        ("guardparameters", GuardParameters::crd()),
        ("meshstates", MeshState::crd()),
        ("prometheussources", PrometheusSource::crd()),
    ]
    .into_iter()
    .map(|(file, definition)| {
        let mut value = serde_json::to_value(definition).expect("a definition is plain data");
        mend_schema(&mut value);
        (file, value)
    })
    .collect()
}

/// What schemars and kube write that the API server would take otherwise.
fn mend_schema(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Object(map) => {
            // Formats of Rust's unsigned integers: the API server does not know them and warns whoever applies the
            // definition. `minimum` says the same.
            if map.get("format").and_then(|f| f.as_str()).is_some_and(|f| f.starts_with("uint")) {
                map.remove("format");
            }
            // What has a default is never null: as long as null is not allowed, the API server puts the default in its
            // place.
            if map.contains_key("default") {
                map.remove("nullable");
            }
            map.values_mut().for_each(mend_schema);
        }
        serde_json::Value::Array(all) => all.iter_mut().for_each(mend_schema),
        _ => {}
    }
}
