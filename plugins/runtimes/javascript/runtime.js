// JavaScript as a runtime: `execute` runs a program as a sloppy script and returns its exit status.
//
// QuickJS has the language and nothing else. Here are the parts of Node.js that programs use to read and print: `console`,
// `process`, `require` of a few modules, timers. There are no files and no network, and timers wait no time. The engine's
// jobs of promises run in asynchronous exports of components only, and `execute` is not one: what stands after an `await` never
// runs, and a program that calls `then` fails.

import stdout from "wasi:cli/stdout@0.2.12";
import stderr from "wasi:cli/stderr@0.2.12";
import { isAsynchronous } from "./asynchronous.js";
import * as judge from "./judge.js";

const CHUNK = 4096;

class Exit {
  constructor(status) {
    this.status = status;
  }
}

/// UTF-8 of a string; a lone surrogate becomes U+FFFD.
function bytes(text) {
  const out = [];
  for (const character of text) {
    let c = character.codePointAt(0);
    if (c >= 0xd800 && c < 0xe000) c = 0xfffd;
    if (c < 0x80) out.push(c);
    else if (c < 0x800) out.push(0xc0 | (c >> 6), 0x80 | (c & 63));
    else if (c < 0x10000) out.push(0xe0 | (c >> 12), 0x80 | ((c >> 6) & 63), 0x80 | (c & 63));
    else out.push(0xf0 | (c >> 18), 0x80 | ((c >> 12) & 63), 0x80 | ((c >> 6) & 63), 0x80 | (c & 63));
  }
  return out;
}

class Output {
  constructor(open) {
    this.open = open;
    this.text = "";
    this.stream = null;
  }

  write(text) {
    this.text += text;
    if (this.text.length >= CHUNK) this.flush();
    return true;
  }

  flush() {
    if (this.text === "") return;
    const all = bytes(this.text);
    this.text = "";
    this.stream ??= this.open();
    for (let at = 0; at < all.length; at += CHUNK) {
      this.stream.blockingWriteAndFlush(new Uint8Array(all.slice(at, at + CHUNK)));
    }
  }
}

/// A value as Node.js prints it, but always on one line.
function inspect(value, depth = 0, above = []) {
  if (typeof value === "string") return depth === 0 && above.length === 0 ? value : quoted(value);
  if (typeof value === "bigint") return `${value}n`;
  if (Object.is(value, -0)) return "-0";
  if (typeof value === "function") return value.name ? `[Function: ${value.name}]` : "[Function (anonymous)]";
  if (typeof value !== "object" || value === null) return String(value);
  if (above.includes(value)) return "[Circular *1]";
  if (value instanceof Error) return value.stack ? `${value}\n${value.stack}`.trimEnd() : String(value);
  if (value instanceof Date) return value.toISOString();
  if (value instanceof RegExp) return String(value);
  const inner = (item) => inspect(item, depth + 1, [...above, value]);
  const braces = (name, items, open = "{", close = "}") =>
    name + (items.length ? `${open} ${items.join(", ")} ${close}` : open + close);
  const isArray = Array.isArray(value);
  if (depth > 2) return isArray ? "[Array]" : `[${value.constructor?.name ?? "Object"}]`;
  const shown = (items) => (items.length > 100 ? [...items.slice(0, 100), `... ${items.length - 100} more items`] : items);
  if (isArray) return braces("", shown(value.map(inner)), "[", "]");
  if (value instanceof Map) return braces(`Map(${value.size}) `, [...value].map(([k, v]) => `${inner(k)} => ${inner(v)}`));
  if (value instanceof Set) return braces(`Set(${value.size}) `, [...value].map(inner));
  if (ArrayBuffer.isView(value)) {
    return braces(`${value.constructor.name}(${value.length}) `, shown([...value].map(String)), "[", "]");
  }
  const name = value.constructor === Object ? "" : value.constructor ? `${value.constructor.name} ` : "[Object: null prototype] ";
  const key = (k) => (/^[A-Za-z_$][\w$]*$/.test(k) ? k : quoted(k));
  return braces(name, Object.keys(value).map((k) => `${key(k)}: ${inner(value[k])}`));
}

function quoted(text) {
  const quote = !text.includes("'") ? "'" : !text.includes('"') ? '"' : "`";
  return quote + text.replace(/\\/g, "\\\\").replace(/\n/g, "\\n").replace(/\t/g, "\\t") + quote;
}

function format(...values) {
  if (typeof values[0] !== "string") return values.map((value) => inspect(value, 0, typeof value === "string" ? [] : [0])).join(" ");
  let next = 1;
  const text = values[0].replace(/%[sdifjoO%]/g, (mark) => {
    if (mark === "%%") return "%";
    if (next >= values.length) return mark;
    const value = values[next++];
    if (mark === "%s") return typeof value === "string" ? value : inspect(value);
    if (mark === "%d") return String(Number(value));
    if (mark === "%i") return String(Math.trunc(Number(value)));
    if (mark === "%f") return String(parseFloat(value));
    return mark === "%j" ? JSON.stringify(value) : inspect(value, 0, [0]);
  });
  return [text, ...values.slice(next).map((value) => inspect(value))].join(" ");
}

/// Deep equality as `assert.deepStrictEqual` (`strict`) or `assert.deepEqual` has it, for plain data, maps, sets and dates.
function isDeepEqual(a, b, strict) {
  if (Object.is(a, b) || (!strict && a == b)) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (strict && Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  if (a instanceof Date || b instanceof Date) return a instanceof Date && b instanceof Date && +a === +b;
  if (a instanceof Map || a instanceof Set) {
    if (a.constructor !== b.constructor || a.size !== b.size) return false;
    const others = [...b];
    return [...a].every((item) => {
      const at = others.findIndex((other) => isDeepEqual(item, other, strict));
      if (at >= 0) others.splice(at, 1);
      return at >= 0;
    });
  }
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((k) => Object.hasOwn(b, k) && isDeepEqual(a[k], b[k], strict));
}

class AssertionError extends Error {
  constructor(message) {
    super(message);
    this.name = "AssertionError";
    this.code = "ERR_ASSERTION";
  }
}

/// Node.js's `assert`; `report(holds, error)` is told of each assertion, and `error()` is what is wrong with it.
function makeAssert(report) {
  const check = (holds, message, what) =>
    report(Boolean(holds), () => (message instanceof Error ? message : new AssertionError(message ?? what())));
  const pair = (relation) => (a, b, message) => {
    check(relation(a, b), message, () => `${inspect(a, 0, [0])} and ${inspect(b, 0, [0])}`);
  };
  const assert = (value, message) => check(value, message, () => "the assertion does not hold");
  const equal = {
    equal: (a, b) => a == b || (a !== a && b !== b),
    strictEqual: Object.is,
    deepEqual: (a, b) => isDeepEqual(a, b, false),
    deepStrictEqual: (a, b) => isDeepEqual(a, b, true),
  };
  for (const [name, relation] of Object.entries(equal)) {
    assert[name] = pair(relation);
    assert[`not${name[0].toUpperCase()}${name.slice(1)}`] = pair((a, b) => !relation(a, b));
  }
  const fits = (error, wanted) => {
    if (wanted === undefined || typeof wanted === "string") return true;
    if (wanted instanceof RegExp) return wanted.test(String(error));
    if (typeof wanted === "function") return wanted.prototype !== undefined ? error instanceof wanted : wanted(error) === true;
    return Object.keys(wanted).every((k) => isDeepEqual(error?.[k], wanted[k], true));
  };
  return Object.assign(assert, {
    AssertionError,
    ok: assert,
    fail: (message) => check(false, message, () => "failed"),
    match: (text, pattern) => check(pattern.test(text), undefined, () => `${quoted(text)} and ${pattern}`),
    throws: (f, wanted, message) => {
      try {
        f();
      } catch (error) {
        check(fits(error, wanted), message, () => `another error: ${error}`);
        return;
      }
      check(false, message, () => "nothing was thrown");
    },
    strict: assert,
  });
}

/// What a program finds around it.
function makeWorld(stdin, out, err) {
  const printer = (output) => (...values) => void output.write(`${format(...values)}\n`);
  const console = { table: printer(out), dir: (value) => void out.write(`${inspect(value, 0, [0])}\n`) };
  for (const name of ["log", "info", "debug"]) console[name] = printer(out);
  for (const name of ["error", "warn", "trace"]) console[name] = printer(err);
  console.assert = (holds, ...values) => holds || console.error("Assertion failed:", ...values);
  for (const name of ["time", "timeEnd", "timeLog", "group", "groupEnd", "count"]) console[name] = () => {};

  // Tasks run in the order of their times, then of their making; the clock does not wait for them.
  const tasks = [];
  let made = 0;
  const after = (f, wait, values, repeat) => {
    const task = { id: ++made, at: clock + Math.max(1, Number(wait) || 1), f, values, repeat, wait };
    tasks.push(task);
    return { id: task.id, ref: () => {}, unref: () => {}, [Symbol.toPrimitive]: () => task.id };
  };
  let clock = 0;
  const clear = (handle) => {
    const at = tasks.findIndex((task) => task.id === Number(handle));
    if (at >= 0) tasks.splice(at, 1);
  };
  const setTimeout = (f, wait, ...values) => after(f, wait, values, false);
  const setInterval = (f, wait, ...values) => after(f, wait, values, true);
  const runTasks = () => {
    while (tasks.length > 0) {
      let first = 0;
      for (let i = 1; i < tasks.length; i++) if (tasks[i].at < tasks[first].at) first = i;
      const [task] = tasks.splice(first, 1);
      clock = task.at;
      if (task.repeat) tasks.push({ ...task, at: clock + Math.max(1, Number(task.wait) || 1) });
      task.f(...task.values);
    }
  };

  // What was read is not there again.
  let unread = stdin;
  const readAll = () => {
    const text = unread;
    unread = "";
    return text;
  };
  const readLine = () => {
    if (unread === "") return null;
    const end = unread.indexOf("\n");
    const line = end < 0 ? unread : unread.slice(0, end);
    unread = end < 0 ? "" : unread.slice(end + 1);
    return line.endsWith("\r") ? line.slice(0, -1) : line;
  };
  const listeners = () => {
    const all = {};
    return {
      on(name, f) {
        (all[name] ??= []).push(f);
        return this;
      },
      emit: (name, ...values) => (all[name] ?? []).forEach((f) => f(...values)),
    };
  };
  const input = Object.assign(listeners(), { fd: 0, setEncoding() {}, resume() {}, pause() {}, read: () => readAll() || null });
  const onInput = input.on;
  let isFed = false;
  input.on = input.once = input.addListener = function (name, f) {
    if (name === "readable") onInput.call(this, name, f);
    else onInput.call(this, name, f);
    if (!isFed) {
      isFed = true;
      setTimeout(() => {
        input.emit("readable");
        const text = readAll();
        if (text !== "") input.emit("data", text);
        input.emit("end");
        input.emit("close");
      }, 0);
    }
    return this;
  };
  const createInterface = () => {
    const reader = listeners();
    const waiting = [];
    let isClosed = false;
    const close = () => {
      if (isClosed) return;
      isClosed = true;
      reader.emit("close");
    };
    const feed = () => {
      if (isClosed) return;
      const line = readLine();
      if (line === null) return close();
      const asked = waiting.shift();
      if (asked) asked(line);
      else reader.emit("line", line);
      setTimeout(feed, 0);
    };
    setTimeout(feed, 0);
    reader.once = reader.on;
    return Object.assign(reader, {
      close,
      question: (text, ...rest) => (out.write(text), waiting.push(rest.at(-1))),
      setPrompt() {},
      prompt() {},
      pause() {},
      resume() {},
    });
  };

  const process = {
    argv: ["node", "program.js"],
    env: {},
    platform: "wasi",
    version: "v20.0.0",
    exitCode: undefined,
    stdin: input,
    stdout: { write: (text) => out.write(String(text)), isTTY: false, fd: 1 },
    stderr: { write: (text) => err.write(String(text)), isTTY: false, fd: 2 },
    exit: (status) => {
      throw new Exit(status ?? process.exitCode ?? 0);
    },
    on: () => process,
    cwd: () => "/",
    uptime: () => performance.now() / 1000,
    memoryUsage: () => ({ heapUsed: 0, heapTotal: 0, rss: 0 }),
    nextTick: (f, ...values) => void setTimeout(f, 0, ...values),
    hrtime: Object.assign(() => [0, Math.round(performance.now() * 1e6)], { bigint: () => BigInt(Math.round(performance.now() * 1e6)) }),
  };
  const read = (file, options) => {
    if (file !== 0 && file !== "/dev/stdin") throw new Error(`ENOENT: no such file or directory, open '${file}'`);
    const text = readAll();
    if (options) return text;
    // A `Buffer`, as far as programs use one.
    return Object.assign(new String(text), { toString: () => text });
  };
  const write = (fd, text) => (fd === 2 ? err : out).write(String(text));
  const assert = makeAssert((holds, error) => {
    if (!holds) throw error();
  });
  const modules = {
    assert,
    "assert/strict": assert,
    fs: { readFileSync: read, writeSync: write, writeFileSync: (file, text) => write(file === "/dev/stderr" ? 2 : 1, text), existsSync: () => false },
    os: { EOL: "\n" },
    perf_hooks: { performance },
    process,
    readline: { createInterface },
    util: { inspect: (value) => inspect(value, 0, [0]), format, isDeepStrictEqual: (a, b) => isDeepEqual(a, b, true) },
  };
  const require = (name) => {
    const module = modules[name.replace(/^node:/, "")];
    if (module === undefined) throw new Error(`Cannot find module '${name}'`);
    return module;
  };
  const world = {
    console,
    process,
    require,
    setTimeout,
    setInterval,
    setImmediate: (f, ...values) => setTimeout(f, 0, ...values),
    clearTimeout: clear,
    clearInterval: clear,
    clearImmediate: clear,
    module: { exports: {} },
    readline: readLine,
    print: console.log,
    structuredClone: (value) => clone(value, new Map()),
  };
  world.exports = world.module.exports;
  // Of the sandboxes of a judgement: what the program prints there goes nowhere.
  const request = stdin;
  const inside = { console, require, globals: world, makeAssert, isExit: (error) => error instanceof Exit };
  const side = (run) => () => {
    const say = (text) => (out.write(text), out.flush());
    unread = "";
    run(request, inside, say);
  };
  modules._judge = {
    tests: side(judge.tests),
    program: side((...all) => {
      for (const name of ["log", "info", "debug", "table", "dir"]) console[name] = () => {};
      process.stdout.write = () => true;
      judge.program(...all);
    }),
  };
  return { world, runTasks, process };
}

function clone(value, seen) {
  if (typeof value !== "object" || value === null) return value;
  if (seen.has(value)) return seen.get(value);
  const copy = (empty, fill) => (seen.set(value, empty), fill(empty), empty);
  if (value instanceof Date) return new Date(value);
  if (value instanceof Map) return copy(new Map(), (made) => value.forEach((v, k) => made.set(clone(k, seen), clone(v, seen))));
  if (value instanceof Set) return copy(new Set(), (made) => value.forEach((v) => made.add(clone(v, seen))));
  const fill = (made) => Object.keys(value).forEach((k) => (made[k] = clone(value[k], seen)));
  return copy(Array.isArray(value) ? new Array(value.length) : {}, fill);
}

export function execute(source, stdin) {
  const out = new Output(() => stdout.getStdout());
  const err = new Output(() => stderr.getStderr());
  const { world, runTasks, process } = makeWorld(stdin, out, err);
  Object.assign(globalThis, world);
  globalThis.global = globalThis;
  // Work that a promise would do later is never done: say so, rather than end as if all were well.
  let isLeft = isAsynchronous(source);
  const then = Promise.prototype.then;
  Promise.prototype.then = function (...reactions) {
    isLeft = true;
    return then.apply(this, reactions);
  };
  let status = 0;
  try {
    // An indirect call evaluates in the global scope, as a script.
    (0, eval)(source);
    runTasks();
    status = Number(process.exitCode ?? 0);
    if (isLeft) {
      err.write("promises do not run here: what waits for one was not done\n");
      status ||= 1;
    }
  } catch (error) {
    if (error instanceof Exit) status = Number(error.status);
    else {
      err.write(`Uncaught ${error instanceof Error ? inspect(error) : inspect(error, 0, [0])}\n`);
      status = 1;
    }
  }
  out.flush();
  err.flush();
  return status | 0;
}
