//! One duty while it is played: says its lines, looks at what came of them, and takes away what is
//! left.

use std::time::Duration;

use assent_client::{ParticipantClient, Unknown};
use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::outcome::{Call, Prepared};
use assent_common::wire::branch::{Answer, Message, Mode};
use assent_common::wire::resync::DataPoint;
use assent_common::{ErrorCode, text};
use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::Instant;

use crate::examples::ExampleBranch;
use crate::fit::{DutyMemory, first_number};
use crate::report::Shortfall;
use crate::script::{BranchName, DutyLine, DutyStep, LogName, LogSays, RightAnswer, SpeaksAs};
use crate::stage::{CheckError, DutyDriver, LOOK, StepFailed};
use crate::voice::{DutyVoice, SentBatch};

/// Copies of a message that are sent at one moment.
const COPIES: usize = 8;

/// Bytes of JSON that a report shows of one message or answer.
const SHOWN_BYTES_MAX: usize = 4 * 1024;

/// How far beyond the data the number is that a loss is told with: nobody can have given it.
const NUMBERS_LOST: u64 = 1_000_000;

/// Who reads, and cleans up.
const READER: SpeaksAs = SpeaksAs { log: LogName::Reader, epoch: 1, mark: (0, 0) };

type Stepped = Result<(), StepFailed>;

pub(crate) struct Scene<'a> {
    driver: &'a mut DutyDriver,
    voice: DutyVoice,
    memory: DutyMemory,
    /// What was read at the beginning.
    base: i64,
    /// What was read last, and was right.
    last: i64,
    /// The number of the next read.
    reads: u64,
}

/// What a read has shown.
enum ReadShown {
    /// This number.
    Number(i64),
    /// Nothing, because of a lock.
    Locked,
    /// No number: this.
    Other(String),
}

fn shown(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).unwrap_or_default();
    text::cut_owned(json, SHOWN_BYTES_MAX)
}

fn shown_answer(answer: BranchAnswer) -> String {
    match answer.unknown() {
        Some(why) => format!("nothing that a coordinator believes: {why}"),
        None => shown(&Answer::from(answer)),
    }
}

/// The report of a step; whose number is known outside.
fn falls_short(sent: String, came: String, right: String, wrong: String) -> StepFailed {
    StepFailed::Duty(Shortfall { step: 0, sent, came, right, wrong })
}

impl<'a> Scene<'a> {
    pub(crate) fn new(driver: &'a mut DutyDriver) -> Self {
        let voice = DutyVoice::new(driver.name.clone(), driver.desk_url());
        Self { driver, voice, memory: DutyMemory::default(), base: 0, last: 0, reads: 0 }
    }

    /// Reads what there is before anything is written.
    pub(crate) async fn begin(&mut self) -> Stepped {
        let (sent, read) = self.read().await?;
        match read {
            ReadShown::Number(number) => (self.base, self.last) = (number, number),
            ReadShown::Locked => {
                let came = "a refusal because of a lock".to_owned();
                return Err(self.no_number(sent, came, "a branch that has ended holds locks"));
            }
            ReadShown::Other(came) => {
                return Err(self.no_number(sent, came, "there is no number in the replies"));
            }
        }
        Ok(())
    }

    fn no_number(&self, sent: String, came: String, wrong: &str) -> StepFailed {
        let right = "\"vote\": \"committed\" with a number in the replies".to_owned();
        falls_short(sent, came, right, wrong.to_owned())
    }

    pub(crate) async fn step(&mut self, step: &DutyStep) -> Stepped {
        match step {
            DutyStep::Say(speaks, lines) => self.say(*speaks, lines).await,
            DutyStep::SayAlone(speaks, line) => self.say_alone(*speaks, line).await,
            DutyStep::SayAtOnce(speaks, line) => self.say_at_once(*speaks, line).await,
            DutyStep::SayToAnother(speaks, line) => self.say_to_another(*speaks, line).await,
            DutyStep::SayWithoutToken(speaks, line) => {
                let stranger = self.driver.stranger.clone();
                let client = stranger.unwrap_or_else(|| self.driver.client.clone());
                let batch = self.batch(*speaks, std::slice::from_ref(line))?;
                self.heard_all(&client, &batch, std::slice::from_ref(line)).await
            }
            DutyStep::SayOfLoss(speaks, line) => self.say_of_loss(*speaks, line).await,
            DutyStep::Grown(writes) => self.grown(*writes).await,
            DutyStep::GrownAtLast(writes) => self.grown_at_last(*writes).await,
            DutyStep::Hidden => self.hidden().await,
            DutyStep::Asked(branch, says) => self.asked(*branch, says).await,
            DutyStep::DataIsOpen => {
                self.data(|memory, view| memory.judge_open(view), "open data").await
            }
            DutyStep::DataIsFenced => {
                let fenced = |_: &DutyMemory, view: &_| is_fenced(view);
                self.data(fenced, "\"fenced\": true").await
            }
            DutyStep::Restart => Ok(self.driver.restart().await?),
        }
    }

    fn batch(&mut self, speaks: SpeaksAs, lines: &[DutyLine]) -> Result<SentBatch, StepFailed> {
        Ok(self.voice.batch(speaks, lines, &self.driver.options.examples)?)
    }

    /// One batch; a prepare with an input by the path that a coordinator sends it by.
    async fn say(&mut self, speaks: SpeaksAs, lines: &[DutyLine]) -> Stepped {
        let batch = self.batch(speaks, lines)?;
        let client = self.driver.client.clone();
        match (&batch.messages[..], lines) {
            ([message], [line]) if goes_alone(message) => {
                self.heard_alone(&client, &batch, message, line).await
            }
            _ => self.heard_all(&client, &batch, lines).await,
        }
    }

    async fn say_alone(&mut self, speaks: SpeaksAs, line: &DutyLine) -> Stepped {
        let batch = self.batch(speaks, std::slice::from_ref(line))?;
        let client = self.driver.client.clone();
        self.heard_alone(&client, &batch, &batch.messages[0], line).await
    }

    async fn say_to_another(&mut self, speaks: SpeaksAs, line: &DutyLine) -> Stepped {
        let mut batch = self.batch(speaks, std::slice::from_ref(line))?;
        let another = format!("not-{}", &self.voice.run()[..16]);
        batch.participant = another.parse().unwrap_or(batch.participant);
        let client = self.driver.client.clone();
        self.heard_all(&client, &batch, std::slice::from_ref(line)).await
    }

    async fn say_of_loss(&mut self, speaks: SpeaksAs, line: &DutyLine) -> Stepped {
        let mut batch = self.batch(speaks, std::slice::from_ref(line))?;
        batch.known = self.memory.highest().map(|DataPoint { incarnation, seq }| DataPoint {
            incarnation,
            seq: seq + NUMBERS_LOST,
        });
        let client = self.driver.client.clone();
        match &batch.messages[..] {
            [message] if goes_alone(message) => {
                self.heard_alone(&client, &batch, message, line).await
            }
            _ => self.heard_all(&client, &batch, std::slice::from_ref(line)).await,
        }
    }

    async fn say_at_once(&mut self, speaks: SpeaksAs, line: &DutyLine) -> Stepped {
        let batch = self.batch(speaks, std::slice::from_ref(line))?;
        let client = self.driver.client.clone();
        // What they come to is looked at behind them: while the first is at work, the others may
        // be told that nothing is known yet.
        join_all((0..COPIES).map(|_| tell(&client, &batch))).await;
        self.say(speaks, std::slice::from_ref(line)).await
    }

    /// What came of one prepare by its own path.
    async fn heard_alone(
        &mut self,
        client: &ParticipantClient,
        batch: &SentBatch,
        message: &Message<Box<serde_json::value::RawValue>>,
        line: &DutyLine,
    ) -> Stepped {
        let call = client.prepare_waiting(message.txid(), 0, batch).await;
        let answer = BranchAnswer::Prepared(call);
        let sent = || format!("POST /v1/branches/{}/prepare {}", message.txid(), shown(batch));
        self.judge(sent, line, answer)
    }

    /// What came of a batch.
    async fn heard_all(
        &mut self,
        client: &ParticipantClient,
        batch: &SentBatch,
        lines: &[DutyLine],
    ) -> Stepped {
        let answers = match client.batch(batch).await {
            Ok(answers) => answers.answers,
            Err(Unknown(why)) => {
                let sent = || format!("POST /v1/batch {}", shown(batch));
                if lines.is_empty() {
                    let came = format!("nothing that a coordinator believes: {why}");
                    let right = "{\"answers\": []}".to_owned();
                    let wrong = "an empty batch is a look whether somebody is there".to_owned();
                    return Err(falls_short(sent(), came, right, wrong));
                }
                for line in lines {
                    self.judge(sent, line, line.message.unknown(&*why))?;
                }
                return Ok(());
            }
        };
        for (line, answer) in lines.iter().zip(answers) {
            let sent = || format!("POST /v1/batch {}", shown(batch));
            self.judge(sent, line, answer.answering(&line.message))?;
        }
        Ok(())
    }

    fn judge(
        &mut self,
        sent: impl Fn() -> String,
        line: &DutyLine,
        answer: BranchAnswer,
    ) -> Stepped {
        let judged = self.memory.judge(line.branch, line.right, &answer);
        judged.map_err(|wrong| falls_short(sent(), shown_answer(answer), line.right.words(), wrong))
    }

    /// Reads by a transaction of its own, in one phase.
    async fn read(&mut self) -> Result<(String, ReadShown), StepFailed> {
        let read = self.driver.options.examples.read.clone();
        let (batch, call) = self.run_alone(&read).await?;
        let shown_read = match call {
            Call::Applied(Prepared::Committed(done)) => match first_number(&done.replies) {
                Some(number) => ReadShown::Number(number),
                None => ReadShown::Other(done.replies.to_string()),
            },
            Call::Applied(Prepared::Wait(_)) => ReadShown::Locked,
            Call::Refused(refusal) if refusal.code == ErrorCode::LockConflict => ReadShown::Locked,
            call => ReadShown::Other(shown_answer(BranchAnswer::Prepared(call))),
        };
        Ok((shown(&batch), shown_read))
    }

    /// Runs a branch of one phase that is no part of the duty.
    async fn run_alone(
        &mut self,
        example: &ExampleBranch,
    ) -> Result<(SentBatch, Call<Prepared>), StepFailed> {
        self.reads += 1;
        let branch = BranchName { log: LogName::Reader, epoch: 1, n: self.reads };
        let parts = example.parts(self.voice.run())?;
        let message = self.voice.prepare(branch, Mode::OnePhase, parts);
        let batch = self.voice.batch_of(READER, vec![message]);
        let answer = tell(&self.driver.client, &batch).await;
        Ok((batch, answer))
    }

    /// What is read must show so many writes.
    async fn grown(&mut self, writes: u64) -> Stepped {
        let (sent, read) = self.read().await?;
        self.judge_read(sent, read, writes)
    }

    fn judge_read(&mut self, sent: String, read: ReadShown, writes: u64) -> Stepped {
        let number = match read {
            ReadShown::Number(number) => number,
            ReadShown::Locked => {
                let came = "a refusal because of a lock".to_owned();
                return Err(self.no_number(sent, came, "a branch that has ended holds locks"));
            }
            ReadShown::Other(came) => {
                return Err(self.no_number(sent, came, "there is no number in the replies"));
            }
        };
        let grown = number - self.base;
        // The first write that is seen says what a write does.
        let write = *self.driver.write.get_or_insert(grown);
        let writes = i64::try_from(writes).unwrap_or(i64::MAX);
        let right = self.base.saturating_add(write.saturating_mul(writes));
        if number == right && write != 0 {
            self.last = number;
            return Ok(());
        }
        let (base, came) = (self.base, format!("the read shows {number}"));
        let right = match write {
            0 => format!("another number than {base}"),
            _ => format!("{right}: it was {base}, and {writes} writes of {write} count"),
        };
        let wrong = match grown.checked_div(write) {
            None => "the write has changed nothing that is read".to_owned(),
            Some(seen) if grown == seen * write => format!("{seen} writes were applied"),
            Some(_) => "something else was written".to_owned(),
        };
        if write == 0 {
            self.driver.write = None;
        }
        Err(falls_short(sent, came, right, wrong))
    }

    /// The same, as soon as a branch in doubt has done what it was told.
    async fn grown_at_last(&mut self, writes: u64) -> Stepped {
        let until = Instant::now() + Duration::from_millis(self.driver.options.ask_within_ms);
        loop {
            let (sent, read) = self.read().await?;
            match self.judge_read(sent, read, writes) {
                Err(StepFailed::Duty(_)) if Instant::now() < until => {
                    tokio::time::sleep(LOOK).await;
                }
                judged => return judged,
            }
        }
    }

    async fn hidden(&mut self) -> Stepped {
        let (sent, read) = self.read().await?;
        let last = self.last;
        let came = match read {
            ReadShown::Locked => return Ok(()),
            ReadShown::Number(number) if number == last => return Ok(()),
            ReadShown::Number(number) => format!("the read shows {number}"),
            ReadShown::Other(came) => came,
        };
        let right = format!("a no with code lock_conflict, an offer to wait, or {last} as before");
        let wrong = "what is staged is seen, or the read fails".to_owned();
        Err(falls_short(sent, came, right, wrong))
    }

    /// Waits until the participant has asked so often about a branch.
    async fn asked(&mut self, branch: BranchName, says: &[LogSays]) -> Stepped {
        let txid = self.voice.txid(branch);
        let mut asked = self.driver.desk.asked();
        self.driver.desk.says(txid, says.to_vec());
        let patience = Duration::from_millis(self.driver.options.ask_within_ms);
        let mut left = says.len();
        let mut until = Instant::now() + patience;
        while left > 0 {
            if tokio::time::timeout_at(until, asked.changed()).await.is_err() {
                let told = says.len() - left;
                let sent = format!("nothing: branch {txid} is in doubt ({told} questions came)");
                let came = format!("no question within {patience:?}");
                let url = self.driver.desk_url();
                let log = txid.log_id;
                let right = format!("GET {url}/{log}/v1/transactions/{txid}/outcome");
                let wrong = match told.checked_sub(1).and_then(|last| says.get(last)) {
                    None => {
                        "it does not ask, or not at the address that the batch names".to_owned()
                    }
                    Some(last) => format!("it has stopped asking behind this answer: {last:?}"),
                };
                return Err(falls_short(sent, came, right, wrong));
            }
            let now = self.driver.desk.left(txid).len();
            if now < left {
                until = Instant::now() + patience;
            }
            left = now;
        }
        Ok(())
    }

    async fn data(
        &mut self,
        judge: impl Fn(&DutyMemory, &assent_common::wire::resync::DataView) -> Result<(), String>,
        right: &str,
    ) -> Stepped {
        let sent = "GET /v1/data".to_owned();
        match self.driver.client.data().await {
            Ok(view) => judge(&self.memory, &view)
                .map_err(|wrong| falls_short(sent, shown(&view), right.to_owned(), wrong)),
            Err(error) => {
                let wrong = "that is no answer".to_owned();
                Err(falls_short(sent, error.to_string(), right.to_owned(), wrong))
            }
        }
    }

    /// Ends what the duty has begun, whatever came of it: the next one must not meet it.
    pub(crate) async fn clean_up(mut self) -> Result<(), CheckError> {
        let spoken_of = self.voice.spoken_of();
        for branch in spoken_of.into_iter().filter(|branch| branch.log != LogName::Reader) {
            let line =
                DutyLine { branch, message: BranchMessage::Abort, right: RightAnswer::NotDone };
            // The last life that any script has.
            let speaks = SpeaksAs { log: branch.log, epoch: 2, mark: (0, 0) };
            let examples = &self.driver.options.examples;
            let batch = self.voice.batch(speaks, &[line], examples)?;
            // It may have been applied, or the participant may be of no use: nothing to be done.
            let _told = self.driver.client.batch(&batch).await;
        }
        if let Some(cleanup) = self.driver.options.examples.cleanup.clone() {
            match self.run_alone(&cleanup).await {
                Ok(_) | Err(StepFailed::Duty(_)) => {}
                Err(StepFailed::Check(error)) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_fenced(view: &assent_common::wire::resync::DataView) -> Result<(), String> {
    if view.fenced { Ok(()) } else { Err("it says that its data is open".to_owned()) }
}

/// Whether a coordinator sends it by a call of its own.
fn goes_alone(message: &Message<Box<serde_json::value::RawValue>>) -> bool {
    matches!(message, Message::Prepare(prepare) if prepare.input.is_some())
}

/// What came of a batch of one message, as far as it is a prepare.
async fn tell(client: &ParticipantClient, batch: &SentBatch) -> Call<Prepared> {
    match &batch.messages[..] {
        [message] if goes_alone(message) => client.prepare_waiting(message.txid(), 0, batch).await,
        _ => match client.batch(batch).await {
            Ok(answers) => match answers.answers.into_iter().next() {
                Some(answer) => answer.into_prepared(),
                None => Call::Unknown("no answer".to_owned()),
            },
            Err(Unknown(why)) => Call::Unknown(why),
        },
    }
}
