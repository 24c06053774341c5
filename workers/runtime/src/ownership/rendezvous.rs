//! Which pod a partition belongs to: the one with the highest hash together with it. Every pod computes the same, and when a pod
//! comes or goes only the partitions move that it gains or had.

/// The pod that a partition shall belong to; `None` only if there are no pods.
pub fn owner<'a>(partition: u16, pods: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Ties are broken by name, so that the order of `pods` doesn't matter.
    pods.into_iter()
        .max_by_key(|pod| (weight(partition, pod), *pod))
}

/// FNV-1a (64 bits) over pod and partition, then mixed: FNV alone leaves the high bits, which decide, too similar.
fn weight(partition: u16, pod: &str) -> u64 {
    let bytes = pod.bytes().chain([0xff]).chain(partition.to_be_bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn partitions_spread_over_pods() {
        let pods: Vec<String> = (0..4).map(|pod| format!("orders-7c9f-{pod}")).collect();
        for pod in &pods {
            let owned = (0..64).filter(|&partition| {
                owner(partition, pods.iter().map(String::as_str)) == Some(pod)
            });
            let owned = owned.count();
            assert!((8..=26).contains(&owned), "{pod} owns {owned} of 64");
        }
    }

    proptest! {
        #[test]
        fn only_what_a_pod_gains_or_had_moves(pods in proptest::collection::btree_set("[a-z]{1,6}", 2..8), partition: u16) {
            let all: BTreeSet<&str> = pods.iter().map(String::as_str).collect();
            let now = owner(partition, all.iter().copied()).unwrap();
            prop_assert_eq!(Some(now), owner(partition, all.iter().rev().copied()));
            for gone in &all {
                let rest = all.iter().copied().filter(|pod| pod != gone);
                let then = owner(partition, rest).unwrap();
                prop_assert!(then == now || now == *gone);
            }
        }
    }
}
