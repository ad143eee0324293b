// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	prefix = "/containers"
	// lostHeader says how many bytes of the output are not kept any more.
	lostHeader = "Casemate-Lost"

	maxHeader  = 8 << 10
	headerTime = 10 * time.Second
	closeTime  = 2 * time.Second
)

// Serve answers on l, which it closes, until ctx ends. Whoever can connect may ask.
func (s *Supervisor) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: http.HandlerFunc(s.answer), MaxHeaderBytes: maxHeader, ReadHeaderTimeout: headerTime,
		BaseContext: func(net.Listener) context.Context { return ctx }, // it ends who follows a log
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		if server.Shutdown(limit) != nil {
			_ = server.Close()
		}
	})
	err := server.Serve(l)
	if !stop() {
		<-stopped
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	}
	return nil
}

func (s *Supervisor) answer(w http.ResponseWriter, r *http.Request) {
	name, what, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, prefix+"/"), "/")
	switch {
	case r.URL.Path == prefix && r.Method == http.MethodGet:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.List()) // a peer that left needs no answer
	case !strings.HasPrefix(r.URL.Path, prefix+"/"):
		http.Error(w, "no such path", http.StatusNotFound)
	case s.byName[name] == nil:
		http.Error(w, ErrUnknown.Error(), http.StatusNotFound)
	case what == "log" && r.Method == http.MethodGet:
		s.byName[name].copyLog(r.Context(), w, r.URL.Query().Get("follow") == "1")
	case what == "stop" && r.Method == http.MethodPost:
		if err := s.Stop(r.Context(), name); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	default:
		http.Error(w, "no such path", http.StatusNotFound)
	}
}

// copyLog writes what is kept; with follow it goes on until the container stays down.
func (t *task) copyLog(ctx context.Context, w http.ResponseWriter, follow bool) {
	data, offset, lost := t.output.since(0)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set(lostHeader, strconv.FormatInt(lost, 10))
	for {
		if _, err := w.Write(data); err != nil || !follow {
			return
		}
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-t.output.more(offset):
		case <-ctx.Done():
			return
		case <-t.done:
			follow = false // what was written meanwhile is the last of it
		}
		data, offset, _ = t.output.since(offset)
	}
}
