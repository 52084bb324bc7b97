//! A connection to the server, after a look at it: the few operations by which all that stands
//! above reaches Redis. A multiplexed connection does not reconnect by itself, so that one
//! connection is one process life of the server.

use std::sync::{Arc, Mutex};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, Pipeline, RedisError, RedisResult, Value};

use super::control::Field;
use super::requirements::{self, Examined, Weight};
use super::rights::{self, Rights};
use super::said::{not_shown, unavailable};
use super::scripts::{Script, Scripts};
use super::{StoreError, StoreOptions, mutants};
use crate::mutex::lock;

/// Fields that one HSCAN looks at.
const SCAN_COUNT: usize = 500;

/// What is known of the server from one connection to the next.
#[derive(Debug)]
pub(super) struct ServerMemory {
    pub(super) options: StoreOptions,
    /// The key that says which agent has the Redis for itself.
    pub(super) owner_key: String,
    scripts: Scripts,
    /// [`Examined::file_off_in`] of the last look.
    file_off_in: Mutex<Option<String>>,
    /// What Redis said to the last write that was asked for to find out, if it took none.
    pub(super) writes_refused: Mutex<Option<String>>,
}

/// A connection to the server.
#[derive(Debug)]
pub(super) struct Connection {
    redis: MultiplexedConnection,
    pub(super) memory: Arc<ServerMemory>,
    pub(super) server: Examined,
    /// What is wrong with the server, which the operator chose to put up with.
    pub(super) violations: Vec<String>,
    /// The rules that the agent's user needs and has lost since it connected.
    pub(super) rights_lost: Mutex<Vec<String>>,
}

/// Why a script has not run, or what it has met.
#[derive(Debug)]
pub(super) enum NotRun {
    /// It is not there, and cannot be loaded.
    NotLoaded(RedisError),
    Failed(RedisError),
}

impl NotRun {
    pub(super) fn error(self) -> RedisError {
        let (Self::NotLoaded(error) | Self::Failed(error)) = self;
        error
    }
}

impl ServerMemory {
    pub(super) fn new(options: StoreOptions) -> Arc<Self> {
        Arc::new(Self {
            owner_key: format!("{}:owner", options.control_key),
            options,
            scripts: Scripts::default(),
            file_off_in: Mutex::default(),
            writes_refused: Mutex::default(),
        })
    }

    /// Connects, and looks at the server.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Connection, StoreError> {
        let options = &self.options;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.connect_timeout))
            .set_response_timeout(Some(options.response_timeout));
        let client = options.client()?;
        let user = client.get_connection_info().redis_settings().username();
        let user = user.unwrap_or("default").to_owned();
        let redis = client.get_multiplexed_async_connection_with_config(&config).await;
        let mut redis = redis.map_err(|error| unavailable(options, &error))?;
        let off_in = lock(&self.file_off_in).clone();
        let server = requirements::look(&mut redis, &user, &options.control_key, off_in).await;
        let server = server.map_err(|error| not_shown(options, &user, &error))?;
        let memory = Arc::clone(self);
        let (violations, rights_lost) = Default::default();
        Ok(Connection { redis, memory, server, violations, rights_lost })
    }

    /// Connects to a server that keeps the promises.
    pub(super) async fn open(self: &Arc<Self>) -> Result<Connection, StoreError> {
        let mut connection = self.connect().await?;
        connection.violations = self.fit(&connection.server)?;
        for advice in connection.server.problems(Weight::Advice) {
            tracing::warn!(advice, "the server works, but its settings could be better");
        }
        Ok(connection)
    }

    /// What would lose votes, if the operator chose to put up with it; else that is an error, as is
    /// what must be waited for.
    pub(super) fn fit(&self, server: &Examined) -> Result<Vec<String>, StoreError> {
        lock(&self.file_off_in).clone_from(&server.file_off_in);
        let options = &self.options;
        let reasons = server.problems(Weight::Waits);
        if !reasons.is_empty() {
            return Err(StoreError::NotYet { address: options.address(), reasons });
        }
        let violations = server.problems(Weight::Refused);
        if mutants::minds(&violations) && !options.allow_unsafe_redis {
            return Err(StoreError::Unsafe { address: options.address(), violations });
        }
        Ok(violations)
    }
}

impl Connection {
    /// One command. An error that came as a reply is an error here.
    pub(super) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        self.redis.clone().send_packed_command(command).await.and_then(Value::extract_error)
    }

    /// The same, and what its answer says.
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        command.query_async(&mut self.redis.clone()).await
    }

    /// Commands in one breath. An error that came as a reply stands among the answers.
    pub(super) async fn send_all(&self, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        self.redis.clone().send_packed_commands(pipeline, 0, pipeline.len()).await
    }

    /// The same, and what all the answers say.
    pub(super) async fn ask_all<T: FromRedisValue>(&self, pipeline: &Pipeline) -> RedisResult<T> {
        pipeline.query_async(&mut self.redis.clone()).await
    }

    /// Calls a script by its digest, and loads it where it is not there: what is not there did not
    /// run. Errors among its answers are left to who asked.
    pub(super) async fn run(
        &self,
        script: Script,
        mut call: impl FnMut(&str) -> Cmd,
    ) -> Result<Value, NotRun> {
        let mut known = self.memory.scripts.digest(script);
        loop {
            let (digest, was_known) = match known.take() {
                Some(digest) => (digest, true),
                None => (self.load(script).await.map_err(NotRun::NotLoaded)?, false),
            };
            let answer = self.redis.clone().send_packed_command(&call(&digest)).await;
            let answer = answer.and_then(|answer| match answer {
                Value::ServerError(_) => answer.extract_error(),
                answer => Ok(answer),
            });
            let is_missing = answer.as_ref().is_err_and(|error| error.code() == Some("NOSCRIPT"));
            if !was_known || !is_missing {
                return answer.map_err(NotRun::Failed);
            }
        }
    }

    /// The digest of a script, if it has been loaded.
    pub(super) fn digest(&self, script: Script) -> Option<Arc<str>> {
        self.memory.scripts.digest(script)
    }

    /// Loads a script into the server, and remembers its digest.
    pub(super) async fn load(&self, script: Script) -> RedisResult<Arc<str>> {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(mutants::script(script.source()));
        let digest: Arc<str> = self.ask::<String>(&command).await?.into();
        self.memory.scripts.learn(script, Arc::clone(&digest));
        Ok(digest)
    }

    /// What a field of the control hash holds.
    pub(super) async fn field<T: FromRedisValue>(&self, field: Field<'_>) -> RedisResult<T> {
        self.ask(redis::cmd("HGET").arg(self.control_key()).arg(field)).await
    }

    /// Goes through the fields of the control hash that match.
    pub(super) async fn scan(
        &self,
        pattern: &str,
        mut each: impl FnMut(&[u8], Vec<u8>),
    ) -> RedisResult<()> {
        let mut cursor = 0_u64;
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(self.control_key()).arg(cursor);
            command.arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
            let (next, fields): (u64, Vec<Vec<u8>>) = self.ask(&command).await?;
            let mut fields = fields.into_iter();
            while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
                each(&field, value);
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Looks at the server again, but for its rights: what is tried out ends the owner's watch.
    pub(super) async fn look_again(&self) -> RedisResult<Examined> {
        let off_in = lock(&self.memory.file_off_in).clone();
        requirements::look_again(&mut self.redis.clone(), &self.server, off_in).await
    }

    /// Tries out what the agent's user may do.
    pub(super) async fn rights(&self) -> RedisResult<Rights> {
        rights::probe(&mut self.redis.clone(), self.server.id, self.control_key()).await
    }

    /// Whether an owner may write by `EXEC`, as far as is known.
    pub(super) fn may_exec(&self) -> bool {
        self.server.rights.may_exec()
            && lock(&self.rights_lost).is_empty()
            && lock(&self.memory.writes_refused).is_none()
    }

    pub(super) fn options(&self) -> &StoreOptions {
        &self.memory.options
    }

    pub(super) fn control_key(&self) -> &str {
        &self.memory.options.control_key
    }

    pub(super) fn owner_key(&self) -> &str {
        &self.memory.owner_key
    }

    /// The key that an owner changes each second that the server does not list.
    pub(super) fn pulse_key(&self) -> String {
        format!("{}:pulse", self.control_key())
    }

    pub(super) fn unavailable(&self, error: &RedisError) -> StoreError {
        unavailable(self.options(), error)
    }

    /// The same, where there is an error.
    pub(super) fn or_unavailable<T>(&self, asked: RedisResult<T>) -> Result<T, StoreError> {
        asked.map_err(|error| self.unavailable(&error))
    }

    /// What is stored cannot be read.
    pub(super) fn corrupt(&self, reason: String) -> StoreError {
        StoreError::Corrupt { key: self.control_key().to_owned(), reason }
    }
}
