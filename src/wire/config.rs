//! Istio configuration, Gateway API objects, custom resource definitions: mostly metadata.

use serde::Deserialize;

use super::meta::ObjectMeta;
use super::tree::{list, or_default};
use crate::model::{self, Kind, Labels, Object, Str};

/// Anything of which only the metadata is read.
#[derive(Deserialize)]
pub struct Config {
    #[serde(default)]
    metadata: ObjectMeta,
}

impl Config {
    pub fn into_object(self, kind: Kind) -> Object {
        Object::Config(kind, model::IstioConfig { meta: self.metadata.into() })
    }

    pub fn into_crd(self) -> Object {
        Object::Crd(model::Crd { meta: self.metadata.into() })
    }
}

/// Istio's `Gateway` or the Gateway API's.
#[derive(Deserialize)]
pub struct Gateway {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "or_default")]
    spec: GatewaySpec,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct GatewaySpec {
    selector: Labels,
    gateway_class_name: Str,
    #[serde(deserialize_with = "list")]
    addresses: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(default)]
    r#type: Option<Str>,
}

impl Gateway {
    pub fn into_object(self, kind: Kind) -> Object {
        Object::Gateway(
            kind,
            Box::new(model::GatewayConfig {
                meta: self.metadata.into(),
                selector: self.spec.selector,
                class: self.spec.gateway_class_name,
                by_hand: match self.spec.addresses.as_slice() {
                    [] => false,
                    [one] => one.r#type.as_deref().is_some_and(|t| t != "IPAddress"),
                    _ => true,
                },
            }),
        )
    }
}
