;; Right: the text equals the reference. A text that begins with a capital letter asks for a misdeed instead.
(component
{prelude}
  (core module $main
    (import "memory" "memory" (memory 1))
    (import "memory" "realloc" (func $realloc (param i32 i32 i32 i32) (result i32)))
    (import "host" "emit" (func $emit (param i32 i32 i32)))
{config-core}
    (data (i32.const 192) "too hard")
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
    (func $overflow (param i32) (result i32) (i32.add (call $overflow (local.get 0)) (i32.const 1)))
    (func (export "verify")
      (param $step i64) (param $seed i64) (param $max i32) (param $evaluating i32)
      (param $id i64) (param $source i32) (param $source-len i32) (param $prompt i32) (param $prompt-len i32)
      (param $has-reference i32) (param $reference i32) (param $reference-len i32)
      (param $fields i32) (param $fields-len i32) (param $completions i32) (param $n i32) (result i32)
      (local $i i32) (local $verdicts i32) (local $verdict i32) (local $completion i32) (local $text i32) (local $len i32)
      (local $what i32) (local $ret i32)
      (local.set $ret (call $realloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 16)))
      (local.set $verdicts
        (call $realloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.mul (local.get $n) (i32.const 48))))
      (block $done
        (loop $next
          (br_if $done (i32.eq (local.get $i) (local.get $n)))
          (local.set $completion (i32.add (local.get $completions) (i32.mul (local.get $i) (i32.const 24))))
          (local.set $verdict (i32.add (local.get $verdicts) (i32.mul (local.get $i) (i32.const 48))))
          (local.set $text (i32.load offset=8 (local.get $completion)))
          (local.set $len (i32.load offset=12 (local.get $completion)))
          (f64.store offset=8 (local.get $verdict) (f64.convert_i32_u
            (call $is-equal (local.get $text) (local.get $len) (local.get $reference) (local.get $reference-len))))
          (local.set $what (i32.const 0))
          (if (local.get $len) (then (local.set $what (i32.load8_u (local.get $text)))))
          (if (i32.eq (local.get $what) (i32.const 0x4c)) (then (loop $for-ever (br $for-ever)))) ;; Loop
          (if (i32.eq (local.get $what) (i32.const 0x4d)) (then ;; Memory
            (loop $more (drop (memory.grow (i32.const 16))) (br $more))))
          (if (i32.eq (local.get $what) (i32.const 0x54)) (then unreachable)) ;; Trap
          (if (i32.eq (local.get $what) (i32.const 0x57)) (then ;; Warn, then trap
            (call $emit (i32.const 2) (local.get $text) (local.get $len))
            unreachable))
          (if (i32.eq (local.get $what) (i32.const 0x44)) (then ;; Divide
            (drop (i32.div_u (local.get $i) (i32.const 0)))))
          (if (i32.eq (local.get $what) (i32.const 0x53)) (then (drop (call $overflow (i32.const 1))))) ;; Stack
          (if (i32.eq (local.get $what) (i32.const 0x4f)) (then ;; Outside of the memory
            (drop (i32.load (i32.const -4)))))
          (if (i32.eq (local.get $what) (i32.const 0x46)) (then ;; Few
            (i32.store offset=4 (local.get $ret) (local.get $verdicts))
            (i32.store offset=8 (local.get $ret) (i32.sub (local.get $n) (i32.const 1)))
            (return (local.get $ret))))
          (if (i32.eq (local.get $what) (i32.const 0x42)) (then ;; Big list
            (i32.store offset=4 (local.get $ret) (i32.const 0))
            (i32.store offset=8 (local.get $ret) (i32.const 100000000))
            (return (local.get $ret))))
          (if (i32.eq (local.get $what) (i32.const 0x41)) (then ;; A string as long as the memory
            (i32.store8 (local.get $verdict) (i32.const 1))
            (drop (memory.grow (i32.const 32)))
            (i32.store offset=8 (local.get $verdict) (i32.const 0))
            (i32.store offset=12 (local.get $verdict) (i32.mul (memory.size) (i32.const 65536)))))
          (if (i32.eq (local.get $what) (i32.const 0x49)) (then ;; Invalid discriminant
            (i32.store8 (local.get $verdict) (i32.const 9))))
          (if (i32.eq (local.get $what) (i32.const 0x45)) (then ;; Error
            (i32.store8 (local.get $ret) (i32.const 1))
            (i32.store offset=4 (local.get $ret) (i32.const 192))
            (i32.store offset=8 (local.get $ret) (i32.const 8))
            (return (local.get $ret))))
          (if (i32.eq (local.get $what) (i32.const 0x55)) (then ;; Undecided
            (i32.store8 (local.get $verdict) (i32.const 1))
            (i32.store offset=8 (local.get $verdict) (i32.const 192))
            (i32.store offset=12 (local.get $verdict) (i32.const 8))))
          (if (i32.eq (local.get $what) (i32.const 0x58)) (then ;; Not applicable
            (i32.store8 (local.get $verdict) (i32.const 2))))
          (if (i32.eq (local.get $what) (i32.const 0x4e)) (then ;; NaN
            (f64.store offset=8 (local.get $verdict) (f64.div (f64.const 0) (f64.const 0)))))
          (if (i32.eq (local.get $what) (i32.const 0x50)) (then ;; Print
            (loop $flood (call $emit (i32.const 1) (local.get $text) (local.get $len)) (br $flood))))
          (if (i32.eq (local.get $what) (i32.const 0x51)) (then ;; Quietly: calls of the host that carry nothing
            (loop $flood (call $emit (i32.const 0) (local.get $text) (i32.const 0)) (br $flood))))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))
      (i32.store offset=4 (local.get $ret) (local.get $verdicts))
      (i32.store offset=8 (local.get $ret) (local.get $n))
      (local.get $ret)))
  (core instance $main (instantiate $main (with "memory" (instance $memory)) (with "host" (instance $host))))
{config}
  (func $verify (param "ctx" $context) (param "group" $group) (result (result (list $verdict) (error string)))
    (canon lift (core func $main "verify") (memory $mem) (realloc $realloc)))
  (instance $verify-interface (export "verify" (func $verify)))
  (export "pipeline:plugin/verify@0.1.0" (instance $verify-interface))
)
