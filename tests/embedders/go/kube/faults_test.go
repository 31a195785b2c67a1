package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"hopsk8s"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// follow returns a pod that follows an API server. The server gives these answers to its lists and watches, in turn.
func follow(t *testing.T, answers ...func(w http.ResponseWriter)) *pod {
	t.Helper()
	next := make(chan func(http.ResponseWriter), len(answers))
	for _, answer := range answers {
		next <- answer
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		select {
		case answer := <-next:
			answer(w)
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	pods, err := New(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{client: pods.client, namespace: "team", name: "p", changed: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go p.follow(ctx)
	return p
}

func lists(pods ...corev1.Pod) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		_ = json.NewEncoder(w).Encode(corev1.PodList{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"},
			ListMeta: metav1.ListMeta{ResourceVersion: "1"},
			Items:    pods,
		})
	}
}

// watches sends these events and ends the watch.
func watches(events ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		for _, event := range events {
			fmt.Fprintln(w, event)
		}
	}
}

func refuses(code int, message string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
			Status:   metav1.StatusFailure,
			Message:  message,
			Reason:   metav1.StatusReason(map[int]string{http.StatusForbidden: "Forbidden"}[code]),
			Code:     int32(code),
		})
	}
}

func in(phase corev1.PodPhase) corev1.Pod {
	return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Status: corev1.PodStatus{Phase: phase}}
}

func TestWatchThatBreaksLosesNothing(t *testing.T) {
	tooOld := `{"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired"}}`
	p := follow(t,
		lists(in(corev1.PodPending)), watches(tooOld),
		refuses(http.StatusInternalServerError, "internal error"),
		lists(in(corev1.PodRunning)), watches(),
		lists(),
	)
	var phases []hopsk8s.Phase
	for {
		status, err := p.Wait(t.Context(), 10*time.Second)
		if err != nil || status == nil {
			t.Fatal(status, err)
		}
		if status.Deleted {
			break
		}
		// The status is empty until the first answer.
		if status.Phase != "" {
			phases = append(phases, status.Phase)
		}
	}
	if expected := []hopsk8s.Phase{hopsk8s.Pending, hopsk8s.Running}; !reflect.DeepEqual(phases, expected) {
		t.Errorf("%q", phases)
	}
}

func TestForbiddenWatchNamesMissingRule(t *testing.T) {
	p := follow(t, lists(in(corev1.PodPending)), refuses(http.StatusForbidden, `User "u" cannot watch resource "pods"`))
	for {
		status, err := p.Wait(t.Context(), 10*time.Second)
		var e *hopsk8s.Error
		switch {
		case errors.As(err, &e):
			if e.Kind != hopsk8s.Forbidden || !reflect.DeepEqual(e.Missing, &hopsk8s.Rule{Verb: "watch", Resource: "pods", Namespace: "team"}) {
				t.Errorf("%+v", e)
			}
			return
		case err != nil || status == nil:
			t.Fatal(status, err)
		}
	}
}

func TestErrorsOfClusterHaveTheirKinds(t *testing.T) {
	p := &pod{namespace: "team"}
	for _, c := range []struct {
		code     int32
		message  string
		expected hopsk8s.Error
	}{
		{403, `User "u" cannot create pods`, hopsk8s.Error{Kind: hopsk8s.Forbidden, Missing: &hopsk8s.Rule{Verb: "create", Resource: "pods", Namespace: "team"}}},
		{403, `violates PodSecurity "baseline"`, hopsk8s.Error{Kind: hopsk8s.Forbidden}},
		{403, `exceeded quota: q`, hopsk8s.Error{Kind: hopsk8s.QuotaExceeded}},
		{404, `pods "p" not found`, hopsk8s.Error{Kind: hopsk8s.Gone}},
		{422, `Pod "p" is invalid`, hopsk8s.Error{Kind: hopsk8s.Invalid}},
		{418, `no`, hopsk8s.Error{Kind: hopsk8s.Other, Message: "the API server answered 418: no"}},
		{503, `no`, hopsk8s.Error{Kind: hopsk8s.Unavailable, Message: "the API server failed: no"}},
	} {
		if c.expected.Message == "" {
			c.expected.Message = c.message
		}
		err := &apierrors.StatusError{ErrStatus: metav1.Status{Code: c.code, Message: c.message}}
		if found := p.explain(err, action{"create", "pods"}); !reflect.DeepEqual(found, &c.expected) {
			t.Errorf("expected %+v, found %+v", c.expected, found)
		}
	}
}

func TestReadFileIsWholeOrError(t *testing.T) {
	var tries atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tries := tries.Add(1)
		switch {
		case r.URL.Path == "/none":
			http.NotFound(w, r)
		case r.URL.Path == "/large":
			w.Header().Set("Content-Length", "8388609")
		case r.URL.Path != "/ü ?%.txt":
			w.WriteHeader(http.StatusForbidden)
		case tries == 1:
			w.WriteHeader(http.StatusBadGateway)
		case tries == 2:
			w.Header().Set("Content-Length", "5")
			fmt.Fprint(w, "who")
		default:
			fmt.Fprint(w, "whole")
		}
	}))
	defer server.Close()
	resultServer.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}
	defer func() { resultServer.Transport.(*http.Transport).DialContext = nil }()
	p := &pod{name: "p", latest: snapshot{ip: "10.0.0.1"}}

	if content, err := p.ReadFile(t.Context(), "ü ?%.txt"); err != nil || string(content) != "whole" || tries.Load() != 3 {
		t.Errorf("%q, %v, %d tries", content, err, tries.Load())
	}
	if _, err := p.ReadFile(t.Context(), "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for path, expected := range map[string]hopsk8s.Error{
		"large":     {Kind: hopsk8s.TooLarge, Size: 8<<20 + 1, Limit: 8 << 20},
		"directory": {Kind: hopsk8s.Other, Message: "the result server answered 403 Forbidden; check that the result is a regular file"},
	} {
		if _, err := p.ReadFile(t.Context(), path); !reflect.DeepEqual(err, &expected) {
			t.Errorf("expected %+v, found %v", expected, err)
		}
	}
	p.publishGone()
	var e *hopsk8s.Error
	if _, err := p.ReadFile(t.Context(), "none"); !errors.As(err, &e) || e.Kind != hopsk8s.Gone {
		t.Error(err)
	}
}
