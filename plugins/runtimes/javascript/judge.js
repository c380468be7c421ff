// Judges a program by tests that never share an interpreter with it. `tests` runs the tests in one sandbox, with stand-ins for
// the names of the program; each use of a stand-in is an operation. `program` runs the program and the operations in another
// sandbox, and says what each gave. Then the tests are run again with those results.

import { isAsynchronous } from "./asynchronous.js";
import { Foreign, flat, whole } from "./values.js";

const ITEMS = 1024;
const LANGUAGE = new Set(Object.getOwnPropertyNames(globalThis));

// ---- the program's side

const operations = {
  call: (f, self, args) => Reflect.apply(f, self, args),
  new: (f, args) => Reflect.construct(f, args),
  get: (object, name) => object[name],
  set: (object, name, value) => void (object[name] = value),
  delete: (object, name) => delete object[name],
  has: (object, name) => name in object,
  keys: (object) => Reflect.ownKeys(object).filter((key) => typeof key === "string" && Object.prototype.propertyIsEnumerable.call(object, key)),
  instanceof: (value, kind) => value instanceof kind,
  text: (object, hint) => (hint === "number" ? Number(object) : hint === "string" ? String(object) : `${object}`),
  iterator: (object) => object[Symbol.iterator](),
  items: (iterator) => {
    const items = [];
    while (items.length < ITEMS) {
      const { done, value } = iterator.next();
      if (done) break;
      items.push(value);
    }
    return items;
  },
};

export function program(request, world, say) {
  const { program: source, operations: asked } = JSON.parse(request);
  const kept = [];
  const write = (value) => {
    const mine = kept.at(-1);
    return flat(value, (value) => {
      mine.push(value);
      return ["kept", kept.length - 1, mine.length - 1, typeof value];
    });
  };
  const read = (data) =>
    whole(data, (data) => {
      if (data[0] === "kept") return kept[data[1]][data[2]];
      return (0, eval)(`(${data[1]})`);
    });
  // A global evaluation: functions and `var` become properties of the global object; the others are found by their names.
  const find = new Function("source", "return (0, eval)(source + '\\n;((name) => eval(name))')")(source);
  for (const [name, ...args] of JSON.parse(asked)) {
    kept.push([]);
    let answer;
    try {
      if (name === "name") answer = { gave: write(find(args[0])) };
      else {
        const given = args.map(read);
        answer = { gave: write(operations[name](...given)) };
        // Arguments that the program changed are changed for the tests, too.
        const last = given.at(-1);
        if (["call", "new"].includes(name) && last.some((arg) => typeof arg === "object" && arg !== null)) {
          const mine = kept.at(-1);
          kept[kept.length - 1] = [...mine];
          const left = write(last);
          if (JSON.stringify(left) !== JSON.stringify(args.at(-1))) answer.left = left;
          else kept[kept.length - 1] = mine;
        }
      }
    } catch (error) {
      if (world.isExit(error)) throw error;
      const isError = error instanceof Error;
      const text = (value) => (typeof value === "string" ? value : "");
      answer = isError ? { raised: [text(error.name) || "Error", text(error.message)] } : { raised: null };
      try {
        answer.thrown = write(error);
      } catch {
        answer.thrown = ["undefined"];
      }
    }
    say(`${JSON.stringify(answer)}\n`);
  }
}

// ---- the tests' side

class Ended extends Error {}

class Session {
  constructor(known, results) {
    Object.assign(this, { known, results, operations: [], isGuessing: false });
    this.references = new WeakMap();
    this.held = new Map();
  }

  perform(operation, kept = []) {
    const at = this.operations.length;
    this.operations.push(operation);
    if (!this.isGuessing) {
      if (at < this.known.length && JSON.stringify(this.known[at]) === JSON.stringify(operation)) return this.give(this.results[at], kept);
      this.isGuessing = true;
    }
    return this.guess(at);
  }

  give(result, kept) {
    let error;
    let value;
    try {
      if ("raised" in result) error = [this.error(result)];
      else {
        value = this.read(result.gave);
        if ("left" in result) kept.forEach((old, i) => merge(old, this.read(result.left[i + 1])));
      }
    } catch {
      // The program was over, or wrote on the channel of the results.
      throw new Ended("the program was over");
    }
    if (error) throw error[0];
    return value;
  }

  error({ raised, thrown }) {
    if (raised === null) return this.read(thrown);
    const [name, message] = raised;
    const known = { TypeError, RangeError, SyntaxError, ReferenceError, EvalError, URIError }[name];
    const error = new (known ?? Error)(message);
    if (!known && name !== "Error") error.name = name;
    if (Array.isArray(thrown) && thrown[0] === "kept") this.references.set(error, thrown.slice(0, 3));
    return error;
  }

  read(data) {
    return whole(data, (data) => {
      if (data[0] !== "kept") throw new Foreign("a malformed value");
      const key = `${data[1]} ${data[2]}`;
      if (!this.held.has(key)) this.held.set(key, this.stand(["kept", data[1], data[2]], data[3] === "function"));
      return this.held.get(key);
    });
  }

  write(value) {
    const other = (value) => {
      const reference = this.references.get(value);
      if (reference) return reference;
      const isOurs = typeof value === "function" && !/\{\s*\[native code\]\s*\}$/.test(Function.prototype.toString.call(value));
      if (isOurs) return ["function", Function.prototype.toString.call(value)];
      throw new Foreign(`${typeof value === "function" ? "a builtin function" : "an object of a class of the tests"}`);
    };
    other.isHeld = (value) => this.references.has(value);
    return flat(value, other);
  }

  /// What stands for a value that stays with the program.
  stand(reference, isFunction, self = ["undefined"]) {
    const ask = (name, ...args) => this.perform([name, reference, ...args]);
    const owned = (target, name) => {
      if (typeof name === "symbol") return this.symbol(reference, name);
      const value = ask("get", name);
      // A method has to know its object.
      const method = (typeof value === "object" || typeof value === "function") && value !== null && this.references.get(value);
      return method ? this.stand(method, typeof value === "function", reference) : value;
    };
    const handler = {
      get: owned,
      set: (_, name, value) => (ask("set", name, this.write(value)), true),
      has: (_, name) => typeof name === "string" && ask("has", name) === true,
      deleteProperty: (_, name) => (ask("delete", name), true),
      ownKeys: () => {
        const keys = ask("keys");
        return Array.isArray(keys) ? keys : [];
      },
      getOwnPropertyDescriptor: (target, name) =>
        typeof name === "symbol" ? undefined : { value: owned(target, name), enumerable: true, configurable: true, writable: true },
      apply: (_, __, args) => this.perform(["call", reference, self, this.write(args)], args),
      construct: (_, args) => {
        const made = this.perform(["new", reference, this.write(args)], args);
        if (typeof made !== "object" && typeof made !== "function") throw new TypeError("nothing was made");
        return made;
      },
    };
    // An arrow function has no properties that a proxy has to show.
    const stand = new Proxy(isFunction ? Object.setPrototypeOf(function () {}.bind(), Function.prototype) : {}, handler);
    this.references.set(stand, reference);
    return stand;
  }

  symbol(reference, symbol) {
    if (symbol === Symbol.toPrimitive) return (hint) => this.perform(["text", reference, hint]);
    if (symbol === Symbol.hasInstance) return (value) => this.perform(["instanceof", this.write(value), reference]) === true;
    if (symbol !== Symbol.iterator) return undefined;
    const session = this;
    return function* () {
      const iterator = session.perform(["iterator", reference]);
      for (;;) {
        const items = session.perform(["items", session.write(iterator)]);
        if (!Array.isArray(items)) return;
        yield* items;
        if (items.length < ITEMS) return;
      }
    };
  }

  /// What stands for a value that is not known yet; what was found with it never counts.
  guess(at) {
    const reference = ["kept", at, 0];
    const handler = {
      get: (_, name) => {
        if (name === Symbol.toPrimitive) return () => 1;
        if (name === Symbol.iterator) return function* () {};
        if (typeof name === "symbol") return undefined;
        return this.method(this.perform(["get", reference, name]), reference);
      },
      set: (_, name, value) => (this.perform(["set", reference, name, this.write(value)]), true),
      apply: (_, __, args) => this.perform(["call", reference, ["undefined"], this.write(args)]),
      construct: (_, args) => this.perform(["new", reference, this.write(args)]),
    };
    const stand = new Proxy(function () {}, handler);
    this.references.set(stand, reference);
    return stand;
  }

  /// A guess at a method, which has to know its object.
  method(guess, self) {
    const reference = this.references.get(guess);
    const stand = new Proxy(guess, { apply: (_, __, args) => this.perform(["call", reference, self, this.write(args)]) });
    this.references.set(stand, reference);
    return stand;
  }
}

/// Makes `old` equal to `value` in place, as far as it can be; what takes the place of `old` where it can't.
function merge(old, value) {
  if (Array.isArray(old) && Array.isArray(value)) {
    const items = value.map((item, i) => (i < old.length ? merge(old[i], item) : item));
    old.splice(0, old.length, ...items);
    return old;
  }
  for (const kind of [Map, Set]) {
    if (old instanceof kind && value instanceof kind) {
      old.clear();
      value.forEach((item, key) => (kind === Map ? old.set(key, item) : old.add(item)));
      return old;
    }
  }
  const isObject = (value) => typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;
  if (isObject(old) && isObject(value)) {
    for (const key of Object.keys(old)) if (!(key in value)) delete old[key];
    for (const key of Object.keys(value)) old[key] = key in old ? merge(old[key], value[key]) : value[key];
    return old;
  }
  return value;
}

export function tests(request, world, say) {
  const { before, tests, entry_point: entryPoint, operations: known, output } = JSON.parse(request);
  const results = [];
  for (const line of output.split("\n")) {
    try {
      results.push(JSON.parse(line));
    } catch {
      break;
    }
  }
  const session = new Session(JSON.parse(known), results);
  let reached = 0;
  const failures = [];
  const describe = (error) => {
    if (error instanceof Error) return error.message ? `${error.name}: ${error.message}` : error.name;
    return "something was thrown";
  };
  // The tests go on after an assert that fails: each is a test.
  const assert = world.makeAssert((holds, error) => {
    reached += 1;
    if (!holds) failures.push(session.isGuessing ? "" : describe(error()));
  });
  const own = { assert, require: (name) => (/^(node:)?assert(\/strict)?$/.test(name) ? assert : world.require(name)) };
  own.console = { ...world.console, assert: (holds, ...values) => assert(holds, values.join(" ")) };
  const names = new Map();
  const absent = new Map();
  const scope = new Proxy(own, {
    has: (_, name) =>
      typeof name === "string" && (Object.hasOwn(own, name) || name === entryPoint || !(LANGUAGE.has(name) || name in world.globals)),
    get: (_, name) => {
      if (name === Symbol.unscopables) return undefined;
      if (Object.hasOwn(own, name)) return own[name];
      if (absent.has(name)) throw absent.get(name);
      if (!names.has(name)) {
        let value;
        try {
          value = session.perform(["name", name]);
        } catch (error) {
          // Asked once: a program that lacks what is tested needs no further run.
          absent.set(name, error);
          throw error;
        }
        if (!session.references.has(value)) return value;
        // What may be assigned anew is asked for every time.
        names.set(name, value);
      }
      return names.get(name);
    },
  });
  let broken = null;
  let asserts = 0;
  let errors = 0;
  const setup = before.join("\n");
  const call = entryPoint ? `\nif (typeof check === "function") check(${entryPoint});` : "";
  if ([setup, ...tests].some(isAsynchronous)) broken = "the tests are asynchronous, and promises do not run here";
  for (const test of tests) {
    asserts += (test.match(/\bassert(\.\w+)*\s*\(/g) ?? []).length;
    try {
      const run = new Function("scope", `with (scope) { (function () {\n${setup}\n${test}${call}\n})(); }`);
      run(scope);
    } catch (error) {
      if (error instanceof Foreign) broken = `the tests give the program ${error.message}`;
      if (error instanceof SyntaxError && session.operations.length === 0) broken = `the tests are no JavaScript: ${error.message}`;
      errors += 1;
      failures.push(describe(error));
    }
  }
  let verdict;
  if (broken !== null) verdict = { broken };
  else if (session.isGuessing) verdict = { ask: JSON.stringify(session.operations) };
  else if (session.operations.length === 0) verdict = { broken: "the tests never use the program" };
  else {
    const failed = failures.length - errors;
    // After an error what was not reached can't be told to hold.
    const count = reached === 0 ? tests.length : errors ? Math.max(asserts, reached + errors) : reached;
    const passed = reached === 0 ? tests.length - errors : reached - failed;
    verdict = { tests: count, passed, holds: failures.length === 0, failure: failures[0] ?? "" };
  }
  say(JSON.stringify(verdict).replace(/\\ud[89a-f][0-9a-f]{2}/gi, "\\ufffd"));
}
