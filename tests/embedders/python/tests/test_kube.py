import json
import os
import time
import unittest
import uuid
from http.client import HTTPConnection
from unittest import mock

from kubernetes import config
from kubernetes.client import CoreV1Api

from hops_k8s import Plugin
from hops_k8s.kube import KubePods

LABEL = "app.kubernetes.io/managed-by=hops-k8s"
EXAMPLE = {
    "image": "bash:5-alpine3.18",
    "command": ["bash", "-c", "echo '{\"greeting\": \"Hello world!\"}' > /output/result.json"],
    "args": [],
    "namespace": "",
    "in_dir": "",
    "in_files": {"foo.txt": "bar"},
    "out_dir": "",
    "out_path": "",
    "cpu": "100m",
    "memory": "500Mi",
    "skip_cleanup": False,
}


@unittest.skipUnless("KUBECONFIG" in os.environ, "KUBECONFIG is not set: there is no cluster to test on")
class KubeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        config.load_kube_config()
        cls.api, cls.plugin = CoreV1Api(), Plugin(os.environ["HOPS_PLUGIN"])
        cls.namespace = f"hops-python-{uuid.uuid4().hex[:8]}"
        cls.api.create_namespace({"metadata": {"name": cls.namespace}})
        cls.addClassCleanup(cls.api.delete_namespace, cls.namespace)

    def call(self, **inputs) -> dict:
        inputs = EXAMPLE | {"namespace": self.namespace} | inputs
        return json.loads(self.plugin.call("run", json.dumps(inputs), KubePods(self.api)))

    def bash(self, script: str, **inputs) -> dict:
        return self.call(command=["bash", "-c", script], memory="50Mi", **inputs)

    def assert_nothing_is_left(self):
        end = time.monotonic() + 30
        while self.api.list_namespaced_pod(self.namespace, label_selector=LABEL).items or \
                self.api.list_namespaced_config_map(self.namespace, label_selector=LABEL).items:
            self.assertLess(time.monotonic(), end, "a pod or its input files are left")
            time.sleep(0.2)

    def test_the_documents_example_gives_its_json(self):
        document = self.call()
        self.assertEqual((document["errored"], document["json"]), (False, {"greeting": "Hello world!"}), document)
        self.assert_nothing_is_left()

    def test_outside_the_cluster_results_are_read_by_port_forward(self):
        with mock.patch.object(HTTPConnection, "connect", side_effect=OSError("there is no way to the pod's address")):
            document = self.bash("echo -n far > /output/result.json")
        self.assertEqual((document["hops"]["error"], document["body"]), (None, "far"))

    def test_inside_the_cluster_results_are_read_at_the_addresses_of_pods(self):
        with mock.patch.dict(os.environ, KUBERNETES_SERVICE_HOST="10.0.0.1"):
            document = self.bash("cat '/input/a/ü 雪' > '/output/x y'", in_files={"a/ü 雪": "é"}, out_path="x y")
        self.assertEqual((document["hops"]["error"], document["body"]), (None, "é"))

    def test_failures_are_explained(self):
        self.assertEqual(self.bash("echo oh no; exit 3")["hops"]["error"], "Error: container exited with code 3\noh no")
        error = self.bash("true", namespace="there-is-none")["hops"]["error"]
        self.assertEqual(error, 'InvalidInputs: namespace "there-is-none" does not exist; create it or name another')
        error = self.bash("true", node_selector={"a": "b"})["hops"]["error"]
        self.assertEqual(error, "PolicyDenied: this host does not allow node_selector; leave it out")

    def test_a_log_that_is_not_utf_8_is_shown_as_far_as_it_can_be_read(self):
        error = self.bash(r"printf 'a\xffb\n'; sleep 600", timeout="2s")["hops"]["error"]
        self.assertRegex(error, "^Timeout: .*\na\ufffdb$")

    def test_a_timeout_ends_the_pod(self):
        error = self.bash("echo before; sleep 600", timeout="2s")["hops"]["error"]
        self.assertRegex(error, "^Timeout: the container ran longer than 2s .*\nbefore$")
        self.assert_nothing_is_left()
