// How values cross between the two sandboxes of a judgement: as JSON, types kept. Plain data goes by value. What else a program
// has (functions, objects of its classes, iterators) stays there, and a reference crosses.

const DEPTH = 200;

export class Foreign extends Error {}

const isPlain = (value) => [Object.prototype, null].includes(Object.getPrototypeOf(value));

/// `value` as JSON; `other(value)` stands for what is no plain data.
export function flat(value, other, depth = 0) {
  if (depth > DEPTH) throw new Foreign("a value that is nested too deeply, or holds itself");
  const inner = (item) => flat(item, other, depth + 1);
  switch (typeof value) {
    case "string":
    case "boolean":
      return value;
    case "number":
      return Number.isFinite(value) && !Object.is(value, -0) ? value : ["number", Object.is(value, -0) ? "-0" : String(value)];
    case "undefined":
      return ["undefined"];
    case "bigint":
      return ["bigint", String(value)];
    case "object":
      if (value === null) return null;
      if (other.isHeld?.(value)) return other(value);
      if (Array.isArray(value) && Object.getPrototypeOf(value) === Array.prototype) return ["list", ...Array.from(value, inner)];
      if (value instanceof Map) return ["map", ...[...value].flat().map(inner)];
      if (value instanceof Set) return ["set", ...[...value].map(inner)];
      if (value instanceof Date) return ["date", value.getTime()];
      if (value instanceof RegExp) return ["regexp", value.source, value.flags];
      if (isPlain(value)) return ["object", ...Object.keys(value).flatMap((key) => [key, inner(value[key])])];
  }
  return other(value);
}

/// The value that `flat` wrote; `other(data)` gives what stands for what is no plain data.
export function whole(data, other) {
  if (!Array.isArray(data)) {
    if (typeof data === "object" && data !== null) throw new Foreign("a malformed value");
    return data;
  }
  const inner = (item) => whole(item, other);
  const [tag, ...rest] = data;
  const pairs = (items) => items.flatMap((_, i) => (i % 2 ? [] : [[items[i], items[i + 1]]]));
  switch (tag) {
    case "undefined":
      return undefined;
    case "number":
      return Number(rest[0]);
    case "bigint":
      return BigInt(rest[0]);
    case "list":
      return rest.map(inner);
    case "map":
      return new Map(pairs(rest.map(inner)));
    case "set":
      return new Set(rest.map(inner));
    case "date":
      return new Date(rest[0] ?? NaN);
    case "regexp":
      return new RegExp(rest[0], rest[1]);
    case "object": {
      const made = {};
      for (const [key, item] of pairs(rest)) {
        Object.defineProperty(made, key, { value: inner(item), writable: true, enumerable: true, configurable: true });
      }
      return made;
    }
  }
  return other(data);
}
