// Pods on a Kubernetes cluster.

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { get } from 'node:http';
import { Duplex, PassThrough } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { ApiException, CoreV1Api, PortForward, Watch } from '@kubernetes/client-node';
import { PodError } from './plugin.js';

const MAIN = 'main';
const SIDECAR = 'hiphops-sidecar';
const PORT = 8917;
const LABELS = { 'app.kubernetes.io/managed-by': 'hops-k8s', 'hiphops-io/for': 'workflow-step' };
const MAX_INPUT = 1024 * 1024;
const MAX_RESULT = 8 * 1024 * 1024;
/** The pauses between attempts of a request that may yet succeed, in milliseconds. */
const PAUSES = [200, 500, 1000, 2000, 4000, 8000];

/** Pods on a cluster. Inside it their results are read at their addresses, from outside by port-forward. */
export class KubePods {
  #config;

  constructor(config) {
    this.#config = config;
  }

  async create(spec, signal) {
    for (const name of ['serviceAccount', 'imagePullSecrets', 'nodeSelector']) {
      if (spec[name]?.length) {
        const input = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
        throw new PodError('policy-denied', `this host does not allow ${input}; leave it out`);
      }
    }
    const size = spec.inputFiles.reduce((sum, file) => sum + file.content.length, 0);
    if (size > MAX_INPUT) throw new PodError('too-large', { size: BigInt(size), limit: BigInt(MAX_INPUT) });
    const pod = new KubePod(this.#config, spec.namespace, signal);
    try {
      await pod.create(spec);
    } catch (error) {
      await pod.delete().catch(() => {});
      throw error;
    }
    return pod;
  }
}

class KubePod {
  name = `hops-${randomUUID()}`;
  namespace;
  #config;
  #api;
  #signal;
  #seen;
  #deleted = false;
  #reported;

  constructor(config, namespace, signal) {
    this.#config = config;
    this.#api = config.makeApiClient(CoreV1Api);
    this.namespace = namespace;
    this.#signal = signal;
  }

  async create(spec) {
    const { namespace } = this;
    const pod = manifest(this.name, spec);
    this.#seen = await this.#request('create', 'pods', () => this.#api.createNamespacedPod({ namespace, body: pod }));
    if (spec.inputFiles.length > 0) {
      const files = {
        metadata: {
          name: this.name,
          labels: LABELS,
          ownerReferences: [{ apiVersion: 'v1', kind: 'Pod', name: this.name, uid: this.#seen.metadata.uid }],
        },
        binaryData: Object.fromEntries(
          spec.inputFiles.map(({ content }, number) => [`f${number}`, Buffer.from(content).toString('base64')]),
        ),
      };
      const create = () => this.#api.createNamespacedConfigMap({ namespace, body: files });
      await this.#request('create', 'configmaps', create);
    }
  }

  async wait(timeoutMs) {
    const end = performance.now() + timeoutMs;
    for (;;) {
      const status = podStatus(this.#seen, this.#deleted);
      if (!isDeepStrictEqual(status, this.#reported)) {
        this.#reported = status;
        return status;
      }
      const left = end - performance.now();
      if (left <= 0) return undefined;
      await this.#request('watch', 'pods', () => this.#seeNext(Math.min(left, 25_000)));
    }
  }

  /** Waits for the next event. No event is lost between two calls. */
  async #seeNext(timeoutMs) {
    const { promise, resolve, reject } = Promise.withResolvers();
    const nothing = () => resolve();
    const timer = setTimeout(nothing, timeoutMs);
    this.#signal.addEventListener('abort', nothing);
    const { name, namespace } = this;
    const watching = await new Watch(this.#config).watch(
      `/api/v1/namespaces/${namespace}/pods`,
      { fieldSelector: `metadata.name=${name}`, resourceVersion: this.#seen.metadata.resourceVersion },
      (type, object) => resolve({ type, object }),
      (error) => (error ? reject(error) : resolve()),
    );
    try {
      const event = await promise;
      this.#signal.throwIfAborted();
      if (event?.type === 'ERROR') {
        // The version that was seen last is too old to continue from.
        this.#seen = await this.#api.readNamespacedPod({ name, namespace });
      } else if (event) {
        this.#seen = event.object;
        this.#deleted = event.type === 'DELETED';
      }
    } finally {
      clearTimeout(timer);
      this.#signal.removeEventListener('abort', nothing);
      watching.abort();
    }
  }

  readFile(path) {
    const encoded = path.split('/').map(encodeURIComponent).join('/');
    return this.#request('get', 'pods/portforward', () => this.#fetch(`/${encoded}`));
  }

  async #fetch(path) {
    const signal = AbortSignal.any([this.#signal, AbortSignal.timeout(15_000)]);
    const socket = 'KUBERNETES_SERVICE_HOST' in process.env ? undefined : await this.#forward();
    // With any `agent`, false included, Node ignores `createConnection`.
    const connection = socket ? { createConnection: () => socket } : { agent: false };
    const request = get({ host: this.#seen.status.podIP, port: PORT, path, signal, ...connection });
    try {
      const [response] = await once(request, 'response');
      const length = Number(response.headers['content-length'] ?? NaN);
      if (response.statusCode === 404) return undefined;
      if (response.statusCode !== 200 && response.statusCode < 500) {
        const answer = `the result server answered ${response.statusCode}`;
        throw new PodError('other', `${answer}; check that the result is a regular file`);
      }
      if (response.statusCode !== 200 || Number.isNaN(length)) {
        throw new Error(`the result server answered ${response.statusCode} with ${length} bytes`);
      }
      if (length > MAX_RESULT) throw new PodError('too-large', { size: BigInt(length), limit: BigInt(MAX_RESULT) });
      return await buffer(response); // Fails if the body is shorter than announced.
    } finally {
      request.on('error', () => {}).destroy();
      socket?.destroy();
    }
  }

  /** Opens a connection to the pod through the API server. */
  async #forward() {
    const input = new PassThrough();
    let webSocket;
    const socket = new Duplex({
      read() {},
      write: (data, encoding, done) => input.write(data, encoding, done),
      destroy(error, done) {
        webSocket?.close();
        done(error);
      },
    });
    // An error may come before anybody reads from the socket.
    socket.on('error', () => {});
    const output = { write: (data) => socket.push(data) };
    const errors = { write: (data) => data.length > 0 && socket.destroy(new Error(String(data))) };
    const forward = new PortForward(this.#config);
    webSocket = await forward.portForward(this.namespace, this.name, [PORT], output, errors, input);
    if (socket.destroyed) {
      webSocket.close();
      throw socket.errored;
    }
    webSocket.onclose = () => socket.push(null);
    return socket;
  }

  tailLogs(tailLines) {
    const { name, namespace } = this;
    const log = { name, namespace, container: MAIN, tailLines };
    return this.#request('get', 'pods/log', () => this.#api.readNamespacedPodLog(log));
  }

  async delete() {
    const { name, namespace } = this;
    try {
      const pod = { name, namespace, gracePeriodSeconds: 1 };
      await this.#request('delete', 'pods', () => this.#api.deleteNamespacedPod(pod));
    } catch (error) {
      if (error.payload?.tag !== 'gone') throw error;
    }
  }

  async #request(verb, resource, send) {
    for (const pause of [...PAUSES, undefined]) {
      try {
        return await send();
      } catch (error) {
        // A call that was cancelled makes no further attempt, except to delete its pod.
        if (error instanceof PodError || (this.#signal.aborted && verb !== 'delete')) throw error;
        const code = statusCode(error);
        if (pause === undefined || ![409, 429, 500, 502, 503, 504].includes(code)) {
          throw explained(code, error, { verb, resource, namespace: this.namespace });
        }
      }
      await sleep(pause);
    }
  }
}

function statusCode(error) {
  if (error instanceof ApiException) return error.code;
  return error.statusCode ?? Number(/server response: (\d+)/.exec(error.message)?.[1] ?? 503);
}

function explained(code, error, rule) {
  const message = words(error);
  switch (code) {
    case 401:
    case 403:
      if (message.includes('exceeded quota')) return new PodError('quota-exceeded', message);
      return new PodError('forbidden', { message, missing: message.includes(' cannot ') ? rule : undefined });
    case 404:
    case 410:
      if (!message.startsWith('namespaces ')) return new PodError('gone', message);
      return new PodError('invalid', `namespace "${rule.namespace}" does not exist; create it or name another`);
    case 400:
    case 413:
    case 422:
      return new PodError('invalid', message);
    case 429:
    case 500:
    case 502:
    case 503:
    case 504:
      return new PodError('unavailable', `no answer to ${rule.verb} ${rule.resource}: ${message}; check the cluster`);
    default:
      return new PodError('other', `the API server answered ${code}: ${message}`);
  }
}

function words(error) {
  try {
    return JSON.parse(error.body).message;
  } catch {
    return error.cause?.message ?? error.message;
  }
}

function podStatus(pod, deleted) {
  const { phase, conditions = [], containerStatuses = [], ...status } = pod.status;
  const condition = (type, value) => conditions.find((one) => one.type === type && one.status === value);
  const state = (name) => containerState(containerStatuses.find((one) => one.name === name)?.state ?? {});
  const unscheduled = condition('PodScheduled', 'False');
  const disruption = condition('DisruptionTarget', 'True');
  return {
    phase: phase.toLowerCase(),
    cause: cause(status),
    unschedulable: unscheduled && (unscheduled.message ?? ''),
    waitsForRoom: false,
    disruption: disruption && cause(disruption),
    deleted: deleted || pod.metadata.deletionTimestamp !== undefined,
    main: state(MAIN),
    sidecar: state(SIDECAR),
  };
}

function containerState({ terminated, running, waiting }) {
  if (terminated) return { tag: 'terminated', val: { exitCode: terminated.exitCode, ...cause(terminated) } };
  return running ? { tag: 'running' } : { tag: 'waiting', val: cause(waiting) };
}

function cause(of) {
  return { reason: of?.reason ?? '', message: of?.message ?? '' };
}

function manifest(name, spec) {
  const resources = { cpu: spec.cpu, memory: spec.memory };
  const volumes = [{ name: 'hiphops', emptyDir: {} }];
  const volumeMounts = [{ name: 'hiphops', mountPath: spec.outputDir }];
  if (spec.inputFiles.length > 0) {
    const items = spec.inputFiles.map(({ path }, number) => ({ key: `f${number}`, path }));
    volumes.push({ name: 'hiphops-input', configMap: { name, items } });
    volumeMounts.push({ name: 'hiphops-input', mountPath: spec.inputDir, readOnly: true });
  }
  const main = {
    name: MAIN,
    image: spec.image,
    command: spec.command,
    args: spec.args,
    env: [...new Map(spec.env)].map(([name, value]) => ({ name, value })),
    resources: { requests: resources, limits: resources },
    volumeMounts,
    terminationMessagePolicy: 'FallbackToLogsOnError',
  };
  const sidecar = {
    name: SIDECAR,
    image: 'halverneus/static-file-server:v1.8.10',
    env: [{ name: 'PORT', value: String(PORT) }, { name: 'FOLDER', value: '/output' }],
    resources: { requests: { cpu: '10m', memory: '16Mi' }, limits: { cpu: '100m', memory: '64Mi' } },
    volumeMounts: [{ name: 'hiphops', mountPath: '/output', readOnly: true }],
    // May read all that the user's container wrote, and nothing else.
    securityContext: {
      runAsUser: 0,
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'], add: ['DAC_OVERRIDE'] },
      seccompProfile: { type: 'RuntimeDefault' },
    },
  };
  return {
    metadata: { name, labels: LABELS },
    spec: {
      containers: [main, sidecar],
      volumes,
      restartPolicy: 'Never',
      activeDeadlineSeconds: Math.max(1, Math.ceil(Number(spec.lifetimeMs) / 1000)),
      automountServiceAccountToken: false,
      enableServiceLinks: false,
    },
  };
}
