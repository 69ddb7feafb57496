package main

import (
	"encoding/json"
	"net/http"
)

// What Envoy is told: the part of istiod that is behind :15012. The documents are real ones, of the kind that istiod makes for a Gateway on
// plain HTTP ports with a VirtualService that leads everything to one host, and its timeout off.

type discovery struct {
	revision string
	backend  string
	gateways map[string]struct {
		Ports     []int  `json:"ports"`
		Listeners string `json:"listeners"`
	}
}

// request is as much of an xDS request as matters here.
type request struct {
	Node struct {
		ID       string `json:"id"`
		Metadata struct {
			Labels map[string]string `json:"LABELS"`
		} `json:"metadata"`
	} `json:"node"`
}

func (d *discovery) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /certificate", ok)
	mux.HandleFunc("POST /v3/discovery:listeners", d.answer(d.listeners))
	mux.HandleFunc("POST /v3/discovery:clusters", d.answer(func(request, string) []object { return []object{d.cluster()} }))
	return mux
}

// answer is a discovery response, whose version is the revision and what is wrong with it. Without `good` and `rejected` there is none.
func (d *discovery) answer(resources func(request, string) []object) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var asked request
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		listeners := d.gateways[asked.Node.Metadata.Labels["istio"]].Listeners
		if listeners != "good" && listeners != "rejected" {
			http.Error(w, "nothing is known of "+asked.Node.ID, http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(object{"version_info": d.revision + "-" + listeners, "resources": resources(asked, listeners)})
	}
}

const (
	types   = "type.googleapis.com/envoy."
	filters = types + "extensions.filters."
)

func (d *discovery) listeners(asked request, kind string) []object {
	made := []object{}
	for _, port := range d.gateways[asked.Node.Metadata.Labels["istio"]].Ports {
		chain := []object{{"name": "envoy.filters.http.router", "typed_config": object{"@type": filters + "http.router.v3.Router"}}}
		if kind == "rejected" {
			// As an EnvoyFilter does whose Lua the new proxy cannot read.
			broken := object{"@type": filters + "http.lua.v3.Lua", "default_source_code": object{"inline_string": "function envoy_on_request(handle) gone("}}
			chain = append([]object{{"name": "envoy.filters.http.lua", "typed_config": broken}}, chain...)
		}
		header := func(name, value string) object {
			return object{"header": object{"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
		}
		routes := object{
			"name":                    "http." + d.revision,
			"response_headers_to_add": []object{header("x-revision", d.revision), header("x-gateway", "%ENVIRONMENT(POD_NAME)%")},
			"virtual_hosts": []object{{
				"name": "*:80", "domains": []string{"*"},
				"routes": []object{{"match": object{"prefix": "/"}, "route": object{"cluster": "outbound|8080||" + d.backend, "timeout": "0s"}}},
			}},
		}
		made = append(made, listener("0.0.0.0_", "0.0.0.0", port, routes, chain))
	}
	return made
}

// listener is one that speaks HTTP.
func listener(prefix, address string, port int, routes object, chain []object) object {
	manager := object{
		"@type": filters + "network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": prefix + decimal(port),
		"route_config": routes, "http_filters": chain,
	}
	return object{
		"@type": types + "config.listener.v3.Listener", "name": prefix + decimal(port),
		"address":       socket(address, port),
		"filter_chains": []object{{"filters": []object{{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}}}},
	}
}

func (d *discovery) cluster() object {
	cluster := cluster("outbound|8080||"+d.backend, "STRICT_DNS", d.backend, 8080)
	cluster["@type"] = types + "config.cluster.v3.Cluster"
	// istiod takes Envoy's limits away.
	most := object{}
	for _, limit := range []string{"max_connections", "max_pending_requests", "max_requests", "max_retries"} {
		most[limit] = uint32(1<<32 - 1)
	}
	cluster["circuit_breakers"] = object{"thresholds": []object{most}}
	return cluster
}

func cluster(name, kind, host string, port int) object {
	endpoint := object{"endpoint": object{"address": socket(host, port)}}
	return object{
		"name": name, "type": kind, "connect_timeout": "5s", "dns_lookup_family": "V4_ONLY",
		"load_assignment": object{"cluster_name": name, "endpoints": []object{{"lb_endpoints": []object{endpoint}}}},
	}
}

func socket(host string, port int) object {
	return object{"socket_address": object{"address": host, "port_value": port}}
}
