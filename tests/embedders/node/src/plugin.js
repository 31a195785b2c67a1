// The plugin: a WebAssembly component that runs a call with the pods and clocks that it is given.

import { transpile } from '@bytecodealliance/jco-transpile';

const APP = 'hiphops:app/app@0.1.0';
const PODS = 'hiphops:k8s/pods@0.1.0';
const METHODS = ['wait', 'read-file', 'tail-logs', 'delete'];

/** What could not be done: a case of the WIT's `error`, as in `new PodError('gone', 'pod p is deleted')`. */
export class PodError extends Error {
  constructor(tag, val) {
    super(val.message ?? (tag === 'too-large' ? `${val.size} bytes, more than ${val.limit}` : val));
    this.payload = { tag, val };
  }
}

/** The plugin has no such handler; the message names those it has. */
export class UnknownHandler extends Error {}

/** The machine's clocks, in nanoseconds: since 1970, and since a moment that stays the same. */
export const systemClocks = {
  wall: () => BigInt(Date.now()) * 1_000_000n,
  monotonic: () => process.hrtime.bigint(),
};

/** The plugin in a file, compiled once for any number of calls. */
export async function load(path) {
  if (!WebAssembly.Suspending) {
    throw new Error(`Node ${process.version} cannot have WebAssembly wait for a promise; use Node 26 or later`);
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

  /** Who the plugin is and what it can do: a `description` of the WIT. */
  async describe() {
    const { app } = await this.#instantiate(imports(class {}, systemClocks));
    return app.describe();
  }

  /**
   * The result document, as JSON text, of a call whose inputs are JSON text. A call that fails, bad inputs included,
   * has a result as well, with `errored` set. When the promise is settled, the call's pods are deleted; `signal`
   * cancels the call.
   *
   * `pods.create(spec, signal)` gives a pod with the methods of `pods.wit` in camel case, all of them asynchronous but
   * for `name`, which is a string. They throw `PodError`. `delete` is not called for a pod to keep.
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

/** What a call has of its host: the pods that it made, and whether it is to go on. */
class Call {
  failure;
  #pods;
  #left = new Set();
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
        if (!spec.keep) call.#left.add(made.#pod);
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

  /** Deletes the pods that are left, in whatever way the call ended. */
  async end() {
    this.#end.abort();
    await Promise.all(this.#dropped);
    for (const pod of this.#left) {
      await this.#delete(pod).catch((error) => console.warn(`pod ${pod.name} is not deleted: ${error.message}`));
    }
  }

  async #delete(pod) {
    if (!this.#left.has(pod)) return;
    await pod.delete();
    this.#left.delete(pod);
  }

  #guardOrStop(result) {
    return this.#guard(Promise.race([result, this.#stopped]));
  }

  /** Keeps a failure that is none of the WIT's errors from the plugin, which could not pass it on. */
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
