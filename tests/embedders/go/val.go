package hopsk8s

// #include "component.h"
import "C"

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unsafe"
)

// val is a value on its way into the component or out of it.
type val = C.wasmtime_component_val_t

// mismatch is the panic of a function that reads a value of another type than the contract says.
type mismatch string

// of returns the content of a value of this kind.
func of[T any](v *val, kind C.wasmtime_component_valkind_t) T {
	if v == nil || v.kind != kind {
		panic(mismatch("a value is not of the type that the contract says"))
	}
	var content T
	copy(bytesOf(&content), v.of[:])
	return content
}

func newVal[T any](kind C.wasmtime_component_valkind_t, content T) val {
	v := val{kind: kind}
	copy(v.of[:], bytesOf(&content))
	return v
}

// bytesOf returns the bytes of content, for copying: Go sees a union as bytes, which it does not align for the content.
func bytesOf[T any](content *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(content)), unsafe.Sizeof(*content))
}

func asString(v *val) string { return fromName(of[C.wasm_name_t](v, C.WASMTIME_COMPONENT_STRING)) }

func asBool(v *val) bool { return bool(of[C.bool](v, C.WASMTIME_COMPONENT_BOOL)) }

func asU32(v *val) uint32 { return uint32(of[C.uint32_t](v, C.WASMTIME_COMPONENT_U32)) }

// asMillis returns at most the longest duration, 292 years.
func asMillis(v *val) time.Duration {
	millis := uint64(of[C.uint64_t](v, C.WASMTIME_COMPONENT_U64))
	return time.Duration(min(millis, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
}

func asBytes(v *val) []byte {
	items := items(v)
	bytes := make([]byte, len(items))
	for i := range items {
		bytes[i] = byte(of[C.uint8_t](&items[i], C.WASMTIME_COMPONENT_U8))
	}
	return bytes
}

func asList[T any](v *val, item func(*val) T) []T {
	items := items(v)
	list := make([]T, len(items))
	for i := range items {
		list[i] = item(&items[i])
	}
	return list
}

func items(v *val) []val {
	list := of[C.wasmtime_component_vallist_t](v, C.WASMTIME_COMPONENT_LIST)
	return unsafe.Slice(list.data, list.size)
}

// asPair reads a tuple of two strings.
func asPair(v *val) (string, string) {
	tuple := of[C.wasmtime_component_valtuple_t](v, C.WASMTIME_COMPONENT_TUPLE)
	items := unsafe.Slice(tuple.data, tuple.size)
	if len(items) != 2 {
		panic(mismatch("a tuple is not a pair"))
	}
	return asString(&items[0]), asString(&items[1])
}

type record map[string]*val

func asRecord(v *val) record {
	fields := of[C.wasmtime_component_valrecord_t](v, C.WASMTIME_COMPONENT_RECORD)
	entries := unsafe.Slice(fields.data, fields.size)
	r := make(record, len(entries))
	for i := range entries {
		r[fromName(entries[i].name)] = &entries[i].val
	}
	return r
}

func (r record) field(name string) *val {
	v, ok := r[name]
	if !ok {
		panic(mismatch(fmt.Sprintf("a record has no field %q", name)))
	}
	return v
}

// asOption returns nil for none.
func asOption(v *val) *val { return of[*val](v, C.WASMTIME_COMPONENT_OPTION) }

func asVariant(v *val) (string, *val) {
	variant := of[C.wasmtime_component_valvariant_t](v, C.WASMTIME_COMPONENT_VARIANT)
	return fromName(variant.discriminant), variant.val
}

func asResult(v *val) (ok bool, content *val) {
	result := of[C.wasmtime_component_valresult_t](v, C.WASMTIME_COMPONENT_RESULT)
	return bool(result.is_ok), result.val
}

func fromName(name C.wasm_name_t) string { return C.GoStringN(name.data, C.int(name.size)) }

// newName replaces bytes that are not UTF-8: Wasmtime would crash on them.
func newName(s string) C.wasm_name_t {
	s = strings.ToValidUTF8(s, "\uFFFD")
	var name C.wasm_name_t
	C.wasm_byte_vec_new(&name, C.size_t(len(s)), chars(s))
	return name
}

// chars returns a pointer to a string, for C functions that also get the length.
func chars(s string) *C.char { return (*C.char)(unsafe.Pointer(unsafe.StringData(s))) }

func newString(s string) val { return newVal(C.WASMTIME_COMPONENT_STRING, newName(s)) }

func newBool(b bool) val { return newVal(C.WASMTIME_COMPONENT_BOOL, C.bool(b)) }

func newS32(n int32) val { return newVal(C.WASMTIME_COMPONENT_S32, C.int32_t(n)) }

func newU32(n uint32) val { return newVal(C.WASMTIME_COMPONENT_U32, C.uint32_t(n)) }

func newU64(n uint64) val { return newVal(C.WASMTIME_COMPONENT_U64, C.uint64_t(n)) }

func newBytes(bytes []byte) val {
	var list C.wasmtime_component_vallist_t
	C.wasmtime_component_vallist_new_uninit(&list, C.size_t(len(bytes)))
	items := unsafe.Slice(list.data, len(bytes))
	for i, b := range bytes {
		// newVal would allocate for each byte.
		items[i].kind = C.WASMTIME_COMPONENT_U8
		items[i].of[0] = b
	}
	return newVal(C.WASMTIME_COMPONENT_LIST, list)
}

type field struct {
	name string
	val  val
}

func newRecord(fields ...field) val {
	var r C.wasmtime_component_valrecord_t
	C.wasmtime_component_valrecord_new_uninit(&r, C.size_t(len(fields)))
	entries := unsafe.Slice(r.data, len(fields))
	for i, f := range fields {
		entries[i] = C.wasmtime_component_valrecord_entry_t{name: newName(f.name), val: f.val}
	}
	return newVal(C.WASMTIME_COMPONENT_RECORD, r)
}

func newEnum(name string) val { return newVal(C.WASMTIME_COMPONENT_ENUM, newName(name)) }

func newVariant(name string, content *val) val {
	return newVal(C.WASMTIME_COMPONENT_VARIANT, C.wasmtime_component_valvariant_t{discriminant: newName(name), val: boxed(content)})
}

func newOption(content *val) val { return newVal(C.WASMTIME_COMPONENT_OPTION, boxed(content)) }

func newOk(content *val) val {
	return newVal(C.WASMTIME_COMPONENT_RESULT, C.wasmtime_component_valresult_t{is_ok: true, val: boxed(content)})
}

func newErr(content val) val {
	return newVal(C.WASMTIME_COMPONENT_RESULT, C.wasmtime_component_valresult_t{is_ok: false, val: boxed(&content)})
}

// boxed moves a value into memory that C owns.
func boxed(v *val) *val {
	if v == nil {
		return nil
	}
	return C.wasmtime_component_val_new(v)
}
