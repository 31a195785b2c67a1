package hopsk8s

// #include "host.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime/cgo"
	"runtime/debug"
	"time"
	"unsafe"
)

// How long to try to delete a pod.
const deletion = time.Minute

// call is one call, for which the imports act.
type call struct {
	ctx   context.Context
	pods  Pods
	now   func() time.Time
	start time.Time
	// By the number that the plugin's handle stands for.
	created map[uint32]*createdPod
	number  uint32
	// The value that an import panicked with. A panic must not unwind Wasmtime's frames, so invoke repeats it.
	panicked any
}

type createdPod struct {
	Pod
	keep    bool
	deleted bool
}

// imports are the functions that the component may import. C knows each by its index here.
var imports = []struct {
	instance, name string
	args           int
	run            func(c *call, context *C.wasmtime_context_t, args []val) (val, error)
}{
	{wallClock, "now", 0, (*call).wallClock},
	{monotonicClock, "now", 0, (*call).monotonicClock},
	{pods, "[static]pod.create", 1, (*call).create},
	{pods, "[method]pod.name", 1, (*call).name},
	{pods, "[method]pod.wait", 2, (*call).wait},
	{pods, "[method]pod.read-file", 2, (*call).readFile},
	{pods, "[method]pod.tail-logs", 2, (*call).tailLogs},
	{pods, "[method]pod.delete", 1, (*call).delete},
}

//export hostImport
func hostImport(handle, number C.uintptr_t, context *C.wasmtime_context_t, args *val, argsSize C.size_t, results *val, resultsSize C.size_t) *C.wasmtime_error_t {
	return trapOnError(handle, func(c *call) error {
		i := imports[number]
		if int(argsSize) != i.args || resultsSize != 1 {
			return fmt.Errorf("%s is not as the contract says", i.name)
		}
		result, err := i.run(c, context, unsafe.Slice(args, argsSize))
		if err == nil {
			*results = result
		}
		return err
	})
}

//export hostDrop
func hostDrop(handle C.uintptr_t, number C.uint32_t) *C.wasmtime_error_t {
	return trapOnError(handle, func(c *call) error {
		c.remove(uint32(number))
		return nil
	})
}

//export hostEpoch
func hostEpoch(handle C.uintptr_t) *C.wasmtime_error_t {
	return trapOnError(handle, func(*call) error { return nil })
}

// trapOnError runs an import. The plugin ends if the import fails, or if the call was cancelled meanwhile.
func trapOnError(handle C.uintptr_t, run func(*call) error) (trap *C.wasmtime_error_t) {
	c := cgo.Handle(handle).Value().(*call)
	defer func() {
		switch r := recover().(type) {
		case nil:
			return
		case mismatch:
			c.panicked = r
		default:
			c.panicked = fmt.Sprintf("%v\n\n%s", r, debug.Stack())
		}
		trap = newTrap("panic")
	}()
	if err := errors.Join(run(c), c.ctx.Err()); err != nil {
		return newTrap(err.Error())
	}
	return nil
}

func newTrap(message string) *C.wasmtime_error_t {
	text := append([]byte(message), 0)
	return C.wasmtime_error_new((*C.char)(unsafe.Pointer(&text[0])))
}

func (c *call) wallClock(*C.wasmtime_context_t, []val) (val, error) {
	now := c.now()
	return newRecord(
		field{"seconds", newU64(uint64(now.Unix()))},
		field{"nanoseconds", newU32(uint32(now.Nanosecond()))},
	), nil
}

func (c *call) monotonicClock(*C.wasmtime_context_t, []val) (val, error) {
	return newU64(uint64(c.now().Sub(c.start))), nil
}

func (c *call) create(context *C.wasmtime_context_t, args []val) (val, error) {
	spec := asPodSpec(&args[0])
	created, err := c.pods.Create(c.ctx, spec)
	if err != nil {
		return newErr(newError(err)), nil
	}
	c.number++
	c.created[c.number] = &createdPod{Pod: created, keep: spec.Keep}
	var v val
	if err := failure(C.host_pod_new(context, C.uint32_t(c.number), &v)); err != nil {
		return val{}, err
	}
	return newOk(&v), nil
}

func (c *call) name(context *C.wasmtime_context_t, args []val) (val, error) {
	p, err := c.pod(context, &args[0])
	if err != nil {
		return val{}, err
	}
	return newString(p.Name()), nil
}

func (c *call) wait(context *C.wasmtime_context_t, args []val) (val, error) {
	p, err := c.pod(context, &args[0])
	if err != nil {
		return val{}, err
	}
	status, err := p.Wait(c.ctx, asMillis(&args[1]))
	if err != nil {
		return newErr(newError(err)), nil
	}
	option := newOptionOf(status, func(s PodStatus) val { return newStatus(&s) })
	return newOk(&option), nil
}

func (c *call) readFile(context *C.wasmtime_context_t, args []val) (val, error) {
	p, err := c.pod(context, &args[0])
	if err != nil {
		return val{}, err
	}
	content, err := p.ReadFile(c.ctx, asString(&args[1]))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		none := newOption(nil)
		return newOk(&none), nil
	case err != nil:
		return newErr(newError(err)), nil
	default:
		option := newOptionOf(&content, newBytes)
		return newOk(&option), nil
	}
}

func (c *call) tailLogs(context *C.wasmtime_context_t, args []val) (val, error) {
	p, err := c.pod(context, &args[0])
	if err != nil {
		return val{}, err
	}
	log, err := p.TailLogs(c.ctx, asU32(&args[1]))
	if err != nil {
		return newErr(newError(err)), nil
	}
	v := newString(log)
	return newOk(&v), nil
}

func (c *call) delete(context *C.wasmtime_context_t, args []val) (val, error) {
	p, err := c.pod(context, &args[0])
	if err != nil {
		return val{}, err
	}
	if err := p.delete(c.ctx); err != nil {
		return newErr(newError(err)), nil
	}
	return newOk(nil), nil
}

func (c *call) pod(context *C.wasmtime_context_t, handle *val) (*createdPod, error) {
	resource := of[*C.wasmtime_component_resource_any_t](handle, C.WASMTIME_COMPONENT_RESOURCE)
	var number C.uint32_t
	if err := failure(C.host_pod_number(context, resource, &number)); err != nil {
		return nil, err
	}
	p, ok := c.created[uint32(number)]
	if !ok {
		return nil, errors.New("the pod belongs to another call")
	}
	return p, nil
}

// remove deletes a pod when the plugin drops its handle, or when the call ends.
func (c *call) remove(number uint32) {
	p := c.created[number]
	delete(c.created, number)
	if err := p.delete(c.ctx); err != nil {
		slog.Warn("the pod could not be deleted; its own deadline will end it", "pod", p.Name(), "error", err)
	}
}

// delete deletes the pod, even if the call was cancelled.
func (p *createdPod) delete(ctx context.Context) error {
	if p.keep || p.deleted {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deletion)
	defer cancel()
	err := p.Delete(ctx)
	p.deleted = err == nil
	return err
}
