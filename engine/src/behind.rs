//! Whether the Redis behind a participant answers, as the participant's own answers tell: an agent
//! that answers at once that its Redis does not is up, and of no use.

use assent_common::ErrorCode;
use assent_common::wire::branch::{Answer, StateWord, VoteWord};

/// What answers say of the participant's Redis: that it answers, or why it does not. Nothing if
/// none of them has met it.
pub(crate) fn told_of_redis(answers: &[Answer]) -> Option<Result<(), String>> {
    let fails = answers.iter().find(|answer| met_no_redis(answer));
    match fails {
        Some(answer) => {
            let detail = answer.detail.clone();
            Some(Err(detail.unwrap_or_else(|| "the participant does not say why".to_owned())))
        }
        None => answers.iter().any(met_redis).then_some(Ok(())),
    }
}

fn met_no_redis(answer: &Answer) -> bool {
    answer.code.is_some_and(ErrorCode::is_of_silent_store)
        || answer.vote == Some(VoteWord::Unknown)
        || answer.state == Some(StateWord::Unknown)
}

fn met_redis(answer: &Answer) -> bool {
    let voted = matches!(answer.vote, Some(VoteWord::Yes | VoteWord::Wait | VoteWord::Committed));
    let ended = matches!(
        answer.state,
        Some(StateWord::Applied | StateWord::Aborted | StateWord::AlreadyCommitted)
    );
    voted || ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_met_redis_tells_of_it() {
        let vote = |vote| Answer { vote: Some(vote), ..Answer::default() };
        let no = |code| Answer { code: Some(code), ..vote(VoteWord::No) };
        assert_eq!(told_of_redis(&[]), None);
        assert_eq!(told_of_redis(&[no(ErrorCode::BadArguments)]), None);
        assert_eq!(told_of_redis(&[vote(VoteWord::Yes)]), Some(Ok(())));
        for fails in [
            vote(VoteWord::Unknown),
            no(ErrorCode::RedisUnavailable),
            no(ErrorCode::PostgresUnavailable),
        ] {
            let told = told_of_redis(&[vote(VoteWord::Yes), fails]);
            assert!(matches!(told, Some(Err(_))), "{told:?}");
        }
    }
}
