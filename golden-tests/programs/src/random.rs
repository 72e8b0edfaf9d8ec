//! What a static program in Rust gets of time and randomness.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

fn main() {
    let start = Instant::now();
    let state = std::collections::hash_map::RandomState::new();
    println!("bytes {:x}", state.build_hasher().finish());
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    println!("time {}", time.as_nanos());
    println!("year {}", 1970 + time.as_secs() / 31_556_952);
    let map: HashMap<u32, ()> = (0..20).map(|n| (n, ())).collect();
    let keys: Vec<String> = map.keys().map(u32::to_string).collect();
    println!("order {}", keys.join(" "));
    println!("elapsed {}", start.elapsed().as_nanos());
}
