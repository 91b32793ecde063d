//! Generates the gRPC services from `proto/`. Needs `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    // containerd is the only client of its content service.
    let content = "proto/containerd/services/content/v1/content.proto";
    let services = tonic_prost_build::configure().build_client(false);
    services.compile_with_config(config("containerd.services.content.v1"), &[content], &["proto"])?;
    // And of its differ. What it imports is named from this folder.
    let (diff, types) = ("proto/containerd/services/diff/v1/diff.proto", "proto/containerd");
    let services = tonic_prost_build::configure().build_client(false);
    services.compile_with_config(config("containerd.services.diff.v1"), &[diff], &[types])?;
    // The commands are clients of our own.
    let own = ["resolver", "layers", "hold", "adopt"].map(|name| format!("proto/tidehold/v1/{name}.proto"));
    tonic_prost_build::configure().compile_with_config(
        with_json(config("tidehold.v1")),
        &own,
        &["proto".into()],
    )?;
    Ok(())
}

/// What of `hold.proto` is shown as JSON, by the commands and on the status page alike.
const AS_JSON: &[&str] = &[
    "StatusResponse",
    "HoldUsage",
    "DiskUsage",
    "ContainerdStatus",
    "MissingListener",
    "Unwritable",
    "Answered",
    "AnsweredSpan",
    "BudgetResponse",
    "RegistryBudget",
    "Limit",
    "RefusedLogin",
    "KeptOutRegistry",
    "Spender",
    "OtherSpenders",
    "ExplainResponse",
    "ImageStory",
    "ImagePart",
    "TagPoint",
    "Decision",
    "Cost",
    "UpstreamRequest",
    "HeldTag",
    "PinResponse",
    "UnpinResponse",
    "ForgetResponse",
    "PruneResponse",
    "Pruned",
];

/// Their fields that are points in time, and those that are lengths of time: `took` is written as `took_seconds`.
const TIMES: &[&str] = &[
    "at",
    "started_at",
    "called_at",
    "read_at",
    "opens_at",
    "runs_out_at",
    "returns_at",
    "confirmed_at",
    "first_at",
    "last_at",
    "used_at",
    "came_at",
    "refused_at",
];
const LENGTHS: &[&str] = &["took", "window", "fresh_for", "stale_for"];

fn with_json(mut prost: tonic_prost_build::Config) -> tonic_prost_build::Config {
    for message in AS_JSON {
        let message = format!(".tidehold.v1.{message}");
        prost.type_attribute(&message, "#[derive(serde::Serialize)]");
        for field in TIMES {
            let written = r#"#[serde(serialize_with = "crate::proto::json::time")]"#;
            prost.field_attribute(format!("{message}.{field}"), written);
        }
        for field in LENGTHS {
            let written = format!(
                r#"#[serde(rename = "{field}_seconds", serialize_with = "crate::proto::json::length")]"#
            );
            prost.field_attribute(format!("{message}.{field}"), written);
        }
    }
    prost
}

/// The bytes of a package's messages are handed on without being copied.
fn config(package: &str) -> tonic_prost_build::Config {
    let mut prost = tonic_prost_build::Config::new();
    prost.bytes([format!(".{package}")]);
    prost
}
