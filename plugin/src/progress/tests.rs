use super::*;
use ContainerState::Running;
use proptest::prelude::*;
use rstest::rstest;

const START: u64 = 120;
const RUN: u64 = 600;

fn progress() -> Progress {
    Progress::new(Deadlines { start: Duration::from_secs(START), run: Duration::from_secs(RUN) }, "128Mi".into())
}

fn cause(reason: &str, message: &str) -> Cause {
    Cause { reason: reason.into(), message: message.into() }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState::Waiting(cause(reason, message))
}

fn exited(exit_code: i32, reason: &str, message: &str) -> ContainerState {
    ContainerState::Terminated(Terminated { exit_code, reason: reason.into(), message: message.into() })
}

/// A pod that is as its container makes one expect.
fn pod(main: ContainerState) -> PodStatus {
    let (phase, sidecar) = match main {
        ContainerState::Waiting(_) => (Phase::Pending, waiting("ContainerCreating", "")),
        _ => (Phase::Running, Running),
    };
    PodStatus {
        phase,
        cause: cause("", ""),
        unschedulable: None,
        waits_for_room: false,
        disruption: None,
        deleted: false,
        main,
        sidecar: Some(sidecar),
    }
}

fn creating() -> PodStatus {
    pod(waiting("ContainerCreating", ""))
}

fn not_pulled() -> PodStatus {
    pod(waiting("ErrImagePull", "manifest for nope:1 not found"))
}

fn unschedulable(words: &str) -> PodStatus {
    PodStatus { unschedulable: Some(words.into()), sidecar: None, ..pod(waiting("", "")) }
}

fn without_room() -> PodStatus {
    PodStatus { waits_for_room: true, ..unschedulable("0/3 nodes are available") }
}

/// The pod with a result server in this state.
fn served(sidecar: ContainerState, pod: PodStatus) -> PodStatus {
    PodStatus { sidecar: Some(sidecar), ..pod }
}

/// A pod that the cluster has ended, with all its containers.
fn over(reason: &str, message: &str, main: ContainerState) -> PodStatus {
    PodStatus { phase: Phase::Failed, cause: cause(reason, message), sidecar: None, ..pod(main) }
}

fn deleted(pod: PodStatus) -> PodStatus {
    PodStatus { deleted: true, ..pod }
}

fn disrupted(reason: &str, message: &str, pod: PodStatus) -> PodStatus {
    PodStatus { disruption: Some(cause(reason, message)), ..pod }
}

fn wait(seconds: u64) -> Step {
    Step::Wait(Duration::from_secs(seconds))
}

fn completed() -> Step {
    Step::Ended(Ending::Completed)
}

fn failed(error: &str) -> Step {
    Step::Ended(Ending::Failed { error: error.into(), log: false })
}

fn failed_with_log(error: &str) -> Step {
    Step::Ended(Ending::Failed { error: error.into(), log: true })
}

fn lost(error: &str) -> Step {
    Step::Ended(Ending::Lost { error: error.into() })
}

/// How the statuses of one pod are judged, each at a time in seconds.
fn judged(statuses: Vec<(u64, PodStatus)>) -> Vec<Step> {
    let mut progress = progress();
    statuses.into_iter().map(|(at, status)| progress.judge(&status, Duration::from_secs(at))).collect()
}

#[rstest]
#[case::from_start_to_end(
    vec![
        (0, PodStatus { sidecar: None, ..pod(waiting("", "")) }),
        (1, unschedulable("0/3 nodes are available")),
        (5, creating()),
        (9, pod(Running)),
        (10, pod(exited(0, "Completed", ""))),
    ],
    vec![wait(120), wait(119), wait(115), wait(600), completed()]
)]
#[case::after_a_wait_for_room_that_does_not_count(
    vec![
        (1, without_room()),
        (500, without_room()),
        (901, unschedulable("0/3 nodes are available")),
        (910, without_room()),
        (1010, creating()),
        (1011, pod(Running)),
        (1012, pod(exited(0, "Completed", ""))),
    ],
    vec![wait(3600), wait(3600), wait(119), wait(3600), wait(110), wait(600), completed()]
)]
#[case::seen_at_its_end_only(vec![(3, pod(exited(0, "Completed", "")))], vec![completed()])]
#[case::without_a_result_server(
    vec![(3, PodStatus { phase: Phase::Succeeded, sidecar: None, ..pod(exited(0, "Completed", "")) })],
    vec![completed()]
)]
#[case::deleted_with_its_files_in_reach(vec![(3, deleted(pod(exited(0, "Completed", ""))))], vec![completed()])]
#[case::a_log_is_not_an_error(vec![(3, pod(exited(0, "Completed", "all done")))], vec![completed()])]
fn a_container_that_exits_with_0_has_completed(#[case] statuses: Vec<(u64, PodStatus)>, #[case] expected: Vec<Step>) {
    assert_eq!(judged(statuses), expected);
}

#[rstest]
#[case::with_its_log(exited(3, "Error", "line 1\nline 2\n"), "Error: container exited with code 3\nline 1\nline 2")]
#[case::without_a_log(exited(1, "Error", ""), "Error: container exited with code 1")]
#[case::killed(exited(137, "Error", ""), "Error: container exited with code 137 (SIGKILL)")]
#[case::terminated(exited(143, "Error", "bye"), "Error: container exited with code 143 (SIGTERM)\nbye")]
#[case::crashed(exited(139, "Error", ""), "Error: container exited with code 139 (SIGSEGV)")]
#[case::no_signal_of_this_number(exited(128, "Error", ""), "Error: container exited with code 128")]
#[case::over_all_signals(exited(255, "Error", ""), "Error: container exited with code 255")]
#[case::negative(exited(-1, "Error", ""), "Error: container exited with code -1")]
#[case::very_negative(exited(i32::MIN, "Error", ""), "Error: container exited with code -2147483648")]
#[case::out_of_memory(
    exited(137, "OOMKilled", "allocating\n"),
    "OOMKilled: the container ran into its memory limit of 128Mi; raise \"memory\"\nallocating"
)]
#[case::out_of_memory_in_a_child_alone(
    exited(0, "OOMKilled", ""),
    "OOMKilled: the container ran into its memory limit of 128Mi; raise \"memory\""
)]
fn a_failed_container_says_how_it_ended(#[case] main: ContainerState, #[case] error: &str) {
    assert_eq!(judged(vec![(1, pod(Running)), (9, pod(main))]), [wait(600), failed(error)]);
}

#[rstest]
#[case::invalid_image_name(
    pod(waiting("InvalidImageName", "couldn't parse image name \"A B\": invalid reference format")),
    "InvalidImageName: couldn't parse image name \"A B\": invalid reference format"
)]
#[case::never_to_be_pulled(
    pod(waiting("ErrImageNeverPull", "Container image \"a\" is not present with pull policy of Never")),
    "ErrImageNeverPull: Container image \"a\" is not present with pull policy of Never"
)]
#[case::no_message(pod(waiting("InvalidImageName", "")), "InvalidImageName: the container cannot be started")]
#[case::command_not_found(
    pod(exited(128, "StartError", "exec: \"nope\": executable file not found in $PATH")),
    "StartError: exec: \"nope\": executable file not found in $PATH"
)]
#[case::command_not_found_in_docker(
    pod(exited(127, "ContainerCannotRun", "exec: \"nope\": executable file not found in $PATH")),
    "ContainerCannotRun: exec: \"nope\": executable file not found in $PATH"
)]
#[case::result_servers_image_name(
    served(waiting("InvalidImageName", "couldn't parse image name"), creating()),
    "InvalidImageName: couldn't parse image name"
)]
#[case::result_server_crashes(
    served(waiting("CrashLoopBackOff", "back-off 10s restarting failed container"), creating()),
    "CrashLoopBackOff: back-off 10s restarting failed container"
)]
#[case::refused_by_its_node(
    over("UnexpectedAdmissionError", "Allocate failed due to no devices", waiting("", "")),
    "UnexpectedAdmissionError: Allocate failed due to no devices"
)]
#[case::failed_without_a_reason(over("", "", waiting("", "")), "Error: the pod ended before its container ran")]
fn a_state_that_cannot_heal_ends_the_call_at_once(#[case] status: PodStatus, #[case] error: &str) {
    assert_eq!(judged(vec![(0, creating()), (1, status)]), [wait(120), lost(error)]);
}

#[rstest]
#[case("ErrImagePull")]
#[case("ImagePullBackOff")]
#[case("CreateContainerConfigError")]
#[case("CreateContainerError")]
#[case("RunContainerError")]
#[case("CreatePodSandboxError")]
fn a_state_that_may_heal_has_20_seconds_for_it(#[case] reason: &str) {
    let status = || pod(waiting(reason, "why"));
    assert_eq!(
        judged(vec![(5, status()), (15, status()), (24, status()), (25, status())]),
        [wait(20), wait(10), wait(1), lost(&format!("{reason}: why"))]
    );
}

#[rstest]
#[case::the_back_off_is_not_news(
    vec![
        (5, not_pulled()),
        (6, pod(waiting("ImagePullBackOff", "Back-off pulling image \"nope:1\""))),
        (25, pod(waiting("ImagePullBackOff", "Back-off pulling image \"nope:1\""))),
    ],
    vec![wait(20), wait(19), lost("ErrImagePull: manifest for nope:1 not found")]
)]
#[case::the_last_try_is(
    vec![
        (5, pod(waiting("ImagePullBackOff", "Back-off pulling image \"nope:1\""))),
        (6, pod(waiting("ErrImagePull", "i/o timeout"))),
        (7, pod(waiting("ImagePullBackOff", "Back-off pulling image \"nope:1\""))),
        (8, not_pulled()),
        (30, pod(waiting("ImagePullBackOff", "Back-off pulling image \"nope:1\""))),
    ],
    vec![wait(20), wait(19), wait(18), wait(17), lost("ErrImagePull: manifest for nope:1 not found")]
)]
#[case::the_result_servers_image_counts_as_well(
    vec![
        (5, served(waiting("ErrImagePull", "denied"), creating())),
        (25, served(waiting("ImagePullBackOff", "Back-off pulling image"), creating())),
    ],
    vec![wait(20), lost("ErrImagePull: denied")]
)]
#[case::what_has_healed_starts_anew(
    vec![(5, not_pulled()), (20, creating()), (30, not_pulled()), (49, not_pulled()), (50, not_pulled())],
    vec![wait(20), wait(100), wait(20), wait(1), lost("ErrImagePull: manifest for nope:1 not found")]
)]
#[case::what_healed_before_the_run_is_no_trouble_after_it(
    vec![
        (5, not_pulled()),
        (20, pod(Running)),
        (90, served(waiting("ImagePullBackOff", "Back-off pulling the server"), pod(exited(0, "Completed", "")))),
        (110, served(waiting("ImagePullBackOff", "Back-off pulling the server"), pod(exited(0, "Completed", "")))),
    ],
    vec![wait(20), wait(600), wait(20), lost("ImagePullBackOff: Back-off pulling the server")]
)]
#[case::a_start_deadline_comes_first(
    vec![(110, not_pulled()), (120, not_pulled())],
    vec![
        wait(10),
        lost(
            "StartTimeout: the container did not start within 2m: \
             ErrImagePull: manifest for nope:1 not found"
        ),
    ]
)]
fn an_error_has_the_most_useful_message_of_the_trouble(
    #[case] statuses: Vec<(u64, PodStatus)>,
    #[case] expected: Vec<Step>,
) {
    assert_eq!(judged(statuses), expected);
}

#[rstest]
#[case::the_scheduler(
    unschedulable("0/3 nodes are available: 3 Insufficient memory."),
    "0/3 nodes are available: 3 Insufficient memory."
)]
#[case::a_state(creating(), "its image was still being pulled, or its files mounted (ContainerCreating)")]
#[case::a_sentence(pod(waiting("", "waiting for a volume")), "waiting for a volume")]
#[case::both(pod(waiting("PodInitializing", "waiting for a volume")), "PodInitializing: waiting for a volume")]
#[case::nobody(pod(waiting("", "")), "the cluster said nothing about the pod")]
fn a_start_that_takes_too_long_fails_with_what_is_known_from(#[case] status: PodStatus, #[case] words: &str) {
    assert_eq!(
        judged(vec![(119, status.clone()), (120, status)]),
        [wait(1), lost(&format!("StartTimeout: the container did not start within 2m: {words}"))]
    );
}

#[test]
fn a_run_that_takes_too_long_since_its_start_fails_with_the_log() {
    assert_eq!(
        judged(vec![(100, creating()), (110, pod(Running)), (709, pod(Running)), (710, pod(Running))]),
        [
            wait(20),
            wait(600),
            wait(1),
            failed_with_log(
                "Timeout: the container ran longer than 10m and was ended; raise \"timeout\" if it needs longer"
            ),
        ]
    );
}

#[test]
fn a_container_that_ends_just_in_time_has_not_run_too_long() {
    assert_eq!(judged(vec![(0, pod(Running)), (700, pod(exited(0, "Completed", "")))]), [wait(600), completed()]);
}

#[rstest]
#[case::evicted(
    over("Evicted", "The node was low on resource: memory.", Running),
    "Evicted: The node was low on resource: memory."
)]
#[case::evicted_before_it_ran(
    over("Evicted", "The node was low on resource: memory.", waiting("", "")),
    "Evicted: The node was low on resource: memory."
)]
#[case::evicted_through_the_api(
    disrupted("EvictionByEvictionAPI", "Eviction API: evicting", deleted(pod(Running))),
    "Evicted: Eviction API: evicting"
)]
#[case::preempted(
    disrupted("PreemptionByScheduler", "default-scheduler: preempting for a higher priority", deleted(pod(Running))),
    "Evicted: default-scheduler: preempting for a higher priority"
)]
#[case::preempted_by_its_node(
    over("Preempting", "Preempted in order to admit critical pod", Running),
    "Evicted: Preempted in order to admit critical pod"
)]
#[case::node_shut_down(
    over("Terminated", "Pod was terminated in response to imminent node shutdown.", Running),
    "Evicted: Pod was terminated in response to imminent node shutdown."
)]
#[case::node_shut_down_without_a_message(over("NodeShutdown", "", Running), "Evicted: the cluster gave no reason")]
#[case::deleted_while_pending(deleted(creating()), "PodDeleted: somebody deleted the pod before it was done")]
#[case::deleted_while_pulling(deleted(not_pulled()), "PodDeleted: somebody deleted the pod before it was done")]
#[case::deleted_while_running(deleted(pod(Running)), "PodDeleted: somebody deleted the pod before it was done")]
#[case::deleted_and_killed(
    deleted(pod(exited(137, "Error", "half done"))),
    "PodDeleted: somebody deleted the pod before it was done"
)]
#[case::node_not_ready(
    disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", deleted(pod(Running))),
    "NodeLost: Taint manager: deleting due to NoExecute taint"
)]
#[case::node_gone(
    disrupted("DeletionByPodGC", "PodGC: node no longer exists", over("", "", Running)),
    "NodeLost: PodGC: node no longer exists"
)]
#[case::node_silent(
    PodStatus { phase: Phase::Unknown, cause: cause("NodeLost", "Node n1 is unresponsive"), ..pod(Running) },
    "NodeLost: Node n1 is unresponsive"
)]
#[case::deadline_of_the_pod(
    over("DeadlineExceeded", "Pod was active on the node longer than the specified deadline", Running),
    "Timeout: Pod was active on the node longer than the specified deadline"
)]
#[case::deadline_of_the_pod_and_killed(
    PodStatus {
        sidecar: Some(Running),
        ..over(
            "DeadlineExceeded",
            "Pod was active on the node longer than the specified deadline",
            exited(137, "Error", "")
        )
    },
    "Timeout: Pod was active on the node longer than the specified deadline"
)]
fn a_pod_that_is_ended_from_outside_says_by_what(#[case] status: PodStatus, #[case] error: &str) {
    assert_eq!(judged(vec![(1, status)]), [failed(error)]);
}

#[test]
fn a_container_that_its_node_cannot_find_is_lost() {
    let unknown = |message| exited(137, "ContainerStatusUnknown", message);
    assert_eq!(
        judged(vec![(1, pod(unknown("The container could not be located when the pod was terminated")))]),
        [lost("NodeLost: The container could not be located when the pod was terminated")]
    );
    assert_eq!(judged(vec![(1, pod(unknown("")))]), [lost("NodeLost: the node lost track of the container")]);
    assert_eq!(
        judged(vec![(1, over("Evicted", "The node was low on resource: memory.", unknown("")))]),
        [lost("Evicted: The node was low on resource: memory.")]
    );
}

#[rstest]
#[case::a_disruption_announced(disrupted("PreemptionByScheduler", "preempting", pod(Running)))]
#[case::an_unknown_phase(PodStatus { phase: Phase::Unknown, ..pod(Running) })]
#[case::a_result_server_not_pulled_yet(served(waiting("ErrImagePull", "denied"), pod(Running)))]
#[case::a_result_server_starting(served(waiting("ContainerCreating", ""), pod(Running)))]
fn a_running_container_is_left_to_run_in_spite_of(#[case] status: PodStatus) {
    assert_eq!(judged(vec![(1, status)]), [wait(600)]);
}

#[rstest]
#[case::starts_in_time(
    vec![
        (200, served(waiting("ContainerCreating", ""), pod(exited(0, "Completed", "")))),
        (210, served(Running, pod(exited(0, "Completed", "")))),
    ],
    vec![wait(120), completed()]
)]
#[case::starts_in_time_for_a_failed_container(
    vec![
        (200, served(waiting("ContainerCreating", ""), pod(exited(3, "Error", "log")))),
        (210, served(Running, pod(exited(3, "Error", "log")))),
    ],
    vec![wait(120), failed("Error: container exited with code 3\nlog")]
)]
#[case::does_not_start(
    vec![
        (200, served(waiting("ContainerCreating", ""), pod(exited(0, "Completed", "")))),
        (319, served(waiting("ContainerCreating", ""), pod(exited(0, "Completed", "")))),
        (320, served(waiting("ContainerCreating", ""), pod(exited(0, "Completed", "")))),
    ],
    vec![
        wait(120),
        wait(1),
        lost("ResultUnavailable: the result server did not start: ContainerCreating"),
    ]
)]
#[case::does_not_start_for_a_failed_container(
    vec![
        (200, served(waiting("ContainerCreating", ""), pod(exited(3, "Error", "")))),
        (320, served(waiting("ContainerCreating", ""), pod(exited(3, "Error", "")))),
    ],
    vec![wait(120), lost("Error: container exited with code 3")]
)]
#[case::cannot_be_pulled(
    vec![
        (200, served(waiting("ErrImagePull", "denied"), pod(exited(0, "Completed", "")))),
        (201, served(waiting("ImagePullBackOff", "Back-off"), pod(exited(0, "Completed", "")))),
        (220, served(waiting("ImagePullBackOff", "Back-off"), pod(exited(0, "Completed", "")))),
    ],
    vec![wait(20), wait(19), lost("ErrImagePull: denied")]
)]
#[case::crashes(
    vec![(200, served(waiting("CrashLoopBackOff", "back-off 10s"), pod(exited(0, "Completed", ""))))],
    vec![lost("CrashLoopBackOff: back-off 10s")]
)]
#[case::crashes_beside_a_failed_container(
    vec![(200, served(waiting("CrashLoopBackOff", "back-off 10s"), pod(exited(3, "Error", ""))))],
    vec![lost("Error: container exited with code 3")]
)]
#[case::has_ended(
    vec![(200, served(exited(2, "Error", ""), pod(exited(0, "Completed", ""))))],
    vec![
        lost("ResultUnavailable: the result server ended (Error, exit code 2) before the result was read"),
    ]
)]
#[case::has_ended_beside_a_failed_container(
    vec![(200, served(exited(2, "Error", ""), pod(exited(137, "OOMKilled", ""))))],
    vec![lost("OOMKilled: the container ran into its memory limit of 128Mi; raise \"memory\"")]
)]
#[case::never_started_in_a_pod_that_is_over(
    vec![(200, served(waiting("", ""), over("", "", exited(0, "Completed", ""))))],
    vec![lost("ResultUnavailable: the pod ended before the result was read")]
)]
fn a_result_is_read_through_a_server_that(#[case] statuses: Vec<(u64, PodStatus)>, #[case] expected: Vec<Step>) {
    assert_eq!(judged(statuses), expected);
}

#[rstest]
#[case::deleted(deleted(pod(exited(0, "Completed", ""))), "PodDeleted: somebody deleted the pod before it was done")]
#[case::evicted(
    PodStatus { cause: cause("Evicted", "low on memory"), ..over("", "", exited(0, "Completed", "")) },
    "Evicted: low on memory"
)]
#[case::node_gone(
    disrupted("DeletionByPodGC", "PodGC: node no longer exists", deleted(pod(exited(0, "Completed", "")))),
    "NodeLost: PodGC: node no longer exists"
)]
fn a_result_that_is_lost_with_its_pod_says_what_ended_the_pod(
    #[values(waiting("ContainerCreating", ""), exited(2, "Error", ""))] server: ContainerState,
    #[case] status: PodStatus,
    #[case] error: &str,
) {
    assert_eq!(judged(vec![(1, served(server, status))]), [lost(error)]);
}

fn lines(numbers: std::ops::RangeInclusive<u32>) -> String {
    numbers.map(|number| format!("line {number}")).collect::<Vec<_>>().join("\n")
}

#[rstest]
#[case::empty("", "")]
#[case::white_space("\n \n", "")]
#[case::no_newline("one", "\none")]
#[case::newline("one\n", "\none")]
#[case::indented("  one\n\n two\n\n", "\n  one\n\n two")]
#[case::windows_newlines("one\r\ntwo\r\n", "\none\r\ntwo")]
#[case::as_many_as_there_may_be(&lines(1..=20), &format!("\n{}", lines(1..=20)))]
#[case::one_more(&lines(1..=21), &format!("\n{}", lines(2..=21)))]
#[case::many_more_and_newlines(&(lines(1..=100) + "\n\n\n"), &format!("\n{}", lines(81..=100)))]
#[case::non_ascii(&("ü\n".repeat(30)), &"\nü".repeat(20))]
fn an_error_has_the_last_20_lines_of_a_log(#[case] log: &str, #[case] tail: &str) {
    assert_eq!(log_tail(log), tail);
}

/// A reason as Kubernetes writes it, most of them known.
fn any_reason() -> impl Strategy<Value = String> {
    let known = vec![
        "",
        "Completed",
        "ContainerCreating",
        "ContainerStatusUnknown",
        "CrashLoopBackOff",
        "DeadlineExceeded",
        "DeletionByPodGC",
        "ErrImagePull",
        "Error",
        "Evicted",
        "ImagePullBackOff",
        "InvalidImageName",
        "NodeLost",
        "OOMKilled",
        "RunContainerError",
        "StartError",
    ];
    prop_oneof![4 => prop::sample::select(known).prop_map(String::from), 1 => "[A-Z][A-Za-z]{1,9}"]
}

fn any_cause() -> impl Strategy<Value = Cause> {
    (any_reason(), any::<String>()).prop_map(|(reason, message)| Cause { reason, message })
}

fn any_state() -> impl Strategy<Value = ContainerState> {
    let exit_code = prop_oneof![Just(0), 0..256, any::<i32>()];
    let end = (exit_code, any_cause()).prop_map(|(exit_code, cause)| {
        let Cause { reason, message } = cause;
        ContainerState::Terminated(Terminated { exit_code, reason, message })
    });
    prop_oneof![3 => any_cause().prop_map(ContainerState::Waiting), 2 => Just(Running), 1 => end]
}

fn any_status() -> impl Strategy<Value = PodStatus> {
    let phases = [Phase::Pending, Phase::Running, Phase::Succeeded, Phase::Failed, Phase::Unknown];
    let pod = (prop::sample::select(phases.to_vec()), any_cause(), prop::option::of(any::<String>()));
    let end = (prop::option::weighted(0.1, any_cause()), prop::bool::weighted(0.1), any::<bool>());
    (pod, end, any_state(), prop::option::of(any_state())).prop_map(|(pod, end, main, sidecar)| PodStatus {
        phase: pod.0,
        cause: pod.1,
        unschedulable: pod.2,
        waits_for_room: end.2,
        disruption: end.0,
        deleted: end.1,
        main,
        sidecar,
    })
}

fn any_status_with_room() -> impl Strategy<Value = PodStatus> {
    any_status().prop_map(|status| PodStatus { waits_for_room: false, ..status })
}

fn any_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![(0..1000_u64).prop_map(Duration::from_secs), any::<Duration>(), Just(Duration::MAX)]
}

proptest! {
    #[test]
    fn any_statuses_at_any_times_are_judged(
        (start, run) in (any_duration(), any_duration()),
        statuses in prop::collection::vec((any_status(), any_duration()), 1..8),
    ) {
        let mut progress = Progress::new(Deadlines { start, run }, "1Gi".into());
        let mut now = Duration::ZERO;
        for (status, later) in statuses {
            now = now.saturating_add(later);
            match progress.judge(&status, now) {
                Step::Wait(time) => prop_assert!(!time.is_zero()),
                Step::Ended(ending) => {
                    if let Ending::Failed { error, .. } | Ending::Lost { error } = ending {
                        let word = error.split_once(": ").map_or("", |(word, _)| word);
                        prop_assert!(!word.is_empty() && word.bytes().all(|b| b.is_ascii_alphabetic()), "{}", error);
                    }
                    let again = progress.judge(&status, now.saturating_add(later));
                    prop_assert!(matches!(again, Step::Ended(_)), "it goes on: {again:?}");
                }
            }
        }
    }

    /// The start, the run and the start of the result server each have a deadline, whatever the pod does. The wait for
    /// room has none here: the host limits it.
    #[test]
    fn a_call_ends_in_time(statuses in prop::collection::vec((any_status_with_room(), 0..=4_u32), 1..8)) {
        let mut progress = progress();
        let mut now = Duration::ZERO;
        let last = statuses.last().map(|(status, _)| (status.clone(), 4));
        // Once nothing changes any more, there are at most two waits: for trouble to heal, and for the deadline.
        let rest = std::iter::repeat_n(last, 3).flatten();
        let mut ended = false;
        for (status, quarters) in statuses.into_iter().chain(rest) {
            match progress.judge(&status, now) {
                Step::Wait(time) => now += time * quarters / 4,
                Step::Ended(_) => {
                    ended = true;
                    break;
                }
            }
        }
        prop_assert!(ended, "it waits on after {now:?}");
        prop_assert!(now <= Duration::from_secs(START + RUN + START), "it ended after {now:?} only");
    }
}
