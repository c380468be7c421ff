//go:build wasip1

package plugin

import (
	"fmt"
	"math"
	"unsafe"
)

// The canonical ABI of wasm32 by hand: GOARCH=wasm has pointers of 64 bits, so that no struct has its layout.

// memory keeps alive what the host was given or has written: an instance lives for one call.
var memory [][]uint64

func allocate(size uint32) uint32 {
	if size == 0 {
		return 8
	}
	block := make([]uint64, (size+7)/8) // aligned to 8, more than any record needs
	memory = append(memory, block)
	return uint32(uintptr(unsafe.Pointer(&block[0])))
}

//go:wasmexport cabi_realloc
func realloc(old, oldSize, align, size uint32) uint32 {
	at := allocate(size)
	if old != 0 {
		copy(bytes(at, size), bytes(old, oldSize))
	}
	return at
}

func bytes(at, size uint32) []byte  { return unsafe.Slice((*byte)(unsafe.Pointer(uintptr(at))), size) }
func get[T any](at uint32) T        { return *(*T)(unsafe.Pointer(uintptr(at))) }
func set[T any](at uint32, value T) { *(*T)(unsafe.Pointer(uintptr(at))) = value }

func text(at, size uint32) string {
	if size == 0 {
		return ""
	}
	return unsafe.String((*byte)(unsafe.Pointer(uintptr(at))), size)
}
func textAt(at uint32) string { return text(get[uint32](at), get[uint32](at+4)) }

func setText(at uint32, value string) {
	data := allocate(uint32(len(value)))
	copy(bytes(data, uint32(len(value))), value)
	set(at, data)
	set(at+4, uint32(len(value)))
}

func setOption(at uint32, value *string) {
	if value != nil {
		set(at, uint8(1))
		setText(at+4, *value)
	}
}

//go:wasmexport pipeline:plugin/config@0.1.0#schema
func exportedSchema() uint32 {
	at := allocate(8)
	setText(at, registered.schema)
	return at
}

//go:wasmexport pipeline:plugin/config@0.1.0#configure
func exportedConfigure(json, size uint32) uint32 {
	at := allocate(12)
	if err := registered.configure(bytes(json, size)); err != nil {
		refusal := allocate(16)
		setText(refusal, "")
		setText(refusal+8, err.Error())
		set(at, uint8(1))
		set(at+4, refusal)
		set(at+8, uint32(1))
	}
	return at
}

// The 16 flat parameters are the context's four and the group's twelve.
//
//go:wasmexport pipeline:plugin/verify@0.1.0#verify
func exportedVerify(step, seed uint64, maxTokens, evaluating uint32, promptID uint64, source, sourceSize, prompt, promptSize,
	hasReference, reference, referenceSize, fields, fieldsSize, completions, completionsSize uint32) uint32 {
	ctx := &Context{step, seed, maxTokens, evaluating != 0}
	group := &Group{
		PromptID:    promptID,
		Source:      text(source, sourceSize),
		Prompt:      make([]Message, promptSize),
		Fields:      make(map[string]string, fieldsSize),
		Completions: make([]Completion, completionsSize),
	}
	for i := range group.Prompt {
		at := prompt + 16*uint32(i)
		group.Prompt[i] = Message{textAt(at), textAt(at + 8)}
	}
	if hasReference != 0 {
		reference := text(reference, referenceSize)
		group.Reference = &reference
	}
	for at := fields; at < fields+16*fieldsSize; at += 16 {
		group.Fields[textAt(at)] = textAt(at + 8)
	}
	for i := range group.Completions {
		at := completions + 24*uint32(i)
		group.Completions[i] = Completion{get[uint64](at), textAt(at + 8), get[uint32](at + 16), get[Finish](at + 20)}
	}
	verdicts := allocate(48 * completionsSize)
	for i := range group.Completions {
		verdict := judge(ctx, group, &group.Completions[i])
		write(verdicts+48*uint32(i), &verdict)
	}
	at := allocate(12)
	set(at+4, verdicts)
	set(at+8, completionsSize)
	return at
}

// A panic makes the completion undecided, and says why.
func judge(ctx *Context, group *Group, completion *Completion) (verdict Verdict) {
	defer func() {
		if reason := recover(); reason != nil {
			verdict = Undecided(fmt.Sprint("panic: ", reason))
		}
	}()
	return registered.verify(ctx, group, completion)
}

func write(at uint32, verdict *Verdict) {
	set(at, uint8(verdict.kind))
	switch verdict.kind {
	case undecided:
		setText(at+8, verdict.reason)
	case decided:
		set(at+8, math.Float64bits(verdict.Score))
		setOption(at+16, verdict.answer)
		if n := uint32(len(verdict.Metrics)); n > 0 {
			metrics := allocate(16 * n)
			for i, metric := range verdict.Metrics {
				setText(metrics+16*uint32(i), metric.Name)
				set(metrics+16*uint32(i)+8, math.Float64bits(metric.Value))
			}
			set(at+28, metrics)
			set(at+32, n)
		}
		if verdict.Note != "" {
			setOption(at+36, &verdict.Note)
		}
	}
}

//go:wasmimport pipeline:plugin/log@0.1.0 emit
func emit(level, message, size uint32)

// Level says how much a line of the log matters.
type Level uint32

const (
	Debug Level = iota
	Info
	Warn
)

// Log writes a line of the plugin's log.
func Log(level Level, message string) {
	at := allocate(8)
	setText(at, message)
	emit(uint32(level), get[uint32](at), get[uint32](at+4))
}

//go:wasmimport pipeline:plugin/assets@0.1.0 read
func read(name, size uint32, offset uint64, length, result uint32)

// ReadAsset gives at most length bytes of a granted asset from offset on, fewer at its end.
func ReadAsset(name string, offset uint64, length uint32) ([]byte, error) {
	at, result := allocate(8), allocate(12)
	setText(at, name)
	read(get[uint32](at), get[uint32](at+4), offset, length, result)
	if get[uint8](result) != 0 {
		return nil, fmt.Errorf("%s", textAt(result+4))
	}
	return bytes(get[uint32](result+4), get[uint32](result+8)), nil
}
