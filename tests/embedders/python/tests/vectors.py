"""Reads and plays the test vectors, which `vectors/README.md` describes."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

from wasmtime.component import Record, Variant

from hops_k8s.pods import Pod, PodError, Pods, pod_status, record

FOLDER = Path(__file__).parents[3] / "vectors"
MS = 1_000_000


class Vector:
    def __init__(self, name: str):
        self.name = name
        self.data = json.loads((FOLDER / f"{name}.json").read_text())

    @classmethod
    def all(cls) -> list[Vector]:
        return [cls(path.stem) for path in sorted(FOLDER.glob("*.json"))]

    @property
    def handler(self) -> str:
        return self.data.get("handler", "run")

    @property
    def inputs(self) -> str:
        return self.data["inputs-text"] if "inputs-text" in self.data else json.dumps(self.data["inputs"])


class ScriptedClocks:
    def __init__(self, start: str):
        since_1970 = datetime.fromisoformat(start.replace("Z", "+00:00")).timestamp()
        self._start, self.ms = round(since_1970 * 1000), 0

    def time_ns(self) -> int:
        return (self._start + self.ms) * MS

    def monotonic_ns(self) -> int:
        return self.ms * MS


class ScriptedPods(Pods):
    def __init__(self, vector: Vector, pod: type[ScriptedPod] | None = None):
        self._pod = pod or ScriptedPod
        self._script = vector.data.get("pod", {})
        self.clocks = ScriptedClocks(vector.data["time"])
        self.specs: list[SimpleNamespace] = []
        self.left = 0

    def create(self, spec: SimpleNamespace) -> Pod:
        self.specs.append(spec)
        if "refused" in self._script:
            raise _error(self._script["refused"])
        self.left += 1
        return self._pod(self, self._script)


class ScriptedPod(Pod):
    name = "pod-1"

    def __init__(self, pods: ScriptedPods, script: dict):
        self._pods, self._script = pods, script
        self._states = list(script.get("states", []))

    def wait(self, timeout_ms: int) -> Record | None:
        clocks = self._pods.clocks
        if not self._states and "lost" in self._script:
            raise _error(self._script["lost"])
        if not self._states or self._states[0]["at-ms"] > clocks.ms + timeout_ms:
            clocks.ms += timeout_ms
            return None
        state = self._states.pop(0)
        clocks.ms = max(clocks.ms, state["at-ms"])
        return _status(state)

    def read_file(self, path: str) -> bytes | None:
        match self._script.get("files", {}).get(path):
            case None:
                return None
            case {"text": text}:
                return text.encode()
            case {"base64": text}:
                return base64.b64decode(text)
            case {"error": error}:
                raise _error(error)

    def tail_logs(self, lines: int) -> str:
        return "\n".join(self._script.get("log", "").removesuffix("\n").split("\n")[-lines:])

    def delete(self) -> None:
        self._pods.left -= 1


def spec_of(spec: SimpleNamespace) -> dict:
    """Writes a spec as vectors do."""
    values = {name.replace("_", "-"): value for name, value in vars(spec).items()}
    values["input-files"] = [{"path": file.path, "text": file.content.decode()} for file in spec.input_files]
    return json.loads(json.dumps(values))


def _status(state: dict) -> Record:
    values = _record({name: value for name, value in state.items() if name not in ("at-ms", "main", "sidecar")})
    for name in ("main", "sidecar"):
        if name in state:
            setattr(values, name, _variant(state[name]))
    return pod_status(**{name.replace("-", "_"): value for name, value in vars(values).items()})


def _error(error: dict) -> PodError:
    variant = _variant(error)
    if variant.tag == "forbidden":
        variant.payload = record(**{"missing": None, **vars(variant.payload)})
    return PodError(variant.tag, variant.payload)


def _variant(value: str | dict) -> Variant:
    if isinstance(value, str):
        return Variant(value)
    ((tag, payload),) = value.items()
    return Variant(tag, _record(payload))


def _record(value):
    return record(**{name: _record(of) for name, of in value.items()}) if isinstance(value, dict) else value
