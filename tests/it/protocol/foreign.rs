//! Hosts that are none of Assent's: named in a batch, registered, or in the place of a server.

use assent_common::time::DurationMs;
use assent_common::wire::branch::BranchState;
use assent_tests::cluster::restart;
use assent_tests::proxy::Fault;
use assent_tests::{Bank, Cluster, Options, Transfer, wait_for, wait_settled};

use super::lies::decided_and_held;
use crate::ASSENT;

const SECRET: &str = "hush-a-secret-of-somebody-else";

/// Everything that the servers show and write, as text.
async fn shown(cluster: &Cluster) -> String {
    let mut said = Vec::new();
    said.push(format!("{:?}", cluster.api.list(&assent_client::ListFilter::default()).await));
    said.push(format!("{:?}", cluster.api.participants().await));
    said.push(format!("{:?}", cluster.admin().metrics().await));
    for peer in &cluster.peers {
        let client = peer.client(&cluster.http);
        said.push(format!("{:?}", client.branches(BranchState::Prepared).await));
        said.push(format!("{:?}", client.coordinators().await));
        said.push(format!("{:?}", client.readyz().await));
        said.push(format!("{:?}", peer.admin(&cluster.http).metrics().await));
        for words in [
            &["doctor", "--participant", &peer.url()][..],
            &["health", "ready", "--server", &peer.url()],
            &["branch", "list", "--participant", &peer.url()],
        ] {
            let output = tokio::task::block_in_place(|| cluster.run(words));
            said.push(String::from_utf8_lossy(&output.stdout).into_owned());
            said.push(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    said.join("\n")
}

/// Everything that the servers have written.
fn logged(cluster: &mut Cluster) -> String {
    let mut logs = vec![cluster.coordinator.child().log().to_owned()];
    logs.extend(cluster.peers.iter_mut().map(|peer| peer.agent.child().log().to_owned()));
    logs.iter().map(|log| std::fs::read_to_string(log).unwrap()).collect()
}

/// An agent asks the address that a batch names, and a coordinator one that was registered. What
/// stands there is not read through them: by no last error, list, log or metric.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_shows_or_logs_a_word_of_a_foreign_host() {
    let mut cluster = Cluster::start(ASSENT, Options { proxied: true, ..Options::default() }).await;
    let mut bank = Bank::open(&cluster, 1).await;
    bank.timeout = DurationMs(1_000);
    let (_, asking) = decided_and_held(&cluster, &bank).await;
    let asked = cluster.proxy.clone().unwrap();
    for (status, media_type) in
        [(200, "text/plain"), (404, "text/html"), (200, "application/vnd.assent+json")]
    {
        let lie = Fault::Answer { status, media_type, body: SECRET };
        asked.set(lie.clone());
        // A restart begins the agent's questions anew, so that the next one comes soon.
        restart(&mut cluster.peers[1].agent).await;
        let client = cluster.peers[1].client(&cluster.http);
        wait_for("the agent to say why it does not know", || async {
            let said = format!("{:?}", client.branches(BranchState::Prepared).await);
            if said.contains("answer") { Ok(()) } else { Err(said) }
        })
        .await;
        let said = shown(&cluster).await;
        assert!(!said.contains("hush"), "{status} {media_type}: {said}");
        // The other way: the host stands where a participant is registered.
        let proxy = cluster.peers[0].proxy();
        proxy.set(lie);
        asked.set(Fault::CutBefore);
        let told = bank.ask(&Transfer::new(media_type, "bank-a", "bank-b")).await;
        assert!(!format!("{told:?}").contains("hush"), "{status} {media_type}: {told:?}");
        let said = shown(&cluster).await;
        assert!(!said.contains("hush"), "{status} {media_type}: {said}");
        proxy.set(Fault::None);
    }
    asked.set(Fault::None);
    for peer in &cluster.peers {
        peer.proxy().open();
    }
    asking.await.unwrap();
    wait_settled(&cluster).await;
    let logs = logged(&mut cluster);
    assert!(!logs.contains("hush"), "{logs}");
}
