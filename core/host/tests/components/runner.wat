;; Runs each completion's text in the runtime that the group's source names, with the reference as stdin, `{times}` times.
;; The score is the number of how it ended, the note is stdout and the answer is stderr or why it was trapped; a host that
;; can't run it makes it undecided.
(component
{prelude}
  (import "pipeline:plugin/runner@0.1.0" (instance $runner
    (type $exit' (variant
      (case "ok") (case "failed" s32) (case "out-of-fuel") (case "out-of-memory") (case "trapped" string)))
    (export "exit" (type $exit (eq $exit')))
    (type $outcome' (record (field "stdout" string) (field "stderr" string) (field "exit" $exit)))
    (export "outcome" (type $outcome (eq $outcome')))
    (export "run" (func (param "runtime" string) (param "source" string) (param "stdin" string)
      (result (result $outcome (error string)))))))
  (core func $run (canon lower (func $runner "run") (memory $mem) (realloc $realloc)))
  (core instance $granted (export "run" (func $run)))
  (core module $main
    (import "memory" "memory" (memory 1))
    (import "memory" "realloc" (func $realloc (param i32 i32 i32 i32) (result i32)))
    (import "host" "emit" (func $emit (param i32 i32 i32)))
    (import "granted" "run" (func $run (param i32 i32 i32 i32 i32 i32 i32)))
{config-core}
    (func (export "verify")
      (param $step i64) (param $seed i64) (param $max i32) (param $evaluating i32)
      (param $id i64) (param $source i32) (param $source-len i32) (param $prompt i32) (param $prompt-len i32)
      (param $has-reference i32) (param $reference i32) (param $reference-len i32)
      (param $fields i32) (param $fields-len i32) (param $completions i32) (param $n i32) (result i32)
      (local $i i32) (local $verdicts i32) (local $verdict i32) (local $completion i32) (local $ret i32) (local $run i32)
      (local $times i32)
      (local.set $ret (call $realloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 16)))
      (local.set $run (call $realloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 32)))
      (local.set $verdicts
        (call $realloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.mul (local.get $n) (i32.const 48))))
      (block $done
        (loop $next
          (br_if $done (i32.eq (local.get $i) (local.get $n)))
          (local.set $completion (i32.add (local.get $completions) (i32.mul (local.get $i) (i32.const 24))))
          (local.set $verdict (i32.add (local.get $verdicts) (i32.mul (local.get $i) (i32.const 48))))
          (local.set $times (i32.const {times}))
          (loop $again
            (call $run (local.get $source) (local.get $source-len)
              (i32.load offset=8 (local.get $completion)) (i32.load offset=12 (local.get $completion))
              (local.get $reference) (local.get $reference-len) (local.get $run))
            (local.set $times (i32.sub (local.get $times) (i32.const 1)))
            (br_if $again (local.get $times)))
          (if (i32.load8_u (local.get $run))
            (then
              (i32.store8 (local.get $verdict) (i32.const 1))
              (i32.store offset=8 (local.get $verdict) (i32.load offset=4 (local.get $run)))
              (i32.store offset=12 (local.get $verdict) (i32.load offset=8 (local.get $run))))
            (else
              (f64.store offset=8 (local.get $verdict) (f64.convert_i32_u (i32.load8_u offset=20 (local.get $run))))
              (i32.store8 offset=16 (local.get $verdict) (i32.const 1))
              (i64.store offset=20 align=4 (local.get $verdict) (i64.load offset=12 align=4 (local.get $run)))
              (if (i32.eq (i32.load8_u offset=20 (local.get $run)) (i32.const 4)) (then
                (i64.store offset=20 align=4 (local.get $verdict) (i64.load offset=24 align=4 (local.get $run)))))
              (i32.store8 offset=36 (local.get $verdict) (i32.const 1))
              (i64.store offset=40 align=4 (local.get $verdict) (i64.load offset=4 align=4 (local.get $run)))))
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
