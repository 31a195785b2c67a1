import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load, UnknownHandler } from 'hops-k8s';
import { ScriptedPods, Vector, vectorSpec } from './vectors.js';

const plugin = await load(process.env.HOPS_PLUGIN);

async function play(vector) {
  const pods = new ScriptedPods(vector);
  return { pods, result: await plugin.call(vector.handler, vector.inputs, pods, { clocks: pods.clocks }) };
}

test('every vector gives its result', async (t) => {
  const vectors = Vector.all();
  let passed = 0;
  for (const vector of vectors) {
    await t.test(vector.name, async () => {
      await check(vector);
      passed += 1;
    });
  }
  console.log(`Node: ${passed} of ${vectors.length} vectors passed`);
});

async function check(vector) {
  const expected = vector.data;
  if (expected['call-error']) {
    const error = await play(vector).then(assert.fail, (error) => error);
    assert(error instanceof UnknownHandler, error);
    assert.deepEqual({ 'unknown-handler': error.message }, expected['call-error']);
    return;
  }
  const { result, pods } = await play(vector);
  assert.equal(result, expected.result);
  assert.equal(pods.left, expected['pods-left'] ?? 0);
  if (expected.spec) assert.deepEqual(pods.specs.map(vectorSpec), [expected.spec]);
}

test('the plugin describes itself', async () => {
  const { name, handlers } = await plugin.describe();
  assert.equal(name, 'k8s');
  assert.deepEqual(handlers.map((handler) => handler.name), ['run']);
  assert('image' in JSON.parse(handlers[0].inputsSchema).properties);
});

/** The pods of the vector `immediate`, with another `wait`. */
function podsThatWait(wait) {
  const pods = new ScriptedPods(new Vector('immediate'));
  const create = pods.create.bind(pods);
  pods.create = async (spec) => Object.assign(await create(spec), { wait });
  return pods;
}

test('pods are deleted when the host fails', async () => {
  const failure = new TypeError('a defect of the host');
  const pods = podsThatWait(() => Promise.reject(failure));
  const error = await plugin.call('run', '{"image": "bash:5"}', pods).catch((error) => error);
  assert.equal(error, failure);
  assert.deepEqual([pods.specs.length, pods.left], [1, 0]);
});

test('pods are deleted when the call is cancelled', async () => {
  const pods = podsThatWait(() => new Promise(() => {}));
  const signal = AbortSignal.timeout(20);
  const error = await plugin.call('run', '{"image": "bash:5"}', pods, { signal }).catch((error) => error);
  assert.equal(error, signal.reason);
  assert.deepEqual([pods.specs.length, pods.left], [1, 0]);
});

test('many calls run side by side', async () => {
  const calls = Array.from({ length: 100 }, async (_, number) => {
    const pods = new ScriptedPods(new Vector('immediate'));
    const create = pods.create.bind(pods);
    pods.create = async (spec) => {
      await new Promise((resolve) => setTimeout(resolve, number % 7));
      return Object.assign(await create(spec), { readFile: async () => Buffer.from(`${number}`) });
    };
    return JSON.parse(await plugin.call('run', '{"image": "bash:5"}', pods)).json;
  });
  assert.deepEqual(await Promise.all(calls), Array.from(calls.keys()));
});

test('overhead', async () => {
  const vector = new Vector('immediate');
  const times = [];
  for (let call = 0; call < 1000; call += 1) {
    const start = performance.now();
    await play(vector);
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  console.log(`Node: median of ${times.length} calls: ${Math.round(times[times.length / 2] * 1000)} µs`);
});
