//! A coordinator and its participants, each a real process with its own address, each participant
//! with its own Redis.
//!
//! Everything is in one temporary directory and ends with the [`Cluster`]. If the test fails, the
//! ends of all logs are printed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use assent_client::{
    CoordinatorAdmin, CoordinatorClient, Http, HttpOptions, ParticipantAdmin, ParticipantClient,
};
use assent_process::{
    Assent, Child, Port, RedisOptions, RedisServer, coordinator_arguments, init_log,
    participant_arguments, run_to_end,
};
use tempfile::TempDir;

use crate::link::Link;
use crate::proxy::Proxy;
use crate::wait::wait_for;

/// Lines of each log that are shown when a test fails.
const TAIL_LINES: usize = 30;

/// Milliseconds of doubt before an agent asks: short, so that tests of recovery are.
const RESOLVE_INTERVAL: &str = "300ms";

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// The participants' names.
    pub participants: Vec<&'static str>,
    /// Whether a [`Proxy`] stands before every server.
    pub proxied: bool,
    /// Whether a [`Link`] lies between any two processes that talk to each other.
    pub linked: bool,
    /// Whether participants are registered over the API instead of by the command line.
    pub register: bool,
    /// Further arguments of the coordinator.
    pub coordinator: Vec<&'static str>,
    /// Further arguments of every participant.
    pub participant: Vec<&'static str>,
    /// Bytes of a log segment. Small, because two of them are written when a log is made.
    pub segment_bytes: u32,
    /// The Redis servers.
    pub redis: RedisOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            participants: vec!["bank-a", "bank-b"],
            proxied: false,
            linked: false,
            register: false,
            coordinator: Vec::new(),
            participant: Vec::new(),
            segment_bytes: 1024 * 1024,
            redis: redis_options(),
        }
    }
}

/// A durable server of the kind that is tested on (`assent_servers::chosen`).
#[must_use]
pub fn redis_options() -> RedisOptions {
    let program = assent_servers::chosen().program().to_owned();
    RedisOptions { program, ..RedisOptions::default() }
}

/// A participant with its Redis.
#[derive(Debug)]
pub struct Peer {
    /// Its name in transactions.
    pub name: &'static str,
    /// Its Redis.
    pub redis: RedisServer,
    /// The agent.
    pub agent: Assent,
    /// What stands before it.
    pub proxy: Option<Proxy>,
    /// The way from the coordinator to it.
    pub link: Option<Link>,
    /// The way from it to its Redis.
    pub redis_link: Option<Link>,
    admin_url: String,
    _ports: [Port; 2],
}

/// The processes.
#[derive(Debug)]
pub struct Cluster {
    /// The participants.
    pub peers: Vec<Peer>,
    /// The coordinator.
    pub coordinator: Assent,
    /// What participants ask through.
    pub proxy: Option<Proxy>,
    /// The way from the participants to the coordinator.
    pub link: Option<Link>,
    /// The way of the clients to the coordinator.
    pub client_link: Option<Link>,
    /// The client of the public API.
    pub api: CoordinatorClient,
    /// The connections of all clients.
    pub http: Http,
    binary: PathBuf,
    admin_url: String,
    _ports: [Port; 2],
    dir: TempDir,
}

/// Arguments from words of any kind.
pub fn args<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    words.into_iter().map(str::to_owned).collect()
}

impl Peer {
    async fn start(binary: &Path, name: &'static str, options: &Options, dir: &Path) -> Self {
        let redis = RedisServer::start(dir.join(format!("redis-{name}")), options.redis.clone());
        let redis = redis.await.unwrap_or_else(|error| panic!("{error}"));
        let ports = Port::pair().unwrap_or_else(|error| panic!("{error}"));
        let redis_link = link(options.linked, &format!("127.0.0.1:{}", redis.port())).await;
        let redis_url = redis_link
            .as_ref()
            .map_or_else(|| redis.url(), |link| format!("redis://{}", link.address()));
        let mut arguments = participant_args(name, &redis_url, &ports);
        arguments.extend(args(options.participant.iter().copied()));
        let log = dir.join(format!("{name}.log"));
        let waits_for_replicas = options.participant.contains(&"--min-replicas");
        let agent = Assent::start_unready(name, binary, arguments, &ports[0].url(), &log);
        let mut agent = agent.unwrap_or_else(|error| panic!("{error}"));
        // A test that wants replicas starts them afterwards.
        if !waits_for_replicas {
            agent.wait_until_ready().await.unwrap_or_else(|error| panic!("{error}"));
        }
        let proxy = if options.proxied { Some(Proxy::start(agent.url()).await) } else { None };
        let proxied = proxy.as_ref().map_or_else(|| agent.url(), Proxy::url);
        let link = link(options.linked, proxied).await;
        let admin_url = ports[1].url();
        Self { name, redis, agent, proxy, link, redis_link, admin_url, _ports: ports }
    }

    /// Where the coordinator reaches it.
    #[must_use]
    pub fn url(&self) -> String {
        let proxied = self.proxy.as_ref().map_or_else(|| self.agent.url(), Proxy::url);
        self.link.as_ref().map_or_else(|| proxied.to_owned(), Link::url)
    }

    /// The typed client of the agent itself, past its proxy.
    #[must_use]
    pub fn client(&self, http: &Http) -> ParticipantClient {
        ParticipantClient::new(http, self.agent.url()).expect("the agent's URL")
    }

    /// The typed client of its admin API.
    #[must_use]
    pub fn admin(&self, http: &Http) -> ParticipantAdmin {
        ParticipantAdmin::new(http, &self.admin_url).expect("the agent's admin URL")
    }

    /// The proxy before it.
    ///
    /// # Panics
    /// If the cluster was not asked for proxies.
    #[must_use]
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("a proxied cluster")
    }
}

async fn link(is_wanted: bool, upstream: &str) -> Option<Link> {
    if is_wanted { Some(Link::start(upstream).await) } else { None }
}

/// The arguments of an agent that asks soon.
#[must_use]
pub fn participant_args(name: &str, redis_url: &str, ports: &[Port; 2]) -> Vec<String> {
    let mut arguments = participant_arguments(name, redis_url, ports);
    arguments.extend(args(["--resolve-interval", RESOLVE_INTERVAL]));
    arguments
}

impl Cluster {
    /// Starts everything, and returns when everything is ready.
    pub async fn start(binary: &str, options: Options) -> Self {
        let binary = PathBuf::from(binary);
        let dir = TempDir::with_prefix("assent-it-").expect("a temporary directory");
        let mut peers = Vec::new();
        for name in &options.participants {
            peers.push(Peer::start(&binary, name, &options, dir.path()).await);
        }
        let ports = Port::pair().unwrap_or_else(|error| panic!("{error}"));
        let proxy = if options.proxied { Some(Proxy::start(&ports[0].url()).await) } else { None };
        let asked = proxy.as_ref().map_or_else(|| ports[0].url(), |proxy| proxy.url().to_owned());
        let (link, client_link) =
            (link(options.linked, &asked).await, link(options.linked, &ports[0].url()).await);
        let asked = link.as_ref().map_or(asked, Link::url);
        let data_dir = dir.path().join("log");
        init_log(&binary, &data_dir, Some(options.segment_bytes))
            .unwrap_or_else(|error| panic!("{error}"));
        let mut arguments = coordinator_arguments(&data_dir, &ports);
        let configured = if options.register { &[][..] } else { &peers[..] };
        for peer in configured {
            arguments.extend(["--participant".to_owned(), format!("{}={}", peer.name, peer.url())]);
        }
        if options.proxied || options.linked {
            arguments.extend(["--advertised-url".to_owned(), asked]);
        }
        arguments.extend(["--segment-bytes".to_owned(), options.segment_bytes.to_string()]);
        arguments.extend(args(options.coordinator.iter().copied()));
        let (url, log) = (ports[0].url(), dir.path().join("coordinator.log"));
        let coordinator = Assent::start("coordinator", &binary, arguments, &url, &log).await;
        let coordinator = coordinator.unwrap_or_else(|error| panic!("{error}"));
        let http = Http::new(&HttpOptions::default()).expect("an HTTP client");
        let api_url = client_link.as_ref().map_or_else(|| url.clone(), Link::url);
        let api = CoordinatorClient::new(&http, &api_url).expect("the coordinator's URL");
        let admin_url = ports[1].url();
        let admin = CoordinatorAdmin::new(&http, &admin_url).expect("the admin API's URL");
        for peer in peers.iter().filter(|_| options.register) {
            let name = peer.name.parse().expect("a participant's name");
            let set = admin.set_participant(&name, &peer.url()).await;
            set.unwrap_or_else(|error| panic!("{name} cannot be registered: {error}"));
        }
        Self {
            peers,
            coordinator,
            proxy,
            link,
            client_link,
            api,
            http,
            binary,
            admin_url,
            _ports: ports,
            dir,
        }
    }

    /// The directory of everything.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory of the decision log.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// The client of the coordinator's admin API.
    #[must_use]
    pub fn admin(&self) -> CoordinatorAdmin {
        CoordinatorAdmin::new(&self.http, &self.admin_url).expect("the admin URL")
    }

    /// The base URL of the coordinator's admin API.
    #[must_use]
    pub fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// Runs the command with these arguments to its end; it reaches this cluster's coordinator.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Output {
        let urls = [("ASSENT_URL", self.coordinator.url()), ("ASSENT_ADMIN_URL", &self.admin_url)];
        run_to_end(&self.binary, arguments, &urls).expect("the command runs")
    }

    fn logs(&self) -> Vec<PathBuf> {
        let agents = self.peers.iter().map(|peer| peer.name);
        let names = agents.chain(["coordinator"]);
        names.map(|name| self.dir.path().join(format!("{name}.log"))).collect()
    }
}

/// Starts it again with a crash point armed, `point` or `point:count`.
///
/// # Panics
/// If it does not become ready.
pub async fn arm(process: &mut Assent, spec: &str) {
    process.respawn(&[("ASSENT_CRASH_AT", spec)]).expect("the process starts");
    process.wait_until_ready().await.unwrap_or_else(|error| panic!("armed with {spec}: {error}"));
}

/// Starts it again so that it hangs at this point for ever, `point` or `point:count`, as on a disk
/// that does not answer.
///
/// # Panics
/// If it does not become ready.
pub async fn stall(process: &mut Assent, spec: &str) {
    process.respawn(&[("ASSENT_STALL_AT", spec)]).expect("the process starts");
    process.wait_until_ready().await.unwrap_or_else(|error| panic!("stalls at {spec}: {error}"));
}

/// Waits until it has died, and checks that it died on purpose: by SIGABRT.
pub async fn wait_crashed(process: &mut Assent) {
    use std::os::unix::process::ExitStatusExt as _;
    let what = format!("{} to reach its crash point", process.name());
    let status = wait_ended(&what, process.child()).await;
    assert_eq!(status.signal(), Some(6), "{} ended otherwise: {status}", process.name());
}

/// Waits until a child has ended.
pub async fn wait_ended(what: &str, child: &mut Child) -> std::process::ExitStatus {
    let child = std::sync::Mutex::new(child);
    wait_for(what, || {
        let status = child.lock().expect("nobody panicked").status();
        async move { status.ok_or("it still runs") }
    })
    .await
}

/// Starts it again, and waits until it is ready.
pub async fn restart(process: &mut Assent) {
    process.restart().await.unwrap_or_else(|error| panic!("{error}"));
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let mut text = String::new();
        for path in self.logs() {
            let log = std::fs::read(&path).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
            text.push_str(&format!(
                "---- {} ({} lines)\n{}\n",
                path.display(),
                lines.len(),
                shown.join("\n")
            ));
        }
        let _nobody_reads = std::io::stderr().write_all(text.as_bytes());
    }
}
