//! Enforced: every one of the mistakes again, refused with what to do instead; and everything that is none, untouched.

use anyhow::Result;

use super::terminal::Terminal;

const DOTS: &str = "
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
metadata: {name: control-plane-1-24, namespace: istio-system}
spec: {profile: minimal, revision: 1.24.0, tag: 1.24.0}
";

const FAR: &str = "
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
metadata: {name: control-plane-1-27, namespace: istio-system}
spec: {profile: minimal, revision: 1-27, tag: 1.27.0}
";

const GATEWAYS: &str = "
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
metadata: {name: partner, namespace: istio-system}
spec:
  profile: empty
  revision: 1-23
  components:
    ingressGateways:
    - {name: istio-ingressgateway, enabled: true}
";

const WHOLE: &str = "
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
metadata: {name: partner, namespace: istio-system}
spec:
  profile: minimal
  revision: 1-23
  components:
    ingressGateways:
    - {name: partner, enabled: true}
";

const GLOO: &str = "
apiVersion: admin.gloo.solo.io/v2
kind: IstioLifecycleManager
metadata: {name: istiod-control-plane, namespace: gloo-mesh}
spec:
  installations:
  - revision: 1-23
    clusters: [{name: cluster1, defaultRevision: true}]
    istioOperatorSpec: {profile: minimal, tag: 1.23.0}
  - revision: 1-24
    clusters: [{name: cluster1, defaultRevision: true}]
    istioOperatorSpec: {profile: minimal, tag: 1.24.0}
";

/// A mistake: the file that it needs, the line, the code that refuses it, and who warns of it.
struct Mistake {
    about: &'static str,
    file: Option<(&'static str, &'static str)>,
    line: &'static str,
    code: &'static str,
}

const MISTAKES: [Mistake; 11] = [
    Mistake {
        about: "Both labels.",
        file: None,
        line: "kubectl label namespace shop istio-injection=enabled",
        code: "[NS001 ",
    },
    Mistake {
        about: "A revision that nobody serves.",
        file: None,
        line: "kubectl label namespace payments istio.io/rev=1-13-5 --overwrite",
        code: "[NS004 ",
    },
    Mistake {
        about: "Dots in the name of a revision.",
        file: Some(("control-plane.yaml", DOTS)),
        line: "kubectl apply -f control-plane.yaml",
        code: "[UP001 ",
    },
    Mistake {
        about: "A canary that skips versions.",
        file: Some(("control-plane-1-27.yaml", FAR)),
        line: "kubectl apply -f control-plane-1-27.yaml",
        code: "[UP002 ",
    },
    Mistake {
        about: "A gateway that another file has already.",
        file: Some(("partner.yaml", GATEWAYS)),
        line: "kubectl apply -f partner.yaml",
        code: "[GW002 ",
    },
    Mistake {
        about: "Gateways with a profile that brings a control plane along.",
        file: Some(("partner.yaml", WHOLE)),
        line: "kubectl apply -f partner.yaml",
        code: "[GW004 ",
    },
    Mistake {
        about: "A canary of Gloo's that becomes the default at once.",
        file: Some(("gloo.yaml", GLOO)),
        line: "kubectl apply -f gloo.yaml",
        code: "[UP009 ",
    },
    Mistake {
        about: "A gateway that moves to a control plane that is not there.",
        file: None,
        line: "kubectl set env deployment/custom-gw -n default -c istio-proxy CA_ADDR=istiod-1-24.istio-system.svc:15012",
        code: "[GW006 ",
    },
    Mistake {
        about: "The last pods of a gateway.",
        file: None,
        line: "kubectl scale deployment igw -n gw --replicas=0",
        code: "[GW009 ",
    },
    Mistake {
        about: "The istiod that everything uses.",
        file: None,
        line: "kubectl delete deployment istiod-1-23 -n istio-system",
        code: "[CP002 ",
    },
    Mistake {
        about: "The validator, led to where nobody answers. Webhook configurations are never sent to a webhook; an admission policy in the API server stands there.",
        file: None,
        line: "kubectl patch validatingwebhookconfiguration istiod-default-validator --type=json \\\n  -p '[{\"op\":\"replace\",\"path\":\"/webhooks/0/clientConfig/service/name\",\"value\":\"istiod\"}]'",
        code: "[VW010 ",
    },
];

pub async fn tell(t: &mut Terminal) -> Result<()> {
    t.page.say("## Enforce\n\nFrom here on mistakes are refused. What was wrong before and is still there would stay as it is.");
    t.types("helm upgrade revguard charts/revguard -n revguard-system --reuse-values --set mode=enforce").await?;
    t.rolled_out("revguard-system", "revguard-webhook").await?;
    for Mistake { about, file, line, code } in &MISTAKES {
        t.page.say(about);
        if let Some((name, content)) = file {
            t.file(name, content)?;
        }
        t.refused(line, &[code]).await?;
    }
    t.page.say("Why, at length:");
    t.types("revguard explain NS004").await?;
    ordinary(t).await
}

async fn ordinary(t: &mut Terminal) -> Result<()> {
    t.page.say("## Everything else goes on\n\nRestarts, scaling, Helm releases, a tag that is set again, a namespace that is made first and labelled later:");
    t.types("kubectl rollout restart -n shop deployment/web").await?;
    t.rolled_out("shop", "web").await?;
    t.types("kubectl scale -n shop deployment/web --replicas=3").await?;
    t.types("helm upgrade igw istio/gateway -n gw --reuse-values --set autoscaling.maxReplicas=6").await?;
    t.types("istioctl tag set prod --revision 1-23 --overwrite").await?;
    t.types("kubectl create namespace orders").await?;
    t.types("kubectl label namespace orders istio.io/rev=prod").await?;
    t.page.say(
        "What was refused, and whose write it was. In mode audit the same report says what would have been refused:",
    );
    t.once("revguard report", &["NS001", "GW009", "CP002"]).await?;
    Ok(())
}
