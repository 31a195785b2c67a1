//! What containers can do wrong, as scripts for bash, and how their calls must end.

use std::time::Duration;

/// A container that does harm, or tries to.
#[derive(Clone, Copy)]
pub struct Misdeed {
    /// For the table of figures: the container …
    pub name: &'static str,
    pub script: &'static str,
    /// The call's `timeout`.
    pub timeout: &'static str,
    /// How the call's error may begin.
    pub errors: &'static [&'static str],
    /// The longest that the call may take, its pod's start included.
    pub within: Duration,
}

/// For a call that ends within seconds of its timeout.
const SOON: Duration = Duration::from_secs(45);
const TIMEOUT: &[&str] = &["Timeout: "];

/// A container that takes the result server's port, and answers each connection with what this script prints.
macro_rules! answers {
    ($name:literal, $answer:literal) => {
        Misdeed {
            name: $name,
            script: concat!(
                "mkdir -p /tmp\ncat > /tmp/answer <<'END'\n#!/bin/sh\n",
                $answer,
                "\nEND\nchmod +x /tmp/answer\n",
                "head -c 1048576 /dev/zero | tr '\\0' a > /tmp/mebibyte\n",
                "trap '' TERM\nwhile true; do nc -ll -p 8917 -e /tmp/answer; done"
            ),
            timeout: "4s",
            errors: TIMEOUT,
            within: SOON,
        }
    };
}

pub const CHUNK_BOMB: Misdeed = answers!(
    "answers with chunks without end",
    r"printf 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n'
while true; do printf '100000\r\n'; cat /tmp/mebibyte || exit; printf '\r\n'; done"
);

pub const LONG_BODY: Misdeed = answers!(
    "answers with more bytes than announced",
    r"printf 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n'
while true; do cat /tmp/mebibyte || exit; done"
);

pub const SLOW_DRIP: Misdeed = answers!(
    "answers with a byte every 5 s",
    r"printf 'HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n'
while true; do printf a || exit; sleep 5; done"
);

pub const LONG_HEADER: Misdeed = answers!(
    "answers with a header without end",
    r"printf 'HTTP/1.1 200 OK\r\nX: '
while true; do cat /tmp/mebibyte || exit; done"
);

pub const MANY_HEADERS: Misdeed = answers!(
    "answers with headers without end",
    r"yes 'X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' | head -n 10000 > /tmp/$$
printf 'HTTP/1.1 200 OK\r\n'
while true; do cat /tmp/$$ || exit; done"
);

pub const MANY_INTERIM_ANSWERS: Misdeed = answers!(
    "answers 100 Continue without end",
    r#"yes "$(printf 'HTTP/1.1 100 Continue\r\n\r')" | head -n 20000 > /tmp/$$
while true; do cat /tmp/$$ || exit; done"#
);

pub const NO_HTTP: Misdeed =
    answers!("answers with text without end", r"while true; do cat /tmp/mebibyte || exit; done");

pub const SQUATS_BEFORE: Misdeed = answers!(
    "takes the port before the result server does, and invents a result",
    r#"printf 'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n"forged"'"#
);

/// The result server keeps up to a mebibyte of each request's headers, so that 100 requests fill its memory.
pub const SQUATS_AFTER: Misdeed = Misdeed {
    name: "fills the memory of the result server, takes its port, and invents a result",
    script: r#"mkdir -p /tmp
printf '#!/bin/sh\nprintf "HTTP/1.1 200 OK\\r\\nContent-Length: 8\\r\\n\\r\\n\\"forged\\""\n' > /tmp/answer
chmod +x /tmp/answer
head -c 1000000 /dev/zero | tr '\0' a > /tmp/megabyte
until (exec 3<>/dev/tcp/127.0.0.1/8917) 2> /dev/null; do sleep 0.1; done
for number in $(seq 100); do
  { exec {connection}<>/dev/tcp/127.0.0.1/8917; } 2> /dev/null || break
  { printf 'GET / HTTP/1.1\r\nX: '; cat /tmp/megabyte; } >&$connection 2> /dev/null
done
trap '' TERM
while true; do nc -ll -p 8917 -e /tmp/answer 2> /dev/null; sleep 0.1; done"#,
    timeout: "20s",
    errors: TIMEOUT,
    within: Duration::from_secs(60),
};

pub const LOG_FLOOD: Misdeed = Misdeed {
    name: "prints a log of 1 GB, in lines",
    script: r#"yes "$(head -c 200 /dev/zero | tr '\0' a)" | head -c 1000000000; exit 3"#,
    timeout: "5m",
    errors: &["Error: container exited with code 3"],
    within: Duration::from_secs(240),
};

pub const LOG_LINE: Misdeed = Misdeed {
    name: "prints a log of 1 GB, in one line",
    script: r"tr '\0' a < /dev/zero | head -c 1000000000; exit 3",
    timeout: "5m",
    errors: &["Error: container exited with code 3"],
    within: Duration::from_secs(240),
};

pub const TERMINATION_MESSAGE: Misdeed = Misdeed {
    name: "leaves a termination message of 1 MiB",
    script: r"head -c 1048576 /dev/zero | tr '\0' a > /dev/termination-log; exit 3",
    timeout: "30s",
    errors: &["Error: container exited with code 3"],
    within: SOON,
};

pub const LINK_CHAIN: Misdeed = Misdeed {
    name: "leaves a chain of 200 links as its result",
    script: "cd /output; echo '[]' > 200; for n in $(seq 199); do ln -s $((n + 1)) $n; done; ln -s 1 result.json",
    timeout: "30s",
    errors: &["InvalidResult: ", "ResultUnavailable: "],
    within: Duration::from_secs(60),
};

pub const LINK_FARM: Misdeed = Misdeed {
    name: "leaves a folder of 20,000 links to themselves as its result",
    script: r#"mkdir /output/result.json; cd /output/result.json; seq 20000 | xargs sh -c 'ln -s "$@" .' sh"#,
    timeout: "60s",
    errors: &["InvalidResult: ", "ResultUnavailable: "],
    within: Duration::from_secs(60),
};

pub const LINK_OUT: Misdeed = Misdeed {
    name: "leaves a link to a file of the result server as its result",
    script: "ln -s /etc/passwd /output/result.json",
    timeout: "30s",
    errors: &["InvalidResult: "],
    within: SOON,
};

pub const SPARSE_FILE: Misdeed = Misdeed {
    name: "leaves a result of 1 TB that takes up no disk",
    script: "truncate -s 1099511627776 /output/result.json",
    timeout: "30s",
    errors: &["ResultTooLarge: "],
    within: SOON,
};

pub const FORK_BOMB: Misdeed = Misdeed {
    name: "forks without end",
    script: "bomb() { bomb | bomb & }; bomb; sleep 60",
    timeout: "20s",
    errors: &["OOMKilled: ", "Timeout: ", "Error: "],
    within: Duration::from_secs(60),
};

/// `fallocate` takes up the disk without writing to it.
pub const DISK_BOMB: Misdeed = Misdeed {
    name: "takes up 4 GiB of disk",
    script: "fallocate -l 4294967296 /output/large; sleep 600",
    timeout: "2m",
    errors: &["Evicted: "],
    within: Duration::from_secs(150),
};
