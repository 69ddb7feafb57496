package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"time"
)

// metrics stands for metrics-server behind the API metrics.k8s.io, without which no autoscaler decides anything. On :4443 it says of every
// pod that each of its containers uses 2m of CPU and 20Mi; which pods there are it asks the API server.
func metrics() {
	usage := object{"cpu": "2m", "memory": "20Mi"}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /apis/metrics.k8s.io/v1beta1", func(w http.ResponseWriter, _ *http.Request) {
		pods := object{"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": []string{"get", "list"}}
		say(w, object{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.k8s.io/v1beta1", "resources": []object{pods}})
	})
	mux.HandleFunc("GET /apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods", func(w http.ResponseWriter, r *http.Request) {
		pods, err := running(r.PathValue("namespace"), r.URL.Query().Get("labelSelector"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		items := []object{}
		for _, pod := range pods {
			used := []object{}
			for _, container := range pod.Spec.Containers {
				used = append(used, object{"name": container.Name, "usage": usage})
			}
			about := object{"name": pod.Metadata.Name, "namespace": r.PathValue("namespace"), "labels": pod.Metadata.Labels}
			// A window that begins after the pod was ready is believed from its first second.
			items = append(items, object{"metadata": about, "timestamp": time.Now().UTC().Format(time.RFC3339), "window": "1s", "containers": used})
		}
		say(w, object{"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": object{}, "items": items})
	})
	serve(func(ctx context.Context) error {
		server := &http.Server{Addr: ":4443", Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{selfSigned()}}}
		return until(ctx, server, func() error { return server.ListenAndServeTLS("", "") })
	})
}

func say(w http.ResponseWriter, what object) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(what)
}

type pod struct {
	Metadata struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		Containers []struct {
			Name string `json:"name"`
		} `json:"containers"`
	} `json:"spec"`
}

const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

// running asks the API server with the pod's own account.
func running(namespace, selector string) ([]pod, error) {
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	query := url.Values{"labelSelector": {selector}, "fieldSelector": {"status.phase=Running"}}
	asked, err := http.NewRequest("GET", "https://kubernetes.default.svc/api/v1/namespaces/"+namespace+"/pods?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	asked.Header.Set("Authorization", "Bearer "+string(token))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}
	answer, err := (&http.Client{Timeout: 5 * time.Second, Transport: transport}).Do(asked)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []pod `json:"items"`
	}
	return list.Items, json.Unmarshal(said, &list)
}

// selfSigned is enough: the APIService is told to believe anybody.
func selfSigned() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(30 * 24 * time.Hour), DNSNames: []string{"metrics"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		log.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
