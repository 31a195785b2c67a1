// Package kube runs the pods of calls in a Kubernetes cluster, by the side of a container that serves their results.
// The program has to reach the pods' addresses, as one does that runs in the cluster.
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
	// How long to try to create a pod, and to delete one that was not created in full.
	patience = time.Minute
	// How long a call goes on without hearing of its pod.
	outage = 5 * time.Minute
	// Between two watches.
	pause = time.Second
	// Seconds that the containers of a pod have to end: when the result is read, and in the middle of their work.
	graceEnded, graceCancelled = 1, 5
	mostLogBytes               = 1 << 20
)

// Pods are pods in a cluster.
type Pods struct {
	client v1.CoreV1Interface
}

// New uses the cluster of a configuration. A call may neither choose a service account, nor image pull secrets, nor its
// nodes.
func New(config *rest.Config) (*Pods, error) {
	config = rest.CopyConfig(config)
	// The API server knows better how much it can take.
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
	// Not cancelled with the call: what was asked for may be done nonetheless, and after the deletion.
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
	told            *hopsk8s.PodStatus

	// Has an element when there is news.
	changed chan struct{}
	mutex   sync.Mutex
	latest  news
}

// news is what was last heard of a pod.
type news struct {
	status hopsk8s.PodStatus
	ip     string
	// Whether the pod is gone, not only about to go.
	gone bool
	// Why nothing is heard of it any more.
	err error
}

func (p *pod) create(ctx context.Context, spec hopsk8s.PodSpec) error {
	var created *corev1.Pod
	err := p.request(ctx, action{"create", "pods"}, func(ctx context.Context) (err error) {
		created, err = p.client.Pods(p.namespace).Create(ctx, podManifest(p.name, spec), metav1.CreateOptions{})
		// The answer to an earlier try was lost: nobody else would know the name.
		if apierrors.IsAlreadyExists(err) {
			created, err = p.client.Pods(p.namespace).Get(ctx, p.name, metav1.GetOptions{})
		}
		return err
	})
	if err != nil {
		return err
	}
	p.uid = created.UID
	p.tell(news{status: status(created)})
	if len(spec.InputFiles) == 0 {
		return nil
	}
	// After the pod, because it belongs to it; the node waits for it.
	return p.request(ctx, action{"create", "configmaps"}, func(ctx context.Context) error {
		_, err := p.client.ConfigMaps(p.namespace).Create(ctx, configMap(created, spec.InputFiles), metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
}

// follow keeps up with the pod for as long as the call lasts.
func (p *pod) follow(ctx context.Context) {
	heard := time.Now()
	for ctx.Err() == nil && !p.heard().gone {
		err := p.watch(ctx, &heard)
		if apierrors.IsForbidden(err) || err != nil && time.Since(heard) > outage {
			verb := "list"
			if strings.Contains(err.Error(), "cannot watch") {
				verb = "watch"
			}
			p.tell(news{err: p.explain(err, action{verb, "pods"})})
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// watch looks at the pod and then at what happens to it, until the watch ends, as each does after a while.
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
		p.tellGone()
		return nil
	}
	p.tell(newsOf(&list.Items[0]))

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
			p.tell(newsOf(event.Object.(*corev1.Pod)))
		case watch.Deleted:
			p.tellGone()
		case watch.Error:
			return apierrors.FromObject(event.Object)
		}
	}
	return nil
}

func newsOf(p *corev1.Pod) news { return news{status: status(p), ip: p.Status.PodIP} }

func (p *pod) tell(n news) {
	p.mutex.Lock()
	p.latest = n
	p.mutex.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func (p *pod) tellGone() {
	n := p.heard()
	n.gone, n.status.Deleted = true, true
	p.tell(n)
}

func (p *pod) heard() news {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.latest
}

func (p *pod) Name() string { return p.name }

func (p *pod) Wait(ctx context.Context, timeout time.Duration) (*hopsk8s.PodStatus, error) {
	late := time.After(timeout)
	for {
		latest := p.heard()
		if latest.err != nil {
			return nil, latest.err
		}
		if p.told == nil || !reflect.DeepEqual(*p.told, latest.status) {
			p.told = &latest.status
			return p.told, nil
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

// Delete deletes the pod; the cluster deletes its ConfigMap with it.
func (p *pod) Delete(ctx context.Context) error {
	grace := int64(graceCancelled)
	if p.heard().status.Main.Terminated != nil {
		grace = graceEnded
	}
	options := metav1.DeleteOptions{GracePeriodSeconds: &grace}
	if p.uid != "" {
		options.Preconditions = metav1.NewUIDPreconditions(string(p.uid))
	}
	return p.request(ctx, action{"delete", "pods"}, func(ctx context.Context) error {
		err := p.client.Pods(p.namespace).Delete(ctx, p.name, options)
		// Somebody else was faster; with another UID, it is another pod.
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	})
}
