;; A runtime whose programs are one letter. What is no letter of these is echoed: stdin goes to stdout.
(component
  (import "wasi:io/error@0.2.6" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $error-type))
  (import "wasi:io/streams@0.2.6" (instance $streams
    (export "output-stream" (type $output (sub resource)))
    (alias outer 1 $error-type (type $error'))
    (export "error" (type $error (eq $error')))
    (type $stream-error' (variant (case "last-operation-failed" (own $error)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $stream-error')))
    (export "[method]output-stream.blocking-write-and-flush"
      (func (param "self" (borrow $output)) (param "contents" (list u8)) (result (result (error $stream-error)))))))
  (alias export $streams "output-stream" (type $output))
  (import "wasi:cli/stdout@0.2.6" (instance $stdout
    (alias outer 1 $output (type $output'))
    (export "output-stream" (type $output (eq $output')))
    (export "get-stdout" (func (result (own $output))))))
  (import "wasi:cli/stderr@0.2.6" (instance $stderr
    (alias outer 1 $output (type $output'))
    (export "output-stream" (type $output (eq $output')))
    (export "get-stderr" (func (result (own $output))))))
  (import "wasi:cli/exit@0.2.6" (instance $exit (export "exit" (func (param "status" (result))))))
  (import "wasi:clocks/monotonic-clock@0.2.6" (instance $clock (export "now" (func (result u64)))))
  (import "wasi:random/random@0.2.6" (instance $random (export "get-random-u64" (func (result u64)))))

  (core module $memory
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get $size)))
      (local.get $at)))
  (core instance $memory (instantiate $memory))
  (alias core export $memory "memory" (core memory $mem))
  (alias core export $memory "realloc" (core func $realloc))
  (core func $get-stdout (canon lower (func $stdout "get-stdout")))
  (core func $get-stderr (canon lower (func $stderr "get-stderr")))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush") (memory $mem)))
  (core func $exit (canon lower (func $exit "exit")))
  (core func $now (canon lower (func $clock "now")))
  (core func $random (canon lower (func $random "get-random-u64")))
  (core instance $wasi
    (export "get-stdout" (func $get-stdout)) (export "get-stderr" (func $get-stderr)) (export "write" (func $write))
    (export "exit" (func $exit)) (export "now" (func $now)) (export "random" (func $random)))

  (core module $main
    (import "memory" "memory" (memory 1))
    (import "wasi" "get-stdout" (func $get-stdout (result i32)))
    (import "wasi" "get-stderr" (func $get-stderr (result i32)))
    (import "wasi" "write" (func $write (param i32 i32 i32 i32)))
    (import "wasi" "exit" (func $exit (param i32)))
    (import "wasi" "now" (func $now (result i64)))
    (import "wasi" "random" (func $random (result i64)))
    (data (i32.const 64) "oh no")
    (func (export "execute") (param $source i32) (param $n i32) (param $stdin i32) (param $m i32) (result i32)
      (local $what i32)
      (if (local.get $n) (then (local.set $what (i32.load8_u (local.get $source)))))
      (if (i32.eq (local.get $what) (i32.const 0x4c)) (then (loop $for-ever (br $for-ever)))) ;; Loop
      (if (i32.eq (local.get $what) (i32.const 0x4d)) (then ;; Memory
        (loop $more (drop (memory.grow (i32.const 16))) (br $more))))
      (if (i32.eq (local.get $what) (i32.const 0x54)) (then unreachable)) ;; Trap
      (if (i32.eq (local.get $what) (i32.const 0x46)) (then ;; Fail, with words
        (call $write (call $get-stderr) (i32.const 64) (i32.const 5) (i32.const 32))
        (return (i32.const 3))))
      (if (i32.eq (local.get $what) (i32.const 0x45)) (then (call $exit (i32.const 1)))) ;; Exit with an error
      (if (i32.eq (local.get $what) (i32.const 0x51)) (then (call $exit (i32.const 0)))) ;; Quit
      (if (i32.eq (local.get $what) (i32.const 0x50)) (then ;; Print for ever
        (loop $flood (call $write (call $get-stdout) (i32.const 0) (i32.const 4096) (i32.const 32)) (br $flood))))
      (if (i32.eq (local.get $what) (i32.const 0x43)) (then ;; Clock and chance, as 16 bytes of letters
        (i64.store (i32.const 128) (call $now))
        (i64.store (i32.const 136) (call $random))
        (i64.store (i32.const 128)
          (i64.or (i64.const 0x4040404040404040) (i64.and (i64.load (i32.const 128)) (i64.const 0x0f0f0f0f0f0f0f0f))))
        (i64.store (i32.const 136)
          (i64.or (i64.const 0x4040404040404040) (i64.and (i64.load (i32.const 136)) (i64.const 0x0f0f0f0f0f0f0f0f))))
        (call $write (call $get-stdout) (i32.const 128) (i32.const 16) (i32.const 32))
        (return (i32.const 0))))
      (call $write (call $get-stdout) (local.get $stdin) (local.get $m) (i32.const 32))
      (i32.const 0)))
  (core instance $main (instantiate $main (with "memory" (instance $memory)) (with "wasi" (instance $wasi))))
  (func (export "execute") (param "source" string) (param "stdin" string) (result s32)
    (canon lift (core func $main "execute") (memory $mem) (realloc $realloc)))
)
