//! Checks the hash contract with vectors that another implementation made.

use assignment::Seed;
use schemas::Bucket;
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

const VECTORS: &str = include_str!("../../../schemas/vectors/hash.json");

#[derive(Deserialize)]
struct Vectors {
    version: u32,
    units: Vec<UnitVector>,
    bucket_bounds: Vec<BoundVector>,
}

#[derive(Deserialize)]
struct UnitVector {
    unit_id: String,
    salt: String,
    seed: String,
    hash: String,
    bucket: u32,
}

#[derive(Deserialize)]
struct BoundVector {
    hash: String,
    bucket: u32,
}

#[test]
fn every_vector_is_reproduced() {
    let vectors: Vectors = serde_json::from_str(VECTORS).unwrap();
    assert_eq!(vectors.version, 1);
    assert_eq!(vectors.units.len(), 114);
    for vector in &vectors.units {
        let UnitVector { unit_id, salt, .. } = vector;
        assert_eq!(format!("{:016x}", xxh3_64(salt.as_bytes())), vector.seed, "{salt}");
        let hash = Seed::of(salt).hash(unit_id);
        assert_eq!(format!("{hash:016x}"), vector.hash, "{unit_id} {salt}");
        assert_eq!(Bucket::of_hash(hash).get(), vector.bucket, "{unit_id} {salt}");
    }
}

#[test]
fn every_bound_of_a_bucket_is_reproduced() {
    let vectors: Vectors = serde_json::from_str(VECTORS).unwrap();
    assert_eq!(vectors.bucket_bounds.len(), 16);
    for vector in &vectors.bucket_bounds {
        let hash = u64::from_str_radix(&vector.hash, 16).unwrap();
        assert_eq!(Bucket::of_hash(hash).get(), vector.bucket, "{}", vector.hash);
    }
}
