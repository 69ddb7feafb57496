package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// gateway stands for pilot-agent in a gateway's pod. Envoy is a real one; what differs from Istio is said here.
//
//   - Where istiod is stands in $PROXY_CONFIG or in the mesh configuration that is mounted, else it is the istiod without a revision, as in
//     Istio. It is asked over HTTP instead of gRPC, once a second, and what it says is given to Envoy as files (filesystem xDS), which
//     Envoy accepts or rejects as it does what comes over gRPC.
//   - Envoy starts once istiod has answered; a real one is started before, and listens on nothing until then.
//   - Whoever signs certificates ($CA_ADDR) has to be there, and signs none.
//   - Readiness, drain and ports are Istio's: ready once listeners and clusters have been accepted, and from then on while Envoy lives;
//     :15021/healthz/ready and :15090/stats/prometheus by Envoy, :15020 by this program; at SIGTERM Envoy drains its listeners for
//     5 s ($TERMINATION_DRAIN_DURATION_SECONDS) and is then killed, whatever is still under way.
func gateway() {
	a := agent{folder: "/etc/istio/proxy", discovery: discoveryAddress(), labels: podLabels("/etc/istio/pod/labels")}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log.Printf("proxy of %s, signed by %s", a.discovery, os.Getenv("CA_ADDR"))
	go func() { log.Fatal(http.ListenAndServe(":15020", a.status())) }()

	for !a.signed() || !a.poll() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
	envoy := a.start()
	ended := make(chan error, 1)
	go func() { ended <- envoy.Wait() }()
	for {
		select {
		case err := <-ended:
			log.Fatalf("Envoy has ended: %v", err)
		case <-time.After(time.Second):
			a.poll()
		case <-ctx.Done():
			drain()
			envoy.Process.Kill()
			return
		}
	}
}

const admin = "http://127.0.0.1:15000"

type agent struct {
	folder    string
	discovery string
	labels    map[string]string
	wasReady  atomic.Bool
}

var address = regexp.MustCompile(`discoveryAddress"?:\s*"?([A-Za-z0-9.:-]+)`)

func discoveryAddress() string {
	mounted, _ := os.ReadFile("/etc/istio/config/mesh")
	for _, configuration := range []string{os.Getenv("PROXY_CONFIG"), string(mounted)} {
		if found := address.FindStringSubmatch(configuration); found != nil {
			return found[1]
		}
	}
	return "istiod.istio-system.svc:15012"
}

// podLabels reads what the downward API has written: key="value", a line each.
func podLabels(path string) map[string]string {
	labels := map[string]string{}
	content, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		labels[key], _ = strconv.Unquote(value)
	}
	return labels
}

var client = &http.Client{Timeout: 5 * time.Second}

// fetch is the body of an answer, whose status has to be 200.
func fetch(method, url string, body []byte) ([]byte, error) {
	asked, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(asked)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, answer.Status, bytes.TrimSpace(text))
	}
	return text, err
}

func (a *agent) signed() bool {
	_, err := fetch("GET", "http://"+os.Getenv("CA_ADDR")+"/certificate", nil)
	if err != nil {
		log.Printf("no certificate: %s", err)
	}
	return err == nil
}

// poll asks istiod, and gives Envoy what is new. What it has it keeps when istiod does not answer.
func (a *agent) poll() bool {
	id := "router~" + os.Getenv("INSTANCE_IP") + "~" + os.Getenv("POD_NAME") + "." + os.Getenv("POD_NAMESPACE")
	node, _ := json.Marshal(object{"node": object{"id": id, "metadata": object{"LABELS": a.labels}}})
	answered := true
	for _, kind := range []string{"clusters", "listeners"} {
		said, err := fetch("POST", "http://"+a.discovery+"/v3/discovery:"+kind, node)
		if err != nil {
			log.Print(err)
			answered = false
			continue
		}
		path := filepath.Join(a.folder, kind+".json")
		if there, _ := os.ReadFile(path); bytes.Equal(there, said) {
			continue
		}
		// Envoy looks when a file is moved to its place.
		if err := os.WriteFile(path+".part", said, 0o644); err != nil {
			log.Fatal(err)
		}
		if err := os.Rename(path+".part", path); err != nil {
			log.Fatal(err)
		}
	}
	return answered
}

// start runs Envoy as pilot-agent does.
func (a *agent) start() *exec.Cmd {
	bootstrap, _ := json.Marshal(a.bootstrap())
	path := filepath.Join(a.folder, "envoy-rev.json")
	if err := os.WriteFile(path, bootstrap, 0o644); err != nil {
		log.Fatal(err)
	}
	envoy := exec.Command("envoy", "-c", path, "--drain-time-s", "45", "--drain-strategy", "immediate", "--local-address-ip-version", "v4",
		"--disable-hot-restart", "--log-level", "warning", "--component-log-level", "misc:error", "--concurrency", "2")
	envoy.Stdout, envoy.Stderr = os.Stdout, os.Stderr
	if err := envoy.Start(); err != nil {
		log.Fatal(err)
	}
	return envoy
}

// bootstrap has what an Istio gateway's has: administration on loopback, the ports of statistics and of readiness, the statistics that
// Istio includes by default, and where listeners and clusters come from.
func (a *agent) bootstrap() object {
	source := func(kind string) object {
		return object{"path_config_source": object{"path": filepath.Join(a.folder, kind+".json")}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
	}
	pass := func(name string, port int, path string, to int) (object, object) {
		router := []object{{"name": "envoy.filters.http.router", "typed_config": object{"@type": filters + "http.router.v3.Router"}}}
		route := object{"match": object{"prefix": path}, "route": object{"cluster": name}}
		routes := object{"virtual_hosts": []object{{"name": "backend", "domains": []string{"*"}, "routes": []object{route}}}}
		made := listener(name+"_", "0.0.0.0", port, routes, router)
		delete(made, "@type")
		return made, cluster(name, "STATIC", "127.0.0.1", to)
	}
	stats, statsTo := pass("prometheus_stats", 15090, "/stats/prometheus", 15000)
	health, healthTo := pass("agent", 15021, "/healthz/ready", 15020)
	included := []object{}
	for _, prefix := range []string{"cluster_manager", "listener_manager", "server", "cluster.xds-grpc"} {
		included = append(included, object{"prefix": prefix})
	}
	return object{
		"node":              object{"id": os.Getenv("POD_NAME") + "." + os.Getenv("POD_NAMESPACE"), "cluster": "gateway"},
		"admin":             object{"address": socket("127.0.0.1", 15000)},
		"stats_config":      object{"stats_matcher": object{"inclusion_list": object{"patterns": included}}},
		"dynamic_resources": object{"lds_config": source("listeners"), "cds_config": source("clusters")},
		"static_resources":  object{"listeners": []object{stats, health}, "clusters": []object{statsTo, healthTo}},
	}
}

// status is what the agent itself answers on :15020.
func (a *agent) status() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz/ready", func(w http.ResponseWriter, r *http.Request) {
		if why := a.notReady(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		a.wasReady.Store(true)
		ok(w, r)
	})
	mux.HandleFunc("/stats/prometheus", func(w http.ResponseWriter, _ *http.Request) {
		said, err := fetch("GET", admin+"/stats/prometheus", nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Write(said)
	})
	return mux
}

// notReady is Istio's own rule: what was ready once is ready while Envoy lives, also if it rejects what comes later.
func (a *agent) notReady() string {
	const asked = `^(server\.state|(cluster_manager\.cds|listener_manager\.lds)\.update_(success|rejected)|listener_manager\.workers_started)$`
	said, err := fetch("GET", admin+"/stats?filter="+url.QueryEscape(asked), nil)
	if err != nil {
		return "Envoy does not answer: " + err.Error()
	}
	stats := map[string]int{}
	for line := range strings.Lines(string(said)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		stats[name], _ = strconv.Atoi(value)
	}
	if !a.wasReady.Load() && (stats["cluster_manager.cds.update_success"] == 0 || stats["listener_manager.lds.update_success"] == 0) {
		return fmt.Sprintf("config received from XDS server, but was rejected, or none was received: %v", stats)
	}
	if stats["server.state"] != 0 || stats["listener_manager.workers_started"] != 1 {
		return fmt.Sprintf("Envoy is not live: %v", stats)
	}
	return ""
}

// drain is what a gateway does at SIGTERM: new requests are told to close their connections, and after 5 s it is over.
func drain() {
	seconds, err := strconv.Atoi(os.Getenv("TERMINATION_DRAIN_DURATION_SECONDS"))
	if err != nil {
		seconds = 5
	}
	log.Printf("draining for %d s", seconds)
	if _, err := fetch("POST", admin+"/drain_listeners?graceful&skip_exit", nil); err != nil {
		log.Print(err)
	}
	time.Sleep(time.Duration(seconds) * time.Second)
}

func decimal(n int) string { return strconv.Itoa(n) }
