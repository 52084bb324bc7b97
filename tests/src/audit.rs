//! The audit: what plain Redis clients find in the control hashes of a cluster that ought to be at rest.

use crate::cluster::Cluster;
use crate::plain;
use crate::wait::wait_for;

/// The control hash of a standalone server.
pub const CONTROL: &str = "assent:ctl";

/// The locks and staged branches that are left, as `participant field`.
pub async fn leftovers(cluster: &Cluster) -> redis::RedisResult<Vec<String>> {
    let mut left = Vec::new();
    for peer in &cluster.peers {
        let fields: Vec<String> = plain::try_run(&peer.redis, &["HKEYS", CONTROL]).await?;
        let open = |field: &&String| field.starts_with("l:") || field.starts_with("s:");
        left.extend(fields.iter().filter(open).map(|field| format!("{} {field}", peer.name)));
    }
    Ok(left)
}

/// Waits until nothing is locked and nothing is staged anywhere (the promise *finishing*).
pub async fn wait_settled(cluster: &Cluster) {
    wait_for("every branch to be applied or dropped", || async {
        match leftovers(cluster).await {
            Ok(left) if left.is_empty() => Ok(()),
            Ok(left) => Err(format!("left: {left:?}")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}
