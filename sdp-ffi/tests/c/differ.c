/* Every call in every phase of a socket, with good and odd arguments. Built twice, with libc's sockets
 * and with this library's, it prints what each call gives: both must print the same.
 *
 * differ [ROOM]: ROOM callers, not one, find room in a backlog of none. */
#if defined(__GNUC__) && !defined(__clang__)
/* Wrong arguments are what this is about. */
#pragma GCC diagnostic ignored "-Wnonnull"
#pragma GCC diagnostic ignored "-Wstringop-overflow"
#pragma GCC diagnostic ignored "-Wstringop-overread"
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef OVER_SDP
#include "sdp.h"
#define S(name) sdp_##name
#else
#define S(name) name
#endif

/* What the set-up of a phase needs: without it nothing can be compared. */
#define MUST(condition)                                                              \
    do {                                                                             \
        if (!(condition)) {                                                          \
            fprintf(stderr, "%s:%d: not: %s (%s)\n", __FILE__, __LINE__, #condition, \
                    strerror(errno));                                                \
            exit(1);                                                                 \
        }                                                                            \
    } while (0)

/* Only a hang is as long: milliseconds. */
#define LONG 30000

static const char *phase;
static volatile sig_atomic_t pipes;

static void on_pipe(int number) {
    (void)number;
    pipes = pipes + 1;
}

/* One line: the phase, the call, what it gave. */
static void say(const char *call, long result) {
    int why = errno;
    printf("%s: %s = ", phase, call);
    if (result == -1) {
        printf("%s", strerror(why));
    } else {
        printf("%ld", result);
    }
    if (pipes > 0) {
        printf(", SIGPIPE %d", (int)pipes);
        pipes = 0;
    }
    putchar('\n');
}

#define SAY(call) (errno = 0, say(#call, (long)(call)))
/* One whose result is a socket, if it is one. */
#define SAY_SOCKET(call)                     \
    do {                                     \
        errno = 0;                           \
        int made = (call);                   \
        say(#call, made >= 0 ? 0 : made);    \
        if (made >= 0) {                     \
            S(close)(made);                  \
        }                                    \
    } while (0)

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

static int connected(void) {
    int listener = listening();
    int s = fresh();
    struct sockaddr_in address = loopback(port_of(listener));
    MUST(S(connect)(s, (struct sockaddr *)&address, sizeof address) == 0);
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
    int listener = listening_for(0);
    struct sockaddr_in address = loopback(port_of(listener));
    others[other_count++] = listener;
    for (int i = 0; i < room; i++) {
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

static int reset_by_peer(void) {
    int s = connected();
    struct linger linger = {1, 0};
    MUST(S(setsockopt)(peer, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
    MUST(S(close)(peer) == 0);
    peer = -1;
    while ((poll_one(s, POLLIN, LONG) & POLLERR) == 0) {
    }
    return s;
}

static int no_longer_listening(void) {
    int s = listening();
    MUST(S(shutdown)(s, SHUT_RD) == 0);
    return s;
}

static int closed(void) {
    int s = fresh();
    MUST(S(close)(s) == 0);
#ifndef OVER_SDP
    /* What is opened next has the same number, unlike with the library. */
    s += 1000;
#endif
    return s;
}

/* Nothing that is asked here may wait. */
static void do_not_wait(int s) {
    S(fcntl)(s, F_SETFL, O_NONBLOCK);
}

static void asks_addresses(int s) {
    struct sockaddr_in6 address;
    struct sockaddr *name = (struct sockaddr *)&address;
    socklen_t length = sizeof address;
    memset(&address, 0, sizeof address);
    SAY(S(getsockname)(s, name, &length));
    printf("%s: family %d length %d\n", phase, name->sa_family, (int)length);
    length = 3;
    SAY(S(getsockname)(s, name, &length));
    printf("%s: length %d\n", phase, (int)length);
    length = (socklen_t)-1;
    SAY(S(getsockname)(s, name, &length));
    length = sizeof address;
    SAY(S(getsockname)(s, NULL, &length));
    SAY(S(getsockname)(s, name, NULL));
    length = sizeof address;
    SAY(S(getpeername)(s, name, &length));
    length = (socklen_t)-1;
    SAY(S(getpeername)(s, name, &length));
    length = sizeof address;
    SAY(S(getpeername)(s, NULL, &length));
}

static void asks_flags(int s) {
    SAY(S(fcntl)(s, F_GETFL) & (O_ACCMODE | O_NONBLOCK));
    SAY(S(fcntl)(s, F_SETFL, O_NONBLOCK));
    SAY(S(fcntl)(s, F_GETFL) & (O_ACCMODE | O_NONBLOCK));
    SAY(S(fcntl)(s, F_SETFL, O_WRONLY));
    SAY(S(fcntl)(s, F_GETFL) & (O_ACCMODE | O_NONBLOCK));
    SAY(S(fcntl)(s, F_SETFL, O_DIRECT));
    SAY(S(fcntl)(s, F_SETFD, FD_CLOEXEC));
    SAY(S(fcntl)(s, F_GETFD));
    SAY(S(fcntl)(s, -1));
    int value = 1;
    SAY(S(ioctl)(s, FIONBIO, &value));
    SAY(S(ioctl)(s, FIONBIO, NULL));
    value = -1;
    SAY(S(ioctl)(s, FIONREAD, &value));
    printf("%s: unread %d\n", phase, value);
    SAY(S(ioctl)(s, FIONREAD, NULL));
    value = -1;
    SAY(S(ioctl)(s, TIOCOUTQ, &value));
    SAY(S(ioctl)(s, TIOCGWINSZ, &value));
    value = -1;
    SAY(S(ioctl)(s, SIOCATMARK, &value));
    printf("%s: at mark %d\n", phase, value);
    SAY(S(sockatmark)(s));
}

static void polls(int s) {
    const short all = POLLIN | POLLPRI | POLLOUT | POLLRDHUP;
    struct pollfd polled[2] = {{s, all, 0}, {-1, all, 77}};
    SAY(S(poll)(polled, 2, 0));
    printf("%s: shows %#x %#x\n", phase, polled[0].revents, polled[1].revents);
    polled[0].events = 0;
    SAY(S(poll)(polled, 1, 0));
    printf("%s: shows %#x unasked\n", phase, polled[0].revents);
    struct timespec time = {0, 0};
    SAY(S(ppoll)(polled, 1, &time, NULL));
    time.tv_nsec = 1000000000;
    SAY(S(ppoll)(polled, 1, &time, NULL));
    SAY(S(poll)(NULL, 1, 0));
    SAY(S(poll)(NULL, (nfds_t)-1, 0));
}

static void binds(int s) {
    struct sockaddr_in address = loopback(0);
    struct sockaddr *name = (struct sockaddr *)&address;
    SAY(S(bind)(s, NULL, sizeof address));
    SAY(S(bind)(s, name, 3));
    SAY(S(bind)(s, name, (socklen_t)-1));
    SAY(S(bind)(s, name, 129));
    address.sin_family = AF_UNIX;
    SAY(S(bind)(s, name, sizeof address));
    address = loopback(0);
    address.sin_addr.s_addr = htonl(0xc0000201);
    SAY(S(bind)(s, name, sizeof address));
    address = loopback(0);
    SAY(S(bind)(s, name, sizeof address));
    SAY(S(bind)(s, name, sizeof address));
}

static void listens(int s) {
    SAY(S(listen)(s, -1));
    SAY(S(listen)(s, 5));
    SAY(S(listen)(s, INT_MAX));
}

static void accepts(int s) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    do_not_wait(s);
    SAY_SOCKET(S(accept)(s, NULL, NULL));
    SAY_SOCKET(S(accept)(s, (struct sockaddr *)&address, &length));
    SAY_SOCKET(S(accept)(s, (struct sockaddr *)&address, NULL));
    SAY_SOCKET(S(accept4)(s, NULL, NULL, SOCK_NONBLOCK));
    SAY_SOCKET(S(accept4)(s, NULL, NULL, 1));
}

static void connects(int s) {
    struct sockaddr_in address = loopback(1);
    struct sockaddr *name = (struct sockaddr *)&address;
    SAY(S(connect)(s, NULL, sizeof address));
    SAY(S(connect)(s, name, 1));
    SAY(S(connect)(s, name, (socklen_t)-1));
    SAY(S(connect)(s, name, 129));
    address.sin_family = AF_UNIX;
    SAY(S(connect)(s, name, sizeof address));
    int listener = listening();
    address = loopback(port_of(listener));
    errno = 0;
    int result = S(connect)(s, name, sizeof address), why = errno;
    say("S(connect)(s, name, sizeof address)", result);
    if (result == -1 && why == EINPROGRESS) {
        MUST(poll_one(s, POLLOUT, LONG) == POLLOUT);
    }
    SAY(S(connect)(s, name, sizeof address));
    MUST(S(close)(listener) == 0);
}

static void receives(int s) {
    char bytes[8];
    do_not_wait(s);
    SAY(S(recv)(s, bytes, 0, 0));
    SAY(S(recv)(s, NULL, 0, 0));
    SAY(S(read)(s, NULL, 0));
    SAY(S(readv)(s, NULL, 0));
    SAY(S(readv)(s, NULL, -1));
    SAY(S(recv)(s, bytes, 1, MSG_PEEK));
    SAY(S(recv)(s, bytes, 1, MSG_DONTWAIT));
    SAY(S(read)(s, bytes, 1));
    SAY(S(recv)(s, NULL, 1, 0));
    SAY(S(read)(s, NULL, 1));
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    SAY(S(recvfrom)(s, bytes, 1, 0, (struct sockaddr *)&address, &length));
    printf("%s: length %d\n", phase, (int)length);
    SAY(S(recvfrom)(s, bytes, 1, 0, NULL, &length));
    SAY(S(recv)(s, bytes, 1, MSG_WAITALL | MSG_PEEK));
    struct iovec pieces[2] = {{bytes, 1}, {bytes + 1, 1}};
    SAY(S(readv)(s, pieces, 2));
    SAY(S(readv)(s, pieces, 1025));
}

static void receives_urgent(int s) {
    char bytes[8];
    do_not_wait(s);
    SAY(S(recv)(s, bytes, 4, MSG_OOB | MSG_PEEK));
    SAY(S(recv)(s, bytes, 4, MSG_OOB));
    SAY(S(recv)(s, bytes, 4, MSG_OOB));
    SAY(S(recv)(s, bytes, 8, 0));
    SAY(S(recv)(s, bytes, 8, 0));
}

static void receives_messages(int s) {
    char bytes[8];
    struct sockaddr_in address;
    struct iovec piece = {bytes, 1};
    struct mmsghdr messages[2];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < 2; i++) {
        messages[i].msg_hdr.msg_iov = &piece;
        messages[i].msg_hdr.msg_iovlen = 1;
        messages[i].msg_hdr.msg_name = &address;
        messages[i].msg_hdr.msg_namelen = sizeof address;
        messages[i].msg_hdr.msg_control = bytes;
        messages[i].msg_hdr.msg_controllen = 3;
        messages[i].msg_hdr.msg_flags = 77;
        messages[i].msg_len = 77;
    }
    struct msghdr *message = &messages[0].msg_hdr;
    do_not_wait(s);
    SAY(S(recvmsg)(s, message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
    printf("%s: name %d control %d flags %#x\n", phase, (int)message->msg_namelen,
           (int)message->msg_controllen, message->msg_flags);
    SAY(S(recvmsg)(s, NULL, 0));
    message->msg_iovlen = 1025;
    SAY(S(recvmsg)(s, message, 0));
    message->msg_iovlen = 1;
    message->msg_namelen = (socklen_t)-1;
    SAY(S(recvmsg)(s, message, 0));
    message->msg_namelen = 0;
    SAY(S(recvmmsg)(s, messages, 2, MSG_WAITFORONE, NULL));
    printf("%s: lengths %u %u\n", phase, messages[0].msg_len, messages[1].msg_len);
    SAY(S(recvmmsg)(s, NULL, 1, 0, NULL));
    SAY(S(recvmmsg)(s, messages, 0, 0, NULL));
    struct timespec time = {-1, 0};
    SAY(S(recvmmsg)(s, messages, 1, 0, &time));
}

static void sends(int s) {
    struct sockaddr_in address = loopback(1);
    do_not_wait(s);
    SAY(S(send)(s, "a", 1, 0));
    SAY(S(send)(s, "a", 1, MSG_NOSIGNAL));
    SAY(S(send)(s, "a", 1, MSG_NOSIGNAL | MSG_MORE | MSG_CONFIRM | MSG_DONTROUTE | MSG_EOR));
    SAY(S(send)(s, "", 0, MSG_NOSIGNAL));
    SAY(S(send)(s, NULL, 0, MSG_NOSIGNAL));
    SAY(S(send)(s, NULL, 1, MSG_NOSIGNAL));
    SAY(S(write)(s, "a", 1));
    SAY(S(write)(s, NULL, 0));
    SAY(S(sendto)(s, "a", 1, MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof address));
    SAY(S(sendto)(s, "a", 1, MSG_NOSIGNAL, (struct sockaddr *)&address, 129));
    SAY(S(sendto)(s, "a", 1, MSG_NOSIGNAL, NULL, 129));
    struct iovec pieces[2] = {{(void *)"ab", 2}, {NULL, 0}};
    SAY(S(writev)(s, pieces, 2));
    SAY(S(writev)(s, &pieces[1], 1));
    SAY(S(writev)(s, NULL, 0));
    SAY(S(writev)(s, NULL, 1));
    SAY(S(writev)(s, pieces, -1));
    SAY(S(writev)(s, pieces, 1025));
    SAY(S(send)(s, "!", 1, MSG_OOB | MSG_NOSIGNAL));
}

static void sends_messages(int s) {
    struct iovec pieces[2] = {{(void *)"ab", 2}, {(void *)"c", 1}};
    struct mmsghdr messages[2];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < 2; i++) {
        messages[i].msg_hdr.msg_iov = pieces;
        messages[i].msg_hdr.msg_iovlen = 2;
        messages[i].msg_len = 77;
    }
    struct msghdr *message = &messages[0].msg_hdr;
    do_not_wait(s);
    SAY(S(sendmsg)(s, message, MSG_NOSIGNAL));
    SAY(S(sendmsg)(s, message, 0));
    message->msg_iovlen = 0;
    SAY(S(sendmsg)(s, message, MSG_NOSIGNAL));
    message->msg_iovlen = 1025;
    SAY(S(sendmsg)(s, message, MSG_NOSIGNAL));
    message->msg_iovlen = 2;
    message->msg_namelen = (socklen_t)-1;
    SAY(S(sendmsg)(s, message, MSG_NOSIGNAL));
    message->msg_namelen = 0;
    SAY(S(sendmsg)(s, NULL, MSG_NOSIGNAL));
    SAY(S(sendmmsg)(s, messages, 2, MSG_NOSIGNAL));
    printf("%s: lengths %u %u\n", phase, messages[0].msg_len, messages[1].msg_len);
    SAY(S(sendmmsg)(s, messages, 0, MSG_NOSIGNAL));
    SAY(S(sendmmsg)(s, NULL, 1, MSG_NOSIGNAL));
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    message->msg_control = &control;
    message->msg_controllen = sizeof control;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    control.header.cmsg_level = IPPROTO_UDP;
    SAY(S(sendmsg)(s, message, MSG_NOSIGNAL));
    control.header.cmsg_len = 1;
    SAY(S(sendmsg)(s, message, MSG_NOSIGNAL));
}

static void sends_files(int s) {
    char path[] = "/tmp/sdp-differ-XXXXXX";
    int file = mkstemp(path), pipes_of[2];
    MUST(file >= 0 && unlink(path) == 0 && write(file, "abcdef", 6) == 6);
    MUST(pipe(pipes_of) == 0);
    do_not_wait(s);
    off_t offset = 2;
    SAY(S(sendfile)(s, file, NULL, 10));
    SAY(S(sendfile)(s, file, &offset, 0));
    SAY(S(sendfile)(s, file, &offset, 3));
    SAY(S(sendfile)(s, file, &offset, 10));
    printf("%s: offset %d\n", phase, (int)offset);
    offset = -1;
    SAY(S(sendfile)(s, file, &offset, 3));
    SAY(S(sendfile)(s, file, NULL, SIZE_MAX));
    SAY(S(sendfile)(s, -1, NULL, 3));
    SAY(S(sendfile)(s, pipes_of[0], NULL, 3));
    offset = 0;
    SAY(S(sendfile)(s, pipes_of[0], &offset, 3));
    MUST(close(file) == 0 && close(pipes_of[0]) == 0 && close(pipes_of[1]) == 0);
}

static void shuts(int s) {
    SAY(S(shutdown)(s, 3));
    SAY(S(shutdown)(s, -1));
    SAY(S(shutdown)(s, SHUT_WR));
    SAY(S(shutdown)(s, SHUT_RD));
    SAY(S(shutdown)(s, SHUT_RDWR));
}

/* Options whose values are the same everywhere. */
static const struct {
    const char *name;
    int level, option;
} options[] = {
#define OPTION(level, option) {#option, level, option}
    OPTION(SOL_SOCKET, SO_TYPE),        OPTION(SOL_SOCKET, SO_DOMAIN),
    OPTION(SOL_SOCKET, SO_PROTOCOL),    OPTION(SOL_SOCKET, SO_ACCEPTCONN),
    OPTION(SOL_SOCKET, SO_ERROR),       OPTION(SOL_SOCKET, SO_ERROR),
    OPTION(SOL_SOCKET, SO_REUSEADDR),   OPTION(SOL_SOCKET, SO_REUSEPORT),
    OPTION(SOL_SOCKET, SO_KEEPALIVE),   OPTION(SOL_SOCKET, SO_BROADCAST),
    OPTION(SOL_SOCKET, SO_OOBINLINE),   OPTION(SOL_SOCKET, SO_LINGER),
    OPTION(SOL_SOCKET, SO_RCVTIMEO),    OPTION(SOL_SOCKET, SO_SNDTIMEO),
    OPTION(SOL_SOCKET, SO_RCVLOWAT),    OPTION(SOL_SOCKET, SO_SNDLOWAT),
    OPTION(SOL_SOCKET, SO_PRIORITY),    OPTION(IPPROTO_TCP, TCP_NODELAY),
    OPTION(IPPROTO_TCP, TCP_CORK),      OPTION(IPPROTO_TCP, TCP_KEEPIDLE),
    OPTION(IPPROTO_TCP, TCP_KEEPINTVL), OPTION(IPPROTO_TCP, TCP_KEEPCNT),
    OPTION(IPPROTO_TCP, TCP_SYNCNT),    OPTION(IPPROTO_TCP, TCP_LINGER2),
    OPTION(IPPROTO_TCP, TCP_QUICKACK),  OPTION(IPPROTO_TCP, TCP_DEFER_ACCEPT),
    OPTION(IPPROTO_IP, IP_TOS),         OPTION(IPPROTO_IP, IP_TTL),
    OPTION(IPPROTO_IPV6, IPV6_V6ONLY),  OPTION(SOL_SOCKET, 9999),
    OPTION(IPPROTO_TCP, 9999),          OPTION(IPPROTO_TCP, TCP_USER_TIMEOUT),
    OPTION(IPPROTO_TCP, TCP_FASTOPEN_CONNECT),
};

static void shows(const char *name, int result, const unsigned char *value, socklen_t length) {
    printf("%s: %s = %d %s", phase, name, result, result == 0 ? "" : strerror(errno));
    for (socklen_t i = 0; result == 0 && i < length; i++) {
        printf("%02x", value[i]);
    }
    putchar('\n');
}

static void asks_options(int s) {
    unsigned char value[32];
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        socklen_t length = sizeof value;
        int result = S(getsockopt)(s, options[i].level, options[i].option, value, &length);
        shows(options[i].name, result, value, length);
    }
    socklen_t length = 2;
    int result = S(getsockopt)(s, SOL_SOCKET, SO_TYPE, value, &length);
    shows("SO_TYPE of two bytes", result, value, length);
    SAY(S(getsockopt)(s, SOL_SOCKET, SO_TYPE, NULL, &length));
    SAY(S(getsockopt)(s, SOL_SOCKET, SO_TYPE, value, NULL));
    length = (socklen_t)-1;
    SAY(S(getsockopt)(s, SOL_SOCKET, SO_TYPE, value, &length));
}

static void sets_options(int s) {
    const int values[] = {1, 0, -1, 7, 300, 40000, INT_MAX};
    unsigned char value[32];
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        if (options[i].option == SO_RCVLOWAT || options[i].option == TCP_LINGER2 ||
            options[i].option == SO_PRIORITY || options[i].option == TCP_DEFER_ACCEPT) {
            /* Bounded by what differs: buffers, the system's settings, privileges, rounding. */
            continue;
        }
        for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
            char name[64];
            if (options[i].option == SO_LINGER && values[v] < 0) {
                /* Linux reads back what is left of its longest time in an int. */
                continue;
            }
            int pair[4] = {values[v], values[v], 0, 0};
            snprintf(name, sizeof name, "%s set to %d", options[i].name, values[v]);
            int result = S(setsockopt)(s, options[i].level, options[i].option, pair,
                                       options[i].option == SO_RCVTIMEO ||
                                               options[i].option == SO_SNDTIMEO
                                           ? sizeof pair
                                           : 2 * sizeof pair[0]);
            shows(name, result, value, 0);
            socklen_t length = sizeof value;
            result = S(getsockopt)(s, options[i].level, options[i].option, value, &length);
            shows(options[i].name, result, value, length);
        }
        char name[64];
        snprintf(name, sizeof name, "%s of no bytes", options[i].name);
        shows(name, S(setsockopt)(s, options[i].level, options[i].option, values, 0), value, 0);
        snprintf(name, sizeof name, "%s of negative length", options[i].name);
        shows(name, S(setsockopt)(s, options[i].level, options[i].option, values, (socklen_t)-1),
              value, 0);
    }
    SAY(S(setsockopt)(s, SOL_SOCKET, SO_KEEPALIVE, NULL, sizeof(int)));
}

static void closes(int s) {
    SAY(S(close)(s));
    SAY(S(close)(s));
}

#define NAMED(function) {#function, function}

static const struct {
    const char *name;
    int (*make)(void);
} phases[] = {
    NAMED(fresh),           NAMED(bound),           NAMED(listening),
    NAMED(connecting),      NAMED(refused),         NAMED(connected),
    NAMED(with_bytes),      NAMED(with_urgent),     NAMED(shut_for_reading),
    NAMED(shut_for_writing), NAMED(shut_by_peer),   NAMED(shut_by_both),
    NAMED(reset_by_peer),   NAMED(no_longer_listening), NAMED(closed),
    NAMED(fresh_v6),
};

static const struct {
    const char *name;
    void (*ask)(int);
} probes[] = {
    NAMED(asks_addresses),    NAMED(asks_flags),  NAMED(polls),          NAMED(binds),
    NAMED(listens),           NAMED(accepts),     NAMED(connects),       NAMED(receives),
    NAMED(receives_urgent),   NAMED(receives_messages), NAMED(sends),    NAMED(sends_messages),
    NAMED(sends_files),       NAMED(shuts),       NAMED(asks_options),   NAMED(sets_options),
    NAMED(closes),
};

int main(int count, char **arguments) {
    if (count == 2) {
        room = atoi(arguments[1]);
        MUST(room > 0 && room < 7);
    }
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_pipe;
    MUST(sigaction(SIGPIPE, &action, NULL) == 0);
    for (size_t p = 0; p < sizeof phases / sizeof phases[0]; p++) {
        if (phases[p].make == fresh_v6 && !has_v6()) {
            continue;
        }
        for (size_t q = 0; q < sizeof probes / sizeof probes[0]; q++) {
            char name[64];
            snprintf(name, sizeof name, "%s, %s", phases[p].name, probes[q].name);
            phase = name;
            int s = phases[p].make();
            probes[q].ask(s);
            S(close)(s);
            if (peer >= 0) {
                S(close)(peer);
                peer = -1;
            }
            while (other_count > 0) {
                S(close)(others[--other_count]);
            }
        }
    }
    return 0;
}
