// Package plugin is the world `verifier` of pipeline:plugin 0.1.0 for Go: what a plugin is given and gives.
package plugin

import "encoding/json"

// Finish says why a completion ended.
type Finish uint8

const (
	Stop Finish = iota
	Length
	Aborted
)

type Message struct{ Role, Content string }

type Completion struct {
	ID     uint64
	Text   string
	Tokens uint32
	Finish Finish
}

// Context is all that a plugin may know beyond its input.
type Context struct {
	Step, Seed uint64
	MaxTokens  uint32
	Evaluating bool
}

// Group is a prompt and its completions. What is no string among the fields is JSON.
type Group struct {
	PromptID    uint64
	Source      string
	Prompt      []Message
	Reference   *string // nil where the row has none
	Fields      map[string]string
	Completions []Completion
}

type kind uint8

const (
	decided kind = iota
	undecided
	notApplicable
)

// Verdict is what a verifier says of one completion. Score 1 is fully right, 0 is wrong; Answer is the extracted answer;
// Note is for whoever looks at the verdict. An empty Answer or Note is none: use WithAnswer for an answer that is empty.
type Verdict struct {
	Score   float64
	Note    string
	Metrics []Metric

	answer *string
	kind   kind
	reason string
}

type Metric struct {
	Name  string
	Value float64
}

func Decided(score float64) Verdict           { return Verdict{Score: score} }
func Undecided(reason string) Verdict         { return Verdict{kind: undecided, reason: reason} }
func NotApplicable() Verdict                  { return Verdict{kind: notApplicable} }
func (v Verdict) WithAnswer(a string) Verdict { v.answer = &a; return v }
func (v Verdict) WithNote(n string) Verdict   { v.Note = n; return v }

type verifier struct {
	schema    string
	configure func([]byte) error
	verify    func(*Context, *Group, *Completion) Verdict
}

var registered verifier

// Verifier makes the function the plugin of this module. The config's table is read into C by encoding/json, after the host
// has held it against the JSON Schema. Call it in an init function.
func Verifier[C any](schema string, verify func(*C, *Context, *Group, *Completion) Verdict) {
	config := new(C)
	registered = verifier{
		schema:    schema,
		configure: func(text []byte) error { return json.Unmarshal(text, config) },
		verify:    func(ctx *Context, g *Group, c *Completion) Verdict { return verify(config, ctx, g, c) },
	}
}
