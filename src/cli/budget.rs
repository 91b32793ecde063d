//! `tidehold budget`: what each registry still allows, when it returns, and on what it was spent.

use clap::Args;
use tidehold::oci::Registry;
use tidehold::proto::v1;

use super::control::{Control, answered, soon};
use super::paint::{Painted, Table, bad, faint, good, long, odd, right, strong};
use super::{Failed, print, words};

#[derive(Args)]
pub(crate) struct Budget {
    /// Only this registry, such as docker.io
    #[arg(value_name = "REGISTRY")]
    registry: Option<Registry>,
    /// Name every repository that something was spent on, not the dearest 50 of each registry alone
    #[arg(long)]
    all: bool,
    /// Answer as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

impl Budget {
    pub(crate) fn run(self) -> Result<(), Failed> {
        super::runtime()?.block_on(async {
            let mut hold = self.control.hold().await?;
            let registry = self.registry.map(|registry| registry.to_string()).unwrap_or_default();
            let request = v1::BudgetRequest { registry, all: self.all };
            let budget = answered(hold.budget(soon(request)).await)?;
            print(&if self.json { words::json(&budget)? } else { as_text(&budget, self.all) })
        })
    }
}

fn as_text(budget: &v1::BudgetResponse, all: bool) -> String {
    if budget.registries.is_empty() {
        return "no registry was asked for anything in the last six hours".to_owned();
    }
    budget.registries.iter().map(|budget| registry(budget, all)).collect::<Vec<_>>().join("\n\n")
}

fn registry(budget: &v1::RegistryBudget, all: bool) -> String {
    let v1::RegistryBudget { registry, requests, counted, counted_without, .. } = budget;
    let mut lines = vec![strong(registry).to_string()];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<8} {value}"));
    if budget.limits.is_empty() {
        line("left", faint("it has said nothing of a pull limit lately").to_string());
    }
    for limit in &budget.limits {
        line("left", left_of(limit));
    }
    line("pulls", gate(budget));
    for refused in &budget.refused_logins {
        line("login", bad(refusal(refused)).to_string());
    }
    let requests = words::count(*requests, "request");
    let by_operator = words::by_operator(budget.counted_by_operator);
    let spent =
        format!("{} counted{by_operator} of {requests} in the last six hours", strong(counted.to_string()));
    let downloaded = words::size(budget.downloaded_bytes);
    line(
        "spent",
        format!(
            "{spent}, {downloaded} downloaded; it would have been {} without Tidehold",
            strong(counted_without.to_string())
        ),
    );
    if !budget.spenders.is_empty() {
        let mut table = Table::new([
            long("  REPOSITORY"),
            right("COUNTED"),
            right("REQUESTS"),
            right("WITHOUT"),
            right("DOWNLOADED"),
        ]);
        let mut row = |name: Painted, numbers: [u64; 3], downloaded_bytes: u64| {
            let [counted, requests, without] = numbers.map(|number| number.to_string().into());
            table.row([name, counted, requests, without, words::size(downloaded_bytes).into()]);
        };
        for spender in &budget.spenders {
            let v1::Spender { repository, counted, requests, counted_without, downloaded_bytes, .. } =
                spender;
            let numbers = [*counted, *requests, *counted_without];
            row(format!("  {repository}").into(), numbers, *downloaded_bytes);
        }
        if let Some(others) = &budget.others {
            let v1::OtherSpenders {
                repositories, counted, requests, counted_without, downloaded_bytes, ..
            } = others;
            let named = if all { "" } else { " (--all names them)" };
            let numbers = [*counted, *requests, *counted_without];
            row(faint(format!("  and {repositories} more{named}")), numbers, *downloaded_bytes);
        }
        lines.push(table.shown());
    }
    lines.join("\n")
}

/// What is left, whose limit it is, how it goes on.
fn left_of(limit: &v1::Limit) -> String {
    let v1::Limit { source, remaining, limit: most, window, read_at, runs_out_at, returns_at } = limit;
    let of = most.map(|most| format!(" of {most}")).unwrap_or_default();
    let window = match words::seconds(*window) {
        0 => String::new(),
        seconds => format!(" in {}", words::length(seconds)),
    };
    let left = match (*remaining, most) {
        (..=0, _) => bad(format!("{remaining}{of}")),
        (left, Some(most)) if left * 5 < *most => odd(format!("{left}{of}")),
        (left, _) => good(format!("{left}{of}")),
    };
    let whose = if source.is_empty() { String::new() } else { format!(" for {}", words::plain(source)) };
    let mut text = format!("{left} pulls{window}{whose}, as of {} ago", words::since(*read_at));
    if runs_out_at.is_some() {
        let runs_out = format!("; at this pace nothing is left in {}", words::until(*runs_out_at));
        text.push_str(&odd(runs_out).to_string());
    }
    if returns_at.is_some() {
        text.push_str(&format!("; whole again in {} at the latest", words::until(*returns_at)));
    }
    text
}

/// What became of a login, and what it means.
pub(super) fn refusal(refused: &v1::RefusedLogin) -> String {
    let v1::RefusedLogin { entry, file, status, refused_at } = refused;
    let (entry, file, since) = (words::plain(entry), words::plain(file), words::since(*refused_at));
    format!(
        "the one for {entry} in {file} was refused {since} ago (status {status}): pulls go on without it, by the limit of this \
         node's address"
    )
}

fn gate(budget: &v1::RegistryBudget) -> String {
    match (budget.gate_open, budget.opens_at) {
        (true, _) => good("let through").to_string(),
        (false, Some(_)) => {
            let why = format!("held back: {}", budget.shut_because);
            format!("{}; the next is tried in {}", bad(why), words::until(budget.opens_at))
        }
        (false, None) => bad(format!("held back: {}", budget.shut_because)).to_string(),
    }
}

/// All of it in a few words.
pub(super) fn in_short(budget: &v1::RegistryBudget) -> String {
    let least = budget.limits.iter().min_by_key(|limit| limit.remaining);
    let left = least.map(|limit| match limit.limit {
        Some(most) => format!("{} of {most} pulls left", limit.remaining),
        None => format!("{} pulls left", limit.remaining),
    });
    let left = left.unwrap_or_else(|| "no limit told".to_owned());
    let shut = if budget.gate_open { String::new() } else { format!(", {}", gate(budget)) };
    let login = match budget.refused_logins.first() {
        Some(refused) => format!("; {}", bad(format!("login refused: {}", refusal(refused)))),
        None => String::new(),
    };
    format!("{left}{shut}; {} counted in the last six hours{login}", budget.counted)
}
