"""The interface of pods. The names are those of `wit/pods.wit`, with underscores instead of dashes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Protocol

from wasmtime.component import Record, Variant


def record(**fields) -> Record:
    """A record of the WIT: `record(exit_code=1, reason="Error", message="")`."""
    made = Record()
    vars(made).update((name.replace("_", "-"), value) for name, value in fields.items())
    return made


NO_CAUSE = record(reason="", message="")


def pod_status(phase="pending", cause=NO_CAUSE, unschedulable=None, waits_for_room=False, disruption=None,
               deleted=False, main=Variant("waiting", NO_CAUSE), sidecar=None) -> Record:
    return record(**locals())


class PodError(Exception):
    """Why a request failed: a case of the WIT's `error`, for example `PodError("gone", "pod p is deleted")`."""

    def __init__(self, case: str, payload: str | Record):
        super().__init__(case, payload)
        self.variant = Variant(case, payload)


class Pod(Protocol):
    """A pod of a call. Every method may raise `PodError`."""
    name: str

    def wait(self, timeout_ms: int) -> Record | None:
        """Returns the present `pod_status` at the first call, later the next that differs. None: none came in time."""

    def read_file(self, path: str) -> bytes | None:
        """Returns a file below the output directory, or None if it does not exist."""

    def tail_logs(self, lines: int) -> str:
        """Returns the last lines of the log of the user's container."""

    def delete(self) -> None:
        """Deletes the pod and its input files. Not called if the spec says `keep`."""


class Pods(Protocol):
    """A backend, which creates the pods of calls."""

    def create(self, spec: SimpleNamespace) -> Pod:
        """Creates a pod from a `pod_spec` without waiting for its start. If this raises, no pod is left."""
