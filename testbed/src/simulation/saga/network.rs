//! What becomes of effects: requests and their replies, publishes and their acknowledgements.

use super::{Happening, Message, World};
use tidemill_core::names::{LogKind, ReplyToken, Side};
use tidemill_core::saga::{Effect, Observed, PublishEffect};

impl World {
    /// Runs an effect. Doing one twice, or long after it was asked for, must be harmless.
    pub(super) fn execute(&mut self, owner: usize, instance: usize, effect: Effect) {
        match effect {
            Effect::Publish(publish) => self.publish(instance, publish),
            effect @ (Effect::Request(_) | Effect::Http(_)) => {
                if self.chance(self.plan.faults.forge_reply) {
                    self.forge(instance, &effect);
                }
                if self.chance(self.plan.faults.stream_answers)
                    && let Effect::Request(request) = &effect
                {
                    let body = b"{\"stream\":\"CAPTURES\",\"seq\":7}".to_vec();
                    self.append_later(1, Message::new(instance, request.reply.clone(), body));
                }
                if self.chance(self.plan.faults.no_responders) {
                    let kind = observed_of(&effect);
                    let sole = self.owners[owner].sole;
                    let payload = Observed::NoResponders { sole }.to_json();
                    self.append_later(1, Message::new(instance, kind, payload));
                } else if !self.chance(self.plan.faults.lose_request) {
                    let delay = 1 + self.random.below(200);
                    self.schedule(delay, Happening::Request { instance, effect });
                }
            }
        }
    }

    fn publish(&mut self, instance: usize, publish: PublishEffect) {
        let PublishEffect {
            effect,
            attempt: (step, side, attempt),
            stream: _,
            event,
        } = publish;
        let delay = self.random.below(50);
        let there = self.published.get(&event.id);
        if let Some(there) = there {
            // After a log lost its tail the outcome may be decided anew, later; the first event stays.
            if *there != event && !self.plan.faults.set_back {
                self.problems
                    .push(format!("event {} was published with other bytes", event.id));
            }
        } else if self.chance(self.plan.faults.refuse_publish) {
            let what = Observed::PublishRefused {
                message: "the stream is full".to_owned(),
            };
            let kind = LogKind::Observed {
                step,
                side,
                attempt,
            };
            self.append_later(delay, Message::new(instance, kind, what.to_json()));
            return;
        } else {
            // The stream holds an event once: that is what message id and expected sequence do.
            self.published.insert(event.id.clone(), event);
        }
        // If the acknowledgement is lost the worker looks and finds the event, later.
        let late = if self.chance(self.plan.faults.lose_reply) {
            5_000
        } else {
            0
        };
        let payload = b"{\"stream\":\"s\",\"sequence\":1}".to_vec();
        let message = Message::new(instance, LogKind::Published(effect), payload);
        self.append_later(delay + late, message);
    }

    fn forge(&mut self, instance: usize, effect: &Effect) {
        let (step, side, attempt) = attempt_of(effect);
        let kind = LogKind::Reply {
            step,
            side,
            attempt,
            token: ReplyToken::new("aaaaaaaaaaaaaaaaaaaa"),
        };
        self.append_later(
            0,
            Message::new(instance, kind, b"{\"forged\":true}".to_vec()),
        );
    }

    pub(super) fn participate(&mut self, instance: usize, effect: &Effect) {
        let (step, side, _) = attempt_of(effect);
        let service_error = self.chance(self.plan.faults.service_error);
        let refuse = self.chance(match side {
            Side::Action => self.plan.faults.refuse,
            Side::Compensation => self.plan.faults.refuse_compensation,
        });
        let participant = self.participants.entry(step).or_default();
        let answer = participant.handle(effect, side, service_error, refuse);
        let message = match effect {
            Effect::Request(request) => Message {
                headers: answer.headers(),
                ..Message::new(instance, request.reply.clone(), answer.body())
            },
            Effect::Http(_) | Effect::Publish(_) => {
                Message::new(instance, observed_of(effect), answer.observed().to_json())
            }
        };
        if self.chance(self.plan.faults.lose_reply) {
            return;
        }
        let copies = 1 + u64::from(self.chance(self.plan.faults.repeat_reply));
        for _ in 0..copies {
            let mut delay = 1 + self.random.below(300);
            if self.chance(self.plan.faults.late_reply) {
                delay += self.random.below(60_000);
            }
            self.append_later(delay, message.clone());
        }
    }
}

fn observed_of(effect: &Effect) -> LogKind {
    let (step, side, attempt) = attempt_of(effect);
    LogKind::Observed {
        step,
        side,
        attempt,
    }
}

fn attempt_of(effect: &Effect) -> (String, Side, u32) {
    match effect {
        Effect::Request(request) => (request.step.clone(), request.side, request.attempt),
        Effect::Http(http) => (http.step.clone(), http.side, http.attempt),
        Effect::Publish(publish) => publish.attempt.clone(),
    }
}
