//! Connection management of the host provider, within one process: connecting, refusing, ending.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host_support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use host_support::{Side, bind_to, connect, event_is, event_within, next_event, work_until};
use sdp_verbs::{CmEventKind, Provider, RejectReason, VerbsError};

#[test]
fn two_instances_connect_and_disconnect() {
    let (client, server) = (Side::new(), Side::new());
    let listener = server.listen("127.0.0.1:0", 8);
    let dst = listener.local_addr().unwrap();
    let (a, b) = connect(&client, &server, &listener, dst);

    assert_eq!(a.id.peer_addr(), Some(dst));
    assert_eq!(b.id.local_addr(), Some(dst));
    let source = a.id.local_addr().unwrap();
    assert_eq!(b.id.peer_addr(), Some(source));
    assert_eq!(source.ip(), dst.ip());
    assert_ne!(source.port(), 0);

    a.id.disconnect();
    let channels = [&client.channel, &server.channel];
    let mut ended = Vec::new();
    while ended.len() < 2 {
        let (_, event) = next_event(&channels);
        assert!(matches!(event.kind, CmEventKind::Disconnected), "{event:?}");
        ended.push(event.id);
    }
    assert!(ended.contains(&a.id.token()) && ended.contains(&b.id.token()));
    // Harmless if repeated, by either side.
    a.id.disconnect();
    b.id.disconnect();
    assert!(event_within(&channels, Duration::ZERO).is_none());
}

#[test]
fn one_instance_connects_to_itself_in_one_thread() {
    let side = Side::new();
    let listener = side.listen("127.0.0.1:0", 8);
    let dst = listener.local_addr().unwrap();
    for _ in 0..3 {
        let (a, b) = connect(&side, &side, &listener, dst);
        drop(a);
        let (_, event) = next_event(&[&side.channel]);
        event_is!(event, b.id.token(), CmEventKind::Disconnected => ());
    }
    // Through a second listener, which shares the link.
    let second = side.listen("127.0.0.1:0", 8);
    let dst = second.local_addr().unwrap();
    let _ends = connect(&side, &side, &second, dst);
}

#[test]
fn nobody_listens() {
    let side = Side::new();
    let free = side.id();
    free.bind(bind_to("127.0.0.1:0")).unwrap();
    // Bound is not listening; and port 0 is nobody's.
    for dst in [free.local_addr().unwrap(), "127.0.0.1:0".parse().unwrap()] {
        let id = side.resolve(dst);
        let (_, event) = next_event(&[&side.channel]);
        let error = event_is!(event, id.token(), CmEventKind::Failed(error) => error);
        assert_eq!(error.errno(), libc::ECONNREFUSED, "{error}");
        assert!(error.to_string().contains("nobody listens"), "{error}");
    }
}

#[test]
fn another_machine_is_out_of_reach_by_name() {
    let side = Side::new();
    let dst = "192.0.2.1:80".parse().unwrap();
    let error = side.id().resolve(dst, Duration::MAX).unwrap_err();
    assert!(
        matches!(error.errno(), libc::EHOSTUNREACH | libc::ENETUNREACH),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("namespace") || text.contains("route"),
        "{text}"
    );
}

#[test]
fn a_request_is_rejected_with_private_data() {
    let (client, server) = (Side::new(), Side::new());
    let channels = [&client.channel, &server.channel];
    let listener = server.listen("127.0.0.1:0", 8);
    let limit = client.provider.limits();
    assert!(limit.connect_data_max >= 92);
    assert!(limit.accept_data_max >= 196);
    assert!(limit.reject_data_max >= 148);
    for with_qp in [false, true] {
        let id = client.resolve(listener.local_addr().unwrap());
        next_event(&channels);
        let _qp = id.create_qp(&client.attr()).unwrap();
        let too_much = vec![1; limit.connect_data_max + 1];
        let error = id.connect(&too_much).unwrap_err();
        assert!(matches!(error, VerbsError::Argument { .. }), "{error}");
        id.connect(&too_much[1..]).unwrap();
        let (_, event) = next_event(&channels);
        let (peer, data) = event_is!(event, listener.token(),
            CmEventKind::ConnectRequest { id, private_data } => (id, private_data));
        assert_eq!(data, too_much[1..]);
        let peer_qp = with_qp.then(|| peer.create_qp(&server.attr()).unwrap());
        let too_much = vec![2; limit.reject_data_max + 1];
        assert!(peer.reject(&too_much).is_err());
        peer.reject(&too_much[1..]).unwrap();
        let (_, event) = next_event(&channels);
        let data = event_is!(event, id.token(), CmEventKind::Rejected {
            reason: RejectReason::Consumer, private_data } => private_data);
        assert_eq!(data, too_much[1..]);
        drop(peer_qp);
    }
}

#[test]
fn an_accept_carries_as_much_private_data_as_it_says() {
    let (client, server) = (Side::new(), Side::new());
    let channels = [&client.channel, &server.channel];
    let listener = server.listen("127.0.0.1:0", 8);
    let id = client.resolve(listener.local_addr().unwrap());
    next_event(&channels);
    let _qp = id.create_qp(&client.attr()).unwrap();
    id.connect(&[]).unwrap();
    let (_, event) = next_event(&channels);
    let peer = event_is!(event, listener.token(), CmEventKind::ConnectRequest { id, .. } => id);
    let data = vec![3; server.provider.limits().accept_data_max];
    assert!(peer.accept(&data).is_err(), "without a queue pair");
    let _peer_qp = peer.create_qp(&server.attr()).unwrap();
    peer.accept(&data).unwrap();
    let (_, event) = next_event(&channels);
    let got = event_is!(event, id.token(),
        CmEventKind::ConnectResponse { private_data } => private_data);
    assert_eq!(got, data);
    // The connector may still turn it down; the acceptor then hears of the end.
    id.reject(b"no").unwrap();
    let (_, event) = next_event(&channels);
    event_is!(event, peer.token(), CmEventKind::Disconnected => ());
}

#[test]
fn the_backlog_counts_unanswered_requests() {
    let (client, server) = (Side::new(), Side::new());
    let channels = [&client.channel, &server.channel];
    let listener = server.listen("127.0.0.1:0", 2);
    let dst = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    let mut active = Vec::new();
    let ask = || {
        let id = client.resolve(dst);
        let (_, event) = next_event(&channels);
        event_is!(event, id.token(), CmEventKind::Resolved => ());
        let qp = id.create_qp(&client.attr()).unwrap();
        id.connect(&[]).unwrap();
        (id, qp, next_event(&channels).1)
    };
    for _ in 0..2 {
        let (id, qp, event) = ask();
        active.push((id, qp));
        waiting.push(event_is!(event, listener.token(),
            CmEventKind::ConnectRequest { id, .. } => id));
    }
    let (id, _qp, event) = ask();
    event_is!(event, id.token(),
        CmEventKind::Rejected { reason: RejectReason::Backlog, .. } => ());
    // An answer makes room, whichever it is, and so does a connector that gives up.
    waiting.remove(0).reject(&[]).unwrap();
    next_event(&channels);
    let (id, qp, event) = ask();
    active.push((id, qp));
    waiting.push(event_is!(event, listener.token(), CmEventKind::ConnectRequest { id, .. } => id));
    active.remove(1);
    let (_, event) = next_event(&channels);
    event_is!(event, waiting[0].token(), CmEventKind::Disconnected => ());
    let (_id, _qp, event) = ask();
    event_is!(event, listener.token(), CmEventKind::ConnectRequest { .. } => ());
}

#[test]
fn a_listener_that_is_gone_is_not_found_by_a_cached_way() {
    let (client, server, other) = (Side::new(), Side::new(), Side::new());
    let channels = [&client.channel, &server.channel, &other.channel];
    let listener = server.listen("127.0.0.1:0", 8);
    let dst = listener.local_addr().unwrap();
    let _ends = connect(&client, &server, &listener, dst);
    drop(listener);
    let id = client.resolve(dst);
    let (_, event) = next_event(&channels);
    let error = event_is!(event, id.token(), CmEventKind::Failed(error) => error);
    assert_eq!(error.errno(), libc::ECONNREFUSED);
    // Somebody else takes the port: the next connection is theirs at once.
    let listener = other.listen(&dst.to_string(), 8);
    let _new_ends = connect(&client, &other, &listener, dst);
}

#[test]
fn a_listener_that_goes_between_resolve_and_connect_rejects() {
    let (client, server) = (Side::new(), Side::new());
    let channels = [&client.channel, &server.channel];
    let listener = server.listen("127.0.0.1:0", 8);
    let id = client.resolve(listener.local_addr().unwrap());
    next_event(&channels);
    let _qp = id.create_qp(&client.attr()).unwrap();
    drop(listener);
    id.connect(&[]).unwrap();
    let (_, event) = next_event(&channels);
    event_is!(event, id.token(),
        CmEventKind::Rejected { reason: RejectReason::NoListener, .. } => ());
}

#[test]
fn wildcards_take_what_tcp_wildcards_take() {
    let cases: [(&str, bool, &str, bool); 8] = [
        ("0.0.0.0:0", false, "127.0.0.1", true),
        ("0.0.0.0:0", false, "127.9.9.9", true),
        ("0.0.0.0:0", false, "::1", false),
        ("[::]:0", false, "::1", true),
        ("[::]:0", false, "127.0.0.1", true),
        ("[::]:0", true, "127.0.0.1", false),
        ("[::]:0", true, "::1", true),
        ("[::1]:0", false, "::1", true),
    ];
    let (client, server) = (Side::new(), Side::new());
    let channels = [&client.channel, &server.channel];
    for (addr, only_v6, ip, taken) in cases {
        let listener = server.id();
        let mut request = bind_to(addr);
        request.only_v6 = only_v6;
        listener.bind(request).unwrap();
        listener.listen(8).unwrap();
        let port = listener.local_addr().unwrap().port();
        let dst = SocketAddr::new(ip.parse().unwrap(), port);
        if !taken {
            let id = client.resolve(dst);
            let (_, event) = next_event(&channels);
            let error = event_is!(event, id.token(), CmEventKind::Failed(error) => error);
            assert_eq!(error.errno(), libc::ECONNREFUSED, "{addr} {dst}");
            continue;
        }
        let (a, b) = connect(&client, &server, &listener, dst);
        assert_eq!(a.id.peer_addr(), Some(dst));
        let shown = b.id.local_addr().unwrap();
        // A dual-stack listener shows IPv4 as mapped, as TCP does.
        assert_eq!(shown.is_ipv6(), addr.starts_with('['), "{addr} {dst}");
        assert_eq!(shown.ip().to_canonical(), dst.ip());
        assert_eq!(b.id.peer_addr().unwrap().is_ipv6(), shown.is_ipv6());
    }
}

#[test]
fn the_unspecified_destination_is_loopback() {
    let (client, server) = (Side::new(), Side::new());
    let listener = server.listen("127.0.0.1:0", 8);
    let mut dst = listener.local_addr().unwrap();
    dst.set_ip("0.0.0.0".parse().unwrap());
    let (a, _b) = connect(&client, &server, &listener, dst);
    assert_eq!(a.id.peer_addr(), listener.local_addr());
}

#[test]
fn a_bound_connector_keeps_its_address() {
    let (client, server) = (Side::new(), Side::new());
    let channels = [&client.channel, &server.channel];
    let listener = server.listen("127.0.0.1:0", 8);
    let id = client.id();
    id.bind(bind_to("127.0.0.7:0")).unwrap();
    let bound = id.local_addr().unwrap();
    id.resolve(listener.local_addr().unwrap(), host_support::BOUND)
        .unwrap();
    next_event(&channels);
    assert_eq!(id.local_addr(), Some(bound));
    let _qp = id.create_qp(&client.attr()).unwrap();
    id.connect(&[]).unwrap();
    let (_, event) = next_event(&channels);
    let peer = event_is!(event, listener.token(), CmEventKind::ConnectRequest { id, .. } => id);
    assert_eq!(peer.peer_addr(), Some(bound));
}

#[test]
fn listeners_that_share_a_port_all_get_connections() {
    let client = Side::new();
    let servers = [Side::new(), Side::new()];
    let mut request = bind_to("127.0.0.1:0");
    request.reuse_port = true;
    let mut listeners = Vec::new();
    for server in &servers {
        let id = server.id();
        id.bind(request).unwrap();
        id.listen(64).unwrap();
        request.addr = id.local_addr().unwrap();
        listeners.push(id);
    }
    let alone = Side::new().id();
    let error = alone.bind(bind_to(&request.addr.to_string())).unwrap_err();
    assert_eq!(error.errno(), libc::EADDRINUSE);
    let channels = [&client.channel, &servers[0].channel, &servers[1].channel];
    let mut asked = [0; 2];
    let mut kept = Vec::new();
    for _ in 0..40 {
        let id = client.resolve(request.addr);
        next_event(&channels);
        let qp = id.create_qp(&client.attr()).unwrap();
        id.connect(&[]).unwrap();
        let (index, event) = next_event(&channels);
        let kind = event.kind;
        let CmEventKind::ConnectRequest { id: peer, .. } = kind else {
            panic!("unexpected {kind:?}");
        };
        asked[index - 1] += 1;
        kept.push((id, qp, peer));
    }
    assert!(asked.iter().all(|count| *count > 0), "{asked:?}");
}

#[test]
fn both_sides_may_call_each_other_at_once() {
    let (a, b) = (Side::new(), Side::new());
    let (la, lb) = (a.listen("127.0.0.1:0", 8), b.listen("127.0.0.1:0", 8));
    // No link exists, and neither side works before both have called.
    let to_b = a.resolve(lb.local_addr().unwrap());
    let to_a = b.resolve(la.local_addr().unwrap());
    let channels = [&a.channel, &b.channel];
    for _ in 0..2 {
        let (_, event) = next_event(&channels);
        assert!(matches!(event.kind, CmEventKind::Resolved), "{event:?}");
    }
    let _qp_a = to_b.create_qp(&a.attr()).unwrap();
    let _qp_b = to_a.create_qp(&b.attr()).unwrap();
    to_b.connect(b"a").unwrap();
    to_a.connect(b"b").unwrap();
    let mut kept = Vec::new();
    let mut established = 0;
    while established < 2 {
        let (index, event) = next_event(&channels);
        match event.kind {
            CmEventKind::ConnectRequest { id, private_data } => {
                let side = [&a, &b][index];
                assert_eq!(private_data, [b"b", b"a"][index]);
                let qp = id.create_qp(&side.attr()).unwrap();
                id.accept(&[]).unwrap();
                kept.push((id, qp));
            }
            CmEventKind::ConnectResponse { .. } => [&to_b, &to_a][index].establish().unwrap(),
            CmEventKind::Established => established += 1,
            other => panic!("unexpected {other:?}"),
        }
    }
    // Both links work; new connections either way do too.
    let _more = connect(&a, &b, &lb, lb.local_addr().unwrap());
    let _even_more = connect(&b, &a, &la, la.local_addr().unwrap());
}

#[test]
fn a_listener_that_does_not_answer_times_out() {
    let (client, server) = (Side::new(), Side::new());
    let listener = server.listen("127.0.0.1:0", 8);
    let dst = listener.local_addr().unwrap();
    let wait = Duration::from_millis(30);
    // Nobody polls the listener's channel: as if its process were stopped.
    let id = client.id();
    id.resolve(dst, wait).unwrap();
    let (_, event) = next_event(&[&client.channel]);
    let error = event_is!(event, id.token(), CmEventKind::Failed(error) => error);
    assert_eq!(error.errno(), libc::ETIMEDOUT, "{error}");

    // The link is there, and the request is not answered.
    let ends = connect(&client, &server, &listener, dst);
    let id = client.id();
    id.resolve(dst, wait).unwrap();
    next_event(&[&client.channel]);
    let _qp = id.create_qp(&client.attr()).unwrap();
    id.connect(&[]).unwrap();
    let (_, event) = next_event(&[&client.channel]);
    let error = event_is!(event, id.token(), CmEventKind::Failed(error) => error);
    assert_eq!(error.errno(), libc::ETIMEDOUT, "{error}");
    // The listener then finds a request that has been withdrawn.
    let (_, event) = next_event(&[&server.channel]);
    let late = event_is!(event, listener.token(), CmEventKind::ConnectRequest { id, .. } => id);
    let (_, event) = next_event(&[&server.channel]);
    event_is!(event, late.token(), CmEventKind::Disconnected => ());
    assert!(late.create_qp(&server.attr()).is_err());
    assert!(late.accept(&[]).is_err());
    drop(ends);
}

#[test]
fn ids_may_be_dropped_at_every_step() {
    let (client, server) = (Side::new(), Side::new());
    let channels = [&client.channel, &server.channel];
    let listener = server.listen("127.0.0.1:0", 8);
    let dst = listener.local_addr().unwrap();
    // While resolving: nothing comes of it.
    drop(client.resolve(dst));
    // Resolved.
    let id = client.resolve(dst);
    next_event(&channels);
    drop(id);
    // Connecting, the request not yet seen: the listener may still see it, withdrawn.
    let ask = || {
        let id = client.resolve(dst);
        let (_, event) = next_event(&channels);
        event_is!(event, id.token(), CmEventKind::Resolved => ());
        let qp = id.create_qp(&client.attr()).unwrap();
        id.connect(&[]).unwrap();
        (id, qp)
    };
    drop(ask());
    let (_, event) = next_event(&channels);
    let withdrawn =
        event_is!(event, listener.token(), CmEventKind::ConnectRequest { id, .. } => id);
    let (_, event) = next_event(&channels);
    event_is!(event, withdrawn.token(), CmEventKind::Disconnected => ());
    // Requested: dropping rejects.
    let (id, _qp) = ask();
    let (_, event) = next_event(&channels);
    event_is!(event, listener.token(), CmEventKind::ConnectRequest { .. } => ());
    let (_, event) = next_event(&channels);
    event_is!(event, id.token(),
        CmEventKind::Rejected { reason: RejectReason::Consumer, .. } => ());
    // Accepted.
    let (id, _qp) = ask();
    let (_, event) = next_event(&channels);
    let peer = event_is!(event, listener.token(), CmEventKind::ConnectRequest { id, .. } => id);
    let _peer_qp = peer.create_qp(&server.attr()).unwrap();
    peer.accept(&[]).unwrap();
    drop(peer);
    let (_, event) = next_event(&channels);
    event_is!(event, id.token(), CmEventKind::ConnectResponse { .. } => ());
    let (_, event) = next_event(&channels);
    event_is!(event, id.token(), CmEventKind::Disconnected => ());
    assert!(id.establish().is_err());
    // Connected, both ways.
    let (a, b) = connect(&client, &server, &listener, dst);
    drop(a);
    let (_, event) = next_event(&channels);
    event_is!(event, b.id.token(), CmEventKind::Disconnected => ());
    // A listener with a request in its queue.
    let (id, _qp) = ask();
    work_until(&[&client.channel], || true);
    drop(listener);
    let (_, event) = next_event(&channels);
    assert_eq!(event.id, id.token());
    assert!(
        matches!(event.kind, CmEventKind::Rejected { .. }),
        "{event:?}"
    );
}

#[test]
fn calls_out_of_turn_are_refused_by_name() {
    let side = Side::new();
    let state = |error: VerbsError| assert!(matches!(error, VerbsError::State { .. }), "{error}");
    let id = side.id();
    state(id.listen(1).unwrap_err());
    state(id.connect(&[]).unwrap_err());
    state(id.accept(&[]).unwrap_err());
    state(id.establish().unwrap_err());
    state(id.reject(&[]).unwrap_err());
    state(id.create_qp(&side.attr()).unwrap_err());
    id.disconnect();
    assert_eq!(id.local_addr(), None);
    id.bind(bind_to("127.0.0.1:0")).unwrap();
    state(id.bind(bind_to("127.0.0.1:0")).unwrap_err());
    id.listen(1).unwrap();
    id.listen(5).unwrap();
    state(
        id.resolve("127.0.0.1:1".parse().unwrap(), Duration::ZERO)
            .unwrap_err(),
    );
    // The port is taken, for TCP too, until the listener is gone.
    let addr = id.local_addr().unwrap();
    let error = side.id().bind(bind_to(&addr.to_string())).unwrap_err();
    assert_eq!(error.errno(), libc::EADDRINUSE);
    assert!(std::net::TcpListener::bind(addr).is_err());
    drop(id);
    drop(std::net::TcpListener::bind(addr).unwrap());
    let again = side.listen(&addr.to_string(), 1);
    assert_eq!(again.local_addr(), Some(addr));

    let other = Side::new();
    assert!(matches!(
        side.provider.create_id(&other.channel),
        Err(VerbsError::Argument { .. })
    ));
}

#[test]
fn a_second_queue_pair_is_refused_and_one_lost_too_early_is_noticed() {
    let (client, server) = (Side::new(), Side::new());
    let channels = [&client.channel, &server.channel];
    let listener = server.listen("127.0.0.1:0", 8);
    let id = client.resolve(listener.local_addr().unwrap());
    next_event(&channels);
    let qp = id.create_qp(&client.attr()).unwrap();
    assert!(id.create_qp(&client.attr()).is_err());
    drop(qp);
    let error = id.connect(&[]).unwrap_err();
    assert!(
        error.to_string().contains("without a queue pair"),
        "{error}"
    );
}

#[test]
fn ids_outlive_their_provider_and_channel() {
    let (client, server) = (Side::new(), Side::new());
    let listener = server.listen("127.0.0.1:0", 8);
    let dst = listener.local_addr().unwrap();
    let (a, b) = connect(&client, &server, &listener, dst);
    drop(client);
    a.id.disconnect();
    let (_, event) = next_event(&[&server.channel]);
    event_is!(event, b.id.token(), CmEventKind::Disconnected => ());
    drop((a, b));
}

#[test]
fn an_instance_that_is_dropped_ends_its_connections() {
    let (client, server) = (Side::new(), Side::new());
    let listener = server.listen("127.0.0.1:0", 8);
    let dst = listener.local_addr().unwrap();
    let (a, b) = connect(&client, &server, &listener, dst);
    drop((a, client));
    let (_, event) = next_event(&[&server.channel]);
    event_is!(event, b.id.token(), CmEventKind::Disconnected => ());
}

#[test]
fn threads_may_connect_while_another_polls() {
    let (client, server) = (Side::new(), Arc::new(Side::new()));
    let listener = server.listen("127.0.0.1:0", 1024);
    let dst = listener.local_addr().unwrap();
    const THREADS: usize = 4;
    const EACH: usize = 25;
    let ids: Vec<_> = (0..THREADS * EACH).map(|_| client.id()).collect();
    std::thread::scope(|scope| {
        for part in ids.chunks(EACH) {
            scope.spawn(move || {
                for id in part {
                    id.resolve(dst, host_support::BOUND).unwrap();
                }
            });
        }
        let mut kept = Vec::new();
        let mut established = 0;
        while established < THREADS * EACH {
            let (_, event) = next_event(&[&client.channel, &server.channel]);
            let id = ids.iter().find(|id| id.token() == event.id);
            match event.kind {
                CmEventKind::Resolved => {
                    let id = Arc::clone(id.unwrap());
                    let attr = client.attr();
                    let thread = scope.spawn(move || {
                        let qp = id.create_qp(&attr).unwrap();
                        id.connect(&[]).unwrap();
                        (id, qp)
                    });
                    kept.push(thread.join().unwrap());
                }
                CmEventKind::ConnectRequest { id, .. } => {
                    let qp = id.create_qp(&server.attr()).unwrap();
                    id.accept(&[]).unwrap();
                    kept.push((id, qp));
                }
                CmEventKind::ConnectResponse { .. } => {
                    let id = kept.iter().find(|(id, _)| id.token() == event.id);
                    id.unwrap().0.establish().unwrap();
                }
                CmEventKind::Established => established += 1,
                other => panic!("unexpected {other:?}"),
            }
        }
    });
}
