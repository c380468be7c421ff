// The world `verifier` of pipeline:plugin 0.1.0 for AssemblyScript, and the glue to the component's functions by the canonical
// ABI. Strings cross as UTF-16, which is what AssemblyScript's are. Nothing is freed: an instance lives for one call.
import { schema, verify } from "../../verify";

export class Message {
  constructor(public role: string, public content: string) {}
}

export const enum Finish {
  Stop,
  Length,
  Aborted,
}

export class Completion {
  constructor(public id: u64, public text: string, public tokens: u32, public finish: Finish) {}
}

/** All that a plugin may know beyond its input. */
export class Context {
  constructor(public step: u64, public seed: u64, public maxTokens: u32, public evaluating: bool) {}
}

/** A prompt and its completions. What is no string among the fields is JSON. */
export class Group {
  constructor(
    public promptId: u64,
    public source: string,
    public prompt: Message[],
    public reference: string | null,
    public fields: Map<string, string>,
    public completions: Completion[],
  ) {}
}

const enum Kind {
  Decided,
  Undecided,
  NotApplicable,
}

/** 1 is fully right, 0 is wrong. `answer` is the extracted answer, `note` is for whoever looks at the verdict. */
export class Verdict {
  answer: string | null = null;
  note: string | null = null;
  metrics: Map<string, f64> = new Map();

  constructor(readonly kind: u8, readonly score: f64, readonly reason: string) {}

  static decided(score: f64, answer: string | null = null, note: string | null = null): Verdict {
    const verdict = new Verdict(<u8>Kind.Decided, score, "");
    verdict.answer = answer;
    verdict.note = note;
    return verdict;
  }
  static undecided(reason: string): Verdict {
    return new Verdict(<u8>Kind.Undecided, 0, reason);
  }
  static notApplicable(): Verdict {
    return new Verdict(<u8>Kind.NotApplicable, 0, "");
  }
}

/** The config's table: compact JSON that fits the schema. */
let table = "{}";

/** The JSON of the value at `key` of the config's table, or null where there is none. */
export function configJson(key: string): string | null {
  let at = 1;
  while (at < table.length && table.charCodeAt(at) == 0x22) {
    let end = stringEnd(at);
    const name = table.substring(at + 1, end - 1);
    const value = end + 1;
    end = valueEnd(value);
    if (name == key) return table.substring(value, end);
    at = end + 1;
  }
  return null;
}

/** The string at `key` of the config's table, or `otherwise` where there is none. */
export function configString(key: string, otherwise: string): string {
  const json = configJson(key);
  if (json === null || json.charCodeAt(0) != 0x22) return otherwise;
  let text = "";
  for (let i = 1; i < json.length - 1; i++) {
    if (json.charAt(i) != "\\") {
      text += json.charAt(i);
      continue;
    }
    const escape = json.charAt(++i);
    if (escape == "u") {
      text += String.fromCharCode(<i32>parseInt(json.substr(i + 1, 4), 16));
      i += 4;
    } else {
      const at = "nrtbf".indexOf(escape);
      text += at < 0 ? escape : "\n\r\t\b\f".charAt(at);
    }
  }
  return text;
}

/** The number at `key` of the config's table, or `otherwise` where there is none. */
export function configNumber(key: string, otherwise: f64): f64 {
  const json = configJson(key);
  return json === null || json == "null" ? otherwise : parseFloat(json);
}

/** Where the JSON string that begins at `at` ends: behind its closing quote. */
function stringEnd(at: i32): i32 {
  for (at++; at < table.length && table.charCodeAt(at) != 0x22; at++) {
    if (table.charCodeAt(at) == 0x5c) at++;
  }
  return at + 1;
}

/** Where the compact JSON value that begins at `at` ends. */
function valueEnd(at: i32): i32 {
  let depth = 0;
  while (at < table.length) {
    const c = table.charAt(at);
    if (c == '"') {
      at = stringEnd(at);
      continue;
    }
    const closes = c == "}" || c == "]";
    if (depth == 0 && (closes || c == ",")) return at;
    if (closes) depth--;
    else if (c == "{" || c == "[") depth++;
    at++;
  }
  return at;
}

/** Without white space at both ends. (The language's own `trim` stops early where white space is long and the text is short.) */
export function trim(text: string): string {
  let begin = 0, end = text.length;
  while (begin < end && isSpace(text.charCodeAt(begin))) begin++;
  while (begin < end && isSpace(text.charCodeAt(end - 1))) end--;
  return text.substring(begin, end);
}

function isSpace(code: i32): bool {
  return code == 0x20 || (code >= 0x09 && code <= 0x0d);
}

export const enum Level {
  Debug,
  Info,
  Warn,
}

// @ts-ignore: a decorator of AssemblyScript
@external("pipeline:plugin/log@0.1.0", "emit")
declare function emit(level: Level, message: usize, length: usize): void;

/** Writes a line of the plugin's log. */
export function log(level: Level, message: string): void {
  emit(level, changetype<usize>(message), message.length);
}

// @ts-ignore: a decorator of AssemblyScript
@external("pipeline:plugin/assets@0.1.0", "read")
declare function read(name: usize, length: usize, offset: u64, bytes: u32, result: usize): void;

/** At most `length` bytes of a granted asset from `offset` on, fewer at its end; null if it was not granted. */
export function readAsset(name: string, offset: u64, length: u32): Uint8Array | null {
  const result = allocate(12);
  read(changetype<usize>(name), name.length, offset, length, result);
  if (load<u8>(result)) return null;
  const bytes = new Uint8Array(load<i32>(result, 8));
  memory.copy(bytes.dataStart, load<usize>(result, 4), bytes.length);
  return bytes;
}

/** What `assert`, `throw` and the runtime's own checks end in: its message is the reason why the completion is undecided. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  log(Level.Warn, (message === null ? "abort" : message) + " (" + (file === null ? "?" : file) + ":" + line.toString() + ")");
  unreachable();
}

function allocate(size: usize): usize {
  const at = heap.alloc(size); // aligned to 16, more than any record needs
  memory.fill(at, 0, size);
  return at;
}

export function cabi_realloc(old: usize, oldSize: usize, align: usize, size: usize): usize {
  return old ? heap.realloc(old, size) : heap.alloc(size);
}

function text(at: usize, length: i32): string {
  return String.UTF16.decodeUnsafe(at, length << 1);
}

function textAt(at: usize): string {
  return text(load<usize>(at), load<i32>(at, 4));
}

// The string's own memory is given: the collector must not take it before the host has read it.
function storeText(at: usize, value: string): void {
  __pin(changetype<usize>(value));
  store<usize>(at, changetype<usize>(value));
  store<i32>(at, value.length, 4);
}

function storeOption(at: usize, value: string | null): void {
  if (value === null) return;
  store<u8>(at, 1);
  storeText(at + 4, value);
}

export function exportedSchema(): usize {
  const at = allocate(8);
  storeText(at, schema);
  return at;
}

export function exportedConfigure(json: usize, length: i32): usize {
  table = text(json, length);
  return allocate(12);
}

// 16 flat parameters: the context's four and the group's twelve.
export function exportedVerify(
  step: u64, seed: u64, maxTokens: u32, evaluating: u32,
  promptId: u64, source: usize, sourceLength: i32, prompt: usize, promptLength: i32,
  hasReference: i32, reference: usize, referenceLength: i32, fields: usize, fieldsLength: i32,
  completions: usize, completionsLength: i32,
): usize {
  const context = new Context(step, seed, maxTokens, evaluating != 0);
  const group = new Group(
    promptId, text(source, sourceLength), [], hasReference ? text(reference, referenceLength) : null, new Map(), [],
  );
  for (let i = 0, at = prompt; i < promptLength; i++, at += 16) {
    group.prompt.push(new Message(textAt(at), textAt(at + 8)));
  }
  for (let i = 0, at = fields; i < fieldsLength; i++, at += 16) group.fields.set(textAt(at), textAt(at + 8));
  for (let i = 0, at = completions; i < completionsLength; i++, at += 24) {
    group.completions.push(new Completion(load<u64>(at), textAt(at + 8), load<u32>(at, 16), <Finish>load<u8>(at, 20)));
  }
  const verdicts = allocate(48 * completionsLength);
  for (let i = 0, at = verdicts; i < completionsLength; i++, at += 48) {
    write(at, verify(context, group, group.completions[i]));
  }
  const result = allocate(12);
  store<usize>(result, verdicts, 4);
  store<i32>(result, completionsLength, 8);
  return result;
}

function write(at: usize, verdict: Verdict): void {
  store<u8>(at, verdict.kind);
  if (verdict.kind == <u8>Kind.Undecided) storeText(at + 8, verdict.reason);
  if (verdict.kind != <u8>Kind.Decided) return;
  store<f64>(at, verdict.score, 8);
  storeOption(at + 16, verdict.answer);
  const names = verdict.metrics.keys();
  const metrics = allocate(16 * names.length);
  for (let i = 0; i < names.length; i++) {
    storeText(metrics + 16 * i, names[i]);
    store<f64>(metrics + 16 * i, verdict.metrics.get(names[i]), 8);
  }
  store<usize>(at, metrics, 28);
  store<i32>(at, names.length, 32);
  storeOption(at + 36, verdict.note);
}
