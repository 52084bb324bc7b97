//! Who else is connected to the server: each agent's connection has a name, and `CLIENT LIST` shows
//! them, if both are allowed. Being wrong costs speed, never safety: that is the owner key's.

use assent_common::ParticipantName;
use redis::RedisResult;

use super::super::connection::Connection;
use super::super::options::AgentAddress;
use super::guard::PULSE;

/// A healthy agent's connection says something every second (`pulse.rs`). In whole seconds, as the
/// server counts them.
const SILENT_S: u64 = 3;

/// What an agent does while another one owns the Redis; what its name ends in says it. An agent of
/// an older version has no ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stance {
    /// It passes on what it is told; nobody can pass anything on to it.
    StandsBy,
    /// The same, and it has an address.
    HasAddress,
    /// The same as one of these two, but the server does not list its connection under a name.
    HasPulse,
}

impl Stance {
    const fn ending(self) -> &'static str {
        match self {
            Self::StandsBy => ".s",
            Self::HasAddress => ".a",
            Self::HasPulse => PULSE,
        }
    }
}

/// What the server lists this agent's connection as.
#[derive(Debug, Clone)]
pub(super) struct AgentName {
    /// What all agents of the participant have in common.
    family: String,
    /// The agent.
    agent: String,
    /// How often the agent has asked for ownership: the value of the owner key is new each time.
    claim: u64,
    pub(super) stance: Stance,
}

impl AgentName {
    pub(super) fn new(connection: &Connection, agent: &str, claim: u64) -> Self {
        let options = connection.options();
        let participant = options.participant.as_ref().map_or("-", ParticipantName::as_str);
        let family = format!("assent-agent:{participant}:");
        let stance = match &options.standby {
            _ if !connection.server.rights.has_names() => Stance::HasPulse,
            AgentAddress::Nowhere => Stance::StandsBy,
            AgentAddress::Url(_) | AgentAddress::Port(_) => Stance::HasAddress,
        };
        Self { family, agent: agent.to_owned(), claim, stance }
    }

    /// The name, but for what is the same for all agents of the participant.
    pub(super) fn connection(&self) -> String {
        format!("{}.{}{}", self.agent, self.claim, self.stance.ending())
    }

    /// Has the server list the connection under its name.
    pub(super) async fn announce(&self, connection: &Connection) -> RedisResult<()> {
        if self.stance == Stance::HasPulse {
            return Ok(());
        }
        let name = format!("{}{}", self.family, self.connection());
        connection.ask(redis::cmd("CLIENT").arg("SETNAME").arg(name)).await
    }
}

/// Another agent's connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Other {
    connection: String,
    pub(super) client: u64,
    silent_s: u64,
}

impl Other {
    fn read(line: &str, family: &str) -> Option<Self> {
        let number = |name| field(line, name)?.parse().ok();
        Some(Self {
            connection: field(line, "name")?.strip_prefix(family)?.to_owned(),
            client: number("id")?,
            silent_s: number("idle").unwrap_or(0),
        })
    }

    fn agent(&self) -> &str {
        self.connection.split('.').next().unwrap_or_default()
    }

    /// Whether it says something now and then, as an agent does.
    pub(super) fn is_alive(&self) -> bool {
        self.silent_s < SILENT_S
    }
}

/// The agents of the participant on the same database.
#[derive(Debug)]
pub(super) struct Company {
    /// The address of this agent, as the server sees it.
    pub(super) host: Option<String>,
    others: Vec<Other>,
}

impl Company {
    pub(super) async fn ask(
        connection: &Connection,
        name: &AgentName,
    ) -> RedisResult<Option<Self>> {
        let list: String = connection.ask(redis::cmd("CLIENT").arg("LIST")).await?;
        Ok(Self::read(&list, name))
    }

    /// Nobody that could be listed.
    pub(super) const fn unseen() -> Self {
        Self { host: None, others: Vec::new() }
    }

    /// Nothing if the server does not list the agent's own connection: it shows too little.
    fn read(list: &str, name: &AgentName) -> Option<Self> {
        let own = name.connection();
        let of_family =
            || list.lines().filter_map(|line| Some((line, Other::read(line, &name.family)?)));
        let (own, _) = of_family().find(|(_, other)| other.connection == own)?;
        let database = field(own, "db");
        let others = of_family()
            .filter(|(line, other)| other.agent() != name.agent && field(line, "db") == database);
        let others = others.map(|(_, other)| other).collect();
        let host = Some(host(field(own, "addr").unwrap_or_default()));
        Some(Self { host, others })
    }

    /// An agent of an older version, which writes by scripts of its own and looks for the locks of
    /// others where this version keeps none.
    pub(super) fn older(&self) -> Option<&Other> {
        self.others.iter().find(|other| other.connection.matches('.').count() == 1)
    }

    /// The connection of this name.
    pub(super) fn of(&self, connection: &str) -> Option<&Other> {
        self.others.iter().find(|other| other.connection == connection)
    }
}

/// Whether the one line that the server lists is that of this connection, and alive.
pub(super) fn is_alive_in(list: &str, connection: &str) -> bool {
    let is_its = |line: &str| {
        let name = field(line, "name").unwrap_or_default();
        name.strip_suffix(connection).is_some_and(|family| family.ends_with(':'))
    };
    let line = list.lines().find(|line| is_its(line));
    line.and_then(|line| Other::read(line, "")).is_some_and(|other| other.is_alive())
}

/// A field of a line of `CLIENT LIST`.
fn field<'a>(client: &'a str, name: &str) -> Option<&'a str> {
    client.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
}

/// The host of a client's address, as a URL has it. Who comes by a socket is on the same machine.
fn host(address: &str) -> String {
    match address.rsplit_once(':') {
        Some((host, _)) if !host.starts_with('/') && !host.is_empty() => {
            let is_bare = host.contains(':') && !host.starts_with('[');
            if is_bare { format!("[{host}]") } else { host.to_owned() }
        }
        _ => "127.0.0.1".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "id=3 addr=10.0.0.7:1 name=assent-agent:bank:one.2.a db=0 idle=0 cmd=x\n\
                        id=4 addr=a:2 name=assent-agent:bank:one.1.a db=0 idle=0 cmd=get\n\
                        id=5 addr=a:3 name= db=0 idle=0 cmd=get\n\
                        id=6 addr=a:4 name=assent-agent:bank-b:two.1 db=0 idle=0 cmd=get\n\
                        id=7 addr=a:5 name=assent-agent:bank:three.1 db=1 idle=0 cmd=get\n";

    fn name() -> AgentName {
        let (family, agent) = ("assent-agent:bank:".to_owned(), "one".to_owned());
        AgentName { family, agent, claim: 2, stance: Stance::HasAddress }
    }

    fn with(line: &str) -> Company {
        Company::read(&format!("{LIST}{line}"), &name()).unwrap()
    }

    #[test]
    fn only_another_agent_of_the_participant_on_the_same_database_is_company() {
        let alone = with("");
        assert!(alone.others.is_empty(), "itself, plain clients, others, other databases");
        assert_eq!(alone.host.as_deref(), Some("10.0.0.7"));
        let other = with("id=8 addr=a:6 name=assent-agent:bank:two.7.s db=0 idle=2 cmd=get\n");
        assert!(other.of("two.7.s").is_some_and(Other::is_alive) && other.of("two.7").is_none());
        assert!(other.older().is_none());
        let older = with("id=9 addr=a:7 name=assent-agent:bank:three.1 db=0 idle=99 cmd=get\n");
        assert_eq!(older.older().map(|older| older.client), Some(9));
        assert!(
            Company::read("", &name()).is_none(),
            "a server that lists nobody shows too little"
        );
    }

    #[test]
    fn who_says_nothing_for_seconds_is_not_alive() {
        let line = "id=8 addr=a:6 name=assent-agent:bank:two.7.a db=0 idle=";
        for (idle, is_alive) in [(0, true), (2, true), (3, false), (600, false)] {
            let line = format!("{line}{idle}\n");
            assert_eq!(with(&line).of("two.7.a").unwrap().is_alive(), is_alive);
            assert_eq!(is_alive_in(&line, "two.7.a"), is_alive);
        }
        assert!(!is_alive_in("", "two.7.a"));
    }

    #[test]
    fn the_host_is_that_of_a_url() {
        for (address, expected) in [
            ("10.0.0.7:51000", "10.0.0.7"),
            ("[fd00::7]:51000", "[fd00::7]"),
            ("fd00::7:51000", "[fd00::7]"),
            ("/run/redis.sock:0", "127.0.0.1"),
            ("", "127.0.0.1"),
        ] {
            assert_eq!(host(address), expected);
        }
    }
}
