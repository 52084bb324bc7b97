//! Every bound of the system, each with the reason for its value and the error code that answers
//! for it.

/// Bytes of a participant's or transaction's name. Long enough for any service name, short enough
/// for a metric label.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes of an idempotency key; what the IETF draft's implementers allow.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// Branches of one transaction. Sixteen services in one atomic unit is a design smell; sixty-four
/// is a bug.
pub const BRANCHES_MAX: usize = 64;

/// Ops of one branch: keeps a prepare script below about a millisecond, in which Redis answers
/// nobody else (`too_many_ops`).
pub const OPS_PER_BRANCH_MAX: usize = 1_000;

/// Arguments of one op, its name included; a script may not unpack more than about 8,000
/// (`too_many_ops`).
pub const ARGS_PER_OP_MAX: usize = 2_000;

/// Bytes of all arguments of one branch (`too_large`).
pub const BRANCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Arguments of all ops of one branch, their names included: Redis takes each of them apart before
/// a script can count what it does with them (`too_many_ops`).
pub const WORDS_PER_BRANCH_MAX: usize = 20_000;

/// Steps that the ops of one branch may take in Redis, which answers nobody else meanwhile
/// (`too_much_work`). A step is about what it takes to read an element of a collection: 0.2 to 0.4
/// µs, so that a call of a script stays below 50 ms.
pub const BRANCH_STEPS_MAX: usize = 100_000;

/// Bytes that the ops of one branch may read, and bytes that they may reply (`reply_too_large`); a
/// vote carries its replies and its writes in one answer, and the writes have the same bound
/// (`too_large`).
pub const REPLY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Keys that one connection of a Redis client may watch (`too_many_ops`): as many as a branch may
/// have, in which they are compared.
pub const WATCHED_KEYS_MAX: usize = KEYS_PER_BRANCH_MAX;

/// Bytes of one key (`too_large`).
pub const KEY_BYTES_MAX: usize = 1_024;

/// Distinct keys of one branch (`too_many_ops`).
pub const KEYS_PER_BRANCH_MAX: usize = 1_000;

/// Bytes of an HTTP request body of the public API (`body_too_large`): a transaction of several
/// large branches, with room for base64.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Arrays and objects inside each other in a body of JSON, in both directions (`bad_request`). A
/// list of transactions with the deepest replies has 21. What is deeper is refused at the byte
/// that opens it, before it is parsed.
pub const JSON_DEPTH_MAX: usize = 32;

/// Bytes of a batch between coordinator and participant, in both directions.
pub const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of ops after which a batch takes no further message: far below [`BATCH_BYTES_MAX`], so
/// that many large branches travel in several batches. One message may have more, and then travels
/// alone.
pub const BATCH_OPS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Messages of one batch; more wait for the next one.
pub const BATCH_MESSAGES_MAX: usize = 256;

/// Bytes of the votes of one transaction, writes and replies of all branches: its decision is one
/// record of the log (`too_large`).
pub const DECISION_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of a branch's replies that the log keeps of a transaction without key or id: nobody sends
/// that request again, and a read of some megabytes would be one more large record each time. The
/// first answer has them all.
pub const REPLIES_KEPT_BYTES_MAX: usize = 64 * 1024;

/// Bytes of replies and writes in the answers to one batch, after which the participant runs no
/// further prepare of it, and says that it does not know: the coordinator asks again. What is under
/// way then still fits, or is asked for again too.
pub const BATCH_REPLIES_BYTES_MAX: usize = 48 * 1024 * 1024;

/// Bytes of one answer to a batch that are left for what is no reply and no write: words for
/// people, ids, numbers.
pub const BATCH_WORDS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of a sentence for people that others have a part in: an error's detail, a participant's
/// last error. The rest is cut.
pub const DETAIL_BYTES_MAX: usize = 1_024;

/// Bytes of the reply that a false expectation met, up to which it is shown; larger ones are left
/// out.
pub const REPLY_SHOWN_BYTES_MAX: usize = 4 * 1024;

/// Arrays and objects inside each other in the replies of a branch; Redis needs four.
pub const REPLY_DEPTH_MAX: usize = 16;

const _: () = assert!(REPLY_DEPTH_MAX + 8 <= JSON_DEPTH_MAX, "an answer with replies is read");

/// Bytes of a participant's address.
pub const URL_BYTES_MAX: usize = 2_000;

/// Elements of a collection that a branch reads back after it changed it in a way that needs the
/// whole collection in the script (`too_large`): bounds the time that Redis is blocked to some
/// milliseconds.
pub const MATERIALISED_ELEMENTS_MAX: usize = 10_000;

/// Bytes of memory that a key may take of which a digest is asked (`too_large`): its dump is made
/// and hashed in Redis, which answers nobody else meanwhile, some 5 ms per MiB.
pub const DIGEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes that a key may take in Redis, as `MEMORY USAGE` says, for a command that has no handler of
/// its own (`too_large`). Such commands run on copies, and copying 1 MiB keeps Redis busy for some
/// milliseconds. A setting of the participant, `shadow_bytes_max`.
pub const SHADOW_BYTES_MAX: u64 = 1024 * 1024;

/// Undecided transactions in one coordinator before it sheds load with `overloaded`; each holds its
/// ops in memory.
pub const TRANSACTIONS_IN_FLIGHT_MAX: usize = 20_000;

/// Transactions that wait for the vote of one participant before more that name it are refused with
/// `overloaded`: half of all that may be undecided, so that a participant that does not answer
/// leaves room for those who do not name it.
pub const TRANSACTIONS_PER_PARTICIPANT_MAX: usize = TRANSACTIONS_IN_FLIGHT_MAX / 2;

/// Decided transactions that one participant has not acknowledged before more that name it are
/// refused with `overloaded`. Each takes about a kilobyte: its ops are gone, and its writes are in
/// the log.
pub const OUTCOMES_UNDELIVERED_MAX: usize = 100_000;

/// Lives of its coordinator that a log keeps, for participants to tell it from an old copy. Each is
/// some 40 bytes.
pub const LIVES_MAX: usize = 16_384;

/// How many of them it says to a participant unasked; one that was away for longer asks for the
/// life that it knows.
pub const LIVES_SAID_MAX: usize = 256;

/// The highest epoch that a participant believes in. Each start of a coordinator is one: nobody
/// comes this far.
pub const EPOCH_MAX: u64 = 1 << 32;

/// How many epochs the next one that a participant hears of a log may be farther on than the last.
pub const EPOCH_JUMP_MAX: u64 = 1 << 20;

/// The highest number of a transaction in an epoch that a participant believes in: 89 years of
/// 100,000 a second.
pub const TRANSACTION_NUMBER_MAX: u64 = 1 << 48;

/// Numbers of votes that are left out when repaired data opens: more than can have been given
/// without being heard by anybody, which is what was under way when the data was lost. A copy of
/// the lost data that is put back later has those votes. If their numbers were given again, it
/// would be taken to have the new ones too.
pub const VOTES_UNHEARD_MAX: u64 = 1_000_000;

/// Incarnations that repaired data says it came of. An agent that was away goes on with it by
/// itself if it knows one of them: it is seldom away for more repairs.
pub const CAME_OF_MAX: usize = 16;

/// Branches of one phase that an agent remembers until their logs have them. A coordinator has as
/// many under way as transactions, and as many of them at one participant as may wait there.
pub const UNLOGGED_MAX: usize = 2 * TRANSACTIONS_IN_FLIGHT_MAX;

/// Bytes of their done-markers: replies and writes.
pub const UNLOGGED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Interactive transactions that are active in one coordinator (`overloaded`): they wait for people
/// and programs, and hold memory meanwhile.
pub const INTERACTIVE_MAX: usize = 1_000;

/// Bytes that one of them may hold, of what is staged and of the last answer (`too_large`): it must
/// fit into a request when it is committed.
pub const INTERACTIVE_BYTES_MAX: usize = BODY_BYTES_MAX;

/// Bytes that all of them may hold (`overloaded`).
pub const INTERACTIVE_BYTES_OF_ALL_MAX: usize = 64 * 1024 * 1024;

/// Milliseconds after which one expires to which no call comes (`expired`).
pub const INTERACTIVE_IDLE_MS: u64 = 60_000;

/// Milliseconds after which one expires whatever comes (`expired`).
pub const INTERACTIVE_AGE_MAX_MS: u64 = 600_000;

/// How many of those that expired or were aborted are remembered, with why.
pub const INTERACTIVE_ENDED_MAX: usize = 4_096;

/// Bytes of the `input` of a branch (`too_large`): it is held until the outcome is known, and sent
/// each time that the hook is asked.
pub const INPUT_BYTES_MAX: usize = 256 * 1024;

/// Bytes of one answer of a hook (`hook_invalid`): the most ops that a branch may have, with room
/// for base64 and for the reply.
pub const HOOK_ANSWER_BYTES_MAX: usize = 2 * BRANCH_BYTES_MAX;

/// Bytes of what a hook replies (`hook_invalid`): the log keeps that much of a branch's replies in
/// any case.
pub const HOOK_REPLY_BYTES_MAX: usize = REPLIES_KEPT_BYTES_MAX / 2;

/// Arrays and objects inside each other in what a hook replies (`hook_invalid`): two more are
/// around it.
pub const HOOK_REPLY_DEPTH_MAX: usize = REPLY_DEPTH_MAX - 2;

/// How often a hook may ask for something to be read before it says what it wants
/// (`hook_invalid`).
pub const HOOK_READS_MAX: usize = 32;

/// How often a hook is asked that fails over the same input, or answers nothing that a hook answers
/// (`hook_invalid`): it may do better a moment later, and not for ever.
pub const HOOK_FAILURES_MAX: usize = 5;

/// How often a hook is asked anew because a key that it has read was changed before its branch was
/// staged (`read_changed`).
pub const HOOK_TURNS_MAX: usize = 16;

/// Bytes of all that a hook has read and that it is told with the next question (`too_large`).
pub const HOOK_REPLIES_BYTES_MAX: usize = REPLY_BYTES_MAX;

/// Bytes of one question to a hook: its input and its reads, of which a byte may be six of JSON.
pub const HOOK_QUESTION_BYTES_MAX: usize = 8 * HOOK_REPLIES_BYTES_MAX;

/// Branches of one agent whose hook is being asked (`overloaded`). Each holds a request open.
pub const HOOKS_IN_FLIGHT_MAX: usize = 256;

/// Milliseconds that a hook may take for one answer, if the participant does not say.
pub const HOOK_TIMEOUT_DEFAULT_MS: u64 = 2_000;

/// Bytes of the code of a veto: a word for programs (`hook_invalid`).
pub const VETO_CODE_BYTES_MAX: usize = 64;

/// Bytes of the reason of a veto: a sentence for people. The rest is cut.
pub const VETO_REASON_BYTES_MAX: usize = 512;

/// Rows that one statement may return (`reply_too_large`).
pub const SQL_ROWS_MAX: usize = 10_000;

/// Milliseconds that a statement waits for a lock, and a branch for the row of its own marker
/// (`lock_conflict`): a batch waits for nobody, and is answered as a whole.
pub const SQL_LOCK_WAIT_MS: u64 = 50;

/// Milliseconds that the statements of one branch may take together (`too_much_work`), if the
/// participant does not say: its locks are held, and the batch waits for it.
pub const SQL_BRANCH_MS_DEFAULT: u64 = 2_000;

/// Connections of an agent to its database for branches, if the participant does not say: a tenth
/// of what PostgreSQL allows by default, for each of some agents.
pub const SQL_CONNECTIONS_DEFAULT: usize = 16;

/// Milliseconds that a transaction may take to be decided, if its request does not say.
pub const TIMEOUT_DEFAULT_MS: u64 = 5_000;

/// The longest time to decide that a request may ask for, in milliseconds: its locks are held that
/// long.
pub const TIMEOUT_MAX_MS: u64 = 60_000;

/// The shortest time to decide that a request may ask for, in milliseconds.
pub const TIMEOUT_MIN_MS: u64 = 10;

/// Bytes of an operator's name or reason: a sentence or two, which stays readable in a log, and is
/// kept for ever in the one that decides.
pub const OVERRIDE_TEXT_BYTES_MAX: usize = 1_000;

/// Milliseconds that a coordinator may take that is asked for a person who it is, or what it
/// decided.
pub const WHO_IS_THERE_MS: u64 = 2_000;

/// Milliseconds that one request may wait for an outcome (`Prefer: wait`, `?wait=`).
pub const WAIT_MAX_MS: u64 = 60_000;

/// How long after its deadline a transaction is waited for if the client does not say, in
/// milliseconds: the decision is made by then, and is still to be applied. Less than what the SDK
/// allows for an answer beyond the timeout, so that a client hears `pending` from us and not
/// nothing.
pub const WAIT_BEYOND_TIMEOUT_MS: u64 = 3_000;

/// Rows of one page of a list.
pub const PAGE_SIZE_MAX: usize = 500;

/// Bytes of the rows of a page, after which it ends early and its token leads on; it has one row in
/// any case.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;

/// Rows of a page if the request does not say.
pub const PAGE_SIZE_DEFAULT: usize = 100;
