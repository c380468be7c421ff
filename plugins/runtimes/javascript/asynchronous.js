// Whether a program is one that promises would go on with. They do not run here, and a function that waits for one, or fails
// while nobody listens, ends in silence.

// What stands in comments, strings and templates is no keyword.
const unspoken = /\/\/[^\n]*|\/\*[^]*?\*\/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`/g;

export const isAsynchronous = (source) => /\b(async|await)\b/.test(source.replace(unspoken, " "));
