//! The IstioOperator file format: what a custom resource renders once its profile is merged in.

use super::{Meta, Str, Version};

/// What rules read of an IstioOperator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operator {
    pub meta: Meta,
    /// `spec.profile`; the installer takes `default` when it is empty.
    pub profile: Str,
    pub revision: Option<Str>,
    /// `spec.tag`, any scalar, as text.
    pub tag: Option<Str>,
    /// Where gateways without a namespace of their own go: `values.global.istioNamespace` or `spec.namespace`.
    pub istio_namespace: Option<Str>,
    pub pilot: Option<bool>,
    /// `components.base.enabled`, where `base` is listed at all.
    pub base: Option<bool>,
    /// Control-plane parts that the custom resource itself talks about: components other than gateways, mesh
    /// configuration, values beside those of gateways.
    pub speaks_of: Vec<Str>,
    pub ingress: Vec<Listed>,
    pub egress: Vec<Listed>,
    /// `values.gateways.istio-ingressgateway.enabled`: true force-enables every ingress gateway of the list.
    pub force_ingress: bool,
    pub force_egress: bool,
    /// `values.gateways.*.injectionTemplate`: an injector makes the proxies, so that labels choose their revision.
    pub injected: bool,
}

/// One entry of `components.ingressGateways` or `egressGateways`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    pub name: Str,
    pub namespace: Option<Str>,
    pub enabled: Option<bool>,
}

/// A gateway that applying the custom resource makes or updates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rendered {
    pub namespace: Str,
    pub name: Str,
    /// False if only the profile brings it.
    pub listed: bool,
}

/// How the custom resource's gateway lists meet those of its profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListMerge {
    /// Up to 1.23: entries are merged by name, the profile's other entries stay.
    ByName,
    /// From 1.24: the custom resource's list replaces the profile's.
    Replace,
}

impl ListMerge {
    /// Which one an installer of this version uses.
    pub fn of(version: Version) -> Self {
        if version <= Version::new(1, 23) { ListMerge::ByName } else { ListMerge::Replace }
    }
}

const INGRESS: &str = "istio-ingressgateway";
const EGRESS: &str = "istio-egressgateway";

/// (pilot, default ingress gateway, default egress gateway) of a profile; `manifests/profiles`.
fn profile(name: &str) -> (bool, bool, bool) {
    match name {
        "empty" => (false, false, false),
        "minimal" | "ambient" | "remote" => (true, false, false),
        "demo" => (true, true, true),
        // default, and everything that is merged over it: preview, openshift, stable
        _ => (true, true, false),
    }
}

impl Operator {
    pub fn profile(&self) -> &str {
        if self.profile.is_empty() { "default" } else { &self.profile }
    }

    /// The version that the custom resource names, by its tag.
    pub fn version(&self) -> Option<Version> {
        self.tag.as_deref().and_then(Version::parse)
    }

    /// It installs istiod.
    pub fn has_pilot(&self) -> bool {
        self.pilot.unwrap_or(profile(self.profile()).0)
    }

    /// It installs what all control planes of a cluster share: CRDs, cluster roles, the default validator.
    pub fn has_base(&self) -> bool {
        self.base.unwrap_or(self.profile() != "empty")
    }

    /// The in-cluster operator leaves it alone, or it is istioctl's own record of an installation.
    pub fn is_inert(&self) -> bool {
        self.meta.name.starts_with("installed-state") || self.meta.annotations.is(super::key::IGNORE_RECONCILE, "true")
    }

    /// Every gateway that it renders, sorted.
    pub fn gateways(&self, merge: ListMerge) -> Vec<Rendered> {
        let (_, ingress, egress) = profile(self.profile());
        let mut all = self.merged(&self.ingress, INGRESS, ingress, self.force_ingress, merge);
        all.extend(self.merged(&self.egress, EGRESS, egress, self.force_egress, merge));
        all.sort();
        all.dedup();
        all
    }

    fn merged(&self, listed: &[Listed], default: &str, on: bool, force: bool, merge: ListMerge) -> Vec<Rendered> {
        let mut out = Vec::new();
        let mut add = |name: &str, namespace: Option<&Str>, enabled: bool, listed: bool| {
            if enabled || force {
                let namespace = namespace.cloned().unwrap_or_else(|| self.home());
                out.push(Rendered { namespace, name: Str::from(name), listed });
            }
        };
        let own = listed.iter().find(|l| l.name == default);
        let keeps_profile = listed.is_empty() || merge == ListMerge::ByName;
        if keeps_profile && own.is_none() {
            add(default, None, on, false);
        }
        for entry in listed {
            let inherited = if merge == ListMerge::ByName && entry.name == default { on } else { true };
            add(&entry.name, entry.namespace.as_ref(), entry.enabled.unwrap_or(inherited), true);
        }
        out
    }

    /// Namespace of a gateway that names none.
    fn home(&self) -> Str {
        self.istio_namespace
            .clone()
            .or_else(|| (!self.meta.namespace.is_empty()).then(|| self.meta.namespace.clone()))
            .unwrap_or_else(|| Str::from("istio-system"))
    }

    /// Gateways are all that it speaks of.
    pub fn speaks_only_of_gateways(&self) -> bool {
        self.speaks_of.is_empty()
            && self.pilot != Some(true)
            && self.ingress.iter().chain(&self.egress).any(|l| l.enabled != Some(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cr(profile: &str, ingress: &[(&str, Option<bool>)]) -> Operator {
        let ingress = ingress.iter().map(|(n, e)| Listed { name: Str::from(*n), namespace: None, enabled: *e });
        Operator { profile: Str::from(profile), ingress: ingress.collect(), ..Operator::default() }
    }

    fn names(o: &Operator, merge: ListMerge) -> Vec<String> {
        o.gateways(merge).iter().map(|g| g.name.to_string()).collect()
    }

    #[test]
    fn the_profiles_gateway_stays_up_to_1_23_and_is_replaced_from_1_24() {
        let o = cr("default", &[("custom-gw", None)]);
        assert_eq!(names(&o, ListMerge::ByName), ["custom-gw", "istio-ingressgateway"]);
        assert_eq!(names(&o, ListMerge::Replace), ["custom-gw"]);
        assert_eq!(names(&cr("", &[]), ListMerge::Replace), ["istio-ingressgateway"]);
        assert_eq!(names(&cr("demo", &[]), ListMerge::Replace), ["istio-egressgateway", "istio-ingressgateway"]);
        assert!(names(&cr("minimal", &[]), ListMerge::ByName).is_empty());
    }

    #[test]
    fn an_entry_without_enabled_inherits_the_profile_only_when_lists_merge_by_name() {
        let o = cr("empty", &[("istio-ingressgateway", None)]);
        assert!(names(&o, ListMerge::ByName).is_empty());
        assert_eq!(names(&o, ListMerge::Replace), ["istio-ingressgateway"]);
    }

    #[test]
    fn values_force_even_a_disabled_gateway() {
        let mut o = cr("empty", &[("a", Some(false))]);
        o.force_ingress = true;
        assert_eq!(names(&o, ListMerge::Replace), ["a"]);
    }
}
