//! The ways in which a call can end, and the tests that prove what its result is then.
//!
//! Scripted pods play the tests of `component`, and the table `backends/cases.json`, which each backend plays as well. Those
//! of `faults` have an API server that fails on request, those of `cluster`, `load` and `left_over` a real cluster.
//!
//! The tests here run after the others, and read what `cargo test` has printed about them. A test that was renamed or
//! ignored proves nothing. A test that says it was skipped is listed as such.

use hops_k8s_tests::target;
use serde_json::Value;
use std::fs;

struct Row {
    what_happened: &'static str,
    /// `TARGET: TEST`, as in `cargo test --test TARGET TEST`; or `cases: NAME` of a case in the table.
    proofs: &'static [&'static str],
}

const ROWS: &[Row] = &[
    Row {
        what_happened: "exit 0, the file holds a JSON object or array",
        proofs: &[
            "cases: a JSON object is json",
            "cases: a JSON array is json",
            "component: a_container_that_succeeds_gives_its_file",
            "cluster: the_documents_hello_gives_its_json",
        ],
    },
    Row {
        what_happened: "exit 0, out_path ends in .json, the file is a JSON string, number or boolean",
        proofs: &["cases: a number in a .json file is json", "component: a_container_that_succeeds_gives_its_file"],
    },
    Row {
        what_happened: "exit 0, the file is any other UTF-8",
        proofs: &[
            "cases: plain text is the body",
            "cases: a number in another file is the body",
            "cases: an empty file is an empty body",
            "cluster: five_mebibytes_of_text_arrive_byte_for_byte",
            "cluster: failures::a_result_of_any_size_within_the_limit_is_whole",
        ],
    },
    Row {
        what_happened: "exit 0, no file",
        proofs: &[
            "cases: no file is an empty body",
            "cluster: failures::a_result_file_that_is_not_a_regular_file_gives_no_result",
        ],
    },
    Row { what_happened: "exit 0, the file is not UTF-8", proofs: &["cases: a result that is not UTF-8 is an error"] },
    Row {
        what_happened: "the file is over the host's limit",
        proofs: &[
            "cases: a result over the limit is an error with both sizes",
            "cluster: a_result_over_the_limit_is_an_error_with_both_sizes",
        ],
    },
    Row {
        what_happened: "exit code other than 0",
        proofs: &[
            "cases: an exit code is an error with the log",
            "cases: an exit code with a result gives both",
            "cases: an error has the last 20 lines of the log",
            "cases: an error names the signal that ended the container",
        ],
    },
    Row {
        what_happened: "killed by the memory limit, also with exit code 0, also with a file",
        proofs: &[
            "cases: a container over its memory limit is an OOM kill",
            "cases: an OOM kill of a child counts, whatever the exit code",
        ],
    },
    Row {
        what_happened: "deleted by others while pending or running, alone or with its namespace",
        proofs: &[
            "cluster: failures::a_pod_that_others_end_is_an_error_at_once",
            "faults: watches::a_pod_that_was_deleted_while_nobody_watched_counts_as_deleted",
        ],
    },
    Row { what_happened: "evicted", proofs: &["cluster: failures::a_pod_that_others_end_is_an_error_at_once"] },
    Row { what_happened: "preempted", proofs: &["load: node::a_pod_that_is_preempted_is_an_error_at_once"] },
    Row { what_happened: "the node is gone", proofs: &["load: node::a_node_that_is_gone_is_an_error_at_once"] },
    Row { what_happened: "cannot start: InvalidImageName", proofs: &["cases: an invalid image name is an error"] },
    Row {
        what_happened: "cannot start: ErrImagePull, ImagePullBackOff",
        proofs: &[
            "cases: an image that does not exist is an error",
            "cluster: failures::an_image_that_cannot_be_pulled_is_named",
        ],
    },
    Row {
        what_happened: "cannot start: the registry does not answer",
        proofs: &["load: node::a_registry_that_does_not_answer_is_an_error_that_says_so"],
    },
    Row {
        what_happened: "cannot start: CreateContainerConfigError",
        proofs: &["cluster: admission::a_secret_or_config_map_that_does_not_exist_is_named"],
    },
    Row {
        what_happened: "cannot start: CreateContainerError, RunContainerError, StartError",
        proofs: &[
            "cases: a program that does not exist is an error at once",
            "component: a_container_that_cannot_start_fails_in_time",
        ],
    },
    Row {
        what_happened: "cannot start: CrashLoopBackOff of the result server",
        proofs: &["component: a_container_that_cannot_start_fails_in_time"],
    },
    Row {
        what_happened: "not scheduled in time",
        proofs: &[
            "cases: a pod that fits on no node is an error with the scheduler's words",
            "load: room::what_can_never_fit_does_not_wait_for_room",
            "load: room::pods_wait_for_room_and_small_ones_fill_the_gaps",
        ],
    },
    Row {
        what_happened: "ran longer than timeout",
        proofs: &[
            "cases: a timeout ends the container and keeps its result",
            "component: a_container_that_runs_too_long_is_ended_with_the_end_of_its_log",
        ],
    },
    Row {
        what_happened: "refused: bad inputs",
        proofs: &[
            "component: bad_inputs_are_a_result_with_every_problem_and_reach_no_pod",
            "command: wrong_inputs_name_their_lines_and_reach_no_cluster",
            "worker: bad_inputs_have_an_errored_result",
        ],
    },
    Row {
        what_happened: "refused: the host's policy",
        proofs: &[
            "component: what_the_policy_does_not_allow_is_denied",
            "command: a_policy_holds_for_runs_and_batches",
        ],
    },
    Row { what_happened: "refused: RBAC", proofs: &["cluster: check::a_call_names_the_rule_that_is_missing"] },
    Row {
        what_happened: "refused: Pod Security, a LimitRange, or a namespace that is being deleted",
        proofs: &[
            "cluster: admission::a_namespace_may_enforce_a_pod_security_standard",
            "cluster: admission::a_limit_of_the_namespace_is_named",
            "cluster: failures::a_namespace_that_is_being_deleted_takes_no_pods",
        ],
    },
    Row {
        what_happened: "refused: quota",
        proofs: &[
            "load: room::a_quota_that_pods_of_this_process_use_up_is_waited_for",
            "faults: requests::a_quota_that_pods_of_this_process_use_up_is_waited_for_up_to_a_limit",
        ],
    },
    Row {
        what_happened: "the cluster cannot be reached",
        proofs: &[
            "faults: requests::a_server_that_is_out_for_too_long_makes_an_error_with_its_address_and_words",
            "faults: watches::a_call_outlives_an_outage_and_ends_soon_after",
            "load: outage::an_api_server_that_goes_away_for_20_s_loses_nothing",
        ],
    },
    Row {
        what_happened: "the result server crashes, hangs, redirects, answers 500 or a wrong length",
        proofs: &[
            "faults: results::a_result_server_that_fails_at_first_is_asked_again",
            "faults: results::a_result_that_cannot_be_read_makes_an_error_in_time",
            "cluster: failures::a_result_server_that_crashes_is_named",
            "load: node::a_result_server_that_hangs_slows_no_other_call",
        ],
    },
    Row {
        what_happened: "the container ends before the result server is up",
        proofs: &["faults: results::a_result_server_that_does_not_listen_yet_is_waited_for"],
    },
    Row {
        what_happened: "the clock of the node is wrong",
        proofs: &["faults: results::a_node_whose_clock_is_wrong_changes_nothing"],
    },
    Row {
        what_happened: "in all of these ways: nothing is left",
        proofs: &[
            "left_over: no_pod_and_no_config_map_is_left",
            "left_over: no_process_is_left",
            "load: a_worker_that_has_answered_holds_nothing_open",
            "cancel: a_call_that_is_cancelled_at_any_step_leaves_nothing",
        ],
    },
];

/// The targets whose tests need a cluster.
const ON_A_CLUSTER: &[&str] = &["cluster", "load", "left_over"];

/// The test of each backend that plays the cases of the table.
const TABLE: &str = "every_case_means_what_it_means_elsewhere";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Ok,
    /// It said that it was skipped, and passed.
    Skipped,
    /// It failed or was ignored.
    Other,
}

/// What `cargo test` has printed.
struct Log {
    /// Target, test, outcome.
    tests: Vec<(String, String, Outcome)>,
}

impl Log {
    fn parse(text: &str) -> Self {
        let (mut target, mut skipped, mut tests) = (String::new(), vec![], vec![]);
        for line in text.lines() {
            if let Some(program) = line.strip_prefix("     Running ").and_then(|line| line.strip_suffix(')')) {
                let file = program.rsplit('/').next().unwrap_or_default();
                target = file.rsplit_once('-').map_or(file, |(name, _hash)| name).to_owned();
            } else if let Some((test, _why)) = line.strip_prefix("skipped: ").and_then(|line| line.split_once(": ")) {
                skipped.push(test);
            } else if let Some((test, outcome)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
                let outcome = match outcome {
                    "ok" if skipped.contains(&test) => Outcome::Skipped,
                    "ok" => Outcome::Ok,
                    _ => Outcome::Other,
                };
                tests.push((target.clone(), test.to_owned(), outcome));
            }
        }
        Log { tests }
    }

    /// The worst outcome of a test and all its cases. `None` if there was no such test.
    fn outcome(&self, target: &str, test: &str) -> Option<Outcome> {
        let is_it = |name: &str| name.strip_prefix(test).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        let cases = self.tests.iter().filter(|(of, name, _)| of == target && is_it(name));
        cases.map(|(.., outcome)| *outcome).max()
    }
}

/// Checks that the tests that prove a row have run, as far as they are of these targets.
fn check(log: &str, table_of: &str, is_included: impl Fn(&str) -> bool) {
    let path = target().join(log);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let log = Log::parse(&text);
    let cases: Vec<Value> = serde_json::from_str(include_str!("backends/cases.json")).unwrap();
    let mut missing = vec![];
    for row in ROWS {
        println!("{}", row.what_happened);
        for proof in row.proofs {
            let (target, test) = proof.split_once(": ").expect("a target and a test");
            let outcome = match target {
                "cases" if cases.iter().any(|case| case["name"] == test) => log.outcome(table_of, TABLE),
                "cases" => None,
                _ if is_included(target) => log.outcome(target, test),
                _ => continue,
            };
            println!("    {proof}: {outcome:?}");
            if !matches!(outcome, Some(Outcome::Ok | Outcome::Skipped)) {
                missing.push(proof);
            }
        }
    }
    assert!(missing.is_empty(), "these tests did not run, or failed, by {}: {missing:#?}", path.display());
}

#[test]
#[ignore = "reads the output of the tests that need no cluster; 'make test' runs it after them"]
fn every_way_to_end_is_proved_without_a_cluster() {
    check("test.log", "component", |target| !ON_A_CLUSTER.contains(&target));
}

#[test]
#[ignore = "reads the output of the tests on a cluster; 'make cluster-test' runs it after them"]
fn every_way_to_end_is_proved_on_a_cluster() {
    check("cluster-test.log", "cluster", |target| ON_A_CLUSTER.contains(&target));
}

#[test]
fn a_test_counts_if_all_its_cases_ran() {
    let log = Log::parse(
        "     Running unittests src/lib.rs (target/debug/deps/hops_k8s-0f)\n\
         test a ... ok\n\
         \u{20}    Running cluster/main.rs (/target/debug/deps/left_over-0123)\n\
         skipped: d::case_2: there is no switch\n\
         running 8 tests\n\
         test a ... FAILED\n\
         test m::b::case_1 ... ok\n\
         test m::b::case_2 ... ok\n\
         test c::case_1 ... ok\n\
         test c::case_2 ... ignored, needs a cluster\n\
         test d::case_1 ... ok\n\
         test d::case_2 ... ok\n\
         test ef ... ok\n",
    );
    assert_eq!(log.outcome("hops_k8s", "a"), Some(Outcome::Ok));
    for (test, outcome) in [
        ("a", Some(Outcome::Other)),
        ("m::b", Some(Outcome::Ok)),
        ("c", Some(Outcome::Other)),
        ("d", Some(Outcome::Skipped)),
        ("e", None),
    ] {
        assert_eq!(log.outcome("left_over", test), outcome, "{test}");
    }
}
