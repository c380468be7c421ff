;; The score is how many bytes of the asset that a completion names were read, from byte 1 on and at most 8; the answer is
;; what was read. An asset that can't be read makes it undecided.
(component
{prelude}
  (import "pipeline:plugin/assets@0.1.0" (instance $assets
    (export "read" (func (param "name" string) (param "offset" u64) (param "length" u32)
      (result (result (list u8) (error string)))))))
  (core func $read (canon lower (func $assets "read") (memory $mem) (realloc $realloc)))
  (core instance $granted (export "read" (func $read)))
  (core module $main
    (import "memory" "memory" (memory 1))
    (import "memory" "realloc" (func $realloc (param i32 i32 i32 i32) (result i32)))
    (import "host" "emit" (func $emit (param i32 i32 i32)))
    (import "granted" "read" (func $read (param i32 i32 i64 i32 i32)))
{config-core}
    (func (export "verify")
      (param $step i64) (param $seed i64) (param $max i32) (param $evaluating i32)
      (param $id i64) (param $source i32) (param $source-len i32) (param $prompt i32) (param $prompt-len i32)
      (param $has-reference i32) (param $reference i32) (param $reference-len i32)
      (param $fields i32) (param $fields-len i32) (param $completions i32) (param $n i32) (result i32)
      (local $i i32) (local $verdicts i32) (local $verdict i32) (local $completion i32) (local $ret i32) (local $got i32)
      (local.set $ret (call $realloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 16)))
      (local.set $got (call $realloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 16)))
      (local.set $verdicts
        (call $realloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.mul (local.get $n) (i32.const 48))))
      (block $done
        (loop $next
          (br_if $done (i32.eq (local.get $i) (local.get $n)))
          (local.set $completion (i32.add (local.get $completions) (i32.mul (local.get $i) (i32.const 24))))
          (local.set $verdict (i32.add (local.get $verdicts) (i32.mul (local.get $i) (i32.const 48))))
          (call $read
            (i32.load offset=8 (local.get $completion)) (i32.load offset=12 (local.get $completion))
            (i64.const 1) (i32.const 8) (local.get $got))
          (if (i32.load8_u (local.get $got))
            (then
              (i32.store8 (local.get $verdict) (i32.const 1))
              (i64.store offset=8 align=4 (local.get $verdict) (i64.load offset=4 align=4 (local.get $got))))
            (else
              (f64.store offset=8 (local.get $verdict) (f64.convert_i32_u (i32.load offset=8 (local.get $got))))
              (i32.store8 offset=16 (local.get $verdict) (i32.const 1))
              (i64.store offset=20 align=4 (local.get $verdict) (i64.load offset=4 align=4 (local.get $got)))))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))
      (i32.store offset=4 (local.get $ret) (local.get $verdicts))
      (i32.store offset=8 (local.get $ret) (local.get $n))
      (local.get $ret)))
  (core instance $main (instantiate $main
    (with "memory" (instance $memory)) (with "host" (instance $host)) (with "granted" (instance $granted))))
{config}
  (func $verify (param "ctx" $context) (param "group" $group) (result (result (list $verdict) (error string)))
    (canon lift (core func $main "verify") (memory $mem) (realloc $realloc)))
  (instance $verify-interface (export "verify" (func $verify)))
  (export "pipeline:plugin/verify@0.1.0" (instance $verify-interface))
)
