//! Engines, registries and containers that send more than anybody can hold.

use crate::fake::{Answer, Fake};
use hops_k8s_tests::{Document, call};
use rstest::rstest;
use serde_json::json;
use std::time::{Duration, Instant};
use tar::{EntryType, Header};

/// The most that may be sent until the reader has had enough: what it reads, and what buffers hold.
const ENOUGH: usize = 4 << 20;
const CHUNK: usize = 1 << 16;

async fn outcome(fake: &Fake) -> Document {
    let pods = fake.pods().await;
    let document = tokio::time::timeout(Duration::from_secs(60), call(pods.clone(), &json!({"image": "a"}))).await;
    Document::parse(&document.expect("the call ends").unwrap())
}

/// The beginning of an archive: the header of an entry with this size.
fn header(kind: EntryType, size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_path(if kind == EntryType::GNULongName { "././@LongLink" } else { "result.json" }).unwrap();
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn archive(answer: impl Fn() -> Answer + Send + Sync + 'static) -> Fake {
    Fake::start(move |request| (request.starts_with("GET /") && request.contains("/archive?")).then(&answer))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_played_runs_a_call() {
    let file = [header(EntryType::Regular, 2), b"{}".to_vec(), vec![0; 510 + 1024]].concat();
    let document = outcome(&archive(move || Answer::Bytes(file.clone()))).await;
    assert_eq!((document.error(), document.json()), ("", &json!({})));
}

#[rstest]
#[case::a_long_name(EntryType::GNULongName)]
#[case::a_long_link(EntryType::GNULongLink)]
#[case::extensions(EntryType::XHeader)]
#[tokio::test(flavor = "multi_thread")]
async fn a_description_of_a_file_that_does_not_end_is_refused(#[case] kind: EntryType) {
    let fake = archive(move || Answer::Endless(header(kind, 1 << 32), vec![b'x'; CHUNK]));
    let document = outcome(&fake).await;
    let why = "ResultUnavailable: result.json could not be read: the engine at ";
    assert!(document.error().starts_with(why), "{document:?}");
    assert!(document.error().ends_with("the description of the file is longer than 65536 bytes"), "{document:?}");
    assert!(fake.sent() < ENOUGH, "{}", fake.sent());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_begins_with_something_else_is_not_read() {
    let fake = archive(|| Answer::Endless(header(EntryType::XGlobalHeader, 1 << 32), vec![b'x'; CHUNK]));
    let document = outcome(&fake).await;
    let why = "it is neither a file nor a link to one; write a file";
    assert_eq!(document.error(), format!("ResultUnavailable: result.json could not be read: {why}"));
    assert!(fake.sent() < ENOUGH, "{}", fake.sent());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_does_not_end_is_read_as_far_as_the_file() {
    let file = [header(EntryType::Regular, 2), b"{}".to_vec()].concat();
    let fake = archive(move || Answer::Endless(file.clone(), vec![0; CHUNK]));
    let document = outcome(&fake).await;
    assert_eq!((document.error(), document.json()), ("", &json!({})));
    assert!(fake.sent() < ENOUGH, "{}", fake.sent());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_not_end_is_no_engine() {
    let fake = Fake::start(|request| {
        (request == "GET /version").then(|| Answer::Endless(br#"{"Version": ""#.to_vec(), vec![b'x'; CHUNK]))
    });
    let error = fake.connect().await.expect_err("it is not an engine").to_string();
    assert!(error.contains("more than 8388608 bytes"), "{error}");
    assert!(fake.sent() < 8388608 + ENOUGH, "{}", fake.sent());
}

#[rstest]
#[case::create("POST /containers/create")]
#[case::inspect("GET /containers/")]
#[case::upload("PUT /containers/")]
#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_does_not_end_is_cut_off(#[case] on: &'static str) {
    let fake = Fake::start(move |request| request.starts_with(on).then_some(Answer::EndlessError));
    let document = outcome(&fake).await;
    assert!(document.error().contains("answered 500: {\"message\":\"so much is wrong: xxx"), "{document:?}");
    assert!(document.error().len() < 5000, "{}", document.error().len());
    assert!(fake.sent() < ENOUGH, "{}", fake.sent());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_of_a_container_that_does_not_end_is_an_error() {
    let fake = Fake::start(|request| {
        let is_inspect = request.starts_with("GET /containers/hiphops") && request.ends_with("/json");
        is_inspect.then(|| Answer::Endless(br#"{"Name": ""#.to_vec(), vec![b'x'; CHUNK]))
    });
    let document = outcome(&fake).await;
    assert!(document.error().contains("its answer has more than 8388608 bytes"), "{document:?}");
    assert!(fake.sent() < 8388608 + ENOUGH, "{}", fake.sent());
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_do_not_end_are_an_error() {
    let fake = Fake::start(|request| request.starts_with("POST /containers/create").then_some(Answer::EndlessHeaders));
    let document = outcome(&fake).await;
    assert!(document.error().starts_with("ClusterUnavailable: "), "{document:?}");
    assert!(fake.sent() < ENOUGH, "{}", fake.sent());
}

/// An engine that does not have the image, and answers so when it is to pull it.
fn pulling(answer: impl Fn() -> Answer + Send + Sync + 'static) -> Fake {
    Fake::start(move |request| match request.split('?').next().unwrap() {
        "POST /containers/create" => Some(Answer::Json(404, json!({"message": "No such image"}))),
        "POST /images/create" => Some(answer()),
        _ => None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_registry_is_cut_off() {
    let message = format!("manifest unknown: {}", "ä".repeat(1 << 20));
    let event = json!({"errorDetail": {"message": message}, "error": message}).to_string();
    let fake = pulling(move || Answer::Bytes(event.clone().into_bytes()));
    let document = outcome(&fake).await;
    assert!(document.error().starts_with("ErrImagePull: "), "{:.200}", document.error());
    assert!(document.error().len() < 5000, "{}", document.error().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_registry_that_does_not_end_is_an_error() {
    let fake = pulling(|| Answer::Endless(br#"{"error": "manifest unknown: "#.to_vec(), vec![b'x'; CHUNK]));
    let document = outcome(&fake).await;
    assert!(document.error().starts_with("ErrImagePull: "), "{:.200}", document.error());
    assert!(document.error().len() < 5000, "{}", document.error().len());
    // It is tried again until the plugin has seen enough of it.
    assert!(fake.sent() < 8 * ENOUGH, "{}", fake.sent());
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_of_layers_that_nobody_can_add_up_are_no_harm() {
    let layers: Vec<String> = (0..5000)
        .flat_map(|layer| {
            [i64::MAX, -1, 7].map(|size| {
                let detail = json!({"current": size, "total": size});
                json!({"id": layer.to_string(), "status": "Downloading", "progressDetail": detail}).to_string()
            })
        })
        .collect();
    let events = layers.join("\r\n").into_bytes();
    let fake = pulling(move || Answer::Endless(events.clone(), b"\r\n{\"error\": \"denied\"}\r\n".to_vec()));
    let document = outcome(&fake).await;
    assert_eq!(document.error(), "ErrImagePull: denied");
}

/// An engine whose containers fail and have this log.
fn failing(log: impl Fn() -> Answer + Send + Sync + 'static) -> Fake {
    Fake::start(move |request| {
        let path = request.split('?').next().unwrap();
        let state = json!({"Status": "exited", "Running": false, "ExitCode": 3});
        match path {
            _ if path.ends_with("/logs") => Some(log()),
            _ if path.ends_with("/json") && path != "GET /containers/json" => {
                Some(Answer::Json(200, json!({"State": state, "Mounts": []})))
            }
            _ => None,
        }
    })
}

/// A piece of a log, as engines send it.
fn piece(length: usize) -> Vec<u8> {
    let mut piece = vec![1, 0, 0, 0];
    piece.extend(u32::try_from(length).unwrap().to_be_bytes());
    piece
}

#[rstest]
#[case::in_pieces(16384)]
#[case::in_one_piece(u32::MAX as usize)]
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_log_that_does_not_end_is_its_beginning(#[case] length: usize) {
    let rest = if length < CHUNK { [piece(length), vec![b'x'; length]].concat() } else { vec![b'x'; CHUNK] };
    let fake = failing(move || Answer::Endless(piece(length), rest.clone()));
    let start = Instant::now();
    let document = outcome(&fake).await;
    assert!(document.error().starts_with("Error: container exited with code 3\n"), "{:.200}", document.error());
    assert!(document.error().ends_with("xxx"), "{:.200}", document.error());
    assert!(document.error().len() < 5000, "{}", document.error().len());
    assert!(fake.sent() < 16 * ENOUGH, "{}", fake.sent());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_that_nobody_can_list_are_left() {
    let fake = Fake::start(|request| {
        request.starts_with("GET /containers/json").then(|| Answer::Endless(b"[".to_vec(), vec![b' '; CHUNK]))
    });
    let pods = fake.pods().await;
    let drained = tokio::time::timeout(Duration::from_secs(20), hops_k8s::pods::Pods::drained(&*pods)).await;
    assert!(drained.is_ok(), "still listing");
    assert!(fake.sent() < 8388608 + ENOUGH, "{}", fake.sent());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_drops_is_an_error_after_the_time_for_answers() {
    let fake = Fake::start(|request| (request == "GET /version").then_some(Answer::Drip(Duration::from_millis(100))));
    let start = Instant::now();
    let error = fake.connect().await.expect_err("it is not an engine").to_string();
    assert!(error.contains("no answer within 5 s"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}
