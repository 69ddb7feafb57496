package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// Constant load, open loop: requests begin when their time has come, whatever became of those before. STREAMS is JSON, a list of
//
//	{"name": "short", "url": "http://10.96.1.2/", "rate": 200, "seconds": 600, "keep": 20}
//
// rate: requests a second. seconds: it ends by itself after so many. keep: connections that are kept alive and take turns; 0: a connection
// each. GET /report says what came of it, POST /stop lets it finish what it has begun.
//
// It speaks HTTP/1.1 over its own connections, because Go's client silently repeats a request that a kept connection has lost.

// A request that takes longer is lost. The longest that tests send takes 20 s.
const patience = 40 * time.Second

// More at once would say that nothing answers any more.
const crowd = 4000

// How many losses are told one by one; all are counted.
const told = 400

type stream struct {
	Name    string `json:"name"`
	URL     string `json:"url"`
	Rate    int    `json:"rate"`
	Seconds int    `json:"seconds"`
	Keep    int    `json:"keep"`

	target *url.URL
	idle   chan *link
	mutex  sync.Mutex
	report report
}

type report struct {
	Name string `json:"name"`
	Sent int    `json:"sent"`
	OK   int    `json:"ok"`
	Lost int    `json:"lost"`
	// Not begun because too many others were under way; such a run says nothing.
	Skipped int `json:"skipped"`
	// Under way now.
	Open int `json:"open"`
	// Connections that were opened.
	Dialled int `json:"dialled"`
	// Answers by the revision of the gateway that gave them, as it says itself.
	By map[string]int `json:"by"`
	// Losses by their error.
	Errors map[string]int `json:"errors"`
	// The first of them: when, after how long, by which gateway as far as that is known, and why.
	Told []string `json:"told"`
	// The longest that an answer took, and that a request began after its time, in milliseconds.
	Worst int64 `json:"worst_ms"`
	Late  int64 `json:"late_ms"`
}

// link is a connection, and the gateway at its other end.
type link struct {
	net.Conn
	reader  *bufio.Reader
	gateway string
}

func load(given string) {
	var streams []*stream
	if err := json.Unmarshal([]byte(given), &streams); err != nil {
		log.Fatal(err)
	}
	var stopped atomic.Bool
	for _, s := range streams {
		var err error
		if s.target, err = url.Parse(s.URL); err != nil {
			log.Fatal(err)
		}
		s.report = report{Name: s.Name, By: map[string]int{}, Errors: map[string]int{}, Told: []string{}}
		s.idle = make(chan *link, s.Keep)
		for range s.Keep {
			s.idle <- nil
		}
		go s.run(&stopped)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", ok)
	mux.HandleFunc("/report", func(w http.ResponseWriter, _ *http.Request) {
		reports := make([]json.RawMessage, len(streams))
		for i, s := range streams {
			s.mutex.Lock()
			reports[i], _ = json.Marshal(s.report)
			s.mutex.Unlock()
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(reports)
	})
	mux.HandleFunc("/stop", func(w http.ResponseWriter, r *http.Request) {
		stopped.Store(true)
		ok(w, r)
	})
	serve(plain(":8080", mux))
}

func (s *stream) run(stopped *atomic.Bool) {
	began, total := time.Now(), s.Rate*s.Seconds
	for number := 0; number < total && !stopped.Load(); number++ {
		due := began.Add(time.Duration(number) * time.Second / time.Duration(s.Rate))
		time.Sleep(time.Until(due))
		s.mutex.Lock()
		s.report.Late = max(s.report.Late, time.Since(due).Milliseconds())
		full := s.report.Open >= crowd
		if full {
			s.report.Skipped++
		} else {
			s.report.Sent++
			s.report.Open++
		}
		s.mutex.Unlock()
		if !full {
			go s.one()
		}
	}
}

// one sends a request and counts what became of it.
func (s *stream) one() {
	began := time.Now()
	var conn *link
	if s.Keep > 0 {
		conn = <-s.idle
	}
	conn, revision, err := s.exchange(conn, began)
	took := time.Since(began)
	gateway := "?"
	if conn != nil {
		gateway = conn.gateway
	}
	if conn != nil && (err != nil || s.Keep == 0) {
		conn.Close()
		conn = nil
	}
	if s.Keep > 0 {
		s.idle <- conn
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.report.Open--
	if err == nil {
		s.report.OK++
		s.report.By[revision]++
		s.report.Worst = max(s.report.Worst, took.Milliseconds())
		return
	}
	s.report.Lost++
	why := reason(err)
	s.report.Errors[why]++
	if len(s.report.Told) < told {
		s.report.Told = append(s.report.Told, fmt.Sprintf("%s after %d ms by %s: %s", began.UTC().Format("15:04:05.000"), took.Milliseconds(), gateway, err))
	}
}

// exchange is one request and its answer on conn, or on a new connection. The connection that it returns may be used again if there is no
// error and it is not nil.
func (s *stream) exchange(conn *link, began time.Time) (*link, string, error) {
	if conn == nil {
		dialled, err := (&net.Dialer{Deadline: began.Add(patience)}).Dial("tcp", s.target.Host)
		if err != nil {
			return nil, "", err
		}
		conn = &link{Conn: dialled, reader: bufio.NewReader(dialled), gateway: "?"}
		s.mutex.Lock()
		s.report.Dialled++
		s.mutex.Unlock()
	}
	conn.SetDeadline(began.Add(patience))
	connection := "close"
	if s.Keep > 0 {
		connection = "keep-alive"
	}
	_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: %s\r\n\r\n", s.target.RequestURI(), s.target.Host, connection)
	if err != nil {
		return conn, "", fmt.Errorf("write: %w", err)
	}
	answer, err := http.ReadResponse(conn.reader, nil)
	if err != nil {
		return conn, "", fmt.Errorf("read: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return conn, "", fmt.Errorf("body: %w", err)
	}
	conn.gateway = answer.Header.Get("x-gateway")
	if answer.StatusCode != http.StatusOK {
		return conn, "", fmt.Errorf("status %d: %s", answer.StatusCode, body)
	}
	if answer.Close && s.Keep > 0 {
		// The other end says that this was the last one.
		conn.Close()
		conn = nil
	}
	return conn, answer.Header.Get("x-revision"), nil
}

// reason is an error without addresses and ports, so that equal ones are counted as one.
func reason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}
