import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, mock, suite, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CoreV1Api, KubeConfig, PortForward } from '@kubernetes/client-node';
import { load } from 'hops-k8s';
import { KubePods } from 'hops-k8s/kube';

const LABEL = 'app.kubernetes.io/managed-by=hops-k8s';
const EXAMPLE = {
  image: 'bash:5-alpine3.18',
  command: ['bash', '-c', `echo '{"greeting": "Hello world!"}' > /output/result.json`],
  args: [],
  namespace: '',
  in_dir: '',
  in_files: { 'foo.txt': 'bar' },
  out_dir: '',
  out_path: '',
  cpu: '100m',
  memory: '500Mi',
  skip_cleanup: false,
};
const skip = process.env.KUBECONFIG ? false : 'KUBECONFIG is not set: there is no cluster to test on';

test('results are read by port-forward, again if it fails at once', async () => {
  const answers = [
    (output, errors) => errors.write(Buffer.from('connection refused')),
    (output) => setImmediate(output.write, Buffer.from('HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole')),
  ];
  let closed = 0;
  const forward = mock.method(PortForward.prototype, 'portForward', async (namespace, name, ports, output, errors) => {
    answers.shift()(output, errors);
    return { close: () => (closed += 1) };
  });
  const created = { metadata: {}, status: { podIP: '10.0.0.1' } };
  const pods = new KubePods({ makeApiClient: () => ({ createNamespacedPod: async () => created }) });
  const spec = { namespace: 'default', inputFiles: [], env: [], lifetimeMs: 1000n };
  const pod = await pods.create(spec, new AbortController().signal);
  assert.equal(String(await pod.readFile('result.json')), 'whole');
  assert.equal(closed, 2);
  forward.mock.restore();
});

suite('on a cluster', { skip }, () => {
  const namespace = `hops-node-${randomUUID().slice(0, 8)}`;
  const config = new KubeConfig();
  let api;
  let plugin;

  before(async () => {
    config.loadFromDefault();
    api = config.makeApiClient(CoreV1Api);
    await api.createNamespace({ body: { metadata: { name: namespace } } });
    plugin = await load(process.env.HOPS_PLUGIN);
  });
  after(() => api.deleteNamespace({ name: namespace }));

  async function call(inputs, options) {
    const text = JSON.stringify({ ...EXAMPLE, namespace, ...inputs });
    return JSON.parse(await plugin.call('run', text, new KubePods(config), options));
  }

  const bash = (script, inputs, options) =>
    call({ command: ['bash', '-c', script], memory: '50Mi', ...inputs }, options);

  async function until(what, isSo) {
    const end = performance.now() + 30_000;
    while (!(await isSo())) {
      assert(performance.now() < end, `30 seconds passed, and this is not so: ${what}`);
      await sleep(200);
    }
  }

  const pods = async () => (await api.listNamespacedPod({ namespace, labelSelector: LABEL })).items;
  const files = async () => (await api.listNamespacedConfigMap({ namespace, labelSelector: LABEL })).items;
  const nothingIsLeft = () =>
    until('nothing is left', async () => (await pods()).length + (await files()).length === 0);

  test("the document's example gives its JSON", async () => {
    const { errored, json, hops } = await call({});
    assert.deepEqual([errored, hops.error, json], [false, null, { greeting: 'Hello world!' }]);
    await nothingIsLeft();
  });

  test('inside the cluster results are read at the addresses of pods', async () => {
    process.env.KUBERNETES_SERVICE_HOST = '10.0.0.1';
    try {
      const inputs = { in_files: { 'a/ü 雪': 'é' }, out_path: 'x y' };
      const { hops, body } = await bash("cat '/input/a/ü 雪' > '/output/x y'", inputs);
      assert.deepEqual([hops.error, body], [null, 'é']);
    } finally {
      delete process.env.KUBERNETES_SERVICE_HOST;
    }
  });

  test('failures are explained', async () => {
    const error = async (...call) => (await bash(...call)).hops.error;
    assert.equal(await error('echo oh no; exit 3'), 'Error: container exited with code 3\noh no');
    assert.equal(
      await error('true', { namespace: 'there-is-none' }),
      'InvalidInputs: namespace "there-is-none" does not exist; create it or name another',
    );
    assert.equal(
      await error('true', { node_selector: { a: 'b' } }),
      'PolicyDenied: this host does not allow node_selector; leave it out',
    );
    assert.match(
      await error('echo before; sleep 600', { timeout: '2s' }),
      /^Timeout: the container ran longer than 2s .*\nbefore$/,
    );
  });

  test('a call that is cancelled leaves nothing', async () => {
    const cancel = new AbortController();
    const cancelled = bash('sleep 600', {}, { signal: cancel.signal });
    cancelled.catch(() => {});
    await until('the pod runs', async () => (await pods())[0]?.status.phase === 'Running');
    cancel.abort();
    await assert.rejects(cancelled, { name: 'AbortError' });
    await nothingIsLeft();
  });
});
