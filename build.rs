//! Generates the gRPC services from `proto/`. Needs `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let content = "proto/containerd/services/content/v1/content.proto";
    println!("cargo:rerun-if-changed=proto");
    let mut prost = tonic_prost_build::Config::new();
    // The bytes of a message are handed on without being copied.
    prost.bytes([".containerd.services.content.v1"]);
    tonic_prost_build::configure().build_client(false).compile_with_config(prost, &[content], &["proto"])?;
    Ok(())
}
