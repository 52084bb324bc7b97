//! Every kind of record, and its bytes for good.

use super::*;

fn identity() -> Identity {
    Identity {
        id: "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e".parse().unwrap(),
        key: Some("order-17".parse().unwrap()),
        fingerprint: Some([7; 32]),
        name: Some("transfer".to_owned()),
        created_at: Millis(1_700_000_000_000),
    }
}

fn number() -> TxNumber {
    TxNumber { epoch: Epoch(3), n: 1042 }
}

#[expect(clippy::too_many_lines, reason = "a value of each kind")]
fn every_record() -> Vec<Record> {
    let life = Life { epoch: Epoch(3), nonce: 1 << 40 };
    vec![
        Record::Begun(Begun {
            number: number(),
            attempt: Attempt(1),
            identity: identity(),
            participant: "bank-a".parse().unwrap(),
        }),
        Record::Committed(Committed {
            number: number(),
            attempt: Attempt::FIRST,
            identity: Identity { key: None, fingerprint: None, name: None, ..identity() },
            decided_at: Millis(1_700_000_000_005),
            branches: vec![CommittedBranch {
                participant: "bank-a".parse().unwrap(),
                replies: "[70]".into(),
                redo: [1, 2, 3][..].into(),
                incarnation: 99,
                seq: 5,
            }],
        }),
        Record::Ended(Ended { number: number() }),
        Record::Answered(Answered {
            number: number(),
            attempt: Attempt(2),
            identity: identity(),
            decided_at: Millis(1_700_000_000_005),
            participants: vec!["bank-a".parse().unwrap(), "bank-b".parse().unwrap()],
            answer: AnswerRecord::Aborted {
                branch: Some(1),
                code: ErrorCode::ExpectationFailed,
                detail: "DECRBY".to_owned(),
                op: Some(0),
                reply: Some("-5".into()),
            },
            written: None,
        }),
        Record::ParticipantSet(ParticipantSet {
            name: "bank-a".parse().unwrap(),
            url: "http://127.0.0.1:7710".to_owned(),
        }),
        Record::ParticipantRemoved(ParticipantRemoved { name: "bank-a".parse().unwrap() }),
        Record::Abandoned(Abandoned {
            number: number(),
            id: identity().id,
            participant: "bank-a".parse().unwrap(),
            actor: "ana".to_owned(),
            reason: "disk gone".to_owned(),
            at: Millis(1_700_000_000_009),
            attempt: None,
        }),
        Record::CommittedSet(CommittedSet {
            epoch: Epoch(3),
            bitmap: vec![1, 2, 3],
            retried: vec![(1042, Attempt(2))],
        }),
        Record::DataSeen(DataSeen {
            participant: "bank-a".parse().unwrap(),
            incarnation: 99,
            seq: 5,
            retired: 3,
        }),
        Record::LossAccepted(LossAccepted {
            participant: "bank-a".parse().unwrap(),
            loss: "back at vote 3".to_owned(),
            actor: "ana".to_owned(),
            reason: "disk gone".to_owned(),
            at: Millis(1_700_000_000_009),
        }),
        Record::Answered(Answered {
            number: number(),
            attempt: Attempt::FIRST,
            identity: Identity { key: None, fingerprint: None, name: None, ..identity() },
            decided_at: Millis(1_700_000_000_005),
            participants: vec!["bank-a".parse().unwrap()],
            answer: AnswerRecord::Committed { replies: "[5]".into() },
            written: Some(WrittenRecord { redo: [1, 2][..].into(), incarnation: 99, seq: 6 }),
        }),
        Record::LifeBegan(LifeBegan { life, at: None }),
        Record::Acknowledged(Acknowledged {
            number: number(),
            participants: vec!["bank-a".parse().unwrap()],
        }),
        Record::EndedByHand(EndedByHand {
            number: number(),
            id: identity().id,
            participant: "bank-a".parse().unwrap(),
            outcome: Heuristic::Aborted,
            detail: "ana: the log is gone".to_owned(),
        }),
        Record::LifeBegan(LifeBegan { life, at: Some((2 << 32) + 64) }),
        Record::Abandoned(Abandoned {
            number: number(),
            id: identity().id,
            participant: "bank-b".parse().unwrap(),
            actor: "ana".to_owned(),
            reason: "disk gone".to_owned(),
            at: Millis(1_700_000_000_009),
            attempt: Some(Attempt(2)),
        }),
        Record::SealKey(SealKey([7; 32])),
    ]
}

#[test]
fn every_record_reads_back_as_written() {
    for record in every_record() {
        let (kind, payload) = record.encode();
        assert_eq!(Record::decode(kind, &payload).unwrap(), record);
    }
}

/// A change of these bytes is a change of the format: give the record a new kind instead.
#[test]
fn the_bytes_of_version_1_never_change() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let golden: Vec<_> = every_record()
        .iter()
        .map(|record| {
            let (kind, payload) = record.encode();
            format!("{kind} {}", hex(&payload))
        })
        .collect();
    assert_eq!(golden.join("\n"), include_str!("../../testdata/records_v1.txt").trim_end());
}

#[test]
fn a_cut_or_lengthened_payload_is_refused() {
    for record in every_record() {
        let (kind, mut payload) = record.encode();
        for cut in 0..payload.len() {
            assert!(Record::decode(kind, &payload[..cut]).is_err(), "{record:?} cut at {cut}");
        }
        payload.push(0);
        assert!(Record::decode(kind, &payload).is_err(), "{record:?}");
    }
}

#[test]
fn a_kind_of_a_later_version_is_named() {
    assert_eq!(Record::decode(200, &[]), Err(DecodeError::UnknownKind(200)));
}
