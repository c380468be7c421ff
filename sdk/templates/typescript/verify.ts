import type { Completion, Group, Verdict } from './sdk/typescript/plugin.js';

export interface Config {
  tag?: string;
}

/** The JSON Schema of the config. */
export const schema = {
  type: 'object',
  additionalProperties: false,
  properties: { tag: { type: 'string', pattern: '^[a-z]+$', description: 'what the answer stands in; answer' } },
};

/** Right if the last <answer>..</answer> of the completion holds the reference. */
export function verify({ tag = 'answer' }: Config, group: Group, completion: Completion): Verdict {
  if (group.reference === null) return 'the prompt has no reference';
  const open = `<${tag}>`;
  const begin = completion.text.lastIndexOf(open);
  const end = begin < 0 ? -1 : completion.text.indexOf(`</${tag}>`, begin);
  if (end < 0) return { score: 0, note: `there is no ${open}` };
  const answer = completion.text.slice(begin + open.length, end).trim();
  const wanted = group.reference.trim();
  return answer === wanted ? { score: 1, answer } : { score: 0, answer, note: `expected ${wanted}` };
}
