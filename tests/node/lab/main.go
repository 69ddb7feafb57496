// lab is the one program in the pods of the node tests. Its first argument says which part it plays.
//
//	lab web          answers on :8080; "/?wait=20s" takes that long; /healthz; ends gracefully at SIGTERM
//	lab istiod DIR   stands for an istiod of the revision $REVISION: over TLS on :15017 with DIR/tls.crt and DIR/tls.key, /inject notes
//	                 the revision on the pod as Istio does and adds no container, /validate allows everything; /ready on :8080
//	lab get URL [N]  N requests on a connection each; prints how often each answer came
//
// It does nothing that a test could mistake for the product's doing: no retries, no state.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)
	if len(os.Args) < 2 {
		log.Fatal("lab web | istiod DIR | get URL [N]")
	}
	switch part, rest := os.Args[1], os.Args[2:]; part {
	case "web":
		web()
	case "istiod":
		istiod(rest[0])
	case "get":
		get(rest)
	default:
		log.Fatalf("lab plays no part called %q", part)
	}
}

// serve runs servers until SIGTERM and lets them finish what they have begun.
func serve(servers ...func(context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	ended := make(chan error, len(servers))
	for _, server := range servers {
		go func() { ended <- server(ctx) }()
	}
	for range servers {
		if err := <-ended; err != nil {
			log.Fatal(err)
		}
	}
}

// until serves until ctx ends, then gracefully shuts down.
func until(ctx context.Context, server *http.Server, listen func() error) error {
	done := make(chan error, 1)
	go func() {
		<-ctx.Done()
		log.Print("ending")
		limit, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		done <- server.Shutdown(limit)
	}()
	if err := listen(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-done
}

func plain(address string, handler http.Handler) func(context.Context) error {
	return func(ctx context.Context) error {
		server := &http.Server{Addr: address, Handler: handler}
		return until(ctx, server, server.ListenAndServe)
	}
}

func web() {
	name, _ := os.Hostname()
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		// Without ?wait= there is nothing to parse, and nothing to wait for.
		wait, _ := time.ParseDuration(r.URL.Query().Get("wait"))
		time.Sleep(wait)
		fmt.Fprintln(w, name)
	})
	serve(plain(":8080", mux))
}

func istiod(dir string) {
	calls := http.NewServeMux()
	calls.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Request    struct {
				UID       string `json:"uid"`
				Operation string `json:"operation"`
				Namespace string `json:"namespace"`
				Object    struct {
					Metadata struct {
						Annotations map[string]string `json:"annotations"`
					} `json:"metadata"`
				} `json:"object"`
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
			response["patch"] = injected(review.Request.Object.Metadata.Annotations)
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"apiVersion": review.APIVersion, "kind": review.Kind, "response": response})
	})
	ready := http.NewServeMux()
	ready.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	hooks := func(ctx context.Context) error {
		server := &http.Server{Addr: ":15017", Handler: calls}
		return until(ctx, server, func() error { return server.ListenAndServeTLS(dir+"/tls.crt", dir+"/tls.key") })
	}
	serve(hooks, plain(":8080", ready))
}

// injected is the patch that notes on a pod who has injected it. Bytes travel in base64, which is how JSON in Go has them.
func injected(annotations map[string]string) []byte {
	const status = "sidecar.istio.io/status"
	by, err := json.Marshal(map[string]any{"revision": os.Getenv("REVISION"), "containers": []string{}})
	if err != nil {
		log.Fatal(err)
	}
	operation := map[string]any{"op": "add", "path": "/metadata/annotations/sidecar.istio.io~1status", "value": string(by)}
	if annotations == nil {
		operation = map[string]any{"op": "add", "path": "/metadata/annotations", "value": map[string]string{status: string(by)}}
	}
	patch, err := json.Marshal([]any{operation})
	if err != nil {
		log.Fatal(err)
	}
	return patch
}

func get(args []string) {
	times := 1
	if len(args) > 1 {
		var err error
		if times, err = strconv.Atoi(args[1]); err != nil {
			log.Fatal(err)
		}
	}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answers := map[string]int{}
	for range times {
		answers[one(client, args[0])]++
	}
	for _, answer := range slices.Sorted(maps.Keys(answers)) {
		fmt.Printf("%6d %s\n", answers[answer], answer)
	}
}

func one(client *http.Client, url string) string {
	answer, err := client.Get(url)
	if err != nil {
		return "ERROR " + err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return "ERROR " + err.Error()
	}
	return fmt.Sprintf("%d %s", answer.StatusCode, body)
}
