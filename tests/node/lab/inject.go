package main

import (
	"encoding/json"
	"log"
	"os"
	"slices"
	"strings"
)

// What Istio's injector writes into a pod, as far as a gateway needs it: names, annotations, environment, probe and volumes are those that
// a real one stamps with its template `gateway`. Other pods only get the note of who has injected them, and no container.

type object = map[string]any

const status = "sidecar.istio.io/status"

// injected is the patch. Bytes travel in base64, which is how JSON in Go has them.
func injected(namespace string, pod object) []byte {
	revision := os.Getenv("REVISION")
	about, spec := part(pod, "metadata"), part(pod, "spec")
	annotations, labels := part(about, "annotations"), part(about, "labels")
	containers, _ := spec["containers"].([]any)
	at := slices.IndexFunc(containers, func(c any) bool { return c.(object)["name"] == "istio-proxy" })
	noted, volumes := []string{}, []string{}
	if annotations["inject.istio.io/templates"] == "gateway" && at >= 0 {
		proxy := containers[at].(object)
		noted = append(noted, "istio-proxy")
		workload := workload(about, labels)
		fill(proxy, namespace, workload)
		there, _ := spec["volumes"].([]any)
		for _, volume := range gatewayVolumes() {
			volumes = append(volumes, volume["name"].(string))
			there = append(there, volume)
		}
		spec["volumes"] = there
		annotations["istio.io/rev"] = revision
		first(labels, "service.istio.io/canonical-name", labels["app.kubernetes.io/name"], labels["app"], workload)
		first(labels, "service.istio.io/canonical-revision", labels["app.kubernetes.io/version"], labels["version"], "latest")
	}
	by, err := json.Marshal(object{"initContainers": nil, "containers": noted, "volumes": volumes, "imagePullSecrets": nil, "revision": revision})
	if err != nil {
		log.Fatal(err)
	}
	annotations[status] = string(by)
	// `add` replaces what is there, and everything that was there is still in it.
	patch, err := json.Marshal([]object{
		{"op": "add", "path": "/metadata/annotations", "value": annotations},
		{"op": "add", "path": "/metadata/labels", "value": labels},
		{"op": "add", "path": "/spec", "value": spec},
	})
	if err != nil {
		log.Fatal(err)
	}
	return patch
}

// fill makes a whole container of one that asks for the image `auto`.
func fill(proxy object, namespace, workload string) {
	discovery := "istiod-" + os.Getenv("REVISION") + "." + os.Getenv("POD_NAMESPACE") + ".svc:15012"
	proxy["image"] = os.Getenv("PROXY_IMAGE")
	proxy["args"] = []string{
		"proxy", "router", "--domain", "$(POD_NAMESPACE).svc.cluster.local", "--proxyLogLevel=warning",
		"--proxyComponentLogLevel=misc:error", "--log_output_level=default:info",
	}
	env, _ := proxy["env"].([]any)
	for _, variable := range []object{
		{"name": "PILOT_CERT_PROVIDER", "value": "istiod"},
		{"name": "CA_ADDR", "value": discovery},
		field("POD_NAME", "metadata.name"),
		field("POD_NAMESPACE", "metadata.namespace"),
		field("INSTANCE_IP", "status.podIP"),
		field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
		field("HOST_IP", "status.hostIP"),
		{"name": "PROXY_CONFIG", "value": `{"discoveryAddress":"` + discovery + "\"}\n"},
		{"name": "ISTIO_META_POD_PORTS", "value": `[{"name":"http-envoy-prom","containerPort":15090,"protocol":"TCP"}]`},
		{"name": "ISTIO_META_APP_CONTAINERS", "value": ""},
		{"name": "ISTIO_META_CLUSTER_ID", "value": "Kubernetes"},
		field("ISTIO_META_NODE_NAME", "spec.nodeName"),
		{"name": "ISTIO_META_INTERCEPTION_MODE", "value": "REDIRECT"},
		{"name": "ISTIO_META_WORKLOAD_NAME", "value": workload},
		{"name": "ISTIO_META_OWNER", "value": "kubernetes://apis/apps/v1/namespaces/" + namespace + "/deployments/" + workload},
		{"name": "ISTIO_META_MESH_ID", "value": "cluster.local"},
		{"name": "TRUST_DOMAIN", "value": "cluster.local"},
	} {
		env = append(env, variable)
	}
	proxy["env"] = env
	// A real one looks every 15 s.
	proxy["readinessProbe"] = object{
		"failureThreshold": 4, "periodSeconds": 2, "timeoutSeconds": 3,
		"httpGet": object{"path": "/healthz/ready", "port": 15021, "scheme": "HTTP"},
	}
	security := part(proxy, "securityContext")
	security["runAsUser"], security["runAsGroup"] = 1337, 1337
	mounts, _ := proxy["volumeMounts"].([]any)
	for name, path := range map[string]string{
		"istio-envoy": "/etc/istio/proxy", "istio-podinfo": "/etc/istio/pod", "istio-token": "/var/run/secrets/tokens",
		"istiod-ca-cert": "/var/run/secrets/istio", "istio-data": "/var/lib/istio/data",
	} {
		mounts = append(mounts, object{"name": name, "mountPath": path})
	}
	proxy["volumeMounts"] = mounts
}

func gatewayVolumes() []object {
	token := object{"serviceAccountToken": object{"audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token"}}
	item := func(of string) object { return object{"path": of, "fieldRef": object{"fieldPath": "metadata." + of}} }
	return []object{
		{"name": "istio-envoy", "emptyDir": object{"medium": "Memory"}},
		{"name": "istio-data", "emptyDir": object{}},
		{"name": "istio-podinfo", "downwardAPI": object{"items": []object{item("labels"), item("annotations")}}},
		{"name": "istio-token", "projected": object{"sources": []object{token}}},
		{"name": "istiod-ca-cert", "configMap": object{"name": "istio-ca-root-cert"}},
	}
}

func field(name, path string) object {
	return object{"name": name, "valueFrom": object{"fieldRef": object{"fieldPath": path}}}
}

// part is the object under that name, which is made if it is not there.
func part(of object, name string) object {
	there, found := of[name].(object)
	if !found {
		there = object{}
		of[name] = there
	}
	return there
}

// workload is the Deployment of a pod, told by its ReplicaSet, or the pod itself.
func workload(about, labels object) string {
	owners, _ := about["ownerReferences"].([]any)
	for _, owner := range owners {
		if name := owner.(object)["name"]; owner.(object)["kind"] == "ReplicaSet" {
			return strings.TrimSuffix(text(name), "-"+text(labels["pod-template-hash"]))
		}
	}
	if name := text(about["name"]); name != "" {
		return name
	}
	return strings.TrimSuffix(text(about["generateName"]), "-")
}

// first sets a label, if it is not set, to the first of the values that is there.
func first(labels object, name string, values ...any) {
	for _, value := range append([]any{labels[name]}, values...) {
		if value != nil {
			labels[name] = value
			return
		}
	}
}

func text(value any) string {
	s, _ := value.(string)
	return s
}
