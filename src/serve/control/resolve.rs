//! `Resolve`: what a reference stands for now.

use super::choose::{best, platform, without};
use super::problem::Problem;
use super::{cost, descriptor, duration, image_name, standing};
use crate::oci::{Child, ImageName, Kind, Manifest, Platform};
use crate::proto::v1;
use crate::resolve::{Caller, Looked, Resolver, Served};

pub(super) async fn answer(
    resolver: &Resolver,
    request: &v1::ResolveRequest,
) -> Result<v1::ResolveResponse, Problem> {
    let name = image_name(&request.reference)?;
    if request.look_only {
        return look(resolver, &name).await;
    }
    let platform = Some(&*request.platform).filter(|text| !text.is_empty()).map(platform).transpose()?;
    let caller = Caller::operator("resolve");
    let served = resolver.manifest(&caller, &name.repository, &name.reference).await?;
    tracing::info!(
        target: "tidehold::control",
        reference = %name,
        standing = served.standing.as_str(),
        requests = caller.cost().requests,
        counted = caller.cost().counted,
        "resolved"
    );
    let manifest = match platform {
        Some(platform) => manifest_for(&served, &platform)?,
        None => None,
    };
    Ok(v1::ResolveResponse {
        reference: name.to_string(),
        target: Some(descriptor(&served)),
        standing: standing(served.standing).into(),
        age: Some(duration(served.age)),
        cost: Some(cost(caller.cost())),
        manifest,
    })
}

async fn look(resolver: &Resolver, name: &ImageName) -> Result<v1::ResolveResponse, Problem> {
    let caller = Caller::operator("look");
    let Looked { digest, standing: found } =
        resolver.look(&caller, &name.repository, &name.reference).await?;
    let target = digest.map(|digest| v1::Descriptor { digest: digest.to_string(), ..Default::default() });
    Ok(v1::ResolveResponse {
        reference: name.to_string(),
        target,
        standing: found.map_or(v1::Standing::Unspecified, standing).into(),
        age: None,
        cost: Some(cost(caller.cost())),
        manifest: None,
    })
}

/// The manifest for a platform, where there is a choice.
fn manifest_for(served: &Served, platform: &Platform) -> Result<Option<v1::Descriptor>, Problem> {
    match served.kind {
        Kind::Image => Ok(None),
        Kind::Index => {
            let index = parsed(served)?;
            let best = best(index.children(), platform).ok_or_else(|| without(index.children(), platform))?;
            Ok(Some(child(best)))
        }
    }
}

/// What is served was parsed when it came in, by the same rules.
pub(super) fn parsed(served: &Served) -> Result<Manifest, Problem> {
    Manifest::parse(&served.bytes).map_err(|error| Problem::malformed(format!("{}: {error}", served.digest)))
}

fn child(child: &Child) -> v1::Descriptor {
    v1::Descriptor {
        media_type: child.media_type.clone(),
        digest: child.digest.to_string(),
        size: child.size,
        platform: child.platform.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}
