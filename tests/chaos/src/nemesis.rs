//! Does the steps of a schedule to a project, and undoes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use assent_checkers::Recorder;
use serde_json::json;

use crate::docker::Project;
use crate::proxy::link::{Cut, Weather};
use crate::schedule::{BANKS, Fault, Kind, Step};
use crate::story::Story;
use crate::watch::Watcher;

/// The container that keeps the disks.
const DISKS: &str = "disks";

/// What a process ends with when it gave up on itself: SIGABRT, which is how a panic ends here, and SIGSEGV.
const CRASHES: [i32; 3] = [134, 139, 101];

/// Breaks things.
pub(crate) struct Nemesis {
    project: Arc<Project>,
    door: Door,
    story: Story,
    recorder: Recorder,
    /// How often each kind was done.
    pub(crate) done: BTreeMap<Kind, u32>,
    /// What went wrong that no fault excuses.
    pub(crate) findings: Vec<String>,
    /// Servers that are not to be started again, because another has their part.
    retired: BTreeSet<String>,
}

/// The proxy's control port.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    client: reqwest::Client,
    url: String,
}

impl Door {
    pub(crate) fn new(address: &str) -> Result<Self, String> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build();
        let client = client.map_err(|error| error.to_string())?;
        Ok(Self { client, url: format!("http://{address}/links") })
    }

    async fn put(
        &self,
        link: &str,
        what: &str,
        body: &impl serde::Serialize,
    ) -> Result<(), String> {
        let request = self.client.put(format!("{}/{link}/{what}", self.url)).json(body);
        let answered = request.send().await.and_then(reqwest::Response::error_for_status);
        answered.map(drop).map_err(|error| format!("the proxy's link {link}: {error}"))
    }

    /// Every link with what went over it.
    pub(crate) async fn links(&self) -> Result<String, String> {
        let answered = async { self.client.get(&self.url).send().await?.text().await }.await;
        answered.map_err(|error| format!("the proxy: {error}"))
    }
}

impl Nemesis {
    pub(crate) fn new(project: Arc<Project>, door: Door, story: Story, recorder: Recorder) -> Self {
        Self {
            project,
            door,
            story,
            recorder,
            done: BTreeMap::new(),
            findings: Vec::new(),
            retired: BTreeSet::new(),
        }
    }

    /// One step, from its first fault to the healing of all. An error is one of the harness, and ends the run.
    pub(crate) async fn step(&mut self, step: &Step, watcher: &Watcher) -> Result<(), String> {
        for timed in &step.faults {
            // The staggering is part of the schedule.
            tokio::time::sleep(Duration::from_millis(timed.after_ms)).await;
            let fault = &timed.fault;
            self.story.tell(&format!("step {}: {fault}", step.number));
            self.recorder.note("nemesis", "break", &json!({"step": step.number, "fault": fault}));
            self.begin(fault).await?;
            *self.done.entry(fault.kind()).or_default() += 1;
        }
        tokio::time::sleep(Duration::from_millis(step.hold_ms)).await;
        for timed in step.faults.iter().rev() {
            self.end(&timed.fault).await?;
        }
        self.start_all(&step.faults.iter().map(|timed| &timed.fault).collect::<Vec<_>>()).await?;
        watcher.healed();
        self.recorder.note("nemesis", "heal", &json!({"step": step.number}));
        self.story.tell(&format!(
            "step {}: healed; {} branches voted and not ended",
            step.number,
            watcher.in_doubt()
        ));
        Ok(())
    }

    async fn begin(&mut self, fault: &Fault) -> Result<(), String> {
        let project = Arc::clone(&self.project);
        match fault {
            Fault::Kill { service } => self.unless_ended(service, project.kill(service)).await,
            Fault::Restart { service } => project.restart(service).await,
            Fault::Pause { service } => self.unless_ended(service, project.pause(service)).await,
            Fault::Partition { service, network } => project.disconnect(service, network).await,
            Fault::Link { link, weather, .. } => self.door.put(link, "weather", weather).await,
            Fault::FullDisk { disk, .. } => {
                let fill = format!(
                    "cd /disks/{disk}; free=$(df --output=avail -B1 . | tail -n 1); fallocate -l \"$free\" .full"
                );
                // Whoever writes at the same moment may take what was free: then it is as full.
                let _filled = project.shell(DISKS, &fill).await;
                Ok(())
            }
            Fault::Clock { service, jump_s } => {
                self.set_clock(service, &format!("{jump_s:+}")).await
            }
            Fault::Promote { bank } => self.promote(bank).await,
            Fault::Flush { service } => self.flush(service).await,
            Fault::OldAof { bank } => {
                let copy = format!("rm -rf /tmp/{bank}; cp -a /disks/redis-{bank} /tmp/{bank}");
                project.shell(DISKS, &copy).await.map(drop)
            }
        }
    }

    async fn end(&mut self, fault: &Fault) -> Result<(), String> {
        let project = Arc::clone(&self.project);
        match fault {
            Fault::Kill { .. } | Fault::Restart { .. } | Fault::Promote { .. } => Ok(()),
            Fault::Pause { service } => self.unless_ended(service, project.unpause(service)).await,
            Fault::Partition { service, network } => project.connect(service, network).await,
            Fault::Link { link, .. } => self.door.put(link, "weather", &Weather::default()).await,
            Fault::FullDisk { disk, .. } => {
                project.shell(DISKS, &format!("rm -f /disks/{disk}/.full")).await.map(drop)
            }
            Fault::Clock { service, .. } => self.set_clock(service, "+0").await,
            // Once more: what was put right, and what was acknowledged since, goes too.
            Fault::Flush { service } => self.flush(service).await,
            Fault::OldAof { bank } => {
                let redis = format!("redis-{bank}");
                self.unless_ended(&redis, project.kill(&redis)).await?;
                let put_back = format!(
                    "cd /disks/redis-{bank}; rm -rf ./appendonlydir; cp -a /tmp/{bank}/appendonlydir ."
                );
                project.shell(DISKS, &put_back).await.map(drop)
            }
        }
    }

    /// Whoever has ended by itself meanwhile can be neither killed nor frozen; it is started at the healing.
    async fn unless_ended(
        &self,
        service: &str,
        done: impl Future<Output = Result<(), String>>,
    ) -> Result<(), String> {
        match done.await {
            Err(_) if !self.project.condition(service).await?.running => Ok(()),
            done => done,
        }
    }

    async fn flush(&self, redis: &str) -> Result<(), String> {
        self.unless_ended(redis, async {
            self.project.shell(redis, "redis-cli flushall").await.map(drop)
        })
        .await
    }

    async fn set_clock(&self, service: &str, offset: &str) -> Result<(), String> {
        // Renamed into place: a reader never sees half of it.
        let set =
            format!("cd /disks/clock; echo '{offset}' >.new; chmod 0644 .new; mv .new {service}");
        self.project.shell(DISKS, &set).await.map(drop)
    }

    /// The replica becomes the master, for good: the old one stays dead.
    async fn promote(&mut self, bank: &str) -> Result<(), String> {
        let (master, replica) = (format!("redis-{bank}"), format!("redis-{bank}-replica"));
        let shut = Weather { cut: Cut::Both, ..Weather::default() };
        self.door.put(&format!("replica-{bank}"), "weather", &shut).await?;
        self.unless_ended(&master, self.project.kill(&master)).await?;
        self.retired.insert(master);
        self.project.shell(&replica, "redis-cli replicaof no one").await?;
        let target = format!("{replica}:6379");
        self.door.put(&format!("redis-{bank}"), "target", &target).await?;
        self.door.put(&format!("direct-{bank}"), "target", &target).await
    }

    /// Starts whoever does not run, and asks whoever ended by itself why.
    async fn start_all(&mut self, faults: &[&Fault]) -> Result<(), String> {
        for (service, condition) in self.project.conditions().await? {
            if condition.running || service == "init" || self.retired.contains(&service) {
                continue;
            }
            let mut explains = faults.iter().filter(|fault| fault.subject() == service);
            let code = condition.exit_code;
            if condition.out_of_memory || CRASHES.contains(&code) {
                self.findings.push(format!("{service} crashed with code {code}"));
            } else if explains.next().is_none() {
                self.findings.push(format!(
                    "{service} ended by itself with code {code}, and nothing was done to it"
                ));
            }
            if code != 137 {
                self.story.tell(&format!("{service} had ended with code {code}; it is started"));
            }
            self.project.start(&service).await?;
            if let Some(bank) =
                service.strip_prefix("redis-").and_then(|rest| rest.strip_suffix("-replica"))
            {
                self.keep_promoted(bank).await?;
            }
        }
        Ok(())
    }

    /// A promoted replica that starts again reads its own command line, which knows nothing of that.
    async fn keep_promoted(&self, bank: &str) -> Result<(), String> {
        if !self.retired.contains(&format!("redis-{bank}")) {
            return Ok(());
        }
        // Of a server that still loads the answer is an error, and the exit code is 0.
        let script = "until redis-cli replicaof no one | grep -q OK; do sleep 0.1; done";
        self.project.shell(&format!("redis-{bank}-replica"), script).await.map(drop)
    }

    /// Undoes whatever may be left of any fault, also of one that was cut off half-way.
    pub(crate) async fn heal_all(&mut self) -> Result<(), String> {
        for bank in BANKS {
            let promoted = self.retired.contains(&format!("redis-{bank}"));
            let links =
                ["coordinator-bank-", "redis-", "replica-"].map(|link| format!("{link}{bank}"));
            for link in links.iter().filter(|link| !(promoted && link.starts_with("replica-"))) {
                self.door.put(link, "weather", &Weather::default()).await?;
            }
            self.set_clock(&format!("bank-{bank}"), "+0").await?;
        }
        for link in ["clients", "outcomes"] {
            self.door.put(link, "weather", &Weather::default()).await?;
        }
        self.set_clock("coordinator", "+0").await?;
        self.project.shell(DISKS, "rm -f /disks/*/.full").await?;
        self.start_all(&[]).await
    }
}
