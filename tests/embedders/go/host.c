#include "host.h"
#include "_cgo_export.h"

#define POD 0

static uintptr_t call_of(const wasmtime_context_t *context) { return (uintptr_t)wasmtime_context_get_data(context); }

static wasmtime_error_t *import(void *number, wasmtime_context_t *context, const wasmtime_component_func_type_t *type,
                                wasmtime_component_val_t *args, size_t args_size, wasmtime_component_val_t *results,
                                size_t results_size) {
  return hostImport(call_of(context), (uintptr_t)number, context, args, args_size, results, results_size);
}

static wasmtime_error_t *drop(void *data, wasmtime_context_t *context, uint32_t number) {
  return hostDrop(call_of(context), number);
}

static wasmtime_error_t *epoch(wasmtime_context_t *context, void *data, uint64_t *delta,
                               wasmtime_update_deadline_kind_t *kind) {
  *delta = 1;
  *kind = WASMTIME_UPDATE_DEADLINE_CONTINUE;
  return hostEpoch(call_of(context));
}

wasmtime_store_t *host_store_new(wasm_engine_t *engine, uintptr_t call) {
  wasmtime_store_t *store = wasmtime_store_new(engine, (void *)call, NULL);
  wasmtime_context_set_epoch_deadline(wasmtime_store_context(store), 1);
  wasmtime_store_epoch_deadline_callback(store, epoch, NULL, NULL);
  return store;
}

wasmtime_error_t *host_add_import(wasmtime_component_linker_instance_t *instance, const char *name, size_t name_len,
                                  uintptr_t number) {
  return wasmtime_component_linker_instance_add_func(instance, name, name_len, import, (void *)number, NULL);
}

wasmtime_error_t *host_add_pod(wasmtime_component_linker_instance_t *instance, const char *name, size_t name_len) {
  wasmtime_component_resource_type_t *type = wasmtime_component_resource_type_new_host(POD);
  wasmtime_error_t *error =
      wasmtime_component_linker_instance_add_resource(instance, name, name_len, type, drop, NULL, NULL);
  wasmtime_component_resource_type_delete(type);
  return error;
}

wasmtime_error_t *host_pod_new(wasmtime_context_t *context, uint32_t number, wasmtime_component_val_t *pod) {
  wasmtime_component_resource_host_t *host = wasmtime_component_resource_host_new(true, number, POD);
  pod->kind = WASMTIME_COMPONENT_RESOURCE;
  wasmtime_error_t *error = wasmtime_component_resource_host_to_any(context, host, &pod->of.resource);
  wasmtime_component_resource_host_delete(host);
  return error;
}

wasmtime_error_t *host_pod_number(wasmtime_context_t *context, const wasmtime_component_resource_any_t *pod,
                                  uint32_t *number) {
  wasmtime_component_resource_host_t *host;
  wasmtime_error_t *error = wasmtime_component_resource_any_to_host(context, pod, &host);
  if (error == NULL) {
    *number = wasmtime_component_resource_host_rep(host);
    wasmtime_component_resource_host_delete(host);
  }
  return error;
}
