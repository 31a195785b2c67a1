// Reads and plays the test vectors, which `vectors/README.md` describes.

import { readdirSync, readFileSync } from 'node:fs';
import { PodError } from 'hops-k8s';

const FOLDER = new URL('../../../vectors/', import.meta.url);

export class Vector {
  constructor(name) {
    this.name = name;
    this.data = JSON.parse(readFileSync(new URL(`${name}.json`, FOLDER)));
  }

  static all() {
    const files = readdirSync(FOLDER).filter((file) => file.endsWith('.json'));
    return files.sort().map((file) => new Vector(file.slice(0, -'.json'.length)));
  }

  get handler() {
    return this.data.handler ?? 'run';
  }

  get inputs() {
    return this.data['inputs-text'] ?? JSON.stringify(this.data.inputs);
  }
}

/** Pods in memory that do what a vector says, and clocks that run with them. */
export class ScriptedPods {
  specs = [];
  left = 0;
  ms = 0;

  constructor(vector) {
    this.script = vector.data.pod ?? {};
    const start = Date.parse(vector.data.time);
    const nanoseconds = (ms) => BigInt(ms) * 1_000_000n;
    this.clocks = { wall: () => nanoseconds(start + this.ms), monotonic: () => nanoseconds(this.ms) };
  }

  async create(spec) {
    this.specs.push(spec);
    if (this.script.refused) throw podError(this.script.refused);
    this.left += 1;
    return new ScriptedPod(this);
  }
}

class ScriptedPod {
  name = 'pod-1';
  #pods;
  #states;

  constructor(pods) {
    this.#pods = pods;
    this.#states = [...(pods.script.states ?? [])];
  }

  async wait(timeoutMs) {
    const [state] = this.#states;
    const { lost } = this.#pods.script;
    if (!state && lost) throw podError(lost);
    if (!state || state['at-ms'] > this.#pods.ms + timeoutMs) {
      this.#pods.ms += timeoutMs;
      return undefined;
    }
    this.#states.shift();
    this.#pods.ms = Math.max(this.#pods.ms, state['at-ms']);
    return podStatus(state);
  }

  async readFile(path) {
    const file = this.#pods.script.files?.[path];
    if (!file) return undefined;
    if (file.error) throw podError(file.error);
    return 'text' in file ? Buffer.from(file.text) : Buffer.from(file.base64, 'base64');
  }

  async tailLogs(lines) {
    return (this.#pods.script.log ?? '').replace(/\n$/, '').split('\n').slice(-lines).join('\n');
  }

  async delete() {
    this.#pods.left -= 1;
  }
}

/** Writes a spec as vectors do. */
export function vectorSpec(spec) {
  const entries = Object.entries({ serviceAccount: null, ...spec }).map(([name, value]) => [
    name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`),
    typeof value === 'bigint' ? Number(value) : value ?? null,
  ]);
  const files = spec.inputFiles.map(({ path, content }) => ({ path, text: Buffer.from(content).toString() }));
  return { ...Object.fromEntries(entries), 'input-files': files };
}

function podStatus(state) {
  const nothing = { reason: '', message: '' };
  return {
    phase: state.phase ?? 'pending',
    cause: state.cause ?? nothing,
    unschedulable: state.unschedulable,
    waitsForRoom: state['waits-for-room'] ?? false,
    disruption: state.disruption,
    deleted: state.deleted ?? false,
    main: containerState(state.main ?? { waiting: nothing }),
    sidecar: state.sidecar && containerState(state.sidecar),
  };
}

function containerState(state) {
  if (state === 'running') return { tag: 'running' };
  const [[tag, val]] = Object.entries(state);
  return { tag, val: tag === 'terminated' ? { ...val, exitCode: val['exit-code'] } : val };
}

function podError(error) {
  const [[tag, val]] = Object.entries(error);
  return new PodError(tag, tag === 'too-large' ? { size: BigInt(val.size), limit: BigInt(val.limit) } : val);
}
