package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"hopsk8s"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
)

// attempt is how long one attempt of a request may take.
const attempt = 15 * time.Second

// The pauses between attempts, 25 seconds in all.
var backoff = wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.1, Steps: 9}

// action is what a request does, in the terms of a Role.
type action struct{ verb, resource string }

// request sends a request to the API server, and again while another attempt may succeed.
func (p *pod) request(ctx context.Context, a action, send func(context.Context) error) error {
	err := retry(ctx, send)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return p.explain(err, a)
}

func retry(ctx context.Context, try func(context.Context) error) (err error) {
	ended := wait.ExponentialBackoffWithContext(ctx, backoff, func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, attempt)
		defer cancel()
		err = try(ctx)
		return !maySucceedLater(err), nil
	})
	return cmp.Or(err, ended)
}

// maySucceedLater says whether another attempt may succeed.
func maySucceedLater(err error) bool {
	var final *hopsk8s.Error
	var status apierrors.APIStatus
	switch {
	case err == nil, errors.As(err, &final), errors.Is(err, fs.ErrNotExist):
		return false
	case errors.As(err, &status):
		code := status.Status().Code
		// Two creations conflict when they count against the same quota at the same time.
		isConflict := strings.Contains(err.Error(), "please apply your changes")
		return code == http.StatusTooManyRequests || code >= http.StatusInternalServerError || isConflict
	default:
		return true
	}
}

// explain converts an error into one that says what failed and why.
func (p *pod) explain(err error, a action) error {
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return &hopsk8s.Error{Kind: hopsk8s.Unavailable, Message: fmt.Sprintf(
			"the API server does not answer: %v; check that the cluster runs and that this is its address", err)}
	}
	code, message := answer.Status().Code, answer.Status().Message
	e := &hopsk8s.Error{Message: message}
	switch {
	case code == http.StatusUnauthorized:
		e.Kind = hopsk8s.Forbidden
		e.Message = "the API server does not accept the credentials, which may have expired or been revoked; log in again"
	case code == http.StatusForbidden && strings.Contains(message, "exceeded quota"):
		e.Kind = hopsk8s.QuotaExceeded
	case code == http.StatusForbidden:
		e.Kind = hopsk8s.Forbidden
		if strings.Contains(message, " cannot ") {
			e.Missing = &hopsk8s.Rule{Verb: a.verb, Resource: a.resource, Namespace: p.namespace}
		}
	case code == http.StatusNotFound && strings.HasPrefix(message, "namespaces "):
		e.Kind = hopsk8s.Invalid
		e.Message = fmt.Sprintf("namespace %q does not exist; create it or name another", p.namespace)
	case code == http.StatusNotFound, code == http.StatusGone:
		e.Kind = hopsk8s.Gone
	case code == http.StatusBadRequest, code == http.StatusRequestEntityTooLarge, code == http.StatusUnprocessableEntity:
		e.Kind = hopsk8s.Invalid
	case code == http.StatusTooManyRequests, code >= http.StatusInternalServerError:
		e.Kind = hopsk8s.Unavailable
		e.Message = "the API server failed: " + message
	default:
		e.Kind = hopsk8s.Other
		e.Message = fmt.Sprintf("the API server answered %d: %s", code, message)
	}
	return e
}
