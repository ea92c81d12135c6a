//! The thread around a poller: it waits, sends and queues, and reads the clocks.

use std::iter;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use super::{Now, Poller, Step};
use crate::activity::{Activity, Wait};
use crate::batch::Batch;
use crate::clock::{self, Stop};
use crate::commit::{Message, Recalled};
use crate::cursor::Lane;
use crate::error::{Error, ErrorKind, Result};
use crate::http::limiter::{Allowance, Priority};
use crate::http::{Request, Response, Transport};
use crate::lease::Warrant;
use crate::queue::Queue;
use crate::record::Records;
use crate::window::Window;

/// How often a poller that waits for the committer looks whether it should stop.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// What a poller's thread works with.
pub struct Surroundings {
    /// The budget of its credential.
    pub allowance: Allowance,
    /// Where its batches go.
    pub queue: Arc<Queue>,
    /// Who moves the cursors.
    pub committer: Sender<Message>,
    /// Until when it may act.
    pub warrant: Warrant,
    /// Raised when it is to end.
    pub stop: Stop,
}

/// Does what `poller` says until it is told to stop.
pub fn run(poller: &mut Poller, transport: &mut dyn Transport, around: &Surroundings) {
    let stop = &around.stop;
    while !stop.is_raised() {
        if !around.warrant.is_valid(clock::monotonic()) {
            let _ = stop.wait(STOP_CHECK_INTERVAL);
            continue;
        }
        match poller.next(Now::read()) {
            Step::Sleep(wait) => {
                if stop.wait(wait) {
                    return;
                }
            }
            Step::Recall { task, stream, lane, span } => {
                let Some(recalled) = recall(stream, lane, span, around) else { return };
                poller.recalled(task, recalled, Now::read(), fastrand::f64());
            }
            Step::Fetch { task, request, priority } => {
                fetch(poller, transport, around, task, &request, priority);
            }
            Step::Offer { task, batch } => {
                if let Err(batch) = enqueue(poller, around, task, batch) {
                    return poller.keep_unseen(task, [batch]);
                }
                poller.activity(task).wait = Wait::Round;
                poller.offered(task, Now::read());
            }
        }
        for stream in poller.take_read() {
            // The committer outlives the pollers; it is gone only when the instance is.
            let _ = around.committer.send(Message::Read(stream));
        }
    }
}

/// Sends a request once the budget has room for it, and tells the poller how it went.
fn fetch(
    poller: &mut Poller,
    transport: &mut dyn Transport,
    around: &Surroundings,
    task: usize,
    request: &Request,
    priority: Priority,
) {
    let Surroundings { allowance, stop, .. } = around;
    poller.activity(task).wait = Wait::Budget;
    let granted = if priority == Priority::Verification {
        // A pass must not stand in the way of a live lane that becomes due meanwhile.
        if let Some(wait) = allowance.try_acquire(priority) {
            poller.activity(task).wait = Wait::Round;
            return poller.postpone(task, wait, Now::read());
        }
        Ok(Duration::ZERO)
    } else {
        allowance.acquire(priority, stop)
    };
    let mut reader = poller.reader(task);
    let answer = granted.and_then(|waited| {
        let mut activity = poller.activity(task);
        activity.limiter_wait += waited;
        activity.wait = Wait::Answer;
        drop(activity);
        let answer = transport.send(request, stop, &mut |bytes| {
            reader.feed(bytes)?;
            if reader.is_rich() && poller.takes_parts(task) {
                hand_over(poller, around, task, reader.take())?;
            }
            Ok(())
        });
        note_answer(&mut poller.activity(task), &answer);
        answer
    });
    poller.activity(task).wait = Wait::Round;
    let result = answer.and_then(|answer| Ok((answer, reader.finish()?)));
    if let Some(wait) = poller.fetched(task, result, Now::read(), fastrand::f64()) {
        allowance.hold(wait);
    }
}

/// Queues what was read of an answer that still comes. While there is no room, it is not read on, and
/// the network makes the vendor wait.
fn hand_over(
    poller: &mut Poller,
    around: &Surroundings,
    task: usize,
    records: Records,
) -> Result<()> {
    let mut batches = poller.partial(task, records, Now::read()).into_iter();
    while let Some(batch) = batches.next() {
        if let Err(batch) = enqueue(poller, around, task, batch) {
            poller.keep_unseen(task, iter::once(batch).chain(batches));
            return Err(Error::stopped());
        }
    }
    poller.activity(task).wait = Wait::Answer;
    Ok(())
}

/// Puts a batch into the queue once there is room for it; gives it back only if it is told to stop.
#[expect(clippy::result_large_err, reason = "the batch itself comes back, once per stop")]
fn enqueue(poller: &Poller, around: &Surroundings, task: usize, batch: Batch) -> Result<(), Batch> {
    if poller.has_intents(task) && !intend(&batch, around) {
        return Err(batch);
    }
    poller.activity(task).wait = Wait::Room;
    around.queue.push(batch, &around.stop)
}

/// Counts a request, unless it was broken off by a stop.
fn note_answer(activity: &mut Activity, answer: &Result<Response>) {
    match answer {
        Ok(answer) => activity.requested(Some(answer.status)),
        Err(error) if error.kind() == ErrorKind::Stopped => {}
        Err(_) => activity.requested(None),
    }
}

/// Has the committer save what a batch may tell the receiver; false if the instance stops.
fn intend(batch: &Batch, around: &Surroundings) -> bool {
    let (done, saved) = mpsc::channel();
    let ids = batch.ids.clone();
    ask(Message::Intend { stream: batch.stream, ids, done }, &saved, around).is_some()
}

/// Asks the committer what was delivered of a window; `None` if the instance stops.
fn recall(
    stream: usize,
    lane: Lane,
    span: Window,
    around: &Surroundings,
) -> Option<Result<Recalled>> {
    let (done, answer) = mpsc::channel();
    ask(Message::Recall { stream, lane, span, done }, &answer, around)
}

/// Sends the committer a message and waits for its answer; `None` if the instance stops.
fn ask<T>(message: Message, answer: &Receiver<T>, around: &Surroundings) -> Option<T> {
    around.committer.send(message).ok()?;
    loop {
        match answer.recv_timeout(STOP_CHECK_INTERVAL) {
            Ok(answer) => return Some(answer),
            Err(RecvTimeoutError::Timeout) if !around.stop.is_raised() => {}
            Err(_) => return None,
        }
    }
}
