//! The writer of the chat: one task that stores what came while it stored what came before.
//!
//! Each commit makes the database wait for its disk, so messages share them: whatever is in the
//! queue goes into one transaction, and is told, in that order, once it is committed. Under load
//! the transactions grow instead of the waiting. Nothing is told or acknowledged before.
//!
//! Events that belong to no change of a consultation (a token was given) come along in them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{ChatError, Posting};
use crate::consultation::Consultation;
use crate::control::{ChangeError, Control};
use crate::events::Event;
use crate::frames::{Notice, ServerFrame};
use crate::live::LiveSession;
use crate::store::{Marked, MessageRow, NewMark, NewMessage, Posted, outbox};
use crate::view;

/// How much may wait for the writer; more is refused.
const MAX_QUEUED: usize = 4_096;
/// How much shares one transaction.
const MAX_BATCH: usize = 256;
/// How many lines and events of the server may wait for a database that is away.
const MAX_LATER: usize = 1_000;
/// How long they wait before the next attempt.
const LATER: Duration = Duration::from_secs(1);

/// Something to store.
pub(crate) enum Job {
    /// A message. Without a reply it is a line of the server and is tried until it is stored.
    Post {
        live: Arc<LiveSession>,
        consultation: Arc<Consultation>,
        message: Box<NewMessage>,
        reply: Option<oneshot::Sender<Result<Posting, ChatError>>>,
    },
    /// How far somebody has come.
    Mark {
        live: Arc<LiveSession>,
        consultation: Arc<Consultation>,
        mark: NewMark,
        reply: oneshot::Sender<Result<(), ChatError>>,
    },
    /// An event that belongs to no change, and that nobody waits for. Tried until it is stored.
    Tell(Box<Event>),
    /// Says when everything before it is done.
    Flush(oneshot::Sender<()>),
}

/// What became of a job in a committed transaction.
enum Done {
    Posted(Box<Posted>),
    Marked(Marked),
    Told,
    Nothing,
}

/// The way to the writer.
pub(crate) struct Writer {
    queue: mpsc::Sender<Job>,
    /// The other end, until the task begins.
    jobs: Mutex<Option<mpsc::Receiver<Job>>>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        let (queue, jobs) = mpsc::channel(MAX_QUEUED);
        Self { queue, jobs: Mutex::new(Some(jobs)) }
    }

    /// Begins the task, once.
    pub(crate) fn begin(&self, control: &Arc<Control>) {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(jobs) = jobs {
            tokio::spawn(run(Arc::downgrade(control), jobs));
        }
    }

    /// Puts something into the queue; nobody waits for room in it.
    pub(crate) fn give(&self, job: Job) -> Result<(), ChatError> {
        self.queue.try_send(job).map_err(|_| ChatError::Change(ChangeError::Busy))
    }

    /// Waits until everything that was given before is done.
    pub(crate) async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.send(Job::Flush(done)).await.is_ok() {
            // Gone without an answer: it is at its end, too.
            let _ = wait.await;
        }
    }
}

/// Stores and tells until nobody is left who could give it anything.
async fn run(control: Weak<Control>, mut jobs: mpsc::Receiver<Job>) {
    let mut later: VecDeque<Job> = VecDeque::new();
    let mut batch = Vec::with_capacity(MAX_BATCH);
    loop {
        let came = if later.is_empty() {
            jobs.recv_many(&mut batch, MAX_BATCH).await
        } else {
            let wait = tokio::time::timeout(LATER, jobs.recv_many(&mut batch, MAX_BATCH));
            wait.await.unwrap_or(later.len())
        };
        let Some(control) = control.upgrade() else { return };
        if came == 0 {
            return;
        }
        let room = MAX_BATCH.saturating_sub(batch.len()).min(later.len());
        let jobs: Vec<Job> = later.drain(..room).chain(batch.drain(..)).collect();
        control.write(jobs, &mut later).await;
    }
}

impl Job {
    fn order(&self) -> uuid::Uuid {
        match self {
            Self::Post { message, .. } => message.session_id,
            Self::Mark { mark, .. } => mark.session_id,
            Self::Tell(event) => event.session_id().unwrap_or_default(),
            Self::Flush(_) => uuid::Uuid::max(),
        }
    }
}

impl Control {
    /// Stores all of it in one transaction; if the database refuses that, each alone.
    async fn write(&self, mut jobs: Vec<Job>, later: &mut VecDeque<Job>) {
        // Two processes that lock the same consultations take them in the same order.
        jobs.sort_by_key(Job::order);
        match self.within(self.commit(&jobs)).await {
            Ok(done) => {
                for (job, done) in jobs.into_iter().zip(done) {
                    self.settle(job, done).await;
                }
            }
            Err(ChangeError::Database(sqlx::Error::Database(_))) if jobs.len() > 1 => {
                for job in jobs {
                    match self.within(self.commit(std::slice::from_ref(&job))).await {
                        Ok(mut done) => {
                            self.settle(job, done.pop().unwrap_or(Done::Nothing)).await;
                        }
                        Err(_) => give_up(job, later),
                    }
                }
            }
            Err(_) => {
                for job in jobs {
                    give_up(job, later);
                }
            }
        }
    }

    async fn commit(&self, jobs: &[Job]) -> Result<Vec<Done>, sqlx::Error> {
        let mut done = Vec::with_capacity(jobs.len());
        if jobs.iter().all(|job| matches!(job, Job::Flush(_))) {
            return Ok(jobs.iter().map(|_| Done::Nothing).collect());
        }
        let mut tx = self.db.begin().await?;
        for job in jobs {
            done.push(match job {
                Job::Post { message, .. } => Done::Posted(Box::new(tx.post(message).await?)),
                Job::Mark { mark, .. } => Done::Marked(tx.mark(mark).await?),
                Job::Tell(event) => {
                    outbox::append(&mut tx, std::slice::from_ref(&**event), &self.sinks).await?;
                    Done::Told
                }
                Job::Flush(_) => Done::Nothing,
            });
        }
        tx.commit().await?;
        Ok(done)
    }

    /// Tells what was stored, and answers whoever asked for it.
    async fn settle(&self, job: Job, done: Done) {
        match (job, done) {
            (Job::Post { live, consultation, message, reply }, Done::Posted(posted)) => {
                let result = self.tell_posted(&live, consultation, *posted).await;
                if let Some(reply) = reply {
                    // The asker may have gone; the message is there all the same.
                    let _ = reply.send(result);
                }
                drop(live);
                self.live.let_go(message.session_id);
            }
            (Job::Mark { live, consultation, mark, reply }, Done::Marked(marked)) => {
                let result = self.tell_marked(&live, &consultation, &mark, marked).await;
                let _ = reply.send(result);
                drop(live);
                self.live.let_go(mark.session_id);
            }
            (Job::Tell(_), Done::Told) => self.outbox_rang.notify_waiters(),
            (Job::Flush(done), _) => {
                let _ = done.send(());
            }
            (
                Job::Post { .. } | Job::Mark { .. } | Job::Tell(_),
                Done::Posted(_) | Done::Marked(_) | Done::Told | Done::Nothing,
            ) => {}
        }
    }

    async fn tell_posted(
        &self,
        live: &LiveSession,
        consultation: Arc<Consultation>,
        posted: Posted,
    ) -> Result<Posting, ChatError> {
        let row = match posted {
            Posted::New(row) => row,
            Posted::Known(row) => return Ok(Posting::Repeated(Box::new(view::message(row)))),
            Posted::NoSession => return Err(ChatError::Change(ChangeError::NotFound)),
        };
        // Whoever was sent back meanwhile hears no more.
        let consultation = live.consultation().unwrap_or(consultation);
        let sequence = row.sequence;
        let system = row.system_event.is_some();
        if !system {
            self.counters.chat_messages.add();
        }
        let absent = if system { Vec::new() } else { absent(live, &consultation, &row) };
        let notice = Notice::Message { message_id: row.id, sender_type: row.sender_type.clone() };
        let view = view::message(row);
        let frame = ServerFrame::ChatMessage(&view).text();
        {
            let _telling = live.telling.lock().await;
            live.tell_message(&consultation, Some(sequence), &frame);
        }
        for user_id in absent {
            self.live.notify(&consultation.clinic, &user_id, || {
                let notice = notice.clone();
                ServerFrame::Notification { session_id: consultation.id, notice }.text()
            });
        }
        Ok(Posting::Delivered(Box::new(view)))
    }

    async fn tell_marked(
        &self,
        live: &LiveSession,
        consultation: &Arc<Consultation>,
        mark: &NewMark,
        marked: Marked,
    ) -> Result<(), ChatError> {
        let sequence = match marked {
            Marked::Moved(sequence) => sequence,
            Marked::Known => return Ok(()),
            Marked::NoMessage => return Err(ChatError::NoMessage),
        };
        let frame = ServerFrame::Receipt {
            session_id: mark.session_id,
            user_id: &mark.user_id,
            status: mark.receipt.as_str(),
            message_id: mark.message_id,
            sequence,
            timestamp: view::time(mark.at),
        };
        let consultation = live.consultation().unwrap_or_else(|| Arc::clone(consultation));
        let _telling = live.telling.lock().await;
        live.tell_message(&consultation, None, &frame.text());
        Ok(())
    }
}

/// Everyone who may read a message, did not write it and has no channel of its consultation open.
fn absent(live: &LiveSession, consultation: &Consultation, row: &MessageRow) -> Vec<String> {
    let online = live.online();
    let doctor = std::iter::once(&consultation.doctor_id);
    let admitted = consultation.people.iter().filter(|p| p.admitted).map(|p| &p.user_id);
    let mut absent: Vec<String> = doctor
        .chain(admitted)
        .filter(|user| **user != row.sender_id && !online.contains(user))
        .cloned()
        .collect();
    absent.sort();
    absent.dedup();
    absent
}

/// It was not stored: whoever asked is told, what the server itself wrote waits.
fn give_up(job: Job, later: &mut VecDeque<Job>) {
    let unavailable = || ChatError::Change(ChangeError::Busy);
    match job {
        Job::Post { reply: Some(reply), .. } => {
            let _ = reply.send(Err(unavailable()));
        }
        Job::Mark { reply, .. } => {
            let _ = reply.send(Err(unavailable()));
        }
        Job::Post { reply: None, .. } | Job::Tell(_) => {
            if later.len() < MAX_LATER {
                later.push_back(job);
            } else {
                tracing::warn!("too much of the server waits for the database; one thing is lost");
            }
        }
        Job::Flush(done) => {
            let _ = done.send(());
        }
    }
}
