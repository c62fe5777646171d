//! Receivers that do not end.

use super::*;

#[tokio::test]
async fn endless_bodies_are_cut_and_the_status_counts() {
    const CHUNK: &[u8] = &[b'x'; 16 * 1024];
    for begin in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        // The client must not inflate it.
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n",
    ] {
        let (receiver, mut written) = Receiver::repeating(begin, CHUNK).await;
        assert_eq!(
            call(&local(), &receiver.url(), PATIENT).await,
            answered(200)
        );
        // What the sockets buffer comes on top of what is read.
        let written = written.recv().await.unwrap();
        assert!(written < 64 << 20, "{written} bytes went out");
    }
}

#[tokio::test]
async fn a_body_that_stops_coming_costs_no_more_than_the_timeout() {
    let stalling = Receiver::saying(b"HTTP/1.1 202 OK\r\ncontent-length: 100\r\n\r\nx").await;
    assert_eq!(call(&local(), &stalling.url(), BRIEF).await, answered(202));
}

#[tokio::test]
async fn endless_heads_are_cut() {
    let header = b"x-long: 0123456789012345678901234567890123456789\r\n";
    for line in [&header[..], b"y"] {
        let (receiver, mut written) = Receiver::repeating(b"HTTP/1.1 200 OK\r\n", line).await;
        let outcome = call(&local(), &receiver.url(), PATIENT).await;
        assert!(
            matches!(outcome, Outcome::NotConnected { .. }),
            "{outcome:?}"
        );
        assert!(written.recv().await.unwrap() < 64 << 20);
    }

    let begin = b"HTTP/1.1 100 Continue\r\n\r\n";
    let (receiver, _written) = Receiver::repeating(begin, begin).await;
    let outcome = call(&local(), &receiver.url(), BRIEF).await;
    assert_eq!(outcome, Outcome::TimedOut);
}
