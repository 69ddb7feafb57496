//! Names of everything that belongs to one installation, from the release's full name.

/// The namespace and full name of an installation, and what is named after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Where it is installed.
    pub namespace: String,
    /// Full name of the release; the webhook configurations and the parameters of the admission policy are called just that.
    pub release: String,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $suffix:literal;)+) => {
        impl Names {
            $($(#[$doc])* pub fn $name(&self) -> String { format!("{}{}", self.release, $suffix) })+
        }
    };
}

names! {
    /// Deployment, Service and ServiceAccount of the webhook.
    webhook = "-webhook";
    /// Deployment and ServiceAccount of the controller, and its Lease.
    controller = "-controller";
    /// Secret of the certificate authority.
    ca = "-ca";
    /// Secret of the serving certificate.
    tls = "-webhook-tls";
    /// Secret with the bearer tokens of PrometheusSources, made by whoever installs it.
    prometheus = "-prometheus";
    /// The admission policy over webhook configurations, and its binding.
    policy = "-webhook-configurations";
    /// ConfigMap with the week's tally.
    report = "-report";
    /// ConfigMap with copies of what repairs removed.
    undo = "-undo";
}

impl Names {
    pub fn new(namespace: &str, release: &str) -> Names {
        Names { namespace: namespace.to_owned(), release: release.to_owned() }
    }

    /// Where the API server lists the pods of the webhook.
    pub fn webhook_pods(&self) -> String {
        let labels = "app.kubernetes.io%2Fname%3Drevguard%2Capp.kubernetes.io%2Fcomponent%3Dwebhook";
        format!("/api/v1/namespaces/{}/pods?labelSelector={labels}", self.namespace)
    }
}
