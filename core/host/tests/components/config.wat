;; The interface `config` of `$main`: any table is a config unless its JSON is `{"refused":true}` or longer.
  (func $schema (result string)
    (canon lift (core func $main "schema") (memory $mem)))
  (func $configure (param "json" string) (result (result (error (list $config-error))))
    (canon lift (core func $main "configure") (memory $mem) (realloc $realloc)))
  (instance $config (export "schema" (func $schema)) (export "configure" (func $configure)))
  (export "pipeline:plugin/config@0.1.0" (instance $config))
