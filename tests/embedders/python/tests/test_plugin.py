import json
import os
import statistics
import sys
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

from hops_k8s import Plugin, UnknownHandler

from .vectors import ScriptedPod, ScriptedPods, Vector, spec_of

plugin = Plugin(os.environ["HOPS_PLUGIN"])


def play(vector: Vector) -> tuple[str, ScriptedPods]:
    pods = ScriptedPods(vector)
    return plugin.call(vector.handler, vector.inputs, pods, clocks=pods.clocks), pods


class PluginTest(unittest.TestCase):
    maxDiff = None

    def test_every_vector_gives_its_result(self):
        vectors, passed = Vector.all(), 0
        for vector in vectors:
            with self.subTest(vector.name):
                self._check(vector)
                passed += 1
        print(f"\nPython: {passed} of {len(vectors)} vectors passed")

    def _check(self, vector: Vector):
        expected = vector.data
        if "call-error" in expected:
            with self.assertRaises(UnknownHandler) as raised:
                play(vector)
            self.assertEqual({"unknown-handler": str(raised.exception)}, expected["call-error"])
            return
        result, pods = play(vector)
        self.assertEqual(result, expected["result"])
        self.assertEqual(pods.left, expected.get("pods-left", 0))
        if "spec" in expected:
            self.assertEqual([spec_of(spec) for spec in pods.specs], [expected["spec"]])

    def test_the_plugin_describes_itself(self):
        description = plugin.describe()
        self.assertEqual(description.name, "k8s")
        self.assertEqual([handler.name for handler in description.handlers], ["run"])
        self.assertIn("image", json.loads(description.handlers[0].inputs_schema)["properties"])

    def test_pods_are_deleted_when_the_host_fails(self):
        for failure in (ZeroDivisionError, KeyboardInterrupt):
            with self.subTest(failure):
                class FailingPod(ScriptedPod):
                    def wait(self, timeout_ms):
                        raise failure

                pods = ScriptedPods(Vector("immediate"), FailingPod)
                with self.assertRaises(failure):
                    plugin.call("run", '{"image": "bash:5"}', pods)
                self.assertEqual((len(pods.specs), pods.left), (1, 0))

    def test_many_threads_share_a_plugin(self):
        vector, interval = Vector("immediate"), sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        self.addCleanup(sys.setswitchinterval, interval)
        with ThreadPoolExecutor(8) as threads:
            results = {result for result, _ in threads.map(play, [vector] * 500)}
        self.assertEqual(results, {vector.data["result"]})

    def test_overhead(self):
        vector, times = Vector("immediate"), []
        for _ in range(1000):
            start = time.perf_counter()
            play(vector)
            times.append(time.perf_counter() - start)
        print(f"\nPython: median of {len(times)} calls: {statistics.median(times) * 1e6:.0f} µs")
