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
    let own = ["proto/tidehold/v1/resolver.proto", "proto/tidehold/v1/layers.proto"];
    tonic_prost_build::configure().compile_with_config(config("tidehold.v1"), &own, &["proto"])?;
    Ok(())
}

/// The bytes of a package's messages are handed on without being copied.
fn config(package: &str) -> tonic_prost_build::Config {
    let mut prost = tonic_prost_build::Config::new();
    prost.bytes([format!(".{package}")]);
    prost
}
