// The world `verifier` of pipeline:plugin 0.1.0 for TypeScript, and the glue to the component's functions.
import * as plugin from '../../verify.js';

export interface Message {
  role: string;
  content: string;
}

export interface Completion {
  id: number;
  text: string;
  tokens: number;
  finish: 'stop' | 'length' | 'aborted';
}

/** A prompt and its completions. */
export interface Group {
  promptId: number;
  source: string;
  prompt: Message[];
  reference: string | null;
  /** What is no string in the dataset is JSON. */
  fields: Record<string, string>;
  completions: Completion[];
}

/** All that a plugin may know beyond its input. */
export interface Context {
  step: number;
  seed: number;
  maxTokens: number;
  evaluating: boolean;
}

/** 1 is fully right, 0 is wrong. `answer` is the extracted answer, `note` is for whoever looks at the verdict. */
export interface Finding {
  score: number;
  answer?: string;
  note?: string;
  metrics?: Record<string, number>;
}

/** A number is a score, a string the reason why there is none; null: the plugin has nothing to do with the completion. */
export type Verdict = Finding | number | string | null;

type Verify = (config: plugin.Config, group: Group, completion: Completion, context: Context) => Verdict;

type Lowered =
  | { tag: 'decided'; val: { score: number; answer: string | null; note: string | null; metrics: [string, number][] } }
  | { tag: 'undecided'; val: string }
  | { tag: 'not-applicable' };

let table: plugin.Config = {};

export const config = {
  schema: (): string => JSON.stringify(plugin.schema),
  configure(json: string): void {
    table = JSON.parse(json);
  },
};

export const verify = {
  verify(context: Context, group: Omit<Group, 'fields'> & { fields: [string, string][] }): Lowered[] {
    const judge: Verify = plugin.verify;
    const given: Group = { ...group, fields: Object.fromEntries(group.fields) };
    return group.completions.map((completion) => {
      try {
        return lowered(judge(table, given, completion, context));
      } catch (error) {
        return { tag: 'undecided', val: String(error) };
      }
    });
  },
};

function lowered(found: Verdict): Lowered {
  if (found === null) return { tag: 'not-applicable' };
  if (typeof found === 'string') return { tag: 'undecided', val: found };
  const finding: Finding = typeof found === 'number' ? { score: found } : found;
  const { score, answer = null, note = null, metrics = {} } = finding;
  return { tag: 'decided', val: { score, answer, note, metrics: Object.entries(metrics) } };
}
