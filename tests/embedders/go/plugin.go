// Package hopsk8s runs calls of the Hiphops app k8s, the WebAssembly component k8s.wasm. A call runs a container image as
// a pod and returns a JSON document with its result.
package hopsk8s

// #include "host.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/cgo"
	"time"
	"unsafe"

	_ "github.com/bytecodealliance/wasmtime-go/v39" // Links libwasmtime.
)

// The most memory that the component can use in a call. A result of 8 MiB needs 60 MiB if JSON escapes every byte.
const memory = 128 << 20

// The interfaces that the component exports and imports.
const (
	app            = "hiphops:app/app@0.1.0"
	pods           = "hiphops:k8s/pods@0.1.0"
	wallClock      = "wasi:clocks/wall-clock@0.2.0"
	monotonicClock = "wasi:clocks/monotonic-clock@0.2.0"
)

// Plugin is the compiled component. Calls may run at the same time and are isolated from one another. Each takes a thread
// until it returns.
type Plugin struct {
	engine    *C.wasm_engine_t
	component *C.wasmtime_component_t
	linker    *C.wasmtime_component_linker_t
	app       *C.wasmtime_component_export_index_t
	describe  *C.wasmtime_component_export_index_t
	call      *C.wasmtime_component_export_index_t
}

// Description has the app's name, version and handlers.
type Description struct {
	// Name is the name before the underscore: k8s in k8s_run.
	Name    string
	Version string
	// Summary is one sentence.
	Summary  string
	Handlers []Handler
}

// Handler is a function of the app.
type Handler struct {
	// Name is the name after the app's name and the underscore: run in k8s_run.
	Name string
	// Summary is one sentence.
	Summary string
	// InputsSchema is the JSON Schema of the inputs object.
	InputsSchema string
}

// UnknownHandlerError says that the app does not have the handler. The message names those that it has.
type UnknownHandlerError struct{ Message string }

func (e UnknownHandlerError) Error() string { return e.Message }

// Load reads and compiles the component in a file.
func Load(path string) (*Plugin, error) {
	bytes, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the plugin: %w", err)
	}
	p, err := compile(bytes)
	if err == nil {
		// Wasmtime checks the component's imports when it instantiates it.
		if _, err = p.Describe(); err != nil {
			p.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not a plugin that this host can run: %w", path, err)
	}
	return p, nil
}

func compile(bytes []byte) (*Plugin, error) {
	config := C.wasm_config_new()
	C.wasmtime_config_epoch_interruption_set(config, true)
	p := &Plugin{engine: C.wasm_engine_new_with_config(config)}
	if err := p.compile(bytes); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Plugin) compile(bytes []byte) error {
	data := (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(bytes)))
	if err := failure(C.wasmtime_component_new(p.engine, data, C.size_t(len(bytes)), &p.component)); err != nil {
		return err
	}
	if p.app = p.export(nil, app); p.app == nil {
		return errors.New("it does not export " + app)
	}
	if p.describe, p.call = p.export(p.app, "describe"), p.export(p.app, "call"); p.describe == nil || p.call == nil {
		return errors.New("its " + app + " is not as the contract says")
	}
	p.linker = C.wasmtime_component_linker_new(p.engine)
	root := C.wasmtime_component_linker_root(p.linker)
	defer C.wasmtime_component_linker_instance_delete(root)
	for _, instance := range []string{wallClock, monotonicClock, pods} {
		if err := link(root, instance); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plugin) export(instance *C.wasmtime_component_export_index_t, name string) *C.wasmtime_component_export_index_t {
	return C.wasmtime_component_get_export_index(p.component, instance, chars(name), C.size_t(len(name)))
}

// link defines an instance that the component imports.
func link(root *C.wasmtime_component_linker_instance_t, name string) error {
	var instance *C.wasmtime_component_linker_instance_t
	err := failure(C.wasmtime_component_linker_instance_add_instance(root, chars(name), C.size_t(len(name)), &instance))
	if err != nil {
		return err
	}
	defer C.wasmtime_component_linker_instance_delete(instance)
	if name == pods {
		if err := failure(C.host_add_pod(instance, chars("pod"), C.size_t(len("pod")))); err != nil {
			return err
		}
	}
	for number, i := range imports {
		if i.instance != name {
			continue
		}
		if err := failure(C.host_add_import(instance, chars(i.name), C.size_t(len(i.name)), C.uintptr_t(number))); err != nil {
			return err
		}
	}
	return nil
}

// Close frees the plugin. No call may be running, and none may follow.
func (p *Plugin) Close() {
	if p.linker != nil {
		C.wasmtime_component_linker_delete(p.linker)
	}
	for _, index := range []*C.wasmtime_component_export_index_t{p.call, p.describe, p.app} {
		if index != nil {
			C.wasmtime_component_export_index_delete(index)
		}
	}
	if p.component != nil {
		C.wasmtime_component_delete(p.component)
	}
	C.wasm_engine_delete(p.engine)
}

// Describe returns the app's name, version and handlers.
func (p *Plugin) Describe() (description Description, err error) {
	c := &call{ctx: context.Background(), pods: noPods{}, now: time.Now}
	err = p.invoke(c, p.describe, nil, func(result *val) { description = asDescription(result) })
	return description, err
}

// Call runs a call and returns its result document. inputs is the JSON text of the inputs object. A call that fails has a
// document, too, with "errored" set; so does a call with bad inputs.
//
// When ctx ends, the call ends with the error of ctx. When Call returns, the call's pods are deleted, unless the inputs
// say "skip_cleanup".
func (p *Plugin) Call(ctx context.Context, pods Pods, handler, inputs string) (string, error) {
	return p.callAt(ctx, pods, time.Now, handler, inputs)
}

// callAt is Call with the caller's clock.
func (p *Plugin) callAt(ctx context.Context, pods Pods, now func() time.Time, handler, inputs string) (document string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &call{ctx: ctx, pods: pods, now: now, start: now(), created: map[uint32]*createdPod{}}
	defer func() {
		for number := range c.created {
			c.remove(number)
		}
	}()
	var refused error
	err = p.invoke(c, p.call, []string{handler, inputs}, func(result *val) {
		if ok, content := asResult(result); ok {
			document = asString(content)
		} else {
			refused = asCallError(content)
		}
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", fmt.Errorf("the plugin failed: %w", err)
	default:
		return document, refused
	}
}

// invoke calls a function that the component exports, in a new instance.
func (p *Plugin) invoke(c *call, function *C.wasmtime_component_export_index_t, args []string, read func(result *val)) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case mismatch:
			err = errors.New(string(r))
		default:
			panic(r)
		}
	}()

	handle := cgo.NewHandle(c)
	defer handle.Delete()
	store := C.host_store_new(p.engine, C.uintptr_t(handle))
	defer C.wasmtime_store_delete(store)
	C.wasmtime_store_limiter(store, memory, -1, -1, -1, -1)
	context := C.wasmtime_store_context(store)
	defer p.interruptAtEnd(c.ctx)()

	var instance C.wasmtime_component_instance_t
	if err := failure(C.wasmtime_component_linker_instantiate(p.linker, context, p.component, &instance)); err != nil {
		return err
	}
	var f C.wasmtime_component_func_t
	if !C.wasmtime_component_instance_get_func(&instance, context, function, &f) {
		return errors.New("an export is not a function")
	}
	vals := make([]val, len(args))
	for i, arg := range args {
		vals[i] = newString(arg)
		defer C.wasmtime_component_val_delete(&vals[i])
	}
	var result val
	err = failure(C.wasmtime_component_func_call(&f, context, unsafe.SliceData(vals), C.size_t(len(vals)), &result, 1))
	if c.panicked != nil {
		panic(c.panicked)
	}
	if err != nil {
		return err
	}
	defer C.wasmtime_component_val_delete(&result)
	read(&result)
	return failure(C.wasmtime_component_func_post_return(&f, context))
}

// interruptAtEnd makes all running instances check their calls' contexts when ctx ends. callOff ends this.
func (p *Plugin) interruptAtEnd(ctx context.Context) (callOff func()) {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		C.wasmtime_engine_increment_epoch(p.engine)
		close(interrupted)
	})
	return func() {
		if !stop() {
			<-interrupted
		}
	}
}

// failure converts an error of Wasmtime's and frees it. It is nil if err is nil.
func failure(err *C.wasmtime_error_t) error {
	if err == nil {
		return nil
	}
	defer C.wasmtime_error_delete(err)
	var message C.wasm_name_t
	C.wasmtime_error_message(err, &message)
	defer C.wasm_byte_vec_delete(&message)
	return errors.New(fromName(message))
}

// noPods creates no pods. Describe needs none.
type noPods struct{}

func (noPods) Create(context.Context, PodSpec) (Pod, error) {
	return nil, errors.New("describe must not create a pod")
}
