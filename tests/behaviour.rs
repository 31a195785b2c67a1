//! What ends a call, and the tests that prove what comes of it.
//!
//! Those of `cases` run on scripted pods, as processes, on a Docker Engine and on a cluster; those of `cluster` on a real
//! cluster, those of `faults` on an API server that can be told to fail, and those of `component` on scripted pods.

use std::fs;

struct Row {
    what_happened: &'static str,
    /// `FILE: NAME` of tests.
    proofs: &'static [&'static str],
}

const ROWS: &[Row] = &[
    Row {
        what_happened: "exit 0, the file holds a JSON object or array",
        proofs: &[
            "cases: a JSON object is json",
            "cases: a JSON array is json",
            "component: a_container_that_succeeds_gives_its_file",
            "cluster/main: the_documents_hello_gives_its_json",
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
            "cluster/main: five_mebibytes_of_text_arrive_byte_for_byte",
            "cluster/failures: a_result_of_any_size_within_the_limit_is_whole",
        ],
    },
    Row {
        what_happened: "exit 0, no file",
        proofs: &["cases: no file is an empty body", "cluster/failures: what_is_no_file_is_no_result"],
    },
    Row { what_happened: "exit 0, the file is not UTF-8", proofs: &["cases: a result that is not UTF-8 is an error"] },
    Row {
        what_happened: "the file is over the host's limit",
        proofs: &[
            "cases: a result over the limit is an error with both sizes",
            "cluster/main: a_result_over_the_limit_is_an_error_with_both_sizes",
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
        what_happened: "deleted by somebody else while pending or running, or with its namespace",
        proofs: &[
            "cluster/failures: a_pod_that_others_end_is_an_error_at_once",
            "faults/watches: a_pod_that_was_deleted_while_nobody_watched_counts_as_deleted",
        ],
    },
    Row { what_happened: "evicted", proofs: &["cluster/failures: a_pod_that_others_end_is_an_error_at_once"] },
    Row {
        what_happened: "preempted",
        proofs: &["cluster/node: a_pod_that_makes_room_for_a_more_important_one_is_an_error_at_once"],
    },
    Row { what_happened: "the node is gone", proofs: &["cluster/node: a_node_that_is_gone_is_an_error_at_once"] },
    Row { what_happened: "cannot start: InvalidImageName", proofs: &["cases: an invalid image name is an error"] },
    Row {
        what_happened: "cannot start: ErrImagePull, ImagePullBackOff",
        proofs: &[
            "cases: an image that does not exist is an error",
            "cluster/failures: an_image_that_cannot_be_pulled_is_named",
        ],
    },
    Row {
        what_happened: "cannot start: the registry does not answer",
        proofs: &["cluster/node: a_registry_that_is_away_is_named"],
    },
    Row {
        what_happened: "cannot start: CreateContainerConfigError",
        proofs: &["cluster/admission: what_the_container_wants_and_is_not_there_is_named"],
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
            "cluster/room: what_can_never_fit_does_not_wait_for_room",
            "cluster/room: pods_wait_for_the_room_of_others_and_small_ones_fill_the_gaps",
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
    Row { what_happened: "refused: RBAC", proofs: &["cluster/check: a_call_names_the_rule_that_is_missing"] },
    Row {
        what_happened: "refused: Pod Security, limits and the end of the namespace",
        proofs: &[
            "cluster/admission: a_namespace_may_enforce_a_pod_security_standard",
            "cluster/admission: a_limit_of_the_namespace_is_named",
            "cluster/failures: a_namespace_on_its_way_out_takes_no_pods",
        ],
    },
    Row {
        what_happened: "refused: quota",
        proofs: &[
            "cluster/room: a_quota_that_our_own_pods_use_up_is_waited_for",
            "faults/requests: a_quota_that_pods_of_this_process_use_up_is_waited_for_up_to_a_limit",
        ],
    },
    Row {
        what_happened: "the cluster cannot be reached",
        proofs: &[
            "faults/requests: a_server_that_is_out_for_too_long_makes_an_error_with_its_address_and_words",
            "faults/watches: a_call_outlives_an_outage_and_ends_soon_after",
            "cluster/outage: an_api_server_that_goes_away_for_20_s_loses_nothing",
        ],
    },
    Row {
        what_happened: "the result server crashes, hangs, redirects, answers 500 or a wrong length",
        proofs: &[
            "faults/results: a_result_server_that_fails_at_first_is_asked_again",
            "faults/results: a_result_that_cannot_be_read_makes_an_error_in_time",
            "cluster/failures: a_result_server_that_crashes_is_named",
            "cluster/node: a_result_server_that_hangs_slows_no_other_call",
        ],
    },
    Row {
        what_happened: "the container ends before the result server is up",
        proofs: &["faults/results: a_result_server_that_does_not_listen_yet_is_waited_for"],
    },
    Row {
        what_happened: "the clock of the node is wrong",
        proofs: &["faults/results: a_node_whose_clock_is_wrong_changes_nothing"],
    },
    Row {
        what_happened: "whatever happened, nothing is left",
        proofs: &[
            "cluster/left_over: no_pod_and_no_config_map_is_left",
            "cluster/left_over: no_process_is_left",
            "cluster/load: a_worker_that_has_answered_holds_nothing_open",
            "cancel: a_call_that_is_cancelled_at_whatever_step_leaves_nothing",
        ],
    },
];

#[test]
fn every_way_to_end_has_its_tests() {
    for row in ROWS {
        println!("{}\n    {}", row.what_happened, row.proofs.join("\n    "));
        for proof in row.proofs {
            let (file, name) = proof.split_once(": ").expect("a file and a name");
            let file = if file == "cases" { "backends/cases.json" } else { &format!("{file}.rs") };
            let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
            let tests = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(tests.contains(&format!("fn {name}(")) || tests.contains(&format!("\"{name}\"")), "no {proof}");
        }
    }
}
