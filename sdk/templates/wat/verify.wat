;; A verifier by hand: a core module with the functions of the world `verifier` of pipeline:plugin 0.1.0 (sdk/wit).
;; Sizes and places of records are those of the canonical ABI on wasm32; every string is a place and a size in bytes.
(module
  (memory (export "memory") 1)

  ;; The JSON Schema of the config, and texts. `configure` puts the tags at 1024 (open) and 1088 (close).
  (data (i32.const 16) "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"tag\":{\"type\":\"string\",\"pattern\":\"^[a-z]{1,32}$\",\"description\":\"what the answer stands in; answer\"}}}")
  (data (i32.const 256) "the prompt has no reference") ;; 27
  (data (i32.const 288) "there is no ") ;; 12
  (data (i32.const 304) "expected ") ;; 9
  (data (i32.const 320) "\"tag\":\"") ;; 7
  (data (i32.const 336) "answer") ;; 6
  (global $schema-size i32 (i32.const 161))
  (global $open-size (mut i32) (i32.const 0))
  (global $close-size (mut i32) (i32.const 0))

  ;; ---- What the plugin does. ----

  ;; Writes the verdict for one completion at $verdict, which holds zeros: decided, score 0, no answer, no note.
  ;; Right if the last <answer>..</answer> of the completion holds the reference.
  (func $judge (param $has-reference i32) (param $reference i32) (param $reference-size i32)
               (param $text i32) (param $size i32) (param $verdict i32)
    (local $at i32)
    (if (i32.eqz (local.get $has-reference)) (then
      (call $undecided (local.get $verdict) (i32.const 256) (i32.const 27))
      (return)))
    (local.set $at (call $find-last (local.get $text) (local.get $size) (i32.const 1024) (global.get $open-size)))
    (if (i32.lt_s (local.get $at) (i32.const 0)) (then
      (call $note (local.get $verdict) (i32.const 288) (i32.const 12) (i32.const 1024) (global.get $open-size))
      (return)))
    (local.set $at (i32.add (local.get $at) (global.get $open-size)))
    (local.set $text (i32.add (local.get $text) (local.get $at)))
    (local.set $size (call $find (local.get $text) (i32.sub (local.get $size) (local.get $at))
                                 (i32.const 1088) (global.get $close-size)))
    (if (i32.lt_s (local.get $size) (i32.const 0)) (then
      (call $note (local.get $verdict) (i32.const 288) (i32.const 12) (i32.const 1024) (global.get $open-size))
      (return)))
    (call $trim (local.get $text) (local.get $size))
    (local.set $size)
    (local.set $text)
    (call $trim (local.get $reference) (local.get $reference-size))
    (local.set $reference-size)
    (local.set $reference)
    (call $answer (local.get $verdict) (local.get $text) (local.get $size))
    (if (call $equal (local.get $text) (local.get $size) (local.get $reference) (local.get $reference-size))
      (then (call $score (local.get $verdict) (f64.const 1)))
      (else (call $note (local.get $verdict) (i32.const 304) (i32.const 9)
                        (local.get $reference) (local.get $reference-size)))))

  ;; The host has held the config against the schema, and writes it as compact JSON: {} or {"tag":"..."}.
  (func $read-config (param $json i32) (param $size i32)
    (local $tag i32) (local $tag-size i32)
    (local.set $tag (call $find (local.get $json) (local.get $size) (i32.const 320) (i32.const 7)))
    (if (i32.lt_s (local.get $tag) (i32.const 0))
      (then
        (local.set $tag (i32.const 336))
        (local.set $tag-size (i32.const 6)))
      (else
        (local.set $tag-size (i32.sub (i32.sub (local.get $size) (local.get $tag)) (i32.const 9)))
        (local.set $tag (i32.add (i32.add (local.get $json) (local.get $tag)) (i32.const 7)))))
    (i32.store8 (i32.const 1024) (i32.const 0x3c)) ;; <
    (memory.copy (i32.const 1025) (local.get $tag) (local.get $tag-size))
    (i32.store8 (i32.add (i32.const 1025) (local.get $tag-size)) (i32.const 0x3e)) ;; >
    (global.set $open-size (i32.add (local.get $tag-size) (i32.const 2)))
    (i32.store16 (i32.const 1088) (i32.const 0x2f3c)) ;; </
    (memory.copy (i32.const 1090) (i32.const 1025) (i32.add (local.get $tag-size) (i32.const 1)))
    (global.set $close-size (i32.add (local.get $tag-size) (i32.const 3))))

  ;; ---- Parts of a verdict: 48 bytes, the kind at 0 (0 decided, 1 undecided, 2 not applicable). ----

  (func $undecided (param $verdict i32) (param $reason i32) (param $size i32)
    (i32.store8 (local.get $verdict) (i32.const 1))
    (i32.store offset=8 (local.get $verdict) (local.get $reason))
    (i32.store offset=12 (local.get $verdict) (local.get $size)))
  (func $score (param $verdict i32) (param $score f64)
    (f64.store offset=8 (local.get $verdict) (local.get $score)))
  (func $answer (param $verdict i32) (param $text i32) (param $size i32)
    (i32.store8 offset=16 (local.get $verdict) (i32.const 1))
    (i32.store offset=20 (local.get $verdict) (local.get $text))
    (i32.store offset=24 (local.get $verdict) (local.get $size)))
  ;; A note of two texts.
  (func $note (param $verdict i32) (param $a i32) (param $a-size i32) (param $b i32) (param $b-size i32)
    (local $text i32)
    (local.set $text (call $allocate (i32.add (local.get $a-size) (local.get $b-size))))
    (memory.copy (local.get $text) (local.get $a) (local.get $a-size))
    (memory.copy (i32.add (local.get $text) (local.get $a-size)) (local.get $b) (local.get $b-size))
    (i32.store8 offset=36 (local.get $verdict) (i32.const 1))
    (i32.store offset=40 (local.get $verdict) (local.get $text))
    (i32.store offset=44 (local.get $verdict) (i32.add (local.get $a-size) (local.get $b-size))))

  ;; ---- Texts. ----

  (func $equal (param $a i32) (param $a-size i32) (param $b i32) (param $b-size i32) (result i32)
    (i32.and
      (i32.eq (local.get $a-size) (local.get $b-size))
      (call $begins (local.get $a) (local.get $a-size) (local.get $b) (local.get $b-size))))
  ;; Whether the text begins with the part.
  (func $begins (param $text i32) (param $size i32) (param $part i32) (param $part-size i32) (result i32)
    (local $i i32)
    (if (i32.gt_u (local.get $part-size) (local.get $size)) (then (return (i32.const 0))))
    (block $done
      (loop $next
        (br_if $done (i32.eq (local.get $i) (local.get $part-size)))
        (if (i32.ne (i32.load8_u (i32.add (local.get $text) (local.get $i)))
                    (i32.load8_u (i32.add (local.get $part) (local.get $i))))
          (then (return (i32.const 0))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (i32.const 1))
  ;; Where the part first stands in the text, or -1.
  (func $find (param $text i32) (param $size i32) (param $part i32) (param $part-size i32) (result i32)
    (local $at i32)
    (loop $next (result i32)
      (if (i32.gt_u (i32.add (local.get $at) (local.get $part-size)) (local.get $size)) (then (return (i32.const -1))))
      (if (call $begins (i32.add (local.get $text) (local.get $at)) (i32.sub (local.get $size) (local.get $at))
                        (local.get $part) (local.get $part-size))
        (then (return (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next)))
  ;; Where the part last stands in the text, or -1.
  (func $find-last (param $text i32) (param $size i32) (param $part i32) (param $part-size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.sub (local.get $size) (local.get $part-size)))
    (block $done
      (loop $next
        (br_if $done (i32.lt_s (local.get $at) (i32.const 0)))
        (br_if $done (call $begins (i32.add (local.get $text) (local.get $at))
                                   (i32.sub (local.get $size) (local.get $at))
                                   (local.get $part) (local.get $part-size)))
        (local.set $at (i32.sub (local.get $at) (i32.const 1)))
        (br $next)))
    (select (local.get $at) (i32.const -1) (i32.ge_s (local.get $at) (i32.const 0))))
  (func $is-space (param $byte i32) (result i32)
    (i32.or
      (i32.eq (local.get $byte) (i32.const 0x20))
      (i32.le_u (i32.sub (local.get $byte) (i32.const 9)) (i32.const 4))))
  ;; The text without white space at both ends.
  (func $trim (param $text i32) (param $size i32) (result i32 i32)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $size)))
        (br_if $done (i32.eqz (call $is-space (i32.load8_u (local.get $text)))))
        (local.set $text (i32.add (local.get $text) (i32.const 1)))
        (local.set $size (i32.sub (local.get $size) (i32.const 1)))
        (br $next)))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $size)))
        (br_if $done (i32.eqz (call $is-space (i32.load8_u
          (i32.sub (i32.add (local.get $text) (local.get $size)) (i32.const 1))))))
        (local.set $size (i32.sub (local.get $size) (i32.const 1)))
        (br $next)))
    (local.get $text)
    (local.get $size))

  ;; ---- The functions of the interface; nothing below knows what the plugin does. ----

  ;; Memory is taken from the end and never given back: an instance lives for one call.
  (global $next (mut i32) (i32.const 2048))
  (func $allocate (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $at) (local.get $size)))
    (block $enough
      (loop $grow
        (br_if $enough (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
        (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
        (br $grow)))
    (local.get $at))
  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (call $allocate (local.get $size)))
    (memory.copy (local.get $at) (local.get $old) (local.get $old-size))
    (local.get $at))

  (func (export "pipeline:plugin/config@0.1.0#schema") (result i32)
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (global.get $schema-size))
    (i32.const 0))
  (func (export "pipeline:plugin/config@0.1.0#configure") (param $json i32) (param $size i32) (result i32)
    (call $read-config (local.get $json) (local.get $size))
    (call $allocate (i32.const 12))) ;; zeros: no objection

  ;; 16 flat parameters: the context's four and the group's twelve. A completion has 24 bytes, its text at 8.
  (func (export "pipeline:plugin/verify@0.1.0#verify")
    (param $step i64) (param $seed i64) (param $max-tokens i32) (param $evaluating i32)
    (param $prompt-id i64) (param $source i32) (param $source-size i32) (param $prompt i32) (param $prompt-size i32)
    (param $has-reference i32) (param $reference i32) (param $reference-size i32)
    (param $fields i32) (param $fields-size i32) (param $completions i32) (param $count i32) (result i32)
    (local $i i32) (local $verdicts i32) (local $completion i32) (local $result i32)
    (local.set $verdicts (call $allocate (i32.mul (local.get $count) (i32.const 48))))
    (block $done
      (loop $next
        (br_if $done (i32.eq (local.get $i) (local.get $count)))
        (local.set $completion (i32.add (local.get $completions) (i32.mul (local.get $i) (i32.const 24))))
        (call $judge
          (local.get $has-reference) (local.get $reference) (local.get $reference-size)
          (i32.load offset=8 (local.get $completion)) (i32.load offset=12 (local.get $completion))
          (i32.add (local.get $verdicts) (i32.mul (local.get $i) (i32.const 48))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (local.set $result (call $allocate (i32.const 12)))
    (i32.store offset=4 (local.get $result) (local.get $verdicts))
    (i32.store offset=8 (local.get $result) (local.get $count))
    (local.get $result)))
