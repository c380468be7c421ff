package main

import (
	"strings"

	plugin "{{name}}/sdk/go"
)

const schema = `{ "type": "object", "additionalProperties": false, "properties": {
	"tag": { "type": "string", "pattern": "^[a-z]+$", "description": "what the answer stands in; answer" } } }`

type Config struct {
	Tag string `json:"tag"`
}

// verify finds right what holds the reference in its last <answer>..</answer>.
func verify(config *Config, _ *plugin.Context, group *plugin.Group, completion *plugin.Completion) plugin.Verdict {
	if group.Reference == nil {
		return plugin.Undecided("the prompt has no reference")
	}
	tag := config.Tag
	if tag == "" {
		tag = "answer"
	}
	begin := strings.LastIndex(completion.Text, "<"+tag+">")
	if begin < 0 {
		return plugin.Decided(0).WithNote("there is no <" + tag + ">")
	}
	answer, _, closed := strings.Cut(completion.Text[begin+len(tag)+2:], "</"+tag+">")
	if !closed {
		return plugin.Decided(0).WithNote("there is no <" + tag + ">")
	}
	answer = strings.TrimSpace(answer)
	wanted := strings.TrimSpace(*group.Reference)
	if answer != wanted {
		return plugin.Decided(0).WithAnswer(answer).WithNote("expected " + wanted)
	}
	return plugin.Decided(1).WithAnswer(answer)
}

func init() { plugin.Verifier(schema, verify) }

func main() {}
