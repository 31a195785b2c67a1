//! What plugins can do wrong, in WebAssembly, and how their calls must end. `plugin.wat` has the functions that these
//! texts use.

/// The code that a plugin runs at its start, when it is asked for memory, and when it is called.
#[derive(Clone, Copy)]
pub struct Misdeed {
    pub name: &'static str,
    pub start: &'static str,
    pub realloc: &'static str,
    pub call: &'static str,
    /// The error of its call.
    pub error: &'static str,
}

/// A plugin that does nothing.
pub const NONE: Misdeed = Misdeed { name: "", start: "", realloc: "", call: "i32.const 0", error: "" };

const CPU_TIME: &str = "the plugin used up its CPU time; this is a defect of the plugin, not of the call's container";
const TIME: &str = "the call took longer than 3s, the limit of this host; split its work, or raise the limit";

macro_rules! failed {
    ($why:literal) => {
        concat!("the plugin failed: ", $why, "; this is a defect of the plugin, not of the call's container")
    };
}

const POD_CALLS: &str = failed!("it asked more of its pods than any call needs");
const BYTES: &str = failed!("it exchanged more bytes with its pods than any call needs");
const COPIED: &str = failed!(
    "too much data is being copied between the host and the guest: fuel allocated for hostcalls has been exhausted"
);

const fn called(name: &'static str, call: &'static str, error: &'static str) -> Misdeed {
    Misdeed { name, call, error, ..NONE }
}

pub const ALL: [Misdeed; 26] = [
    Misdeed { name: "loops at its start", start: "(loop br 0)", error: CPU_TIME, ..NONE },
    Misdeed { name: "loops when it is asked for memory", realloc: "(loop br 0)", error: CPU_TIME, ..NONE },
    called("loops", "(loop br 0) i32.const 0", CPU_TIME),
    called("asks for the time without end", "(loop (drop (call $now)) br 0) i32.const 0", CPU_TIME),
    called(
        "allocates without end",
        "(loop
            (memory.fill (i32.mul (memory.grow (i32.const 160)) (i32.const 65536)) (i32.const 1) (i32.const 10485760))
            br 0)
        i32.const 0",
        failed!("forcing trap when growing memory to 136445952 bytes"),
    ),
    called(
        "grows a table without end",
        "(loop (drop (table.grow $table (ref.null func) (i32.const 100))) br 0) i32.const 0",
        failed!("forcing trap when growing table to 20001 elements"),
    ),
    called("recurses without end", "(call $recurse) i32.const 0", failed!("wasm trap: call stack exhausted")),
    called("traps", "unreachable", failed!("wasm trap: wasm `unreachable` instruction executed")),
    called("opens pods without end", "(loop (drop (call $pod)) br 0) i32.const 0", POD_CALLS),
    called(
        "opens and drops pods without end",
        "(loop
            (call $create (call $spec) (i32.const 256))
            (if (i32.eqz (i32.load8_u (i32.const 256))) (then (call $drop (i32.load (i32.const 264)))))
            br 0)
        i32.const 0",
        POD_CALLS,
    ),
    called(
        "asks for pods with a name of 60 MB",
        "(call $grow-to-100-mib)
        (call $set-string (i32.const 8) (i32.const 1024) (i32.const 60000000))
        (loop (drop (call $pod)) br 0)
        i32.const 0",
        BYTES,
    ),
    called(
        "waits for no time without end",
        "(local.set $pod (call $pod))
        (loop (call $wait (local.get $pod) (i64.const 0) (i32.const 256)) br 0)
        i32.const 0",
        POD_CALLS,
    ),
    called(
        "waits without end",
        "(local.set $pod (call $pod))
        (loop (call $wait (local.get $pod) (i64.const -1) (i32.const 256)) br 0)
        i32.const 0",
        TIME,
    ),
    called(
        "reads all of the log without end",
        "(local.set $pod (call $pod))
        (loop (call $tail-logs (local.get $pod) (i32.const -1) (i32.const 256)) br 0)
        i32.const 0",
        POD_CALLS,
    ),
    called(
        "reads a large file without end",
        "(call $grow-to-100-mib)
        (local.set $pod (call $pod))
        (loop (call $read-file (local.get $pod) (i32.const 523) (i32.const 1) (i32.const 256)) br 0)
        i32.const 0",
        BYTES,
    ),
    called(
        "has more files than memory",
        "(call $pod-with-files (i32.const 0) (i32.const 0x0fffffff))",
        failed!("list pointer/length out of bounds of memory"),
    ),
    called(
        "has six million files",
        "(call $grow-to-100-mib) (call $pod-with-files (i32.const 1024) (i32.const 6000000))",
        COPIED,
    ),
    called(
        "has a result of 100 MB",
        "(call $grow-to-100-mib) (call $answer (i32.const 1024) (i32.const 100000000))",
        COPIED,
    ),
    called(
        "has a result of 1 GiB",
        "(call $answer (i32.const 0) (i32.const 0x40000000))",
        failed!("string pointer/length out of bounds of memory"),
    ),
    called(
        "has a result that is not UTF-8",
        "(call $answer (i32.const 524) (i32.const 1))",
        failed!("invalid utf-8 sequence of 1 bytes from index 0"),
    ),
    called(
        "has a result of an unknown kind",
        "(i32.store8 (i32.const 768) (i32.const 7)) i32.const 768",
        failed!("invalid expected discriminant"),
    ),
    called("has a result outside of its memory", "i32.const -4", failed!("pointer out of bounds of memory")),
    Misdeed {
        name: "gives memory that it does not have",
        realloc: "(return (i32.const -4))",
        error: failed!("realloc return: beyond end of memory"),
        ..NONE
    },
    called(
        "uses a handle after its drop",
        "(local.set $pod (call $pod))
        (call $drop (local.get $pod))
        (call $name (local.get $pod) (i32.const 256))
        i32.const 0",
        failed!("unknown handle index 1"),
    ),
    called(
        "drops a handle twice",
        "(local.set $pod (call $pod)) (call $drop (local.get $pod)) (call $drop (local.get $pod)) i32.const 0",
        failed!("unknown handle index 1"),
    ),
    called(
        "uses a handle that is another call's",
        "(call $delete (i32.add (call $pod) (i32.const 1)) (i32.const 256)) i32.const 0",
        failed!("unknown handle index 2"),
    ),
];
