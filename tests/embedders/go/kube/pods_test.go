package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"hopsk8s"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"
)

// cluster is a plugin with pods in a new namespace.
type cluster struct {
	plugin    *hopsk8s.Plugin
	pods      *Pods
	namespace string
}

func start(t *testing.T) *cluster {
	t.Helper()
	path := os.Getenv("KUBECONFIG")
	if path == "" {
		t.Skip("KUBECONFIG is not set: there is no cluster to test on")
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	pods, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := hopsk8s.Load(os.Getenv("HOPS_PLUGIN"))
	if err != nil {
		t.Fatalf("HOPS_PLUGIN must be the path of k8s.wasm: %v", err)
	}
	t.Cleanup(plugin.Close)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "hops-go-"}}
	namespace, err = pods.client.Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{plugin, pods, namespace.Name}
	t.Cleanup(func() {
		if err := pods.client.Namespaces().Delete(context.Background(), c.namespace, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	// The API server accepts no pod before this account exists.
	eventually(t, func() bool {
		_, err := pods.client.ServiceAccounts(c.namespace).Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	})
	return c
}

func eventually(t *testing.T, is func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) {
		return is(), nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) inputs(t *testing.T, command string, more map[string]any) string {
	t.Helper()
	inputs := map[string]any{
		"image":     "bash:5-alpine3.18",
		"namespace": c.namespace,
		"command":   []string{"bash", "-c", command},
	}
	for name, value := range more {
		inputs[name] = value
	}
	text, err := json.Marshal(inputs)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

func (c *cluster) call(t *testing.T, command string, more map[string]any) document {
	t.Helper()
	result, err := c.plugin.Call(t.Context(), c.pods, "run", c.inputs(t, command, more))
	if err != nil {
		t.Error(err)
	}
	var d document
	if err := json.Unmarshal([]byte(result), &d); err != nil {
		t.Error(err)
	}
	return d
}

type document struct {
	Hops      struct{ Error string }
	Completed bool
	Body      string
	JSON      json.RawMessage
}

func (c *cluster) left(t *testing.T) []corev1.Pod {
	t.Helper()
	pods, err := c.pods.client.Pods(c.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pods.Items
}

// running waits for the pod of a call to run, and returns its name.
func (c *cluster) running(t *testing.T) (name string) {
	t.Helper()
	eventually(t, func() bool {
		pods := c.left(t)
		if len(pods) != 1 || pods[0].Status.Phase != corev1.PodRunning {
			return false
		}
		name = pods[0].Name
		return true
	})
	return name
}

// isLeftEmpty checks that all pods are being deleted, and then gone.
func (c *cluster) isLeftEmpty(t *testing.T) {
	t.Helper()
	for _, p := range c.left(t) {
		if p.DeletionTimestamp == nil {
			t.Errorf("the pod %s is left", p.Name)
		}
	}
	eventually(t, func() bool { return len(c.left(t)) == 0 })
}

func TestDocumentsExampleGivesItsJSON(t *testing.T) {
	c := start(t)
	d := c.call(t, `echo '{"greeting": "Hello world!"}' > /output/result.json`, nil)
	if !d.Completed || string(d.JSON) != `{"greeting": "Hello world!"}` {
		t.Errorf("%+v", d)
	}
	c.isLeftEmpty(t)
}

func TestInputFilesArrive(t *testing.T) {
	c := start(t)
	d := c.call(t, `cat /input/a/b.txt "/input/ü 雪.txt" > /output/result.txt`, map[string]any{
		"in_files": map[string]string{"a/b.txt": "nested", "ü 雪.txt": "non-ASCII"},
		"out_path": "result.txt",
	})
	if d.Body != "nestednon-ASCII" {
		t.Errorf("%+v", d)
	}
	c.isLeftEmpty(t)
}

func TestFailureHasLog(t *testing.T) {
	c := start(t)
	d := c.call(t, `echo "no luck" >&2; exit 3`, nil)
	if d.Completed || !strings.HasPrefix(d.Hops.Error, "Error: container exited with code 3") || !strings.Contains(d.Hops.Error, "no luck") {
		t.Errorf("%+v", d)
	}
	c.isLeftEmpty(t)
}

func TestTimeoutHasLog(t *testing.T) {
	c := start(t)
	d := c.call(t, `echo working; sleep 600`, map[string]any{"timeout": "2s"})
	if !strings.HasPrefix(d.Hops.Error, "Timeout: ") || !strings.Contains(d.Hops.Error, "working") {
		t.Errorf("%+v", d)
	}
	c.isLeftEmpty(t)
}

func TestLargeResultIsWhole(t *testing.T) {
	c := start(t)
	d := c.call(t, `head -c 1000000 /dev/zero | tr '\0' x > /output/result.txt`, map[string]any{"out_path": "result.txt"})
	if d.Body != strings.Repeat("x", 1000000) {
		t.Errorf("%d bytes, %q", len(d.Body), d.Hops.Error)
	}
}

func TestKeptPodStays(t *testing.T) {
	c := start(t)
	if d := c.call(t, `true`, map[string]any{"skip_cleanup": true}); !d.Completed {
		t.Errorf("%+v", d)
	}
	if left := c.left(t); len(left) != 1 || left[0].DeletionTimestamp != nil {
		t.Errorf("%d pods are left", len(left))
	}
}

func TestDeletedPodIsAnError(t *testing.T) {
	c := start(t)
	documents := make(chan document)
	go func() { documents <- c.call(t, `sleep 600`, nil) }()
	name := c.running(t)
	if err := c.pods.client.Pods(c.namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if d := <-documents; !strings.HasPrefix(d.Hops.Error, "PodDeleted: ") {
		t.Errorf("%+v", d)
	}
}

func TestRefusalsSayWhy(t *testing.T) {
	c := start(t)
	for _, refusal := range []struct {
		more     map[string]any
		expected string
	}{
		{map[string]any{"namespace": "hops-go-none"}, `InvalidInputs: namespace "hops-go-none" does not exist; create it or name another`},
		{map[string]any{"service_account": "s"}, `PolicyDenied: this host does not allow service_account (s); leave it out`},
		{map[string]any{"cpu": "100000"}, `StartTimeout: `},
	} {
		refusal.more["start_timeout"] = "2s"
		if d := c.call(t, `true`, refusal.more); !strings.HasPrefix(d.Hops.Error, refusal.expected) {
			t.Errorf("expected %q, found %q", refusal.expected, d.Hops.Error)
		}
	}
	c.isLeftEmpty(t)
}

func TestCancelledCallLeavesNoPod(t *testing.T) {
	c := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	errs := make(chan error)
	go func() {
		_, err := c.plugin.Call(ctx, c.pods, "run", c.inputs(t, `sleep 600`, nil))
		errs <- err
	}()
	c.running(t)
	cancel()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	c.isLeftEmpty(t)
}

func TestCallsRunAtOnce(t *testing.T) {
	c := start(t)
	var calls sync.WaitGroup
	for i := range 10 {
		calls.Go(func() {
			d := c.call(t, fmt.Sprintf(`echo %d > /output/result.json`, i), map[string]any{"cpu": "10m", "memory": "16Mi"})
			if string(d.JSON) != fmt.Sprint(i) {
				t.Errorf("%+v", d)
			}
		})
	}
	calls.Wait()
	c.isLeftEmpty(t)
}
