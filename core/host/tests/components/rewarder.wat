;; Rewards every group of two with 0.5 and nothing, after `{body}`.
(component
{prelude}
  (core module $main
    (import "memory" "memory" (memory 1))
    (import "host" "emit" (func $emit (param i32 i32 i32)))
{config-core}
    ;; result<list<option<f64>>, string> at 128: case, pointer (132), length (136). The list at 144 has 16 bytes for each.
    (func (export "reward") (param i32) (result i32)
      (i32.store (i32.const 132) (i32.const 144))
      (i32.store (i32.const 136) (i32.const 2))
      (i32.store8 (i32.const 144) (i32.const 1))
      (f64.store (i32.const 152) (f64.const 0.5))
      (i32.store8 (i32.const 160) (i32.const 0))
      {body}
      (i32.const 128)))
  (core instance $main (instantiate $main (with "memory" (instance $memory)) (with "host" (instance $host))))
{config}
  (func $reward (param "ctx" $context) (param "group" $group) (param "judgements" (list $judgement))
    (result (result (list (option f64)) (error string)))
    (canon lift (core func $main "reward") (memory $mem) (realloc $realloc)))
  (instance $reward-interface (export "reward" (func $reward)))
  (export "pipeline:plugin/reward@0.1.0" (instance $reward-interface))
)
