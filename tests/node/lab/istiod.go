package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
)

// istiod stands for an istiod of the revision $REVISION:
//
//   - over TLS on :15017, with DIR/tls.crt and DIR/tls.key, /inject does what inject.go says and /validate allows everything;
//   - on :15012 it is discovery and CA: plain HTTP and JSON, which a real one speaks as gRPC over TLS. POST /v3/discovery:listeners and
//     /v3/discovery:clusters answer as xDS over REST does, and GET /certificate says that it is there to sign;
//   - on :15014 /debug/syncz answers 401, as a real one does to whoever has no token of its audience;
//   - /ready on :8080.
//
// $GATEWAYS is what a real one would work out of Gateways, VirtualServices and Services: JSON, by the value of the label `istio` of the
// gateway's pods, {"ports": [8080], "listeners": "good"}. `good` are listeners that lead to $BACKEND, `rejected` are ones that Envoy does
// not accept, and with `silent` it answers nothing.
func istiod(dir string) {
	mesh := discovery{revision: os.Getenv("REVISION"), backend: os.Getenv("BACKEND")}
	if given := os.Getenv("GATEWAYS"); given != "" {
		if err := json.Unmarshal([]byte(given), &mesh.gateways); err != nil {
			log.Fatalf("GATEWAYS: %s", err)
		}
	}
	hooks := func(ctx context.Context) error {
		server := &http.Server{Addr: ":15017", Handler: http.HandlerFunc(admit)}
		return until(ctx, server, func() error { return server.ListenAndServeTLS(dir+"/tls.crt", dir+"/tls.key") })
	}
	debug := http.NewServeMux()
	debug.HandleFunc("/debug/syncz", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "only localhost and holders of a token may ask", http.StatusUnauthorized)
	})
	ready := http.NewServeMux()
	ready.HandleFunc("/ready", ok)
	serve(hooks, plain(":15012", mesh.handler()), plain(":15014", debug), plain(":8080", ready))
}

// admit is the webhook: it allows everything, and patches what is to be injected.
func admit(w http.ResponseWriter, r *http.Request) {
	var review struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Request    struct {
			UID       string `json:"uid"`
			Operation string `json:"operation"`
			Namespace string `json:"namespace"`
			Object    object `json:"object"`
		} `json:"request"`
	}
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	log.Printf("%s %s in %q", r.URL.Path, review.Request.Operation, review.Request.Namespace)
	response := map[string]any{"uid": review.Request.UID, "allowed": true}
	if r.URL.Path == "/inject" {
		response["patchType"] = "JSONPatch"
		response["patch"] = injected(review.Request.Namespace, review.Request.Object)
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"apiVersion": review.APIVersion, "kind": review.Kind, "response": response})
}
