/* The phases of a socket, each made anew for every question. */
#ifndef DIFFER_PHASES_H
#define DIFFER_PHASES_H

#include "frame.h"

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons((in_port_t)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int port_of(int socket) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    MUST(S(getsockname)(socket, (struct sockaddr *)&address, &length) == 0);
    return ntohs(address.sin_port);
}

static int fresh(void) {
    int s = S(socket)(AF_INET, SOCK_STREAM, 0);
    MUST(s >= 0);
    return s;
}

/* Of IPv6, where the machine has it. */
static int fresh_v6(void) {
    int s = S(socket)(AF_INET6, SOCK_STREAM, 0);
    MUST(s >= 0);
    return s;
}

static int has_v6(void) {
    int s = socket(AF_INET6, SOCK_STREAM, 0);
    return s >= 0 && close(s) == 0;
}

static int bound(void) {
    int s = fresh();
    struct sockaddr_in address = loopback(0);
    MUST(S(bind)(s, (struct sockaddr *)&address, sizeof address) == 0);
    return s;
}

static short poll_one(int s, short events, int timeout) {
    struct pollfd polled = {s, events, 0};
    MUST(S(poll)(&polled, 1, timeout) >= 0);
    return polled.revents;
}

static int listening_for(int backlog) {
    int s = bound();
    MUST(S(listen)(s, backlog) == 0);
    /* Behind the preload library SDP listens once somebody accepts. */
    int on = 1, off = 0;
    MUST(S(ioctl)(s, FIONBIO, &on) == 0);
    MUST(S(accept)(s, NULL, NULL) == -1 && errno == EAGAIN);
    MUST(S(ioctl)(s, FIONBIO, &off) == 0);
    return s;
}

static int listening(void) {
    return listening_for(16);
}

/* The other end of a connection, and who else must be closed behind a phase. */
static int peer = -1;
static int others[8];
static int other_count;
/* How many callers a listener with a backlog of none takes. */
static int room = 1;

/* A listener, and who has called it. The kernel gives a port that another process may have in SDP: then
 * another is tried. */
static int listening_to(int *caller, int backlog) {
    for (int left = 5;; left--) {
        int listener = listening_for(backlog);
        struct sockaddr_in address = loopback(port_of(listener));
        *caller = fresh();
        if (S(connect)(*caller, (struct sockaddr *)&address, sizeof address) == 0) {
            return listener;
        }
        MUST(errno == ECONNREFUSED && left > 0);
        MUST(S(close)(*caller) == 0 && S(close)(listener) == 0);
    }
}

static int connected(void) {
    int s, listener = listening_to(&s, 16);
    peer = S(accept)(listener, NULL, NULL);
    MUST(peer >= 0 && S(close)(listener) == 0);
    return s;
}

static int start_connect(const struct sockaddr_in *address) {
    int s = S(socket)(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    MUST(s >= 0);
    /* Or it is known at once. */
    int result = S(connect)(s, (const struct sockaddr *)address, sizeof *address);
    MUST(result == 0 || errno == EINPROGRESS || errno == ECONNREFUSED);
    return s;
}

/* Behind a listener that takes no more. */
static int connecting(void) {
    int first, listener = listening_to(&first, 0);
    struct sockaddr_in address = loopback(port_of(listener));
    others[other_count++] = listener;
    others[other_count++] = first;
    for (int i = 1; i < room; i++) {
        int s = start_connect(&address);
        others[other_count++] = s;
        MUST(poll_one(s, POLLOUT, LONG) == POLLOUT);
    }
    int s = start_connect(&address);
    MUST(poll_one(s, POLLOUT, 0) == 0);
    return s;
}

static int refused(void) {
    int taken = bound();
    struct sockaddr_in address = loopback(port_of(taken));
    int s = start_connect(&address);
    MUST((poll_one(s, POLLOUT, LONG) & POLLOUT) != 0);
    others[other_count++] = taken;
    return s;
}

static int with_bytes(void) {
    int s = connected();
    MUST(S(send)(peer, "abcd", 4, 0) == 4);
    while (poll_one(s, POLLIN, LONG) == 0) {
    }
    return s;
}

static int with_urgent(void) {
    int s = connected();
    MUST(S(send)(peer, "ab!", 3, MSG_OOB) == 3);
    MUST(S(send)(peer, "cd", 2, 0) == 2);
    /* Both have come. */
    int queued = 0;
    while (queued < 2 || (poll_one(s, POLLPRI, 0) & POLLPRI) == 0) {
        MUST(S(ioctl)(s, FIONREAD, &queued) == 0);
    }
    return s;
}

static int shut_for_reading(void) {
    int s = connected();
    MUST(S(shutdown)(s, SHUT_RD) == 0);
    return s;
}

static int shut_for_writing(void) {
    int s = connected();
    MUST(S(shutdown)(s, SHUT_WR) == 0);
    return s;
}

static int shut_by_peer(void) {
    int s = connected();
    MUST(S(shutdown)(peer, SHUT_WR) == 0);
    MUST((poll_one(s, POLLRDHUP, LONG) & POLLRDHUP) != 0);
    return s;
}

static int shut_by_both(void) {
    int s = shut_by_peer();
    MUST(S(shutdown)(s, SHUT_WR) == 0);
    while ((poll_one(s, POLLRDHUP, LONG) & POLLHUP) == 0) {
    }
    return s;
}

static void reset(int s) {
    struct linger linger = {1, 0};
    MUST(S(setsockopt)(peer, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
    MUST(S(close)(peer) == 0);
    peer = -1;
    while ((poll_one(s, POLLIN, LONG) & POLLERR) == 0) {
    }
}

static int reset_by_peer(void) {
    int s = connected();
    reset(s);
    return s;
}

/* Behind bytes that have come before. */
static int reset_with_bytes(void) {
    int s = with_bytes();
    reset(s);
    return s;
}

static int no_longer_listening(void) {
    int s = listening();
    MUST(S(shutdown)(s, SHUT_RD) == 0);
    return s;
}

/* With somebody to be accepted. */
static int called(void) {
    int caller, s = listening_to(&caller, 16);
    others[other_count++] = caller;
    MUST(poll_one(s, POLLIN, LONG) == POLLIN);
    return s;
}

/* Not one of a stream's phases: what is asked of it, a socket is asked. */
static int no_socket(void) {
    int ends[2];
    MUST(pipe(ends) == 0);
    MUST(close(ends[1]) == 0);
    return ends[0];
}

static int closed(void) {
    int s = fresh();
    MUST(S(close)(s) == 0);
#ifndef OVER_SDP
    /* What is opened next has the same number, unlike with the library. */
    s += 20;
#endif
    return s;
}

/* Closes what a phase has left behind its socket. */
static void leave(void) {
    if (peer >= 0) {
        S(close)(peer);
        peer = -1;
    }
    while (other_count > 0) {
        S(close)(others[--other_count]);
    }
}

#endif
