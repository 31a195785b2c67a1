// Package kube runs the pods of calls on a Kubernetes cluster. A second container in each pod serves the result. The
// program must be able to reach the addresses of pods, as programs in the cluster are.
package kube

import (
	"context"
	"crypto/rand"
	"errors"
	"reflect"
	"strings"
	"sync"
	"time"

	"hopsk8s"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

const (
	// How long to try to create a pod, and to delete one whose creation failed halfway.
	patience = time.Minute
	// How long a call goes on while the API server does not answer.
	outage = 5 * time.Minute
	// The time between two watches.
	pause = time.Second
	// Seconds that the containers have to end, once the result was read and in the middle of their work.
	graceEnded, graceCancelled = 1, 5
	mostLogBytes               = 1 << 20
)

// Pods creates pods on a cluster.
type Pods struct {
	client v1.CoreV1Interface
}

// New returns pods on the cluster of a configuration. Calls with a service account, image pull secrets or a node selector
// are denied.
func New(config *rest.Config) (*Pods, error) {
	config = rest.CopyConfig(config)
	// The API server itself limits requests when it has too many.
	config.QPS = -1
	client, err := v1.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Pods{client}, nil
}

// Create creates a pod, and a ConfigMap that belongs to it if there are input files.
func (k *Pods) Create(ctx context.Context, spec hopsk8s.PodSpec) (hopsk8s.Pod, error) {
	if err := check(spec); err != nil {
		return nil, err
	}
	p := &pod{
		client:    k.client,
		namespace: spec.Namespace,
		name:      "hiphops-run-" + strings.ToLower(rand.Text()),
		changed:   make(chan struct{}, 1),
	}
	// Not cancelled with the call: the server could still create the pod, after it was deleted.
	creation, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := p.create(creation, spec); err != nil {
		deletion, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		return nil, errors.Join(err, p.Delete(deletion))
	}
	go p.follow(ctx)
	return p, nil
}

type pod struct {
	client          v1.CoreV1Interface
	namespace, name string
	uid             types.UID
	reported        *hopsk8s.PodStatus

	// Has an element when latest has changed.
	changed chan struct{}
	mutex   sync.Mutex
	latest  snapshot
}

// snapshot is the state of a pod that was seen last.
type snapshot struct {
	status hopsk8s.PodStatus
	ip     string
	// Whether the pod does not exist any more; a pod that is being deleted still does.
	gone bool
	// Why the pod cannot be followed any more.
	err error
}

func (p *pod) create(ctx context.Context, spec hopsk8s.PodSpec) error {
	var created *corev1.Pod
	err := p.request(ctx, action{"create", "pods"}, func(ctx context.Context) (err error) {
		created, err = p.client.Pods(p.namespace).Create(ctx, podManifest(p.name, spec), metav1.CreateOptions{})
		// The answer to an earlier attempt was lost: nobody else knows the name.
		if apierrors.IsAlreadyExists(err) {
			created, err = p.client.Pods(p.namespace).Get(ctx, p.name, metav1.GetOptions{})
		}
		return err
	})
	if err != nil {
		return err
	}
	p.uid = created.UID
	p.publish(snapshot{status: status(created)})
	if len(spec.InputFiles) == 0 {
		return nil
	}
	// The ConfigMap comes second, since the pod owns it. The node waits for it.
	return p.request(ctx, action{"create", "configmaps"}, func(ctx context.Context) error {
		_, err := p.client.ConfigMaps(p.namespace).Create(ctx, configMap(created, spec.InputFiles), metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
}

// follow publishes what happens to the pod, until the call ends.
func (p *pod) follow(ctx context.Context) {
	heard := time.Now()
	for ctx.Err() == nil && !p.known().gone {
		err := p.watch(ctx, &heard)
		if apierrors.IsForbidden(err) || err != nil && time.Since(heard) > outage {
			verb := "list"
			if strings.Contains(err.Error(), "cannot watch") {
				verb = "watch"
			}
			p.publish(snapshot{err: p.explain(err, action{verb, "pods"})})
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// watch publishes the pod's state and each change, until the server ends the watch.
func (p *pod) watch(ctx context.Context, heard *time.Time) error {
	options := metav1.ListOptions{FieldSelector: "metadata.name=" + p.name}
	short, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	list, err := p.client.Pods(p.namespace).List(short, options)
	if err != nil {
		return err
	}
	*heard = time.Now()
	if len(list.Items) == 0 {
		p.publishGone()
		return nil
	}
	p.publish(snapshotOf(&list.Items[0]))

	options.ResourceVersion = list.ResourceVersion
	events, err := p.client.Pods(p.namespace).Watch(ctx, options)
	if err != nil {
		return err
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		*heard = time.Now()
		switch event.Type {
		case watch.Added, watch.Modified:
			p.publish(snapshotOf(event.Object.(*corev1.Pod)))
		case watch.Deleted:
			p.publishGone()
		case watch.Error:
			return apierrors.FromObject(event.Object)
		}
	}
	return nil
}

func snapshotOf(p *corev1.Pod) snapshot { return snapshot{status: status(p), ip: p.Status.PodIP} }

func (p *pod) publish(s snapshot) {
	p.mutex.Lock()
	p.latest = s
	p.mutex.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func (p *pod) publishGone() {
	s := p.known()
	s.gone, s.status.Deleted = true, true
	p.publish(s)
}

func (p *pod) known() snapshot {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.latest
}

func (p *pod) Name() string { return p.name }

func (p *pod) Wait(ctx context.Context, timeout time.Duration) (*hopsk8s.PodStatus, error) {
	late := time.After(timeout)
	for {
		latest := p.known()
		if latest.err != nil {
			return nil, latest.err
		}
		if p.reported == nil || !reflect.DeepEqual(*p.reported, latest.status) {
			p.reported = &latest.status
			return p.reported, nil
		}
		select {
		case <-p.changed:
		case <-late:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *pod) TailLogs(ctx context.Context, lines uint32) (string, error) {
	options := &corev1.PodLogOptions{Container: mainContainer, TailLines: new(int64(lines)), LimitBytes: new(int64(mostLogBytes))}
	var log []byte
	err := p.request(ctx, action{"get", "pods/log"}, func(ctx context.Context) (err error) {
		log, err = p.client.Pods(p.namespace).GetLogs(p.name, options).DoRaw(ctx)
		return err
	})
	return string(log), err
}

// Delete deletes the pod. The cluster deletes its ConfigMap with it.
func (p *pod) Delete(ctx context.Context) error {
	grace := int64(graceCancelled)
	if p.known().status.Main.Terminated != nil {
		grace = graceEnded
	}
	options := metav1.DeleteOptions{GracePeriodSeconds: &grace}
	if p.uid != "" {
		options.Preconditions = metav1.NewUIDPreconditions(string(p.uid))
	}
	return p.request(ctx, action{"delete", "pods"}, func(ctx context.Context) error {
		err := p.client.Pods(p.namespace).Delete(ctx, p.name, options)
		// The pod is already deleted. A pod with another UID is another pod.
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	})
}
