package hopsk8s

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const inputs = `{"image": "bash:5"}`

// hooked are pods whose wait is the test's.
type hooked struct {
	wait func(ctx context.Context) (*PodStatus, error)
	left atomic.Int32
}

func (h *hooked) Create(context.Context, PodSpec) (Pod, error) {
	h.left.Add(1)
	return h, nil
}

func (h *hooked) Name() string { return "pod" }

func (h *hooked) Wait(ctx context.Context, _ time.Duration) (*PodStatus, error) { return h.wait(ctx) }

func (h *hooked) ReadFile(context.Context, string) ([]byte, error) { return []byte("{}"), nil }

func (h *hooked) TailLogs(context.Context, uint32) (string, error) { return "", nil }

func (h *hooked) Delete(ctx context.Context) error {
	h.left.Add(-1)
	return ctx.Err()
}

func TestPluginDescribesItself(t *testing.T) {
	description, err := plugin(t).Describe()
	if err != nil {
		t.Fatal(err)
	}
	handlers := description.Handlers
	if description.Name != "k8s" || len(handlers) != 1 || handlers[0].Name != "run" || !strings.Contains(handlers[0].InputsSchema, `"image"`) {
		t.Errorf("%+v", description)
	}
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	for text, expected := range map[string]string{
		"no component": "not a plugin",
		"(component)":  "does not export hiphops:app/app@0.1.0",
		fmt.Sprintf(computes, `(import "wasi:sockets/tcp@0.2.0" (instance (export "connect" (func))))`): "wasi:sockets/tcp",
	} {
		path := filepath.Join(t.TempDir(), "plugin.wat")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), expected) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestManyCallsRunAtOnce(t *testing.T) {
	p, all := plugin(t), vectors(t)
	var calls sync.WaitGroup
	for i := range 200 {
		calls.Go(func() { play(t, p, all[i%len(all)]) })
	}
	calls.Wait()
}

func TestCallsWaitSideBySide(t *testing.T) {
	p := plugin(t)
	var waiting, calls sync.WaitGroup
	waiting.Add(200)
	pods := &hooked{wait: func(context.Context) (*PodStatus, error) {
		waiting.Done()
		waiting.Wait()
		return &PodStatus{Phase: Succeeded, Main: ContainerState{Terminated: &Terminated{Reason: "Completed"}}}, nil
	}}
	for range 200 {
		calls.Go(func() {
			if result, err := p.Call(t.Context(), pods, "run", inputs); err != nil || !strings.Contains(result, `"completed":true`) {
				t.Error(result, err)
			}
		})
	}
	calls.Wait()
	if left := pods.left.Load(); left != 0 {
		t.Errorf("%d pods are left", left)
	}
}

func TestCancelledCallLeavesNoPod(t *testing.T) {
	p := plugin(t)
	var calls sync.WaitGroup
	for range 50 {
		calls.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			pods := &hooked{wait: func(ctx context.Context) (*PodStatus, error) {
				cancel()
				<-ctx.Done()
				return nil, ctx.Err()
			}}
			if result, err := p.Call(ctx, pods, "run", inputs); !errors.Is(err, context.Canceled) {
				t.Error(result, err)
			}
			if left := pods.left.Load(); left != 0 {
				t.Errorf("%d pods are left", left)
			}
		})
	}
	calls.Wait()
}

// A plugin whose call computes for ever; %s is for its imports.
const computes = `(component %s
	(core module $m
		(memory (export "memory") 1)
		(func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 64)
		(func (export "describe"))
		(func (export "call") (param i32 i32 i32 i32) (result i32) (loop (br 0)) unreachable))
	(core instance $i (instantiate $m))
	(func $describe (canon lift (core func $i "describe")))
	(func $call (param "handler" string) (param "inputs" string) (result u32)
		(canon lift (core func $i "call") (memory $i "memory") (realloc (func $i "realloc"))))
	(instance $app (export "describe" (func $describe)) (export "call" (func $call)))
	(export "hiphops:app/app@0.1.0" (instance $app)))`

func TestCancellationStopsPluginThatComputes(t *testing.T) {
	p, err := compile([]byte(fmt.Sprintf(computes, "")))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if result, err := p.Call(ctx, &hooked{}, "run", inputs); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(result, err)
	}
}

func TestPanicOfPodsReachesCaller(t *testing.T) {
	pods := &hooked{wait: func(context.Context) (*PodStatus, error) { panic("oh") }}
	defer func() {
		if r := recover(); r == nil || !strings.HasPrefix(fmt.Sprint(r), "oh\n") || pods.left.Load() != 0 {
			t.Errorf("panic %v, %d pods are left", r, pods.left.Load())
		}
	}()
	_, _ = plugin(t).Call(t.Context(), pods, "run", inputs)
}

func TestTextThatIsNotUTF8GivesResult(t *testing.T) {
	v := vectorOf(t, "exit-code")
	v.Pod.Log = "\xff"
	pods := &scripted{script: v.Pod, start: v.Time, now: v.Time}
	for _, text := range []string{v.inputs(), "\xff"} {
		if result, err := plugin(t).callAt(t.Context(), pods, pods.clock, "run", text); err != nil || !strings.Contains(result, `"errored":true`) {
			t.Error(result, err)
		}
	}
}

func TestLargeResultIsWhole(t *testing.T) {
	v := vectorOf(t, "immediate")
	text := strings.Repeat("x", 8<<20)
	file := v.Pod.Files["result.json"]
	file.Text = &text
	v.Pod.Files["result.json"] = file
	result := strings.Replace(*v.Result, `"body":"","json":{"answer": 42}`, `"body":"`+text+`","json":null`, 1)
	v.Result = &result
	play(t, plugin(t), v)
}

// The pods take no time here: what is measured is the host.
func TestOverhead(t *testing.T) {
	p, v := plugin(t), vectorOf(t, "immediate")
	var times []time.Duration
	for range 1000 {
		start := time.Now()
		play(t, p, v)
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	fmt.Printf("Go: median of %d calls: %v\n", len(times), times[len(times)/2])
}

func TestDeclarationsAreThoseOfWasmtime(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/bytecodealliance/wasmtime-go/v39").Output()
	if err != nil {
		t.Fatal(err)
	}
	include := filepath.Join(strings.TrimSpace(string(dir)), "build/include")

	theirs := strings.Join(strings.Fields(preprocess(t, "-P", include, "wasmtime.h")), "")
	declaration := regexp.MustCompile(`[^;{]*(\{[^{}]*(\{[^{}]*\}[^{}]*)*\}[^;]*)?;`)
	for _, ours := range declaration.FindAllString(preprocess(t, "-P", ".", "component.h"), -1) {
		if !strings.Contains(theirs, strings.Join(strings.Fields(ours), "")) {
			t.Errorf("wasmtime-go does not declare %s", ours)
		}
	}
	theirs = preprocess(t, "-dM", include, "wasmtime.h")
	constant := regexp.MustCompile(`(?m)^#define WASMTIME_.*\n`)
	for _, ours := range constant.FindAllString(preprocess(t, "-dM", ".", "component.h"), -1) {
		if !strings.Contains(theirs, ours) {
			t.Errorf("wasmtime-go does not define %s", ours)
		}
	}
}

func preprocess(t *testing.T, mode, include, header string) string {
	command := exec.Command("cc", "-E", mode, "-I", include, "-")
	command.Stdin = strings.NewReader("#include <" + header + ">\n")
	output, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(output)
}
