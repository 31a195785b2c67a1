"""Runs calls of the plugin, a WebAssembly component, with the pods and clocks that the caller gives."""

from __future__ import annotations

import logging
import threading
import time
from types import SimpleNamespace

from wasmtime import Engine, Store, WasmtimeError
from wasmtime.component import Component, Linker, OptionType, Record, ResourceAny, ResourceHost, ResourceType, Variant

from .pods import Pod, PodError, Pods, record

APP = "hiphops:app/app@0.1.0"
POD = 0  # The number of the resource type. Any number will do.


def _add_classes(option: OptionType, classes: set[type]) -> None:
    classes.add(type(None))
    option.payload.add_classes(classes)


# wasmtime 50 takes any value for the payload of an option, so a `result<option<…>, error>` could never be the error.
OptionType.add_classes = _add_classes

# wasmtime 50 converts values through a global variable, so one thread at a time may run its code.
_in_wasmtime = threading.Lock()


def _outside_wasmtime(function, *args):
    _in_wasmtime.release()
    try:
        return function(*args)
    finally:
        _in_wasmtime.acquire()


class CallError(Exception):
    """Why a call has no result document."""


class UnknownHandler(CallError):
    """The plugin does not have this handler. The message names those that it has."""


class Plugin:
    """The plugin in a file, compiled once. Any number of threads may use it at the same time."""

    def __init__(self, path: str):
        self._engine = Engine()
        self._component = Component.from_file(self._engine, path)

    def describe(self) -> SimpleNamespace:
        """Returns the plugin's name, version and handlers: the WIT's `description`."""
        return _lift(_Call(None, time).invoke(self._engine, self._component, "describe"))

    def call(self, handler: str, inputs: str, pods: Pods, clocks=time) -> str:
        """Runs a call and returns its result document. The inputs and the document are JSON texts.

        A call that fails has a document, too, with `errored` set; so does a call with bad inputs. When this returns or
        raises, the call's pods are deleted, also after a KeyboardInterrupt. `clocks` has `time_ns` and `monotonic_ns`.
        """
        result = _Call(pods, clocks).invoke(self._engine, self._component, "call", handler, inputs)
        if isinstance(result, Variant):
            raise (UnknownHandler if result.tag == "unknown-handler" else CallError)(result.payload)
        return result


class _Call:
    """One call: the plugin's imports, and the pods that the call has created."""

    def __init__(self, pods: Pods | None, clocks):
        self._backend, self._clocks = pods, clocks
        self._pods: list[Pod] = []
        self._undeleted: list[Pod] = []
        self._failure: BaseException | None = None

    def invoke(self, engine: Engine, component: Component, name: str, *args):
        try:
            with _in_wasmtime, Store(engine) as store, Linker(engine) as linker:
                self._link(linker)
                instance = linker.instantiate(store, component)
                export = instance.get_export_index(store, name, instance.get_export_index(store, APP))
                return instance.get_func(store, export)(store, *args)
        except WasmtimeError as trap:
            raise self._failure or trap
        finally:
            for number in range(len(self._pods)):
                self._drop(number)

    def _link(self, linker: Linker) -> None:
        with linker.root() as root:
            with root.add_instance("wasi:clocks/wall-clock@0.2.0") as clock:
                clock.add_func("now", self._import(self._now))
            with root.add_instance("wasi:clocks/monotonic-clock@0.2.0") as clock:
                clock.add_func("now", self._import(self._clocks.monotonic_ns))
            with root.add_instance("hiphops:k8s/pods@0.1.0") as pods:
                pods.add_resource(
                    "pod", ResourceType.host(POD), lambda _, number: _outside_wasmtime(self._drop, number)
                )
                pods.add_func("[static]pod.create", self._import(self._create))
                pods.add_func("[method]pod.name", self._import(lambda pod: pod.name))
                pods.add_func("[method]pod.wait", self._import(lambda pod, timeout_ms: pod.wait(timeout_ms)))
                pods.add_func("[method]pod.read-file", self._import(lambda pod, path: pod.read_file(path)))
                pods.add_func("[method]pod.tail-logs", self._import(lambda pod, lines: pod.tail_logs(lines)))
                pods.add_func("[method]pod.delete", self._import(self._delete))

    def _import(self, function):
        def imported(store, *args):
            try:
                args = [self._pods[arg.to_host(store).rep] if isinstance(arg, ResourceAny) else arg for arg in args]
                return _outside_wasmtime(function, *args)
            except PodError as error:
                return error.variant
            except BaseException as failure:  # Also a KeyboardInterrupt, which wasmtime would lose.
                self._failure = failure
                raise WasmtimeError("the host failed")

        return imported

    def _now(self) -> Record:
        seconds, nanoseconds = divmod(self._clocks.time_ns(), 1_000_000_000)
        return record(seconds=seconds, nanoseconds=nanoseconds)

    def _create(self, spec: Record) -> ResourceHost:
        self._pods.append(self._backend.create(_lift(spec)))
        self._undeleted += [] if spec.keep else self._pods[-1:]
        return ResourceHost.own(len(self._pods) - 1, POD)

    def _delete(self, pod: Pod) -> None:
        if pod in self._undeleted:
            pod.delete()
            self._undeleted.remove(pod)

    def _drop(self, number: int) -> None:
        try:
            self._delete(self._pods[number])
        except PodError as error:
            logging.getLogger(__name__).warning("pod %s could not be deleted: %s", self._pods[number].name, error)


def _lift(value):
    """Replaces wasmtime's records, whose field names have dashes, by objects with underscores."""
    if isinstance(value, Record):
        return SimpleNamespace(**{name.replace("-", "_"): _lift(field) for name, field in vars(value).items()})
    return [_lift(element) for element in value] if isinstance(value, list) else value
