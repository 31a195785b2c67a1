// Runs calls of the plugin, a WebAssembly component, with the pods and clocks that the caller gives.

import { transpile } from '@bytecodealliance/jco-transpile';

const APP = 'hiphops:app/app@0.1.0';
const PODS = 'hiphops:k8s/pods@0.1.0';
const METHODS = ['wait', 'read-file', 'tail-logs', 'delete'];

/** Why a request failed: a case of the WIT's `error`, for example `new PodError('gone', 'pod p is deleted')`. */
export class PodError extends Error {
  constructor(tag, val) {
    super(val.message ?? (tag === 'too-large' ? `${val.size} bytes, more than ${val.limit}` : val));
    this.payload = { tag, val };
  }
}

/** The plugin does not have this handler. The message names those that it has. */
export class UnknownHandler extends Error {}

/** The machine's clocks, in nanoseconds: the wall clock since 1970, the monotonic clock since any fixed moment. */
export const systemClocks = {
  wall: () => BigInt(Date.now()) * 1_000_000n,
  monotonic: () => process.hrtime.bigint(),
};

/** Compiles the plugin in a file, once for any number of calls. */
export async function load(path) {
  if (!WebAssembly.Suspending) {
    throw new Error(`Node ${process.version} does not let WebAssembly wait for promises; use Node 26 or later`);
  }
  const { files } = await transpile(path, {
    name: 'plugin',
    instantiation: 'async',
    asyncMode: 'jspi',
    asyncImports: [`${PODS}#[static]pod.create`, ...METHODS.map((name) => `${PODS}#[method]pod.${name}`)],
    asyncExports: [`${APP}#call`],
    noComponentErrorWrapping: false,
  });
  const source = Buffer.from(files['plugin.js']).toString('base64');
  const { instantiate } = await import(`data:text/javascript;base64,${source}`);
  const modules = {};
  for (const name of Object.keys(files).filter((name) => name.endsWith('.wasm'))) {
    modules[name] = await WebAssembly.compile(files[name]);
  }
  return new Plugin((imports) => instantiate((name) => modules[name], imports));
}

class Plugin {
  #instantiate;

  constructor(instantiate) {
    this.#instantiate = instantiate;
  }

  /** Returns the plugin's name, version and handlers: the WIT's `description`. */
  async describe() {
    const { app } = await this.#instantiate(imports(class {}, systemClocks));
    return app.describe();
  }

  /**
   * Runs a call and returns its result document. The inputs and the document are JSON texts. A call that fails has a
   * document, too, with `errored` set; so does a call with bad inputs. When the promise is settled, the call's pods are
   * deleted. `signal` cancels the call.
   *
   * `pods.create(spec, signal)` returns a pod. `name` of a pod is a string; its other members are the methods of
   * `pods.wit`, in camel case and asynchronous. They throw `PodError`. `delete` is not called if the spec says `keep`.
   */
  async call(handler, inputs, pods, { signal, clocks = systemClocks } = {}) {
    signal?.throwIfAborted();
    const call = new Call(pods, signal);
    try {
      const { app } = await this.#instantiate(imports(call.podClass(), clocks));
      return await app.call(handler, inputs);
    } catch (error) {
      if (call.failure) throw call.failure.cause;
      throw error.payload?.tag === 'unknown-handler' ? new UnknownHandler(error.payload.val) : error;
    } finally {
      await call.end();
    }
  }
}

/** One call: the pods that it has created, and whether it was cancelled. */
class Call {
  failure;
  #pods;
  #undeleted = new Set();
  #dropped = [];
  #end = new AbortController();
  #signal;
  #stopped;

  constructor(pods, signal) {
    this.#pods = pods;
    this.#signal = AbortSignal.any([this.#end.signal, ...(signal ? [signal] : [])]);
    this.#stopped = new Promise((_, reject) => {
      this.#signal.addEventListener('abort', () => reject(this.#signal.reason));
    });
    this.#stopped.catch(() => {});
  }

  podClass() {
    const call = this;
    return class Pod {
      #pod;

      static async create(spec) {
        const made = new Pod();
        made.#pod = await call.#guard(call.#pods.create(spec, call.#signal));
        if (!spec.keep) call.#undeleted.add(made.#pod);
        return made;
      }

      name() {
        return this.#pod.name;
      }

      wait(timeoutMs) {
        return call.#guardOrStop(this.#pod.wait(Number(timeoutMs)));
      }

      readFile(path) {
        return call.#guardOrStop(this.#pod.readFile(path));
      }

      tailLogs(lines) {
        return call.#guardOrStop(this.#pod.tailLogs(lines));
      }

      delete() {
        return call.#guard(call.#delete(this.#pod));
      }

      [Symbol.dispose]() {
        call.#dropped.push(call.#delete(this.#pod).catch(() => {}));
      }
    };
  }

  /** Deletes the pods that are left, however the call ended. */
  async end() {
    this.#end.abort();
    await Promise.all(this.#dropped);
    for (const pod of this.#undeleted) {
      await this.#delete(pod).catch((error) => console.warn(`pod ${pod.name} could not be deleted: ${error.message}`));
    }
  }

  async #delete(pod) {
    if (!this.#undeleted.has(pod)) return;
    await pod.delete();
    this.#undeleted.delete(pod);
  }

  #guardOrStop(result) {
    return this.#guard(Promise.race([result, this.#stopped]));
  }

  /** Keeps an error that the WIT does not have for the caller: the plugin could not pass it on. */
  async #guard(result) {
    try {
      return await result;
    } catch (error) {
      if (error instanceof PodError) throw error;
      this.failure = { cause: error };
      throw new Error('the host failed');
    }
  }
}

function imports(Pod, clocks) {
  const wall = () => {
    const now = clocks.wall();
    return { seconds: now / 1_000_000_000n, nanoseconds: Number(now % 1_000_000_000n) };
  };
  return {
    'hiphops:k8s/pods': { Pod },
    'wasi:clocks/wall-clock': { now: wall },
    'wasi:clocks/monotonic-clock': { now: clocks.monotonic },
  };
}
