//! What is declared, and where things go.

use std::collections::HashSet;

use super::*;

fn topology() -> Topology {
    Topology::new(&Settings::default())
}

fn argument<'a>(queue: &'a QueueSpec, name: &str) -> Option<&'a Argument> {
    let found = queue.arguments.iter().find(|(key, _)| *key == name);
    found.map(|(_, value)| value)
}

#[test]
fn every_binding_joins_declared_ends_and_every_queue_but_the_journal_is_bound() {
    let topology = topology();
    let exchanges: HashSet<_> = topology.exchanges().iter().map(|e| &e.name).collect();
    let queues: HashSet<_> = topology.queues().iter().map(|q| &q.name).collect();
    assert_eq!(
        exchanges.len(),
        topology.exchanges().len(),
        "an exchange is declared twice"
    );
    assert_eq!(
        queues.len(),
        topology.queues().len(),
        "a queue is declared twice"
    );
    for binding in topology.bindings() {
        assert!(exchanges.contains(&binding.exchange), "{binding:?}");
        assert!(queues.contains(&binding.queue), "{binding:?}");
    }
    let bound: HashSet<_> = topology.bindings().iter().map(|b| &b.queue).collect();
    let unbound: Vec<_> = queues.difference(&bound).collect();
    assert_eq!(unbound, [&"fanfare.journal"]);
}

#[test]
fn at_least_once_sources_never_fall_back_silently() {
    for queue in topology().queues() {
        if argument(queue, "x-dead-letter-exchange").is_some() {
            let strategy = argument(queue, "x-dead-letter-strategy");
            assert_eq!(strategy, Some(&Argument::Text("at-least-once".into())));
            let overflow = argument(queue, "x-overflow");
            assert_eq!(overflow, Some(&Argument::Text("reject-publish".into())));
        }
    }
}

#[test]
fn what_returns_is_always_taken() {
    let topology = topology();
    let returning = topology
        .exchanges()
        .iter()
        .find(|e| e.name == "fanfare.returning");
    assert_eq!(
        returning.unwrap().alternate.as_deref(),
        Some("fanfare.unroutable")
    );
    for key in topology.partitions() {
        let queue = topology.delivery_queue(key);
        let spec = topology.queues().iter().find(|q| q.name == queue).unwrap();
        // A length limit would make the queue refuse what returns, which stalls the delay line.
        assert_eq!(argument(spec, "x-max-length-bytes"), None);
        assert_eq!(argument(spec, "x-max-length"), None);
    }
}

#[test]
fn looking_at_a_message_never_removes_it() {
    let topology = topology();
    for name in [
        topology.dead_letters_queue(),
        topology.rejected_queue(),
        topology.unroutable_queue(),
        topology.crashed_queue(),
    ] {
        let queue = topology.queues().iter().find(|q| q.name == name).unwrap();
        let limit = argument(queue, "x-delivery-limit");
        assert_eq!(limit, Some(&Argument::Integer(2_147_483_647)));
        assert_eq!(argument(queue, "x-message-ttl"), None);
    }
}
