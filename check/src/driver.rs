//! Plays the scripts of the duties to a participant, one after the other.

use crate::duties::duties;
use crate::duty::{Duty, DutyNeeds};
use crate::report::{DutyReport, DutyVerdict, Shortfall};
use crate::scene::Scene;
use crate::stage::{CheckError, CheckOptions, DutyDriver, StepFailed};

/// Checks all duties; each report is told as soon as it is there.
pub async fn check(
    options: CheckOptions,
    mut tell: impl FnMut(&DutyReport),
) -> Result<Vec<DutyReport>, CheckError> {
    let is_there = |name: &&String| duties().any(|duty| duty.name == name.as_str());
    if let Some(name) = options.only.iter().find(|name| !is_there(name)) {
        return Err(CheckError::NoDuty(name.clone()));
    }
    let mut driver = DutyDriver::new(options).await?;
    let mut reports: Vec<DutyReport> = Vec::new();
    let is_asked_for = |duty: &Duty| {
        let only = &driver.options.only;
        only.is_empty() || only.iter().any(|name| name == duty.name)
    };
    // The first one measures what a write does.
    let numbered = duties().enumerate();
    let asked_for = numbered.filter(|(at, duty)| *at == 0 || is_asked_for(duty));
    let asked_for: Vec<&Duty> = asked_for.map(|(_, duty)| duty).collect();
    for duty in asked_for {
        let report = match driver.lacks(duty, reports.first()) {
            Some(why) => DutyReport::not_checked(duty, why),
            None => DutyReport::played(duty, driver.play(duty).await?),
        };
        tell(&report);
        reports.push(report);
    }
    Ok(reports)
}

impl DutyDriver {
    /// What is lacking to check a duty. Without the first one, nothing can be told of the others.
    fn lacks(&self, duty: &Duty, first: Option<&DutyReport>) -> Option<&'static str> {
        let options = &self.options;
        if first.is_some_and(|first| first.verdict == DutyVerdict::Failed) {
            return Some(DutyNeeds::Nothing.lacking());
        }
        let is_there = match duty.needs {
            DutyNeeds::Nothing => true,
            DutyNeeds::Conflict => options.examples.conflict.is_some(),
            DutyNeeds::Restart => options.restart_command.is_some(),
            DutyNeeds::Token => options.stranger.is_some(),
            DutyNeeds::Loss => options.with_loss,
        };
        (!is_there).then(|| duty.needs.lacking())
    }

    /// Plays one duty, and takes away what it has left.
    async fn play(&mut self, duty: &Duty) -> Result<Result<(), Shortfall>, CheckError> {
        let mut scene = Scene::new(self);
        let mut played = scene.begin().await;
        for (step, at) in duty.steps().iter().zip(1..) {
            if played.is_err() {
                break;
            }
            played = scene.step(step).await.map_err(|failed| match failed {
                StepFailed::Duty(shortfall) => {
                    StepFailed::Duty(Shortfall { step: at, ..shortfall })
                }
                check => check,
            });
        }
        scene.clean_up().await?;
        match played {
            Ok(()) => Ok(Ok(())),
            Err(StepFailed::Duty(shortfall)) => Ok(Err(shortfall)),
            Err(StepFailed::Check(error)) => Err(error),
        }
    }
}
