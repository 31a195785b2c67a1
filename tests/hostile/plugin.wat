;; A plugin that runs a test's code in three places: at its start, when the host asks it for memory, and when it is
;; called.
(module
  (import "hiphops:k8s/pods@0.1.0" "[static]pod.create" (func $create (param $spec i32) (param $out i32)))
  (import "hiphops:k8s/pods@0.1.0" "[method]pod.name" (func $name (param $pod i32) (param $out i32)))
  (import "hiphops:k8s/pods@0.1.0" "[method]pod.wait" (func $wait (param $pod i32) (param $ms i64) (param $out i32)))
  (import "hiphops:k8s/pods@0.1.0" "[method]pod.read-file"
    (func $read-file (param $pod i32) (param $path i32) (param $bytes i32) (param $out i32)))
  (import "hiphops:k8s/pods@0.1.0" "[method]pod.tail-logs"
    (func $tail-logs (param $pod i32) (param $lines i32) (param $out i32)))
  (import "hiphops:k8s/pods@0.1.0" "[method]pod.delete" (func $delete (param $pod i32) (param $out i32)))
  (import "hiphops:k8s/pods@0.1.0" "[resource-drop]pod" (func $drop (param $pod i32)))
  (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))

  (memory (export "memory") 2)
  (table $table 1 funcref)
  (data (i32.const 512) "/in/out/../x\ff{")
  (func $set-string (param $at i32) (param $start i32) (param $bytes i32)
    (i32.store (local.get $at) (local.get $start))
    (i32.store offset=4 (local.get $at) (local.get $bytes)))

  ;; A pod-spec at 0. What is not set here is empty.
  (func $spec (result i32)
    (call $set-string (i32.const 56) (i32.const 512) (i32.const 3)) ;; input-dir
    (call $set-string (i32.const 72) (i32.const 515) (i32.const 4)) ;; output-dir
    i32.const 0)

  ;; Creates a pod, and returns its handle.
  (func $pod (result i32)
    (call $create (call $spec) (i32.const 256))
    (i32.load (i32.const 264)))

  ;; Asks for a pod with this list of input files, and ends with the error that the host gives.
  (func $pod-with-files (param $start i32) (param $files i32) (result i32)
    (drop (call $spec))
    (call $set-string (i32.const 64) (local.get $start) (local.get $files))
    (call $create (i32.const 0) (i32.const 256))
    (call $error))

  ;; A `call` that ends with this text.
  (func $answer (param $start i32) (param $bytes i32) (result i32)
    (i32.store8 (i32.const 768) (i32.const 0))
    (call $set-string (i32.const 772) (local.get $start) (local.get $bytes))
    i32.const 768)

  ;; A `call` that ends with the sentence of the error at 256.
  (func $error (result i32)
    (call $answer (i32.load (i32.const 272)) (i32.load (i32.const 276))))

  (func $grow-to-100-mib (drop (memory.grow (i32.const 1598))))
  (func $recurse (call $recurse))

  (func $start @START@)
  (start $start)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) @REALLOC@ i32.const 65536)
  (func (export "hiphops:app/app@0.1.0#describe") (result i32) unreachable)
  (func (export "hiphops:app/app@0.1.0#check") (param i32 i32 i32 i32) (result i32) unreachable)
  (func (export "hiphops:app/app@0.1.0#call") (param i32 i32 i32 i32) (result i32)
    (local $pod i32)
    @CALL@))
