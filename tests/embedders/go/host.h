// Between C and Go: Wasmtime's callbacks carry pointers; Go gets the numbers that these stand for.
#pragma once

#include "component.h"

// Makes a store whose imports act for the call with this handle.
wasmtime_store_t *host_store_new(wasm_engine_t *engine, uintptr_t call);
// Defines the import with this number.
wasmtime_error_t *host_add_import(wasmtime_component_linker_instance_t *instance, const char *name, size_t name_len, uintptr_t number);
// Defines the resource type of pods.
wasmtime_error_t *host_add_pod(wasmtime_component_linker_instance_t *instance, const char *name, size_t name_len);
// Makes a value of a pod that belongs to the guest.
wasmtime_error_t *host_pod_new(wasmtime_context_t *context, uint32_t number, wasmtime_component_val_t *pod);
// Finds the number of a pod that the guest lends.
wasmtime_error_t *host_pod_number(wasmtime_context_t *context, const wasmtime_component_resource_any_t *pod, uint32_t *number);
