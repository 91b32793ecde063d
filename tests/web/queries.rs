//! The dashboard and the alerts of `deploy/`: what each query names is really exported.

use std::collections::BTreeSet;
use std::fs;

use promql_parser::label::{MatchOp, Matchers};
use promql_parser::parser::{Expr, LabelModifier, VectorSelector, parse};
use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

use crate::exposition::Metrics;
use crate::metrics::{busy, scrape};

/// What Prometheus itself adds.
const ADDED: &[&str] = &["instance", "job"];

/// Labels whose values are all known.
const CLOSED: &[(&str, &[&str])] = &[
    ("front", &["mirror", "content", "control"]),
    ("standing", &["immutable", "fresh", "unchanged", "changed", "stale", "refused", "challenged"]),
    ("state", &["adopted", "cached", "ingest"]),
    ("counted", &["true", "false"]),
    ("from", &["hold", "upstream"]),
    ("kind", &["manifest", "blob", "tags", "referrers", "token"]),
    ("job", &["tidehold"]),
];

fn file(name: &str) -> String {
    fs::read_to_string(format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// What Grafana puts in for its variables.
fn without_variables(query: &str) -> String {
    let query = query.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$registry", ".*");
    assert!(!query.contains('$'), "{query}");
    query
}

/// Complaints about a query.
fn wrong(query: &str, metrics: &Metrics) -> Vec<String> {
    match parse(query) {
        Ok(expression) => {
            let (mut wrong, mut labels) = (Vec::new(), BTreeSet::new());
            look(&expression, metrics, &mut labels, &mut wrong);
            wrong.iter().map(|what| format!("{what}, in {query}")).collect()
        }
        Err(error) => vec![format!("{error}, in {query}")],
    }
}

/// Looks through an expression, and gathers the labels that its series have.
fn look(expression: &Expr, metrics: &Metrics, labels: &mut BTreeSet<String>, wrong: &mut Vec<String>) {
    match expression {
        Expr::Aggregate(aggregate) => {
            look(&aggregate.expr, metrics, labels, wrong);
            if let Some(LabelModifier::Include(kept) | LabelModifier::Exclude(kept)) = &aggregate.modifier {
                wrong.extend(
                    kept.labels
                        .iter()
                        .filter(|label| !labels.contains(*label))
                        .map(|label| format!("no label {label} to sum by")),
                );
                if matches!(aggregate.modifier, Some(LabelModifier::Include(_))) {
                    labels.retain(|label| kept.labels.contains(label));
                }
            } else {
                labels.clear();
            }
        }
        Expr::Unary(unary) => look(&unary.expr, metrics, labels, wrong),
        Expr::Binary(binary) => {
            let (mut left, mut right) = (BTreeSet::new(), BTreeSet::new());
            look(&binary.lhs, metrics, &mut left, wrong);
            look(&binary.rhs, metrics, &mut right, wrong);
            let ignored = match binary.modifier.as_ref().and_then(|modifier| modifier.matching.as_ref()) {
                Some(LabelModifier::Exclude(ignored)) => ignored.labels.clone(),
                Some(LabelModifier::Include(_)) => panic!("on() is not looked at here"),
                None => Vec::new(),
            };
            let matched = |of: &BTreeSet<String>| -> Vec<String> {
                of.iter().filter(|label| !ignored.contains(label)).cloned().collect()
            };
            let both_vectors = is_vector(&binary.lhs) && is_vector(&binary.rhs);
            let absent = matches!(&*binary.rhs, Expr::Call(call) if call.func.name == "absent");
            if both_vectors && !absent && matched(&left) != matched(&right) {
                wrong.push(format!("{left:?} and {right:?} never match"));
            }
            labels.extend(left);
            labels.extend(right);
        }
        Expr::Paren(paren) => look(&paren.expr, metrics, labels, wrong),
        Expr::Subquery(subquery) => look(&subquery.expr, metrics, labels, wrong),
        Expr::VectorSelector(selector) => named(selector, metrics, labels, wrong),
        Expr::MatrixSelector(matrix) => named(&matrix.vs, metrics, labels, wrong),
        Expr::Call(call) => {
            call.args.args.iter().for_each(|argument| look(argument, metrics, labels, wrong));
            if call.func.name == "histogram_quantile" && !labels.remove("le") {
                wrong.push("a quantile without buckets".to_owned());
            }
        }
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => {}
        other => panic!("{other:?} is not looked at here"),
    }
}

/// Whether it is a set of series, not one number.
fn is_vector(expression: &Expr) -> bool {
    match expression {
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => false,
        Expr::Paren(paren) => is_vector(&paren.expr),
        Expr::Unary(unary) => is_vector(&unary.expr),
        _ => true,
    }
}

fn named(
    selector: &VectorSelector,
    metrics: &Metrics,
    labels: &mut BTreeSet<String>,
    wrong: &mut Vec<String>,
) {
    let name = selector.name.as_deref().expect("each selector has a name");
    let own: BTreeSet<String> = match name {
        "up" => BTreeSet::new(),
        _ => metrics.labels(name).into_keys().map(str::to_owned).collect(),
    };
    if name != "up" && !metrics.names().contains(name) {
        wrong.push(format!("no metric {name}"));
    }
    let counts = metrics.types.get(metrics.family(name)).is_some_and(|kind| kind != "gauge");
    if counts && selector.offset.is_some() {
        wrong.push(format!("an offset of {name}"));
    }
    labels.extend(own.iter().cloned().chain(ADDED.iter().map(|label| (*label).to_owned())));
    let Matchers { matchers, or_matchers } = &selector.matchers;
    assert!(or_matchers.is_empty());
    for matcher in matchers {
        if !labels.contains(&matcher.name) {
            wrong.push(format!("{name} has no label {}", matcher.name));
        }
        let known = CLOSED.iter().find(|(label, _)| *label == matcher.name);
        let exact = matches!(matcher.op, MatchOp::Equal | MatchOp::NotEqual);
        if let (Some((_, values)), true) = (known, exact)
            && !values.contains(&matcher.value.as_str())
        {
            wrong.push(format!("{} is never {}", matcher.name, matcher.value));
        }
    }
}

#[tokio::test]
async fn each_panel_of_the_dashboard_asks_for_what_is_exported() {
    let metrics = scrape(&busy().await).await;
    let dashboard: Value = serde_json::from_str(&file("grafana/tidehold.json")).unwrap();
    let (mut asked, mut complaints, mut names) = (0, Vec::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = without_variables(target["expr"].as_str().unwrap());
            complaints.extend(wrong(&query, &metrics));
            names.extend(metrics.types.keys().filter(|name| query.contains(name.as_str())).cloned());
            asked += 1;
        }
    }
    assert!(asked >= 15, "{asked}");
    assert_eq!(complaints, [""; 0]);
    assert_eq!(names, metrics.types.keys().cloned().collect(), "the dashboard shows every metric");
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let query = variable["definition"].as_str().unwrap();
        let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
        let (name, label) = inside.split_once(", ").unwrap();
        assert!(metrics.labels(name).contains_key(label) || ADDED.contains(&label), "{query}");
    }
}

#[test]
fn the_dashboard_can_be_imported_anywhere() {
    let text = file("grafana/tidehold.json");
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(dashboard["__inputs"][0]["name"], "DS_PROMETHEUS");
    assert!(dashboard.get("id").is_none(), "an id is its Grafana's own");
    let mut ids = BTreeSet::new();
    let mut places = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = &panel["gridPos"];
        let (x, y, w, h) = (&place["x"], &place["y"], &place["w"], &place["h"]);
        let [x, y, w, h] = [x, y, w, h].map(|number| number.as_u64().unwrap());
        assert!(x + w <= 24, "{panel}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(places.insert(cell), "two panels at {cell:?}");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${DS_PROMETHEUS}", "{panel}");
        }
    }
}

#[tokio::test]
async fn each_alert_asks_for_what_is_exported_and_says_what_to_do() {
    let metrics = scrape(&busy().await).await;
    let rules = YamlLoader::load_from_str(&file("prometheus/tidehold.rules.yml")).unwrap();
    let groups = rules[0]["groups"].as_vec().unwrap();
    let (mut names, mut complaints) = (BTreeSet::new(), Vec::new());
    for rule in groups.iter().flat_map(|group| group["rules"].as_vec().unwrap()) {
        let text = |what: &Yaml| what.as_str().unwrap_or_else(|| panic!("{rule:?}")).to_owned();
        let name = text(&rule["alert"]);
        assert!(name.starts_with("Tidehold") && names.insert(name.clone()), "{name}");
        complaints.extend(wrong(&text(&rule["expr"]), &metrics));
        assert!(
            ["critical", "warning", "info"].contains(&text(&rule["labels"]["severity"]).as_str()),
            "{name}"
        );
        humantime::parse_duration(&text(&rule["for"])).unwrap();
        for annotation in ["summary", "description", "runbook"] {
            assert!(text(&rule["annotations"][annotation]).len() > 20, "{name}: {annotation}");
        }
    }
    assert_eq!(complaints, [""; 0]);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monitoring.md")).unwrap();
    for name in &names {
        assert!(page.contains(&format!("`{name}`")), "{name} is not in docs/monitoring.md");
    }
}

/// It is the content store of some containerds, and passed over by others.
#[test]
fn the_alert_of_a_daemon_that_is_down_is_true_however_it_is_run() {
    let rules = YamlLoader::load_from_str(&file("prometheus/tidehold.rules.yml")).unwrap();
    let mut all =
        rules[0]["groups"].as_vec().unwrap().iter().flat_map(|group| group["rules"].as_vec().unwrap());
    let down = all.find(|rule| rule["alert"].as_str() == Some("TideholdDown")).unwrap();
    let said = |what: &str| down["annotations"][what].as_str().unwrap();
    for (what, words) in [
        ("description", ["content store", "DaemonSet", "--mirror-only", "passes it over"]),
        (
            "runbook",
            ["systemctl status tidehold", "journalctl -u tidehold", "kubectl -n tidehold describe", "logs"],
        ),
    ] {
        for word in words {
            assert!(said(what).contains(word), "{word} is not in: {}", said(what));
        }
    }
    assert!(said("summary").contains("{{ else }}"), "where nothing is scraped there is no instance");
}

#[tokio::test]
async fn what_is_not_exported_would_be_found() {
    let metrics = scrape(&busy().await).await;
    for query in [
        "tidehold_nothing_total",
        "tidehold_requests_total{registry=\"docker.io\"}",
        "tidehold_requests_total{standing=\"stole\"}",
        "sum by (registry) (tidehold_requests_total)",
        "sum by (standing) (sum by (kind) (tidehold_requests_total))",
        "histogram_quantile(0.9, sum(rate(tidehold_resolve_seconds_bucket[5m])))",
        "tidehold_hold_bytes / tidehold_cache_limit_bytes",
        "sum(rate(tidehold_requests_total[5m])",
    ] {
        assert_ne!(wrong(query, &metrics), [""; 0], "{query}");
    }
}
