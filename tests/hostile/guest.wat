;; A verifier that is right wherever a text equals the reference, with blanks to fill in: what it does on a text that begins
;; with `!`, what it does at other times, and what it asks of the host.
(component
{prelude}
{imports}
  (core module $main
    (import "memory" "memory" (memory 1))
    (import "memory" "realloc" (func $realloc (param i32 i32 i32 i32) (result i32)))
    (import "host" "emit" (func $emit (param i32 i32 i32)))
{core-imports}
    (data (i32.const 16) "{schema-text}")
    (data (i32.const 2048) "\ff\fe\80 no text")
    (table $table 1 funcref)
    (func (export "schema") (result i32)
      {schema}
      (i32.store (i32.const 0) (i32.const 16))
      (i32.store (i32.const 4) (i32.const {schema-length}))
      (i32.const 0))
    (func (export "configure") (param i32) (param i32) (result i32)
      {configure}
      (i32.store8 (i32.const 1536) (i32.const 0))
      (i32.const 1536))
    (func $is-equal (param $a i32) (param $n i32) (param $b i32) (param $m i32) (result i32)
      (local $i i32)
      (if (i32.ne (local.get $n) (local.get $m)) (then (return (i32.const 0))))
      (block $done
        (loop $next
          (br_if $done (i32.eq (local.get $i) (local.get $n)))
          (if (i32.ne (i32.load8_u (i32.add (local.get $a) (local.get $i)))
                      (i32.load8_u (i32.add (local.get $b) (local.get $i))))
            (then (return (i32.const 0))))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))
      (i32.const 1))
    (func $deep (param i64) (result i64) (i64.add (call $deep (i64.add (local.get 0) (i64.const 1))) (local.get 0)))
{items}
    (func (export "verify")
      (param $step i64) (param $seed i64) (param $max i32) (param $evaluating i32)
      (param $id i64) (param $source i32) (param $source-len i32) (param $prompt i32) (param $prompt-len i32)
      (param $has-reference i32) (param $reference i32) (param $reference-len i32)
      (param $fields i32) (param $fields-len i32) (param $completions i32) (param $n i32) (result i32)
      (local $i i32) (local $verdicts i32) (local $verdict i32) (local $text i32) (local $len i32) (local $ret i32)
      (local $x i32) (local $y i64)
      (local.set $ret (call $realloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 16)))
      (local.set $verdicts
        (call $realloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.mul (local.get $n) (i32.const 48))))
      (i32.store offset=4 (local.get $ret) (local.get $verdicts))
      (i32.store offset=8 (local.get $ret) (local.get $n))
      (block $done
        (loop $next
          (br_if $done (i32.eq (local.get $i) (local.get $n)))
          (local.set $x (i32.add (local.get $completions) (i32.mul (local.get $i) (i32.const 24))))
          (local.set $verdict (i32.add (local.get $verdicts) (i32.mul (local.get $i) (i32.const 48))))
          (local.set $text (i32.load offset=8 (local.get $x)))
          (local.set $len (i32.load offset=12 (local.get $x)))
          (f64.store offset=8 (local.get $verdict) (f64.convert_i32_u
            (call $is-equal (local.get $text) (local.get $len) (local.get $reference) (local.get $reference-len))))
          (if (i32.and (i32.gt_u (local.get $len) (i32.const 0)) (i32.eq (i32.load8_u (local.get $text)) (i32.const 0x21)))
            (then {misdeed}))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))
      (local.get $ret)))
  (core instance $main (instantiate $main
    (with "memory" (instance $memory)) (with "host" (instance $host)){core-arguments}))
  (func $schema (result string)
    (canon lift (core func $main "schema") (memory $mem)))
  (func $configure (param "json" string) (result (result (error (list $config-error))))
    (canon lift (core func $main "configure") (memory $mem) (realloc $realloc)))
  (instance $config (export "schema" (func $schema)) (export "configure" (func $configure)))
  (export "pipeline:plugin/config@0.1.0" (instance $config))
  (func $verify (param "ctx" $context) (param "group" $group) (result (result (list $verdict) (error string)))
    (canon lift (core func $main "verify") (memory $mem) (realloc $realloc)))
  (instance $verify-interface (export "verify" (func $verify)))
  (export "pipeline:plugin/verify@0.1.0" (instance $verify-interface))
)
