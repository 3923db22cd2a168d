//! What a receiver's link carries, and who of its videos gets how much of it: feedback goes to the
//! estimator, its word to the allocator and the pacer, and the allocator's word to the subscriptions.

use std::time::{Duration, Instant};

use super::allocator::{Budget, Demand, Patience, share};
use super::api::{MediaKind, SessionEvent, Source};
use super::context::Context;
use super::keyframes::Need;
use super::ladder::{RUNGS, Rung, Rungs, Target};
use super::link::{Class, Link, Tally};
use super::room::Room;
use super::subscription::Subscription;
use super::track::Track;

/// Rates are shared out anew at least so often.
const SHARE: Duration = Duration::from_millis(100);
/// A receiver that has not reported on what it gets for so long never will.
const UNHEARD: Duration = Duration::from_secs(1);
/// For so long the first video is sent before it is known to fit.
const GRACE: Duration = Duration::from_secs(2);
/// After a queue was given up, the budget is less for so long.
const SPARING: Duration = Duration::from_millis(600);
/// A picture that no longer fits stays for so long while no queue grows: the estimator may only be
/// trying whether less is lost of less.
const DOUBT: Duration = Duration::from_millis(2_500);
/// The largest packet of padding: what libwebrtc sends.
const PADDING: usize = 224;

/// How one participant is sent to.
#[derive(Debug, Default)]
pub(super) struct Downlink {
    /// Videos share its link's estimate; `None`: nothing tells how much there is.
    pub(super) limit_bps: Option<u64>,
    /// What is allocated to video.
    pub(super) allocated_bps: u64,
    began: Option<Instant>,
    /// The receiver has told something to estimate from.
    told: bool,
    patience: Patience,
    sparing_until: Option<Instant>,
    /// Since when a picture that is being sent does not fit.
    short_since: Option<Instant>,
    usage: Usage,
    shared_at: Option<Instant>,
}

/// What a link was used for lately.
#[derive(Debug, Default)]
struct Usage {
    before: Tally,
    at: Option<Instant>,
    /// Highest rate of audio lately.
    audio_bps: u64,
    /// Repair in proportion to video.
    repair_share: f64,
}

impl Usage {
    /// Reads what has been sent since the last time.
    fn read(&mut self, now: Instant, tally: Tally) {
        let Some(at) = self.at.replace(now) else {
            self.before = tally;
            return;
        };
        let passed = now.saturating_duration_since(at).as_micros() as u64;
        if passed < 50_000 {
            self.at = Some(at);
            return;
        }
        let before = std::mem::replace(&mut self.before, tally);
        let audio = tally.audio.saturating_sub(before.audio) * 8_000_000 / passed;
        // A talk spurt must not find its room taken.
        self.audio_bps =
            ((self.audio_bps * 3 + audio) / 4).max(self.audio_bps - self.audio_bps / 64);
        let video = tally.video.saturating_sub(before.video);
        let repair = tally.repair.saturating_sub(before.repair);
        if video > 0 {
            let fresh = (repair as f64 / video as f64).min(1.0);
            self.repair_share += (fresh - self.repair_share) * 0.1;
        }
    }
}

/// A video that takes part.
struct Claim {
    subscription: usize,
    demand: Demand,
    /// What each rung of the demand stands for.
    targets: [Target; RUNGS],
}

impl Claim {
    /// How many of its rungs show the smallest picture.
    fn lowest(&self) -> usize {
        let size = |target: &Target| (target.stream, target.spatial);
        let first = self.targets.first().map(size);
        self.targets.iter().take_while(|target| Some(size(target)) == first).count()
    }
}

/// What becomes of a video.
struct Ruling {
    subscription: usize,
    target: Option<Target>,
    paused: bool,
}

impl Room {
    /// Transport-wide feedback of a receiver.
    pub(super) fn arrivals_came(&mut self, ctx: &mut Context<'_>, key: usize, packet: &[u8]) {
        let Some(person) = self.participants.get_mut(key) else { return };
        let Some(link) = &mut person.links.down else { return };
        let Some(estimator) = &mut link.estimator else { return };
        estimator.feedback(ctx.now, packet);
        let (target, used) = (estimator.target_bps(), person.downlink.allocated_bps);
        person.downlink.told |= estimator.is_informed();
        link.set_rates(ctx.now, used, person.downlink.told && !person.downlink.is_fresh(ctx.now));
        let recent = person.downlink.shared_at.map(|at| ctx.now.saturating_duration_since(at));
        if target < used && recent.is_none_or(|recent| recent > SHARE / 2) {
            self.share_link(ctx, key);
        }
        self.pace(ctx, key);
    }

    /// A receiver's own estimate.
    pub(super) fn estimate_came(&mut self, ctx: &mut Context<'_>, key: usize, bps: u64) {
        let Some(person) = self.participants.get_mut(key) else { return };
        let estimator = person.links.down.as_mut().and_then(|link| link.estimator.as_mut());
        if let Some(estimator) = estimator {
            estimator.remb(ctx.now, bps);
            person.downlink.told = true;
        }
    }

    /// Does what is due on all links.
    pub(super) fn links_due(&mut self, ctx: &mut Context<'_>) {
        let due = self.participants.iter().filter(|(_, other)| {
            let due = other.links.down.as_ref().and_then(Link::due);
            due.is_some_and(|due| due <= ctx.now)
        });
        let due: Vec<usize> = due.map(|(key, _)| key).collect();
        for key in due {
            self.pace(ctx, key);
        }
    }

    /// Sends what waits for its turn and the probes of one link, and takes back what waited too long.
    pub(super) fn pace(&mut self, ctx: &mut Context<'_>, key: usize) {
        let Some(person) = self.participants.get_mut(key) else { return };
        let Some(link) = &mut person.links.down else { return };
        link.pace(ctx.now, ctx.departures, ctx.counters);
        if link.begin_probe(ctx.now) {
            ctx.counters.probes += 1;
        }
        let padded = person.subscriptions.iter_mut().find(|(_, sub)| sub.takes_padding());
        if let Some((_, sub)) = padded {
            while let Some(left) = link.pacer.padding(ctx.now) {
                let len = left.clamp(1, PADDING) as u8;
                let write = |out: &mut Vec<u8>| sub.write_padding(out, len);
                let (departures, counters) = (&mut *ctx.departures, &mut *ctx.counters);
                if link.send_rtp(ctx.now, Class::Padding, departures, counters, write).is_none() {
                    link.pacer.give_up_probe();
                }
            }
        } else {
            link.pacer.give_up_probe();
        }
        let given_up = link.take_given_up();
        for ssrc in &given_up {
            let at = person.sending.get(ssrc).copied();
            if let Some(sub) = at.and_then(|at| person.subscriptions.get_mut(at)) {
                sub.pause();
            }
        }
        if let Some(due) = link.due() {
            self.wake(due);
        }
        if !given_up.is_empty() {
            if let Some(person) = self.participants.get_mut(key) {
                person.downlink.sparing_until = Some(ctx.now + SPARING);
            }
            self.share_link(ctx, key);
        }
    }

    /// Shares out everyone's link, when it is time.
    pub(super) fn share_links(&mut self, ctx: &mut Context<'_>) {
        if ctx.now < self.shares_at {
            return;
        }
        self.shares_at = ctx.now + SHARE;
        let everyone: Vec<usize> = self.participants.iter().map(|(key, _)| key).collect();
        let mut known = Vec::new();
        for (at, track) in self.tracks.iter().filter(|(_, track)| is_video(track)) {
            if known.len() <= at {
                known.resize(at + 1, None);
            }
            if let Some(place) = known.get_mut(at) {
                *place = Some(track.rungs(ctx.now));
            }
        }
        for key in everyone {
            self.share_among(ctx, key, &known);
        }
    }

    /// Shares out one participant's link.
    pub(super) fn share_link(&mut self, ctx: &mut Context<'_>, key: usize) {
        self.share_among(ctx, key, &[]);
    }

    fn share_among(&mut self, ctx: &mut Context<'_>, key: usize, known: &[Option<Rungs>]) {
        let now = ctx.now;
        let Some(person) = self.participants.get_mut(key) else { return };
        if !person.subscriptions.iter().any(|(_, sub)| sub.kind == MediaKind::Video) {
            return;
        }
        if let Some(link) = &mut person.links.down {
            link.paddable = person.subscriptions.iter().any(|(_, sub)| sub.takes_padding());
        }
        person.downlink.look(now, person.links.down.as_ref());
        let mut claims = Vec::new();
        let mut rulings = Vec::new();
        let limit = person.downlink.limit_bps;
        if let Some(link) = person.links.down.as_mut().filter(|_| limit.is_none()) {
            link.pacer.set_rates(now, 0, 0);
        }
        for (at, sub) in &person.subscriptions {
            let Some(track) = self.tracks.get(sub.track).filter(|track| is_video(track)) else {
                continue;
            };
            let ceiling = track.ceiling(&sub.wish, now);
            match ceiling.filter(|_| limit.is_some() && sub.is_flowing()) {
                Some(ceiling) => {
                    let rungs = known.get(sub.track).copied().flatten();
                    let rungs = rungs.unwrap_or_else(|| track.rungs(now));
                    claims.push((sub.order, claim(at, sub, track, &rungs, ceiling)));
                }
                None => {
                    // The first packet may come any moment, and is not to be missed.
                    let only = (track.layers.len() == 1).then_some(Target::whole(0));
                    let target = ceiling.or(sub.target).or(only);
                    rulings.push(Ruling { subscription: at, target, paused: false });
                }
            }
        }
        claims.sort_by_key(|(order, _)| *order);
        let mut claims: Vec<Claim> = claims.into_iter().map(|(_, claim)| claim).collect();
        if let Some(limit) = limit {
            let keeps = !person.allow_pause;
            rulings.extend(person.downlink.rule(
                now,
                limit,
                keeps,
                person.links.down.as_mut(),
                &mut claims,
            ));
        }
        self.settle(ctx, key, &rulings);
    }

    /// Puts rulings into effect.
    fn settle(&mut self, ctx: &mut Context<'_>, key: usize, rulings: &[Ruling]) {
        let Some(person) = self.participants.get_mut(key) else { return };
        let reached = person.links.down.as_ref().is_some_and(|link| link.peer.path().is_some());
        let session = person.session;
        let mut asks = Vec::new();
        let mut told = Vec::new();
        for ruling in rulings {
            let Some(sub) = person.subscriptions.get_mut(ruling.subscription) else { continue };
            sub.target = ruling.target;
            if std::mem::replace(&mut sub.paused_by_us, ruling.paused) != ruling.paused {
                told.push((sub.track, sub.sid.clone(), ruling.paused));
            }
            if ruling.target.is_none() && sub.current.is_some() {
                sub.pause();
            }
            let stream = sub.wanted().filter(|_| reached && sub.is_flowing());
            if let Some(stream) = stream.filter(|_| sub.stream() != sub.wanted() || sub.waits()) {
                asks.push((sub.track, stream));
            }
        }
        for (track, sid, paused) in told {
            let owner = self.tracks.get(track).and_then(|track| self.participants.get(track.owner));
            let Some(owner) = owner else { continue };
            let participant = owner.sid.clone();
            ctx.tell(session, SessionEvent::StreamState { participant, track: sid, paused });
        }
        for (track, stream) in asks {
            self.ask_keyframe(ctx, track, stream, Need::Start);
        }
    }
}

impl Downlink {
    /// Looks at what the link tells.
    fn look(&mut self, now: Instant, link: Option<&Link>) {
        let link = link.filter(|link| link.peer.path().is_some());
        let Some((link, estimator)) =
            link.and_then(|link| Some((link.tally, link.estimator.as_ref()?)))
        else {
            self.limit_bps = None;
            return;
        };
        self.usage.read(now, link);
        self.told |= estimator.is_informed();
        let began = *self.began.get_or_insert(now);
        let heard = self.told || now.saturating_duration_since(began) < UNHEARD;
        self.limit_bps = heard.then(|| estimator.target_bps());
    }

    /// Rules about all videos that share the estimate.
    fn rule(
        &mut self,
        now: Instant,
        limit: u64,
        keeps: bool,
        link: Option<&mut Link>,
        claims: &mut [Claim],
    ) -> Vec<Ruling> {
        let estimator = link.as_ref().and_then(|link| link.estimator.as_ref());
        let congested = estimator.is_some_and(|estimator| estimator.is_overusing());
        let fresh = self.is_fresh(now);
        let whole: u64 = claims.iter().map(|claim| claim.demand.whole()).sum();
        for (at, claim) in claims.iter_mut().enumerate() {
            claim.demand.kept = keeps || at == 0 && fresh && !congested;
            if fresh && !self.told {
                // The first picture is there soonest when it is small; the first feedback, a round
                // trip later, tells whether more fits.
                let lowest = claim.lowest();
                claim.demand.shorten(lowest);
            }
        }
        let mut video = self.video_bps(limit);
        if self.sparing_until.is_some_and(|until| until > now) {
            video = video.min(self.allocated_bps * 85 / 100);
        }
        let budget = Budget {
            bps: video,
            may_rise: !congested && self.patience.may_rise(now, video),
            may_resume: !congested && self.patience.may_resume(now, video),
        };
        let mut demands: Vec<Demand> = claims.iter().map(|claim| claim.demand).collect();
        let mut rungs = Vec::new();
        share(budget, &demands, &mut rungs);
        if self.is_doubtful(now, congested, &demands, &rungs) {
            for demand in &mut demands {
                demand.kept |= demand.current.is_some();
            }
            share(budget, &demands, &mut rungs);
        }
        let mut rulings = Vec::new();
        let (mut rose, mut fell, mut sum) = (false, false, 0);
        for (claim, rung) in claims.iter().zip(&rungs) {
            let target = rung.and_then(|rung| claim.targets.get(rung)).copied();
            let subscription = claim.subscription;
            rulings.push(Ruling { subscription, target, paused: rung.is_none() });
            rose |= !claim.demand.fresh && *rung > claim.demand.current;
            fell |= *rung < claim.demand.current;
            sum += rung.and_then(|rung| claim.demand.cost(rung)).unwrap_or(0);
        }
        if fell {
            self.patience.fell(now, video);
        } else if rose {
            self.patience.rose(now);
        }
        self.allocated_bps = sum;
        self.shared_at = Some(now);
        if let Some(link) = link {
            // Steps up need room to spare, so that is what probes must find.
            let (needed, most) = (self.link_bps(sum), self.link_bps(whole * 12 / 10));
            if let Some(estimator) = &mut link.estimator {
                estimator.needs(now, needed, most);
            }
            link.set_rates(now, needed, self.told && !fresh);
        }
        rulings
    }

    /// A picture would have to go, and it is not sure that it must.
    fn is_doubtful(
        &mut self,
        now: Instant,
        congested: bool,
        demands: &[Demand],
        rungs: &[Option<usize>],
    ) -> bool {
        let mut ends = demands.iter().zip(rungs);
        if !ends.any(|(demand, rung)| demand.current.is_some() && rung.is_none()) {
            self.short_since = None;
            return false;
        }
        let since = *self.short_since.get_or_insert(now);
        !congested && now.saturating_duration_since(since) < DOUBT
    }

    /// Sending has only begun, and nothing is known for sure.
    fn is_fresh(&self, now: Instant) -> bool {
        self.began.is_some_and(|began| now.saturating_duration_since(began) < GRACE)
    }

    /// What of the whole is left for video.
    fn video_bps(&self, limit: u64) -> u64 {
        let left = limit.saturating_sub(self.usage.audio_bps);
        (left as f64 / (1.0 + self.usage.repair_share)) as u64
    }

    /// What video takes of the whole, with all that goes beside it.
    fn link_bps(&self, video: u64) -> u64 {
        self.usage.audio_bps + (video as f64 * (1.0 + self.usage.repair_share)) as u64
    }
}

/// What a video could get, of what flows and up to its ceiling.
fn claim(
    subscription: usize,
    sub: &Subscription,
    track: &Track,
    rungs: &Rungs,
    ceiling: Target,
) -> Claim {
    let below = |rung: &&Rung| {
        let Target { stream, spatial, temporal } = rung.target;
        stream <= ceiling.stream && spatial <= ceiling.spatial && temporal <= ceiling.temporal
    };
    let rungs = rungs.as_slice();
    // Pictures of a higher layer at a quarter of their rate are no gain.
    let smooth = |rung: &&Rung| {
        let same = rungs.iter().filter(|other| other.target.stream == rung.target.stream);
        let best = same.map(|other| other.fps).max().unwrap_or(0);
        rung.target.stream == 0 && rung.target.spatial == 0
            || u16::from(rung.fps) * 2 + 2 >= u16::from(best)
    };
    let screen = track.info.announced.source == Source::Screen;
    let demand = Demand::new(screen, sub.target.is_none() && !sub.paused_by_us);
    let mut claim = Claim { subscription, demand, targets: [ceiling; RUNGS] };
    let chosen = || rungs.iter().filter(below).filter(smooth);
    for (at, rung) in chosen().enumerate() {
        let cost =
            if rung.bps == 0 && at > 0 && !track.info.muted { nominal(rung) } else { rung.bps };
        let place = claim.demand.push(cost + cost / 32);
        let next = chosen().nth(at + 1);
        let target = match next {
            None => ceiling,
            // All that a stream has, also what it is about to have.
            Some(next) if next.target.stream != rung.target.stream => Target {
                spatial: ceiling.spatial,
                temporal: ceiling.temporal,
                stream: rung.target.stream,
            },
            Some(_) => rung.target,
        };
        if let Some(slot) = claim.targets.get_mut(place) {
            *slot = target;
        }
        if sub.target.is_some_and(|before| before >= target) {
            claim.demand.current = Some(place);
        }
    }
    if claim.demand.whole() == 0 && chosen().next().is_none() {
        // Nothing is known: what comes first shall pass.
        claim.demand.push(0);
    }
    claim
}

/// What a layer that has just begun will cost: usual cameras take a sixteenth of a bit for a pixel.
fn nominal(rung: &Rung) -> u64 {
    let height = u64::from(rung.height.min(4_320));
    height * height * 16 / 9 * 30 / 16
}

fn is_video(track: &Track) -> bool {
    track.kind() == MediaKind::Video
}
