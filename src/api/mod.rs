//! Our own custom resources, as the API server holds them. The CRDs in the chart are generated from these types.

// Columns of one type repeat it, and the attributes of a derive are no duplicates.
#[allow(clippy::duplicated_attributes)]
pub mod guard_parameters;
#[allow(clippy::duplicated_attributes)]
pub mod mesh_state;

pub use guard_parameters::{GuardParameters, GuardParametersSpec};
pub use mesh_state::{MeshState, MeshStateSpec, MeshStateStatus};

/// Every custom resource definition of ours, in the chart's file name and as a value.
pub fn definitions() -> Vec<(&'static str, serde_json::Value)> {
    use kube::CustomResourceExt as _;
    let all = [("guardparameters", GuardParameters::crd()), ("meshstates", MeshState::crd())];
    all.into_iter()
        .map(|(name, definition)| {
            let mut value = serde_json::to_value(definition).expect("a definition is plain data");
            drop_foreign_formats(&mut value);
            (name, value)
        })
        .collect()
}

/// Formats of Rust's unsigned integers: the API server does not know them and warns whoever applies the definition. `minimum`
/// says the same.
fn drop_foreign_formats(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Object(map) => {
            if map.get("format").and_then(|f| f.as_str()).is_some_and(|f| f.starts_with("uint")) {
                map.remove("format");
            }
            map.values_mut().for_each(drop_foreign_formats);
        }
        serde_json::Value::Array(all) => all.iter_mut().for_each(drop_foreign_formats),
        _ => {}
    }
}
