//! Our own custom resources, as the API server holds them. The CRDs in the chart are generated from these types.

pub mod mesh_state;

pub use mesh_state::{MeshState, MeshStateSpec, MeshStateStatus};

/// Every custom resource definition of ours, in the chart's file name and as a value.
pub fn definitions() -> Vec<(&'static str, serde_json::Value)> {
    use kube::CustomResourceExt as _;
    let value = serde_json::to_value(MeshState::crd()).expect("a definition is plain data");
    vec![("meshstates", value)]
}
