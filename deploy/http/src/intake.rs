//! Takes in the bodies of requests, for routes that anybody may reach. A body is awaited outside the slots of work, so that a
//! client that sends slowly keeps nobody from being answered. What is awaited is bounded: one body more displaces the one that
//! has been awaited longest, so slow clients push each other out, and a client that sends at once is never the slowest.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

/// The bounds of an [`Intake`].
#[derive(Clone, Copy, Debug)]
pub struct IntakeBounds {
    /// Requests that are worked on at once; one more is refused.
    pub requests_at_once: usize,
    /// Bodies that are awaited at once; one more displaces the one that has been awaited longest.
    pub bodies_at_once: usize,
    /// The time for a body from the first to its last byte.
    pub body_timeout: Duration,
}

/// Takes in bodies within its bounds.
pub struct Intake {
    awaited: Arc<Mutex<Awaited>>,
    slots: Semaphore,
    body_timeout: Duration,
}

/// A request whose body is here. Dropping it makes room for another one.
pub struct Received<'a> {
    pub body: Bytes,
    _slot: SemaphorePermit<'a>,
}

/// Why a body was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReceived {
    /// It is longer than the route allows.
    TooLarge,
    /// It did not come in time.
    Late,
    /// So many bodies are awaited that this one had to make room, as it had been awaited longest.
    Displaced,
    /// It is here, but as many requests as are allowed are worked on.
    Busy,
    /// The client has gone, or what it sends is no body; nobody reads the answer.
    Broken,
}

impl Intake {
    pub fn new(bounds: IntakeBounds) -> Intake {
        Intake {
            awaited: Arc::new(Mutex::new(Awaited::new(bounds.bodies_at_once))),
            slots: Semaphore::new(bounds.requests_at_once.min(Semaphore::MAX_PERMITS)),
            body_timeout: bounds.body_timeout,
        }
    }

    /// Reads a body of at most `bytes_max`, and takes a slot of work for it once it is here.
    pub async fn receive(&self, body: Body, bytes_max: usize) -> Result<Received<'_>, NotReceived> {
        // Announced: nothing of it is read.
        if body.size_hint().lower() > bytes_max as u64 {
            return Err(NotReceived::TooLarge);
        }
        let mut reading = pin!(read(body, bytes_max));
        // A body that is here already awaits nothing.
        let first = poll_fn(|context| match reading.as_mut().poll(context) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            Poll::Pending => Poll::Ready(None),
        });
        let body = match first.await {
            Some(read) => read?,
            None => self.wait(reading).await?,
        };
        let slot = self.slots.try_acquire().map_err(|_| NotReceived::Busy)?;
        Ok(Received { body, _slot: slot })
    }

    async fn wait(
        &self,
        reading: Pin<&mut impl Future<Output = Result<Bytes, NotReceived>>>,
    ) -> Result<Bytes, NotReceived> {
        let (number, displaced) = lock(&self.awaited).enter();
        let _place = Place { number, awaited: &self.awaited };
        // Losing is harmless: what was read of a body that is given up is not used.
        tokio::select! {
            biased;
            read = reading => read,
            _ = displaced => Err(NotReceived::Displaced),
            () = tokio::time::sleep(self.body_timeout) => Err(NotReceived::Late),
        }
    }
}

async fn read(body: Body, bytes_max: usize) -> Result<Bytes, NotReceived> {
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut all = Vec::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        // Trailers say nothing here.
        let Ok(data) = frame.map_err(|_| NotReceived::Broken)?.into_data() else { continue };
        if first.len() + all.len() + data.len() > bytes_max {
            return Err(NotReceived::TooLarge);
        }
        if first.is_empty() && all.is_empty() {
            // Most bodies are one frame, which need not be copied.
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.into() })
}

/// The bodies that are awaited, from the one that has been awaited longest.
struct Awaited {
    bodies_max: usize,
    next: u64,
    /// Dropping the sender tells its body to make room.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Awaited {
    fn new(bodies_max: usize) -> Awaited {
        assert!(bodies_max > 0, "an intake that awaits no body would refuse every request");
        Awaited { bodies_max, next: 0, waiting: BTreeMap::new() }
    }

    /// Enters a body, and displaces another one if there are too many. What is returned ends when this one is displaced.
    fn enter(&mut self) -> (u64, oneshot::Receiver<()>) {
        if self.waiting.len() >= self.bodies_max {
            self.waiting.pop_first();
        }
        let (sender, displaced) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, sender);
        (number, displaced)
    }
}

/// The place of a body among those that are awaited.
struct Place<'a> {
    number: u64,
    awaited: &'a Mutex<Awaited>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(self.awaited).waiting.remove(&self.number);
    }
}

fn lock(awaited: &Mutex<Awaited>) -> MutexGuard<'_, Awaited> {
    // Each change of the map is one step, so a panic under the lock leaves it valid.
    awaited.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::Context;

    use tokio::sync::mpsc;

    use super::*;

    /// A body whose frames come when the test sends them.
    struct Slow(mpsc::UnboundedReceiver<Bytes>);

    impl HttpBody for Slow {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(http_body::Frame::data(bytes))))
        }
    }

    fn slow() -> (mpsc::UnboundedSender<Bytes>, Body) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Body::new(Slow(receiver)))
    }

    fn intake(requests_at_once: usize, bodies_at_once: usize, body_timeout: Duration) -> Arc<Intake> {
        Arc::new(Intake::new(IntakeBounds { requests_at_once, bodies_at_once, body_timeout }))
    }

    const LONG: Duration = Duration::from_secs(3_600);

    async fn outcome(intake: &Intake, body: Body) -> Result<Bytes, NotReceived> {
        intake.receive(body, 10).await.map(|received| received.body)
    }

    #[tokio::test]
    async fn a_body_is_taken_in_up_to_its_bound_whether_it_is_announced_or_not() {
        let intake = intake(1, 1, LONG);
        assert_eq!(outcome(&intake, Body::from("0123456789")).await.unwrap(), "0123456789");
        assert_eq!(outcome(&intake, Body::from("0123456789x")).await, Err(NotReceived::TooLarge));
        assert_eq!(outcome(&intake, Body::empty()).await.unwrap(), "");
        for (frames, expected) in [
            (&["0123", "", "456789"][..], Ok(Bytes::from("0123456789"))),
            (&["0123", "456789", "x"], Err(NotReceived::TooLarge)),
        ] {
            let (sender, body) = slow();
            for frame in frames {
                sender.send(Bytes::from_static(frame.as_bytes())).unwrap();
            }
            drop(sender);
            assert_eq!(outcome(&intake, body).await, expected, "{frames:?}");
        }
    }

    #[tokio::test]
    async fn slow_bodies_displace_each_other_and_one_that_is_here_displaces_nobody() {
        let intake = intake(1, 2, LONG);
        let wait = |body| {
            let intake = intake.clone();
            tokio::spawn(async move { outcome(&intake, body).await })
        };
        let (first, one) = slow();
        let (second, two) = slow();
        let (_third, three) = slow();
        let one = wait(one);
        tokio::task::yield_now().await;
        let two = wait(two);
        tokio::task::yield_now().await;
        assert_eq!(outcome(&intake, Body::from("here")).await.unwrap(), "here");
        assert!(!one.is_finished() && !two.is_finished());
        let three = wait(three);
        assert_eq!(one.await.unwrap(), Err(NotReceived::Displaced));
        assert!(first.send(Bytes::new()).is_err(), "the body that made room is not read any more");
        // The one that stayed is read to its end, and makes room.
        second.send(Bytes::from_static(b"late")).unwrap();
        drop(second);
        assert_eq!(two.await.unwrap().unwrap(), "late");
        assert_eq!(lock(&intake.awaited).waiting.len(), 1);
        three.abort();
        assert!(three.await.unwrap_err().is_cancelled());
        assert_eq!(lock(&intake.awaited).waiting.len(), 0);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_in_time_is_late() {
        let intake = intake(1, 1, Duration::from_millis(20));
        let (sender, body) = slow();
        sender.send(Bytes::from_static(b"x")).unwrap();
        assert_eq!(outcome(&intake, body).await, Err(NotReceived::Late));
        drop(sender);
    }

    #[tokio::test]
    async fn a_slot_is_held_by_work_and_not_by_a_body_that_is_awaited() {
        let intake = intake(1, 8, LONG);
        let (_sender, body) = slow();
        let waiting = tokio::spawn({
            let intake = intake.clone();
            async move { outcome(&intake, body).await }
        });
        tokio::task::yield_now().await;
        let worked_on = intake.receive(Body::from("a"), 10).await.ok().unwrap();
        assert_eq!(outcome(&intake, Body::from("b")).await, Err(NotReceived::Busy));
        drop(worked_on);
        assert_eq!(outcome(&intake, Body::from("b")).await.unwrap(), "b");
        waiting.abort();
    }
}
