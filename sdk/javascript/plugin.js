// The glue between a plugin in JavaScript and the component's functions.
import * as plugin from '../../verify.js';

let table = {};

export const config = {
  schema: () => JSON.stringify(plugin.schema),
  configure(json) {
    table = JSON.parse(json);
  },
};

export const verify = {
  verify(context, group) {
    const fields = Object.fromEntries(group.fields);
    const given = { ...group, fields };
    return group.completions.map((completion) => {
      try {
        return verdict(plugin.verify(table, given, completion, context));
      } catch (error) {
        return { tag: 'undecided', val: String(error) };
      }
    });
  },
};

// A number is a score, a string the reason why there is none; null says that the plugin has nothing to do with the completion.
function verdict(found) {
  if (found === null) return { tag: 'not-applicable' };
  if (typeof found === 'string') return { tag: 'undecided', val: found };
  const { score, answer = null, note = null, metrics = {} } = typeof found === 'number' ? { score: found } : found;
  if (typeof score !== 'number') throw new TypeError(`verify returned ${JSON.stringify(found)}, which has no score`);
  return { tag: 'decided', val: { score, answer, note, metrics: Object.entries(metrics) } };
}
