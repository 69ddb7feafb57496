// lab is the one program in the pods of the node tests. Its first argument says which part it plays.
//
//	lab web            answers on :8080; "/?wait=20s" takes that long; /healthz; /metrics; ends gracefully at SIGTERM
//	lab get URL [N]    N requests on a connection each; prints how often each answer came
//	lab load STREAMS   constant load, and a report of it on :8080: see load.go
//	lab istiod DIR     stands for an istiod of the revision $REVISION: see istiod.go and inject.go
//	lab metrics        stands for metrics-server: see metrics.go
//
// In the image of a gateway it is called pilot-agent, and plays that (gateway.go), and sh, which only knows how to sleep.
//
// It does nothing that a test could mistake for the product's doing: no retries, no state.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)
	part, rest := filepath.Base(os.Args[0]), os.Args[1:]
	if part == "lab" {
		if len(rest) == 0 {
			log.Fatal("lab web | get URL [N] | load STREAMS | istiod DIR | metrics")
		}
		part, rest = rest[0], rest[1:]
	}
	switch part {
	case "web":
		web()
	case "get":
		get(rest)
	case "load":
		load(rest[0])
	case "istiod":
		istiod(rest[0])
	case "metrics":
		metrics()
	case "pilot-agent":
		gateway()
	case "sh":
		shell(rest)
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
	mux.HandleFunc("/healthz", ok)
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintln(w, "web_up 1")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		// Without ?wait= there is nothing to parse, and nothing to wait for.
		wait, _ := time.ParseDuration(r.URL.Query().Get("wait"))
		time.Sleep(wait)
		fmt.Fprintln(w, name)
	})
	serve(plain(":8080", mux))
}

func ok(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }

// shell is as much of a shell as a preStop hook needs: sh -c "sleep SECONDS".
func shell(args []string) {
	if len(args) == 2 && args[0] == "-c" {
		if seconds, found := strings.CutPrefix(args[1], "sleep "); found {
			if n, err := strconv.Atoi(seconds); err == nil {
				time.Sleep(time.Duration(n) * time.Second)
				return
			}
		}
	}
	log.Fatalf("sh: only -c \"sleep SECONDS\" is known here, not %q", args)
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
