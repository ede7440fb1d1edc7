//! Rounds: all act at once, then the owners pause and everything is examined.

use std::fs;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::commands::{self, LIMIT, Running};
use super::finale;
use super::journal::Journal;
use super::oracle::Oracle;
use super::player::Act;
use super::random::Random;
use super::servers::Servers;
use super::world::{NAMED, Owner, QUIET, World, is_owners};
use crate::support::{Mount, mounts_below};

/// The owners, acting.
pub struct Riot<'w> {
    pub world: &'w World,
    pub oracle: &'w Oracle<'w>,
    pub journal: &'w Journal,
    pub servers: Servers,
    random: Random,
    owners: Vec<Process>,
}

/// What happens in one round: commands for `all` sites, the quiet ones too; `watch`, `fuse`,
/// `hang`.
struct Mood {
    what: Vec<&'static str>,
    until: Instant,
}

impl Mood {
    fn has(&self, what: &str) -> bool {
        self.what.contains(&what)
    }
}

/// An owner's process and its descendants; all are killed at the end.
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) {
        killpg(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

impl<'w> Riot<'w> {
    pub fn new(world: &'w World, oracle: &'w Oracle<'w>, journal: &'w Journal) -> Self {
        let mut random = Random::new(world.options.seed);
        let mut owners = vec![];
        for owner in world.owners.iter().filter(|_| world.options.has("riot")) {
            let mut child = world.start(owner, Act::Riot, random.next(), Stdio::piped());
            journal.follow(owner.name, child.stdout.take().unwrap());
            journal.follow(owner.name, child.stderr.take().unwrap());
            owners.push(Process(child));
        }
        let riot = Self {
            world,
            oracle,
            journal,
            servers: Servers::default(),
            random,
            owners,
        };
        riot.all(Signal::SIGSTOP);
        riot
    }

    fn all(&self, signal: Signal) {
        for owner in &self.owners {
            owner.signal(signal);
        }
    }

    pub fn goes_on(mut self) {
        let end = Instant::now() + Duration::from_secs(self.world.options.seconds);
        let mut rounds = 0;
        while rounds < 3 || Instant::now() < end {
            self.round();
            rounds += 1;
        }
        self.owners.clear();
        self.servers.die();
        finale::all_goes_down(&self);
    }

    fn round(&mut self) {
        let options = &self.world.options;
        let random = &mut self.random;
        let what = ["all", "watch", "fuse", "hang"]
            .into_iter()
            .filter(|what| options.has(what) && random.once_in(2));
        let mood = Mood {
            what: what.collect(),
            until: Instant::now() + Duration::from_millis(1000 + random.below(1500)),
        };
        let text = format!("a round with {:?}", mood.what);
        self.journal.did("test", "round", &text, true);
        if !mood.has("fuse") {
            self.servers.die();
            finale::unmount(self.world, is_owners);
        }
        for owner in &self.world.owners {
            let share = 1 + random.below(4);
            self.world.some_lines(owner, random, share);
        }
        self.all(Signal::SIGCONT);
        let before = mounts_below(&self.world.sandbox.root(QUIET[0]));
        let watcher = mood
            .has("watch")
            .then(|| Running::start(self.world, &["watch"]));
        self.everybody_acts(&mood);
        if let Some(watcher) = watcher {
            self.watcher_ends(watcher);
        }
        self.all(Signal::SIGSTOP);
        self.servers.let_go();
        self.quiet_ones_are_fine(&mood, &before);
        self.oracle.looks_at_all();
        self.commands_tell_the_truth();
        self.oracle.looks_at_all();
        let owner = self.random.pick(&self.world.owners).clone();
        if self.random.once_in(2) {
            let _ = self.world.plays(&owner, Act::Repair); // something of his may be in its way
        }
    }

    fn everybody_acts(&mut self, mood: &Mood) {
        let (world, oracle, journal) = (self.world, self.oracle, self.journal);
        let [mut one, mut two, mut three] = [(); 3].map(|()| self.random.fork());
        let stuck = AtomicBool::new(false);
        let stuck = &stuck;
        thread::scope(|scope| {
            let threads = [
                scope.spawn(move || operator(world, journal, &mut one, mood, stuck)),
                scope.spawn(move || administrator(world, oracle, journal, &mut two, mood, stuck)),
                scope.spawn(move || host(world, journal, &mut three, mood)),
            ];
            while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
                if stuck.load(Ordering::Relaxed) {
                    self.servers.die();
                } else if Instant::now() < mood.until {
                    self.servers_act(mood);
                }
                oracle.looks_at_the_table();
                thread::sleep(Duration::from_millis(self.random.below(50)));
            }
        });
    }

    fn servers_act(&mut self, mood: &Mood) {
        if !mood.has("fuse") {
            return;
        }
        if self.random.once_in(8) {
            let nth = self.random.index(self.world.owners.len());
            let owner = &self.world.owners[nth];
            if let Some(process) = self.owners.get(nth) {
                process.signal(Signal::SIGSTOP);
            }
            self.servers
                .mount(self.world, self.journal, owner, &mut self.random);
            if let Some(process) = self.owners.get(nth) {
                process.signal(Signal::SIGCONT);
            }
        } else if self.random.once_in(4) {
            self.servers
                .turn(self.journal, &mut self.random, mood.has("hang"));
        }
    }

    fn watcher_ends(&mut self, mut watcher: Running) {
        if !watcher.runs() {
            self.journal
                .finds("b: the watcher ended by itself", &watcher.errors());
        }
        let began = watcher.errors().contains("watching ");
        let kill = self.random.once_in(4) && self.world.options.has("signals");
        watcher.signal(if kill {
            Signal::SIGKILL
        } else {
            Signal::SIGTERM
        });
        match watcher.ends(self.journal) {
            None => self.servers.die(),
            Some(ended) if began && !kill && !ended.is_ok() => {
                self.journal.finds(
                    "b: SIGTERM does not end the watcher well",
                    &ended.to_string(),
                );
            }
            Some(_) => {}
        }
    }

    fn quiet_ones_are_fine(&self, mood: &Mood, before: &[Mount]) {
        let after = mounts_below(&self.world.sandbox.root(QUIET[0]));
        if !mood.has("all") && after != before {
            self.journal.finds(
                "b: a quiet site was touched",
                &format!("{before:#?}\nnow {after:#?}"),
            );
        }
        for command in ["up", "status"] {
            let ended = commands::run(self.world, self.journal, &[command, QUIET[0], QUIET[1]]);
            if let Some(ended) = ended.filter(|ended| !ended.is_ok()) {
                self.journal.finds(
                    &format!("b: `{command}` of quiet sites"),
                    &ended.to_string(),
                );
            }
        }
        for nth in 0..QUIET.len() {
            if let Err(why) = self.oracle.quiet_is_up(nth) {
                self.journal.finds("b: a quiet site is not up", &why);
            }
        }
    }

    /// While nobody acts, the output of every command must be true.
    fn commands_tell_the_truth(&mut self) {
        let is_ok = |arguments: &[&str]| {
            commands::run(self.world, self.journal, arguments).filter(commands::Ended::is_ok)
        };
        for owner in &self.world.owners {
            if self.random.once_in(2)
                && let Some(down) = is_ok(&["down", "--lazy", owner.name])
            {
                let ours = owner.sites_mounts();
                if !ours.is_empty() {
                    self.journal.finds(
                        "c: `down` says that it is done",
                        &format!("{down}\n{ours:#?}"),
                    );
                }
            }
            if let Some(up) = is_ok(&["-v", "up", owner.name])
                && let Some(status) =
                    commands::run(self.world, self.journal, &["status", owner.name])
                && !status.is_ok()
            {
                let plan = commands::run(self.world, self.journal, &["plan", owner.name]);
                let plan = plan.map(|plan| plan.to_string()).unwrap_or_default();
                self.journal.finds(
                    "e: `up` says that it is done",
                    &format!("{up}\n{status}\n{plan}"),
                );
            }
        }
    }
}

/// Commands for the hostile sites.
fn operator(
    world: &World,
    journal: &Journal,
    random: &mut Random,
    mood: &Mood,
    stuck: &AtomicBool,
) {
    while Instant::now() < mood.until {
        let owner: &Owner = random.pick(&world.owners);
        let other = random.pick(&world.owners).name;
        let name = owner.name;
        let arguments: &[&str] = match random.below(14) {
            0..=4 => &["up", name],
            5 => &["up", name, other],
            6 => &["up", "--if-up", name],
            7 => &["down", name],
            8 => &["down", "--lazy", name],
            9 => &["status", name],
            10 => &["check", name],
            11 => &["plan", name],
            12 => &["-v", "up", name],
            _ => &["status", "--json", name],
        };
        let ended = if world.options.has("signals") && random.once_in(6) {
            let signal = *random.pick(&[Signal::SIGTERM, Signal::SIGKILL, Signal::SIGINT]);
            commands::run_and_signal(
                world,
                journal,
                arguments,
                Duration::from_millis(random.below(80)),
                signal,
            )
        } else {
            commands::run(world, journal, arguments)
        };
        stuck.fetch_or(ended.is_none(), Ordering::Relaxed);
    }
}

/// Commands for the quiet sites, and for all.
fn administrator(
    world: &World,
    oracle: &Oracle<'_>,
    journal: &Journal,
    random: &mut Random,
    mood: &Mood,
    stuck: &AtomicBool,
) {
    let run = |arguments: &[&str]| {
        let ended = commands::run(world, journal, arguments);
        stuck.fetch_or(ended.is_none(), Ordering::Relaxed);
        ended
    };
    let judge = |nth: usize, result: Result<(), String>, what: &str| {
        if let Err(why) = result {
            journal.finds(&format!("b: {} after {what}", QUIET[nth]), &why);
        }
    };
    while Instant::now() < mood.until {
        let before = world.replaced();
        let replaced = || world.replaced() - before;
        match random.below(10) {
            0 | 1 if mood.has("all") => {
                if world.options.has("signals") && random.once_in(4) {
                    let after = Duration::from_millis(random.below(150));
                    let ended = commands::run_and_signal(
                        world,
                        journal,
                        &["up", "--all"],
                        after,
                        Signal::SIGTERM,
                    );
                    stuck.fetch_or(ended.is_none(), Ordering::Relaxed);
                } else if let Some(up) = run(&["up", "--all"]) {
                    for nth in
                        (0..QUIET.len()).filter(|nth| !up.is_overtaken(QUIET[*nth], replaced()))
                    {
                        let is_up = oracle
                            .quiet_is_up(nth)
                            .map_err(|why| format!("{up}\n{why}"));
                        judge(nth, is_up, "`up --all`");
                    }
                }
            }
            2 | 3 if mood.has("all") => {
                let lazy = random.once_in(2);
                let arguments: &[&str] = if lazy {
                    &["down", "--all", "--lazy"]
                } else {
                    &["down", "--all"]
                };
                if let Some(down) = run(arguments) {
                    let is_held = |nth: &usize| !lazy && down.says_in_use(QUIET[*nth]);
                    for nth in (0..QUIET.len()).filter(|nth| !is_held(nth)) {
                        judge(
                            nth,
                            oracle
                                .quiet_is_down(nth)
                                .map_err(|why| format!("{down}\n{why}")),
                            "`down --all`",
                        );
                    }
                }
            }
            4 => drop(run(&["status"])),
            5 => drop(run(&["check"])),
            6 => drop(run(&["plan", "--all"])),
            7 if !mood.has("all") => {
                if let Some(ended) = run(&["status", QUIET[0]]).filter(|ended| !ended.is_ok()) {
                    journal.finds("b: `status` of a quiet site", &ended.to_string());
                }
            }
            nth => {
                let nth = usize::from(nth == 9);
                let up = run(&["up", QUIET[nth]]);
                if let Some(ended) = up.filter(|ended| !ended.is_overtaken(QUIET[nth], replaced()))
                {
                    if !ended.is_ok() {
                        journal.finds("b: `up` of a quiet site", &ended.to_string());
                    }
                    judge(nth, oracle.quiet_is_up(nth), "`up`");
                }
            }
        }
    }
    // As before.
    drop(run(&["up", QUIET[0], QUIET[1]]));
}

/// The host replaces sources, and manifests change.
fn host(world: &World, journal: &Journal, random: &mut Random, mood: &Mood) {
    let in_jail = world.sandbox.root(QUIET[1]).join("etc/conf");
    while Instant::now() < mood.until && world.options.has("host") {
        match random.below(4) {
            0 => {
                let name = random.pick(&NAMED);
                let worked = world.replace(name, &format!("{name} {}\n", random.next()));
                journal.did("host", "replace", &format!("replaces {name}"), worked);
            }
            1 => {
                let owner = random.pick(&world.owners);
                world.toggle(owner, random);
                journal.did(
                    "host",
                    "toggle",
                    &format!("changes a line of {}'s", owner.name),
                    true,
                );
            }
            2 if random.once_in(4) => {
                let (owner, share) = (random.pick(&world.owners), 1 + random.below(5));
                world.some_lines(owner, random, share);
            }
            3 if mood.has("watch") && !mood.has("all") => {
                let text = format!("conf for the watcher {}\n", random.next());
                if !world.replace("conf", &text) {
                    continue;
                }
                let start = Instant::now();
                while fs::read_to_string(&in_jail).ok().as_ref() != Some(&text) {
                    if start.elapsed() > LIMIT {
                        journal.finds("b: the watcher does not heal a quiet site", &text);
                        return;
                    }
                    thread::sleep(Duration::from_millis(5));
                }
                journal.did(
                    "watch",
                    "heal",
                    &format!("quiet2 has it after {:?}", start.elapsed()),
                    true,
                );
            }
            _ => {}
        }
        thread::sleep(Duration::from_millis(random.below(60)));
    }
}
