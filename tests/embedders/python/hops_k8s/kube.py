"""Pods on a Kubernetes cluster."""

from __future__ import annotations

import json
import math
import os
import time
import uuid
from base64 import b64encode
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from types import SimpleNamespace
from urllib.parse import quote

from kubernetes.client import ApiClient, ApiException, CoreV1Api, V1ContainerState, V1Pod
from kubernetes.stream import portforward
from kubernetes.watch import Watch
from urllib3.exceptions import HTTPError, ReadTimeoutError
from wasmtime.component import Record, Variant

from .pods import NO_CAUSE, PodError, pod_status, record

MAIN, SIDECAR, PORT = "main", "hiphops-sidecar", 8917
MAX_INPUT, MAX_RESULT = 1024 * 1024, 8 * 1024 * 1024
LABELS = {"app.kubernetes.io/managed-by": "hops-k8s", "hiphops-io/for": "workflow-step"}


class KubePods:
    """Pods on a cluster. Inside it their results are read at their addresses, from outside by port-forward."""

    def __init__(self, api: CoreV1Api):
        self._api = api

    def create(self, spec: SimpleNamespace) -> KubePod:
        for name in ("service_account", "image_pull_secrets", "node_selector"):
            if getattr(spec, name):
                raise PodError("policy-denied", f"this host does not allow {name}; leave it out")
        size = sum(len(file.content) for file in spec.input_files)
        if size > MAX_INPUT:
            raise PodError("too-large", record(size=size, limit=MAX_INPUT))
        pod = KubePod(self._api, spec.namespace)
        try:
            pod.create(spec)
        except BaseException:
            with suppress(PodError):
                pod.delete()
            raise
        return pod


class KubePod:
    def __init__(self, api: CoreV1Api, namespace: str):
        self._api, self._namespace, self.name = api, namespace, f"hops-{uuid.uuid4()}"
        self._seen, self._deleted, self._reported = None, False, None

    def create(self, spec: SimpleNamespace) -> None:
        pod = _manifest(self.name, spec)
        self._seen = self._request("create", "pods", self._api.create_namespaced_pod, self._namespace, pod)
        if spec.input_files:
            owner = {"apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": self._seen.metadata.uid}
            data = {f"f{number}": b64encode(file.content).decode() for number, file in enumerate(spec.input_files)}
            files = {"metadata": {"name": self.name, "labels": LABELS, "ownerReferences": [owner]}, "binaryData": data}
            self._request("create", "configmaps", self._api.create_namespaced_config_map, self._namespace, files)

    def wait(self, timeout_ms: int) -> Record | None:
        end = time.monotonic() + timeout_ms / 1000
        while (status := _status(self._seen, self._deleted)) == self._reported:
            if (left := end - time.monotonic()) <= 0:
                return None
            self._request("watch", "pods", self._see_next, min(left, 60))
        self._reported = status
        return status

    def _see_next(self, seconds: float) -> None:
        events = Watch().stream(
            self._api.list_namespaced_pod, self._namespace, field_selector=f"metadata.name={self.name}",
            resource_version=self._seen.metadata.resource_version,
            timeout_seconds=math.ceil(seconds), _request_timeout=(5, seconds),
        )
        try:
            if event := next(events, None):
                self._seen, self._deleted = event["object"], event["type"] == "DELETED"
        except ReadTimeoutError:
            pass
        except ApiException as error:
            if error.status != 410:  # The version that was seen last is too old to continue from.
                raise
            self._seen = self._api.read_namespaced_pod(self.name, self._namespace)

    def read_file(self, path: str) -> bytes | None:
        return self._request("get", "pods/portforward", self._fetch, "/" + quote(path))

    def _fetch(self, path: str) -> bytes | None:
        connection = HTTPConnection(self._seen.status.pod_ip, PORT, timeout=5)
        if "KUBERNETES_SERVICE_HOST" not in os.environ:
            # portforward changes its client while it runs, so it gets a client of its own.
            forward = CoreV1Api(ApiClient(self._api.api_client.configuration)).connect_get_namespaced_pod_portforward
            connection.sock = portforward(forward, self.name, self._namespace, ports=str(PORT)).socket(PORT)
            connection.sock.settimeout(5)
        with closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            if response.status == 404:
                return None
            if response.status < 500 and response.status != 200:
                answer = f"the result server answered {response.status}"
                raise PodError("other", f"{answer}; check that the result is a regular file")
            if response.status != 200 or response.length is None:
                raise HTTPException(f"the result server answered {response.status} with {response.length} bytes")
            if response.length > MAX_RESULT:
                raise PodError("too-large", record(size=response.length, limit=MAX_RESULT))
            return response.read()  # Raises IncompleteRead if the body is shorter than announced.

    def tail_logs(self, lines: int) -> str:
        def read() -> bytes:
            # Without preloading, since that fails if the log is not UTF-8.
            return self._api.read_namespaced_pod_log(
                self.name, self._namespace, container=MAIN, tail_lines=lines, _preload_content=False
            ).data

        return self._request("get", "pods/log", read).decode(errors="replace")

    def delete(self) -> None:
        delete = self._api.delete_namespaced_pod
        try:
            self._request("delete", "pods", delete, self.name, self._namespace, grace_period_seconds=1)
        except PodError as error:
            if error.variant.tag != "gone":
                raise

    def _request(self, verb: str, resource: str, send, *args, **kwargs):
        for pause in (0.2, 0.5, 1, 2, 4, 8, None):
            try:
                return send(*args, **kwargs)
            except (ApiException, HTTPError, HTTPException, OSError) as error:
                code = getattr(error, "status", None) or 503
                if pause is None or code not in (409, 429, 500, 502, 503, 504):
                    rule = record(verb=verb, resource=resource, namespace=self._namespace)
                    raise _explained(code, error, rule) from error
            time.sleep(pause)


def _explained(code: int, error: Exception, rule: Record) -> PodError:
    try:
        message = json.loads(error.body)["message"]
    except (AttributeError, TypeError, ValueError):
        message = str(getattr(error, "reason", None) or error)
    match code:
        case 403 if "exceeded quota" in message:
            return PodError("quota-exceeded", message)
        case 401 | 403:
            return PodError("forbidden", record(message=message, missing=rule if " cannot " in message else None))
        case 404 if message.startswith("namespaces "):
            return PodError("invalid", f'namespace "{rule.namespace}" does not exist; create it or name another')
        case 404 | 410:
            return PodError("gone", message)
        case 400 | 413 | 422:
            return PodError("invalid", message)
        case 429 | 500 | 502 | 503 | 504:
            return PodError("unavailable", f"no answer to {rule.verb} {rule.resource}: {message}; check the cluster")
    return PodError("other", f"the API server answered {code}: {message}")


def _status(pod: V1Pod, deleted: bool) -> Record:
    conditions = {(condition.type, condition.status): condition for condition in pod.status.conditions or []}
    unscheduled = conditions.get(("PodScheduled", "False"))
    disruption = conditions.get(("DisruptionTarget", "True"))
    states = {container.name: _state(container.state) for container in pod.status.container_statuses or []}
    return pod_status(
        phase=pod.status.phase.lower(), cause=_cause(pod.status),
        unschedulable=unscheduled and (unscheduled.message or ""),
        disruption=disruption and _cause(disruption),
        deleted=deleted or pod.metadata.deletion_timestamp is not None,
        main=states.get(MAIN, Variant("waiting", NO_CAUSE)),
        sidecar=states.get(SIDECAR, Variant("waiting", NO_CAUSE)),
    )


def _state(state: V1ContainerState) -> Variant:
    if end := state.terminated:
        return Variant("terminated", record(exit_code=end.exit_code, **vars(_cause(end))))
    return Variant("running") if state.running else Variant("waiting", _cause(state.waiting))


def _cause(of) -> Record:
    return record(reason=getattr(of, "reason", None) or "", message=getattr(of, "message", None) or "")


def _manifest(name: str, spec: SimpleNamespace) -> dict:
    resources = {"cpu": spec.cpu, "memory": spec.memory}
    volumes = [{"name": "hiphops", "emptyDir": {}}]
    mounts = [{"name": "hiphops", "mountPath": spec.output_dir}]
    if spec.input_files:
        items = [{"key": f"f{number}", "path": file.path} for number, file in enumerate(spec.input_files)]
        volumes.append({"name": "hiphops-input", "configMap": {"name": name, "items": items}})
        mounts.append({"name": "hiphops-input", "mountPath": spec.input_dir, "readOnly": True})
    main = {
        "name": MAIN, "image": spec.image, "command": spec.command, "args": spec.args, "volumeMounts": mounts,
        "env": [{"name": name, "value": value} for name, value in dict(spec.env).items()],
        "resources": {"requests": resources, "limits": resources}, "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    sidecar = {
        "name": SIDECAR, "image": "halverneus/static-file-server:v1.8.10",
        "env": [{"name": "PORT", "value": str(PORT)}, {"name": "FOLDER", "value": "/output"}],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
        "volumeMounts": [{"name": "hiphops", "mountPath": "/output", "readOnly": True}],
        "securityContext": {  # May read all that the user's container wrote, and nothing else.
            "runAsUser": 0, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": ["DAC_OVERRIDE"]}, "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {"metadata": {"name": name, "labels": LABELS}, "spec": {
        "containers": [main, sidecar], "volumes": volumes, "restartPolicy": "Never",
        "activeDeadlineSeconds": max(1, math.ceil(spec.lifetime_ms / 1000)), "enableServiceLinks": False,
        "automountServiceAccountToken": False,
    }}
