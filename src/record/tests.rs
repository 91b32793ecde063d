use std::time::UNIX_EPOCH;

use tempfile::TempDir;

use super::*;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_100 + seconds)
}

fn opened(folder: &Path, now: SystemTime) -> Record {
    let record = Record::new(now);
    record.keep_in(folder);
    record
}

fn request(seconds: u64, counted: bool) -> v1::UpstreamRequest {
    v1::UpstreamRequest {
        at: Some(at(seconds).into()),
        registry: "docker.io".to_owned(),
        repository: "library/nginx".to_owned(),
        kind: "manifest".to_owned(),
        method: if counted { "GET" } else { "HEAD" }.to_owned(),
        status: 200,
        counted,
        remaining: Some(97),
        limit: Some(100),
        source: "192.0.2.7".to_owned(),
        ..v1::UpstreamRequest::default()
    }
}

fn decided(reason: &str, ending: Ending) -> Decided<'static> {
    Decided {
        reference: "docker.io/library/nginx:latest".to_owned(),
        ending,
        digest: "sha256:aa".to_owned(),
        reason: reason.to_owned(),
        asked_by: "a test",
        cost: v1::Cost::default(),
        requests: Vec::new(),
    }
}

#[test]
fn the_same_decision_again_is_counted_and_another_one_is_put_before_it() {
    let record = Record::new(at(0));
    let told = record.decided(decided("why", Ending::Fresh), at(1));
    record.decided(decided("why", Ending::Fresh), at(2));
    told.again(at(3));
    record.decided(decided("because", Ending::Stale), at(4));
    let decisions = record.decisions("docker.io/library/nginx:latest");
    let seen: Vec<_> =
        decisions.iter().map(|decision| (decision.standing.as_str(), decision.times)).collect();
    assert_eq!(seen, [("stale", 1), ("fresh", 3)]);
    assert_eq!(decisions[1].last_at, Some(at(3).into()));
    assert_eq!(record.standing("docker.io/library/nginx:latest"), Some(Ending::Stale));
}

#[test]
fn a_tag_that_is_confirmed_again_and_again_is_two_lines_until_something_happens() {
    let record = Record::new(at(0));
    record.decided(decided("first", Ending::Changed), at(0));
    for second in 1..5 {
        record.decided(decided("fresh", Ending::Fresh), at(10 * second));
        record.decided(decided("same", Ending::Unchanged), at(10 * second + 1));
    }
    record.decided(decided("down", Ending::Stale), at(60));
    record.decided(decided("down", Ending::Stale), at(61));
    record.decided(decided("same", Ending::Unchanged), at(62));
    let decisions = record.decisions("docker.io/library/nginx:latest");
    let seen: Vec<_> =
        decisions.iter().map(|decision| (decision.standing.as_str(), decision.times)).collect();
    assert_eq!(seen, [("unchanged", 1), ("stale", 2), ("unchanged", 4), ("fresh", 4), ("changed", 1)]);
}

#[test]
fn what_is_asked_for_in_vain_pushes_out_nothing_that_was_answered() {
    let record = Record::new(at(0));
    record.decided(decided("why", Ending::Changed), at(0));
    for number in 0..5000 {
        let reference = format!("docker.io/library/none:{number}");
        record.decided(Decided { reference, ..decided("missing", Ending::Refused) }, at(1));
    }
    assert_eq!(record.decisions("docker.io/library/nginx:latest").len(), 1);
    assert_eq!(record.decisions("docker.io/library/none:4999").len(), 1);
    assert!(record.decisions("docker.io/library/none:1").is_empty());
}

#[test]
fn what_happened_is_known_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let nginx = Repository::new("docker.io".parse().unwrap(), "nginx").unwrap();
    {
        let record = opened(folder.path(), at(0));
        record.sent(request(1, true));
        record.sent(request(2, false));
        record.decided(decided("why", Ending::Changed), at(2));
        record.decided(decided("why", Ending::Changed), at(3));
        record.given_manifest(&nginx, at(3));
        record.answered(Front::Mirror, Kind::Manifest, Ending::Changed, at(3));
        record.close();
    }
    let record = opened(folder.path(), at(10));
    let budget = record.budget(Some("docker.io"), Named::Dearest, at(10)).remove(0);
    assert_eq!((budget.requests, budget.counted, budget.counted_without), (2, 1, 1));
    assert_eq!((budget.limits[0].remaining, budget.limits[0].limit), (97, Some(100)));
    let decisions = record.decisions("docker.io/library/nginx:latest");
    assert_eq!(decisions.iter().map(|decision| decision.times).collect::<Vec<_>>(), [2]);
    assert_eq!(decisions[0].last_at, Some(at(3).into()));
    record.answered(Front::Mirror, Kind::Manifest, Ending::Fresh, at(10));
    let history = record.history(at(10));
    let seen: Vec<_> = history.iter().map(|span| (span.changed, span.fresh, span.counted_without)).collect();
    assert_eq!(seen, [(1, 1, 1)], "one span of time, whichever daemon it was");
    assert_eq!(record.sent(request(11, false)).number, 3);
    assert_eq!(record.requests(&Which { after: 1, ..Which::default() }, 10).len(), 2);
    assert_eq!(record.sums().requests, 1, "sums are since the start");
}

#[test]
fn sums_outlast_what_they_are_the_sums_of() {
    let folder = TempDir::new().unwrap();
    let nginx = Repository::new("docker.io".parse().unwrap(), "nginx").unwrap();
    let sums = |record: &Record| {
        let budget = record.budget(Some("docker.io"), Named::Dearest, at(9)).remove(0);
        let answered =
            record.history(at(9)).iter().map(|span| (span.fresh, span.counted)).collect::<Vec<_>>();
        (budget.requests, budget.counted, budget.counted_without, answered)
    };
    for run in 1..=3 {
        let record = opened(folder.path(), at(0));
        for number in 0..40_000 {
            record.sent(request(number % 8, number % 2 == 0));
            record.given_manifest(&nginx, at(number % 8));
            record.answered(Front::Mirror, Kind::Manifest, Ending::Fresh, at(number % 8));
        }
        let all = run * 40_000;
        assert_eq!(sums(&record), (all, all / 2, all, vec![(all, all / 2)]));
        // Of lines that come faster than the disk takes them some are lost: so many come in their turn that the first
        // ones are two files back.
        let journal = record.inner.journal.get().unwrap();
        (0..40_000).for_each(|number| journal.write_in_turn(Line::sent(&request(number % 8, true))));
        record.close();
    }
    let kept = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().len();
    assert!(kept("journal.before") < 5 << 20 && kept("journal") < 5 << 20);
}

#[test]
fn a_request_that_ends_in_the_next_span_of_time_does_not_begin_the_last_one_again() {
    let record = Record::new(at(0));
    for seconds in [1, 301, 2, 302, 3] {
        record.sent(request(seconds, true));
        record.answered(Front::Mirror, Kind::Manifest, Ending::Fresh, at(seconds));
    }
    let spans: Vec<_> = record.history(at(303)).iter().map(|span| (span.fresh, span.counted)).collect();
    assert_eq!(spans, [(1, 1), (4, 4)]);
}

#[test]
fn a_torn_end_is_cut_off_and_what_comes_after_it_is_read() {
    let folder = TempDir::new().unwrap();
    let record = opened(folder.path(), at(0));
    record.sent(request(1, true));
    record.close();
    let journal = folder.path().join("journal");
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes.extend_from_slice(&[200, 1, 7]);
    std::fs::write(&journal, &bytes).unwrap();
    let record = opened(folder.path(), at(2));
    record.sent(request(3, true));
    record.close();
    let record = opened(folder.path(), at(4));
    assert_eq!(record.requests(&Which::default(), 10).len(), 2);
}

#[test]
fn a_folder_that_cannot_be_used_keeps_nobody_from_anything() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let record = opened(file.path(), at(0));
    record.sent(request(1, true));
    record.close();
    assert_eq!(record.sums().counted, 1);
}

#[tokio::test]
async fn who_follows_sees_what_was_there_and_then_each_new_one() {
    let record = Record::new(at(0));
    for seconds in 0..5 {
        record.sent(request(seconds, seconds % 2 == 0));
    }
    let which = Which { counted: true, ..Which::default() };
    let mut following = record.follow(which, 2);
    record.sent(request(5, false));
    record.sent(request(6, true));
    let mut numbers = Vec::new();
    for _ in 0..3 {
        numbers.push(following.next().await.unwrap().number);
    }
    assert_eq!(numbers, [3, 5, 7]);
}

#[test]
fn the_metrics_have_their_names_and_only_so_many_labels() {
    let record = Record::new(at(0));
    record.name(["docker.io"]);
    let unanswered = |number| v1::UpstreamRequest {
        status: 0,
        registry: format!("u{number}.example"),
        ..request(1, false)
    };
    for number in 0..200 {
        record.sent(unanswered(number));
    }
    record.sent(request(1, true));
    for number in 0..200 {
        record.sent(v1::UpstreamRequest { registry: format!("r{number}.example"), ..request(1, false) });
    }
    record.answered(Front::Mirror, Kind::Manifest, Ending::Fresh, at(1));
    record.read(Front::Mirror, &Digest::of(b"held"), 7);
    record.downloaded(&Repository::new("docker.io".parse().unwrap(), "nginx").unwrap(), 11, at(1));
    record.took(Latency::Resolve, Duration::from_millis(3));
    let gauges = Gauges { cached_bytes: 9, ..Gauges::default() };
    let metrics = || record.metrics(&record.budget(None, Named::Dearest, at(2)), &gauges);
    let text = metrics();
    for line in [
        "tidehold_upstream_requests_total{counted=\"true\",kind=\"manifest\",method=\"GET\",registry=\"docker.io\",\
         status=\"200\"} 1",
        "tidehold_requests_total{front=\"mirror\",kind=\"manifest\",standing=\"fresh\"} 1",
        "tidehold_ratelimit_remaining{registry=\"docker.io\",source=\"192.0.2.7\"} 97",
        "tidehold_ratelimit_limit{registry=\"docker.io\",source=\"192.0.2.7\"} 100",
        "tidehold_gate_open{registry=\"docker.io\"} 1",
        "tidehold_bytes_total{from=\"hold\",front=\"mirror\"} 7",
        "tidehold_downloaded_bytes_total{registry=\"docker.io\"} 11",
        "tidehold_hold_bytes{state=\"cached\"} 9",
        "tidehold_resolve_seconds_count 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let registries = text.lines().filter(|line| line.starts_with("tidehold_upstream_requests_total")).count();
    assert_eq!(registries, 64 + 2, "one other that answered, and one that did not");
    assert_eq!(metrics(), text, "asking changes nothing");
}

#[test]
fn what_was_downloaded_for_its_first_reader_comes_from_upstream_once() {
    let (record, blob) = (Record::new(at(0)), Digest::of(b"blob"));
    let now = crate::clock::instant();
    let given = || (record.sums().from_upstream, record.sums().from_hold);
    // Fetched ahead of a client of the mirror, who asks for a part, and then for all of it.
    record.wants(&blob);
    record.begins(&blob, Some(10));
    record.ends(&blob, Some(10));
    record.sending(&blob, 4, now).sent(4, now);
    assert_eq!(given(), (4, 0));
    record.sending(&blob, 10, now).sent(10, now);
    assert_eq!(given(), (10, 4));
    // Two read what comes in, and a containerd reads it afterwards.
    let other = Digest::of(b"other");
    record.begins(&other, Some(5));
    record.sending(&other, 5, now).sent(5, now);
    record.sending(&other, 5, now).sent(5, now);
    record.ends(&other, Some(5));
    record.read(Front::Content, &other, 5);
    assert_eq!(given(), (15, 14));
}

#[test]
fn how_a_blob_came_and_how_much_was_downloaded_is_known_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let (blob, nginx) =
        (Digest::of(b"blob"), Repository::new("docker.io".parse().unwrap(), "nginx").unwrap());
    let arrival = Arrival { repository: nginx.to_string(), at: at(2), bytes: 70, counted: 1 };
    let record = opened(folder.path(), at(0));
    record.downloaded(&nginx, 70, at(1));
    record.arrived(&blob, &nginx, 30, 0, at(1));
    record.arrived(&blob, &nginx, 70, 1, at(2));
    assert_eq!((record.arrival(&blob), record.sums().downloaded), (Some(arrival.clone()), 70));
    record.close();
    let record = opened(folder.path(), at(10));
    assert_eq!((record.arrival(&blob), record.sums().downloaded), (Some(arrival), 0));
    let budget = record.budget(None, Named::Dearest, at(10)).remove(0);
    assert_eq!((budget.downloaded_bytes, budget.spenders[0].downloaded_bytes), (70, 70));
    assert_eq!(record.arrival(&Digest::of(b"another")), None);
}

#[test]
fn a_day_is_told_in_spans_of_five_minutes() {
    let record = Record::new(at(0));
    record.answered(Front::Mirror, Kind::Manifest, Ending::Fresh, at(0));
    record.answered(Front::Mirror, Kind::Blob, Ending::Immutable, at(400));
    record.answered(Front::Content, Kind::Manifest, Ending::Refused, at(400));
    record.sent(request(400, true));
    let history = record.history(at(1000));
    let seen: Vec<_> =
        history.iter().map(|span| (span.fresh, span.immutable, span.refused, span.counted)).collect();
    assert_eq!(seen, [(1, 0, 0, 0), (0, 1, 1, 1)]);
    assert!(record.history(at(2 * 24 * 3600)).is_empty());
}
