//! Measures one experiment in `assignment` and in the field's libraries beside each other, in nanoseconds and allocations:
//! `cargo run --release --manifest-path producer/assignment/peers/Cargo.toml`. Each library reads the experiment in its
//! own format, from `experiments/`, and is checked before it is timed. It is asked by its cheapest public function, and by
//! the one that its documentation shows where that is another.

mod check;
mod eppo;
mod growthbook;
mod library;
mod measure;
mod report;
mod splitstream;
mod unleash;
mod user;

use std::hint::black_box;
use std::rc::Rc;

use assignment::Seed;
use schemas::Bucket;

use crate::check::{Arms, checked};
use crate::library::Library;
use crate::measure::{Round, measure};
use crate::report::Row;
use crate::user::{TIMED, User, adults};

/// The versions that were built are in the lock file.
const LOCK: &str = include_str!("../Cargo.lock");

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let as_json = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--json"] => true,
        _ => {
            eprintln!("error: the only option is --json, not `{}`", arguments.join(" "));
            std::process::exit(2);
        }
    };
    let users = adults(TIMED);
    let peers = [
        peer::<splitstream::Splitstream>(&users),
        peer::<eppo::Flags>(&users),
        peer::<unleash::Borrowed>(&users),
        peer::<unleash::Owned>(&users),
        peer::<growthbook::Features>(&users),
        peer::<growthbook::Client>(&users),
    ];
    let mut rounds = vec![hashes(&users)];
    let mut rows = Vec::new();
    for Peer { package, call, arms, with_context, evaluation } in peers {
        rows.push((package, call, arms, evaluation.is_some()));
        rounds.push(with_context);
        rounds.extend(evaluation);
    }
    let mut costs = measure(&mut rounds, TIMED).into_iter();
    let mut next = || costs.next().expect("there is a cost for each round");
    let hashes = next();
    let rows: Vec<Row> = rows
        .into_iter()
        .map(|(package, call, arms, keeps_context)| Row {
            package,
            version: version(package),
            call,
            arms,
            with_context: next(),
            evaluation: keeps_context.then(&mut next),
        })
        .collect();
    if as_json {
        println!("{:#}", report::json(&rows, hashes));
    } else {
        println!("{}", report::table(&rows, hashes));
    }
}

/// A checked library with its measurements.
struct Peer<'u> {
    package: &'static str,
    call: &'static str,
    arms: Arms,
    with_context: Round<'u>,
    /// None if the library takes a new context for each evaluation.
    evaluation: Option<Round<'u>>,
}

fn peer<'u, L: Library + 'u>(users: &'u [User]) -> Peer<'u> {
    let (library, arms) = checked::<L>();
    let library = Rc::new(library);
    Peer {
        package: L::PACKAGE,
        call: L::CALL,
        arms,
        evaluation: L::KEEPS_CONTEXT.then(|| evaluations(library.clone(), users)),
        with_context: Box::new(move || {
            for user in users {
                black_box(library.evaluate_once(L::context(black_box(user))));
            }
        }),
    }
}

fn evaluations<'u, L: Library + 'u>(library: Rc<L>, users: &'u [User]) -> Round<'u> {
    let contexts: Vec<L::Context<'u>> = users.iter().map(L::context).collect();
    Box::new(move || {
        for context in &contexts {
            black_box(library.evaluate(black_box(context)));
        }
    })
}

/// What `assignment` cannot do without: the hash and the bucket of the slot, the rollout and the variant.
fn hashes(users: &[User]) -> Round<'_> {
    let seeds = ["checkout/slot", "checkout/rollout", "checkout/variant"].map(Seed::of);
    Box::new(move || {
        for user in users {
            black_box(seeds.map(|seed| Bucket::of_hash(seed.hash(black_box(&user.id)))));
        }
    })
}

/// The version of a package in the lock file.
fn version(package: &str) -> &'static str {
    let (_, entry) = LOCK.split_once(&format!("name = \"{package}\"\nversion = \"")).expect("it is locked");
    entry.split('"').next().expect("a version ends with a quote")
}
