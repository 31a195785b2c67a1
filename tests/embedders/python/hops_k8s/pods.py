"""What the plugin asks of its host, in the words of `wit/pods.wit` with underscores for dashes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Protocol

from wasmtime.component import Record, Variant


def record(**fields) -> Record:
    """A record of the WIT: `record(exit_code=1, reason="Error", message="")`."""
    made = Record()
    vars(made).update((name.replace("_", "-"), value) for name, value in fields.items())
    return made


NOTHING = record(reason="", message="")


def pod_status(phase="pending", cause=NOTHING, unschedulable=None, waits_for_room=False, disruption=None, deleted=False,
               main=Variant("waiting", NOTHING), sidecar=None) -> Record:
    return record(**locals())


class PodError(Exception):
    """What could not be done: a case of the WIT's `error`, as in `PodError("gone", "pod p is deleted")`."""

    def __init__(self, case: str, payload: str | Record):
        super().__init__(case, payload)
        self.variant = Variant(case, payload)


class Pod(Protocol):
    """A pod of a call. Every method may raise `PodError`."""
    name: str

    def wait(self, timeout_ms: int) -> Record | None:
        """The present `pod_status` at the first call, then the next that differs; None if there is none in time."""

    def read_file(self, path: str) -> bytes | None:
        """A file below the output directory, None if it does not exist."""

    def tail_logs(self, lines: int) -> str:
        """The last lines of the user's container's log."""

    def delete(self) -> None:
        """Deletes the pod and its input files. Not called for a pod to keep."""


class Pods(Protocol):
    """Where the pods of calls run."""

    def create(self, spec: SimpleNamespace) -> Pod:
        """Creates a pod from a `pod-spec`, not waiting for its start. Where that raises, it leaves nothing."""
