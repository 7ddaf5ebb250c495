//! `render --sidecar`: a file's workloads with their sidecars, or patches that add them.

use serde_json::Value;

use super::super::{CommandError, Output, RenderSidecars, print, print_json};
use crate::{
    sidecar::{parameters::SidecarParameters, workload::SidecarRendering},
    standalone::documents,
};

pub(super) fn render(asked: &RenderSidecars, output: Output) -> Result<u8, CommandError> {
    let path = asked.sidecar.clone().unwrap_or_default();
    let text = std::fs::read_to_string(&path).map_err(|source| CommandError::Workloads {
        path: path.clone(),
        source,
    })?;
    let objects: Vec<Value> = documents::read(&text)
        .map_err(|source| CommandError::WorkloadsYaml {
            path: path.clone(),
            source,
        })?
        .into_iter()
        .map(|document| document.value)
        .collect();
    let image = asked.proxy_image.clone().unwrap_or_default();
    let rendering = SidecarRendering {
        parameters: SidecarParameters {
            cluster_domain: asked.cluster_domain.clone(),
            ..SidecarParameters::new(image, asked.resolver.clone())
        },
        namespace: asked.namespace.clone(),
    };
    let rendered = match asked.patch {
        true => rendering.patches(&objects),
        false => rendering.objects(&objects),
    };
    let rendered = rendered.map_err(|source| CommandError::Sidecar { path, source })?;
    match output {
        Output::Json => print_json(&rendered)?,
        Output::Text => {
            let mut text = String::new();
            for (index, object) in rendered.iter().enumerate() {
                if index > 0 {
                    text.push_str("---\n");
                }
                text.push_str(&serde_saphyr::to_string(object)?);
            }
            print(&text)?;
        }
    }
    Ok(0)
}
