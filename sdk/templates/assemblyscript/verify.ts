import { Completion, Context, Group, Verdict, configString, trim } from "./sdk/assemblyscript/plugin";

/** The JSON Schema of the config. */
export const schema = `{ "type": "object", "additionalProperties": false, "properties": {
  "tag": { "type": "string", "pattern": "^[a-z]+$", "description": "what the answer stands in; answer" } } }`;

/** Right if the last <answer>..</answer> of the completion holds the reference. */
export function verify(context: Context, group: Group, completion: Completion): Verdict {
  const reference = group.reference;
  if (reference === null) return Verdict.undecided("the prompt has no reference");
  const tag = configString("tag", "answer");
  const open = "<" + tag + ">";
  const begin = completion.text.lastIndexOf(open);
  const end = begin < 0 ? -1 : completion.text.indexOf("</" + tag + ">", begin);
  if (end < 0) return Verdict.decided(0, null, "there is no " + open);
  const answer = trim(completion.text.substring(begin + open.length, end));
  const wanted = trim(reference);
  return answer == wanted ? Verdict.decided(1, answer) : Verdict.decided(0, answer, "expected " + wanted);
}
