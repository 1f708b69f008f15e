/* What the functions promise, as a C program sees it: both ends of a connection in one thread. */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "common.h"

static volatile sig_atomic_t pipes;

static void on_pipe(int signal_number) {
    (void)signal_number;
    pipes = pipes + 1;
}

/* Every function that takes a socket refuses one that is none. */
static void all_refuse(int bad) {
    char byte = 0;
    struct iovec piece = {&byte, 1};
    struct sockaddr_in address = loopback(1);
    struct sockaddr *name = (struct sockaddr *)&address;
    socklen_t length = sizeof address;
    struct msghdr message;
    struct mmsghdr messages;
    memset(&message, 0, sizeof message);
    memset(&messages, 0, sizeof messages);
    int value = 1;
    socklen_t size = sizeof value;
    FAILS(sdp_bind(bad, name, length), EBADF);
    FAILS(sdp_listen(bad, 1), EBADF);
    FAILS(sdp_accept(bad, name, &length), EBADF);
    FAILS(sdp_accept4(bad, name, &length, -1), EBADF);
    FAILS(sdp_read(bad, NULL, 0), EBADF);
    FAILS(sdp_write(bad, &byte, 1), EBADF);
    FAILS(sdp_sendto(bad, &byte, 1, 0, name, 9999), EBADF);
    FAILS(sdp_recvfrom(bad, &byte, 1, 0, name, NULL), EBADF);
    FAILS(sdp_sendmsg(bad, &message, 0), EBADF);
    FAILS(sdp_recvmsg(bad, NULL, 0), EBADF);
    FAILS(sdp_sendmmsg(bad, &messages, 1, 0), EBADF);
    FAILS(sdp_recvmmsg(bad, NULL, 1, 0, NULL), EBADF);
    FAILS(sdp_sendfile(bad, 0, NULL, 1), EBADF);
    FAILS(sdp_fcntl(bad, F_GETFL), EBADF);
    FAILS(sdp_fcntl(bad, F_SETFL, O_NONBLOCK), EBADF);
    FAILS(sdp_connect(bad, name, length), EBADF);
    FAILS(sdp_send(bad, &byte, 1, 0), EBADF);
    FAILS(sdp_recv(bad, &byte, 1, 0), EBADF);
    FAILS(sdp_writev(bad, &piece, 1), EBADF);
    FAILS(sdp_readv(bad, &piece, 1), EBADF);
    FAILS(sdp_shutdown(bad, SHUT_RD), EBADF);
    FAILS(sdp_getsockname(bad, name, &length), EBADF);
    FAILS(sdp_getpeername(bad, name, &length), EBADF);
    FAILS(sdp_getsockopt(bad, SOL_SOCKET, SO_ERROR, &value, &size), EBADF);
    FAILS(sdp_setsockopt(bad, SOL_SOCKET, SO_SNDBUF, &value, size), EBADF);
    FAILS(sdp_set_nonblocking(bad, 1), EBADF);
    FAILS(sdp_ioctl(bad, FIONREAD, &value), EBADF);
    FAILS(sdp_sockatmark(bad), EBADF);
    FAILS(sdp_fileno(bad), EBADF);
    FAILS(sdp_close(bad), EBADF);
}

static void bad_arguments(void) {
    FAILS(sdp_socket(AF_UNIX, SOCK_STREAM, 0), EAFNOSUPPORT);
    FAILS(sdp_socket(AF_INET, SOCK_DGRAM, 0), ESOCKTNOSUPPORT);
    FAILS(sdp_socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
    FAILS(sdp_socket(AF_INET, -1, 0), EINVAL);
    int local;
    FAILS(sdp_free(&local), EINVAL);
    CHECK(sdp_free(NULL) == 0);
    void *memory = sdp_alloc(10);
    CHECK(memory != NULL && sdp_free(memory) == 0);
    FAILS(sdp_free(memory), EINVAL);
    errno = 0;
    CHECK(sdp_alloc(SIZE_MAX) == NULL && errno == ENOMEM);
}

static void before_connecting(void) {
    char byte = 0;
    struct sockaddr_in address = loopback(1);
    struct sockaddr *name = (struct sockaddr *)&address;
    struct sockaddr_in6 other;
    socklen_t length = sizeof address;
    memset(&other, 0, sizeof other);
    other.sin6_family = AF_INET6;
    int fresh = sdp_socket(AF_INET, SOCK_STREAM, 0);
    FAILS(sdp_accept(fresh, NULL, NULL), EINVAL);
    FAILS(sdp_recv(fresh, &byte, 1, 0), ENOTCONN);
    FAILS(sdp_send(fresh, &byte, 1, MSG_NOSIGNAL), EPIPE);
    FAILS(sdp_shutdown(fresh, SHUT_RD), ENOTCONN);
    CHECK(sdp_sockatmark(fresh) == 0);
    FAILS(sdp_shutdown(fresh, 7), EINVAL);
    FAILS(sdp_getpeername(fresh, name, &length), ENOTCONN);
    FAILS(sdp_fileno(fresh), EOPNOTSUPP);
    FAILS(sdp_bind(fresh, NULL, length), EFAULT);
    FAILS(sdp_bind(fresh, name, 2), EINVAL);
    FAILS(sdp_connect(fresh, NULL, length), EFAULT);
    FAILS(sdp_connect(fresh, (struct sockaddr *)&other, sizeof other), EAFNOSUPPORT);
    FAILS(sdp_getsockname(fresh, NULL, &length), EFAULT);
    FAILS(sdp_getsockname(fresh, name, NULL), EFAULT);
    FAILS(sdp_setsockopt(fresh, SOL_SOCKET, SO_SNDBUF, NULL, 4), EFAULT);
    FAILS(sdp_setsockopt(fresh, SOL_SOCKET, SO_TYPE, &fresh, sizeof fresh), ENOPROTOOPT);
    FAILS(sdp_setsockopt(fresh, SOL_SOCKET, 9999, &fresh, sizeof fresh), ENOPROTOOPT);
    FAILS(sdp_setsockopt(fresh, IPPROTO_IPV6, IPV6_V6ONLY, &fresh, sizeof fresh), ENOPROTOOPT);
    CHECK(sdp_getsockname(fresh, name, &length) == 0);
    CHECK(address.sin_port == 0 && address.sin_addr.s_addr == htonl(INADDR_ANY));
    CHECK(sdp_close(fresh) == 0);
    all_refuse(fresh);
}

/* Sets an int and reads it back. */
static int round_trip(int socket, int level, int option, int value) {
    socklen_t length = sizeof value;
    CHECK(sdp_setsockopt(socket, level, option, &value, length) == 0);
    value = -77;
    CHECK(sdp_getsockopt(socket, level, option, &value, &length) == 0);
    CHECK(length == sizeof value);
    return value;
}

static int get(int socket, int level, int option) {
    int value = -77;
    socklen_t length = sizeof value;
    CHECK(sdp_getsockopt(socket, level, option, &value, &length) == 0);
    return value;
}

static void options(int socket) {
    CHECK(round_trip(socket, SOL_SOCKET, SO_SNDBUF, 1 << 20) == 1 << 20);
    CHECK(round_trip(socket, SOL_SOCKET, SO_RCVBUF, 1 << 21) == 1 << 21);
    CHECK(round_trip(socket, SOL_SOCKET, SO_REUSEADDR, 1) == 1);
    CHECK(round_trip(socket, SOL_SOCKET, SO_REUSEPORT, 0) == 0);
    CHECK(round_trip(socket, IPPROTO_TCP, TCP_NODELAY, 1) == 1);
    CHECK(round_trip(socket, SOL_SOCKET, SO_KEEPALIVE, 1) == 1);
    CHECK(round_trip(socket, IPPROTO_TCP, TCP_KEEPIDLE, 60) == 60);
    CHECK(round_trip(socket, IPPROTO_TCP, TCP_KEEPINTVL, 5) == 5);
    CHECK(round_trip(socket, IPPROTO_TCP, TCP_KEEPCNT, 3) == 3);
    CHECK(round_trip(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, 1000) == 1000);
    CHECK(round_trip(socket, SOL_SDP, SDP_ZCOPY_THRESH, 1 << 16) == 1 << 16);
    CHECK(round_trip(socket, IPPROTO_TCP, SDP_ZCOPY_THRESH, SDP_ZCOPY_AUTO) == SDP_ZCOPY_AUTO);
    CHECK(get(socket, SOL_SOCKET, SO_TYPE) == SOCK_STREAM);
    CHECK(get(socket, SOL_SOCKET, SO_DOMAIN) == AF_INET_SDP);
    CHECK(get(socket, SOL_SOCKET, SO_ERROR) == 0);
    struct timeval time = {2, 500000};
    CHECK(sdp_setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) == 0);
    memset(&time, 0, sizeof time);
    socklen_t length = sizeof time;
    CHECK(sdp_getsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, &length) == 0);
    CHECK(time.tv_sec == 2 && time.tv_usec == 500000 && length == sizeof time);
    time.tv_usec = 1000000;
    FAILS(sdp_setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time), EDOM);
    struct linger linger = {1, 3};
    CHECK(sdp_setsockopt(socket, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
    linger.l_linger = 0;
    length = sizeof linger;
    CHECK(sdp_getsockopt(socket, SOL_SOCKET, SO_LINGER, &linger, &length) == 0);
    CHECK(linger.l_onoff == 1 && linger.l_linger == 3);
}

/* Connects to the listener and accepts; ends[0] connected, ends[1] was accepted. */
static void make_pair(int listener, int ends[2]) {
    struct sockaddr_in address = loopback(port_of(listener));
    ends[0] = sdp_socket(AF_INET_SDP, SOCK_STREAM, 0);
    CHECK(sdp_connect(ends[0], (struct sockaddr *)&address, sizeof address) == 0);
    FAILS(sdp_connect(ends[0], (struct sockaddr *)&address, sizeof address), EISCONN);
    socklen_t length = sizeof address;
    ends[1] = sdp_accept(listener, (struct sockaddr *)&address, &length);
    CHECK(ends[1] >= 1 << 20);
    CHECK(ntohs(address.sin_port) == port_of(ends[0]));
    CHECK(sdp_getpeername(ends[0], (struct sockaddr *)&address, &length) == 0);
    CHECK(ntohs(address.sin_port) == port_of(listener));
}

static void transfer(int ends[2]) {
    char part[3], rest[8];
    struct iovec out[3] = {{(void *)"abc", 3}, {NULL, 0}, {(void *)"defgh", 5}};
    struct iovec in[2] = {{part, sizeof part}, {rest, 5}};
    FAILS(sdp_recv(ends[1], part, 1, MSG_DONTWAIT), EAGAIN);
    CHECK(sdp_writev(ends[0], out, 3) == 8);
    struct pollfd polled = {sdp_fileno(ends[1]), POLLIN, 0};
    CHECK(polled.fd >= 0 && polled.fd == sdp_fileno(ends[1]));
    CHECK(poll(&polled, 1, 30000) == 1 && polled.revents == POLLIN);
    CHECK(sdp_recv(ends[1], rest, 8, MSG_PEEK | MSG_WAITALL) == 8);
    CHECK(memcmp(rest, "abcdefgh", 8) == 0);
    CHECK(sdp_readv(ends[1], in, 2) == 8);
    CHECK(memcmp(part, "abc", 3) == 0 && memcmp(rest, "defgh", 5) == 0);
    CHECK(poll(&polled, 1, 0) == 0);
    CHECK(sdp_set_nonblocking(ends[1], 1) == 0);
    FAILS(sdp_recv(ends[1], part, 1, 0), EAGAIN);
    CHECK(sdp_set_nonblocking(ends[1], 0) == 0);
    int value = 1;
    CHECK(sdp_ioctl(ends[1], FIONBIO, &value) == 0);
    FAILS(sdp_recv(ends[1], part, 1, 0), EAGAIN);
    value = 0;
    CHECK(sdp_ioctl(ends[1], FIONBIO, &value) == 0);
    FAILS(sdp_ioctl(ends[1], FIONREAD, NULL), EFAULT);
    FAILS(sdp_ioctl(ends[1], TIOCSTI, &value), ENOTTY);

    FAILS(sdp_send(ends[0], NULL, 1, 0), EFAULT);
    FAILS(sdp_recv(ends[0], NULL, 1, MSG_DONTWAIT), EAGAIN);
    FAILS(sdp_writev(ends[0], NULL, 1), EFAULT);
    FAILS(sdp_readv(ends[0], NULL, 1), EFAULT);
    FAILS(sdp_writev(ends[0], out, -1), EINVAL);
    FAILS(sdp_writev(ends[0], out, 1025), EINVAL);
    FAILS(sdp_send(ends[0], part, 1, MSG_ERRQUEUE), EOPNOTSUPP);
    FAILS(sdp_recv(ends[0], part, 1, MSG_ERRQUEUE), EOPNOTSUPP);
    CHECK(sdp_send(ends[0], NULL, 0, 0) == 0);
    CHECK(sdp_writev(ends[0], NULL, 0) == 0);
    struct iovec huge[2] = {{part, SIZE_MAX}, {part, 2}};
    FAILS(sdp_writev(ends[0], huge, 2), EINVAL);
}

static int queued(int socket, unsigned long request) {
    int value = -1;
    CHECK(sdp_ioctl(socket, request, &value) == 0 && value >= 0);
    return value;
}

/* How many bytes wait, on either side, and from how many on a receive returns. */
static void queues(int listener, int ends[2]) {
    char bytes[10];
    int value;
    FAILS(sdp_ioctl(listener, FIONREAD, &value), EINVAL);
    FAILS(sdp_ioctl(listener, TIOCOUTQ, &value), EINVAL);
    CHECK(queued(ends[1], FIONREAD) == 0);
    CHECK(sdp_send(ends[0], "abcd", 4, 0) == 4);
    while (queued(ends[1], FIONREAD) < 4 || queued(ends[0], TIOCOUTQ) > 0) {
    }
    CHECK(queued(ends[1], FIONREAD) == 4);
    CHECK(get(ends[1], SOL_SOCKET, SO_SNDLOWAT) == 1);
    const int one = 1, five = 5;
    FAILS(sdp_setsockopt(ends[1], SOL_SOCKET, SO_SNDLOWAT, &one, sizeof one), ENOPROTOOPT);
    CHECK(get(ends[1], SOL_SOCKET, SO_RCVLOWAT) == 1);
    CHECK(sdp_setsockopt(ends[1], SOL_SOCKET, SO_RCVLOWAT, &five, sizeof five) == 0);
    CHECK(get(ends[1], SOL_SOCKET, SO_RCVLOWAT) == 5);
    struct pollfd polled = {sdp_fileno(ends[1]), POLLIN, 0};
    CHECK(poll(&polled, 1, 0) == 0);
    CHECK(sdp_send(ends[0], "e", 1, 0) == 1);
    CHECK(poll(&polled, 1, 30000) == 1);
    CHECK(sdp_recv(ends[1], bytes, sizeof bytes, 0) == 5);
    CHECK(sdp_setsockopt(ends[1], SOL_SOCKET, SO_RCVLOWAT, &one, sizeof one) == 0);
}

/* The urgent byte: ahead of the others once, and its place among them. */
static void urgent(int ends[2]) {
    char bytes[8];
    FAILS(sdp_recv(ends[1], bytes, 1, MSG_OOB), EINVAL);
    FAILS(sdp_recv(ends[1], NULL, 1, MSG_OOB), EINVAL);
    FAILS(sdp_send(ends[0], NULL, 1, MSG_OOB), EFAULT);
    CHECK(sdp_sockatmark(ends[1]) == 0);
    CHECK(sdp_send(ends[0], "abc!", 4, MSG_OOB) == 4);
    CHECK(sdp_send(ends[0], "def", 3, 0) == 3);
    struct pollfd polled = {sdp_fileno(ends[1]), POLLPRI, 0};
    if (poll(&polled, 1, 2000) == 1) {
        CHECK(polled.revents == POLLPRI);
    } else {
        puts("skipped: this kernel shows no urgent bytes of Unix sockets");
    }
    CHECK(sdp_recv(ends[1], bytes, sizeof bytes, MSG_OOB | MSG_PEEK) == 1 && bytes[0] == '!');
    CHECK(sdp_recv(ends[1], bytes, sizeof bytes, 0) == 3);
    CHECK(sdp_sockatmark(ends[1]) == 1 && queued(ends[1], SIOCATMARK) == 1);
    CHECK(sdp_recv(ends[1], bytes, sizeof bytes, MSG_OOB) == 1 && bytes[0] == '!');
    FAILS(sdp_recv(ends[1], bytes, 1, MSG_OOB), EINVAL);
    CHECK(poll(&polled, 1, 0) == 0);
    CHECK(sdp_recv(ends[1], bytes, sizeof bytes, 0) == 3 && memcmp(bytes, "def", 3) == 0);
    CHECK(round_trip(ends[1], SOL_SOCKET, SO_OOBINLINE, 1) == 1);
    CHECK(sdp_send(ends[0], "!", 1, MSG_OOB) == 1);
    CHECK(sdp_recv(ends[1], bytes, sizeof bytes, 0) == 1 && bytes[0] == '!');
    CHECK(round_trip(ends[1], SOL_SOCKET, SO_OOBINLINE, 0) == 0);
}

/* A send to where nobody reads any more: SIGPIPE unless the flag says not to. */
static void broken_pipe(int ends[2]) {
    char byte = 0;
    CHECK(sdp_shutdown(ends[0], SHUT_WR) == 0);
    CHECK(sdp_recv(ends[1], &byte, 1, 0) == 0);
    struct iovec piece = {&byte, 1};
    CHECK(pipes == 0);
    FAILS(sdp_send(ends[0], &byte, 1, MSG_NOSIGNAL), EPIPE);
    CHECK(pipes == 0);
    FAILS(sdp_send(ends[0], &byte, 1, 0), EPIPE);
    CHECK(pipes == 1);
    FAILS(sdp_writev(ends[0], &piece, 1), EPIPE);
    CHECK(pipes == 2);
}

static void non_blocking_connect(int listener) {
    struct sockaddr_in address = loopback(port_of(listener));
    int socket = sdp_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    FAILS(sdp_connect(socket, (struct sockaddr *)&address, sizeof address), EINPROGRESS);
    int accepted = sdp_accept(listener, NULL, NULL);
    CHECK(accepted >= 1 << 20);
    /* It is accepted, so it is connected, or about to be. */
    CHECK(sdp_set_nonblocking(socket, 0) == 0);
    CHECK(sdp_connect(socket, (struct sockaddr *)&address, sizeof address) == 0);
    FAILS(sdp_connect(socket, (struct sockaddr *)&address, sizeof address), EISCONN);
    CHECK(get(socket, SOL_SOCKET, SO_ERROR) == 0);
    CHECK(sdp_close(accepted) == 0 && sdp_close(socket) == 0);
}

static void refused(void) {
    int taken = sdp_socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = loopback(0);
    CHECK(sdp_bind(taken, (struct sockaddr *)&address, sizeof address) == 0);
    /* The port is taken, and nobody listens. */
    address = loopback(port_of(taken));
    int socket = sdp_socket(AF_INET, SOCK_STREAM, 0);
    FAILS(sdp_connect(socket, (struct sockaddr *)&address, sizeof address), ECONNREFUSED);
    FAILS(sdp_bind(socket, (struct sockaddr *)&address, sizeof address), EADDRINUSE);
    CHECK(sdp_close(socket) == 0 && sdp_close(taken) == 0);
}

int main(void) {
    CHECK(strcmp(sdp_version(), SDP_VERSION_STRING) == 0);
    CHECK(sdp_version_number() == SDP_VERSION_NUMBER);
    CHECK(strcmp(sdp_strerror_ext(), "") == 0);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_pipe;
    CHECK(sigaction(SIGPIPE, &action, NULL) == 0);

    const int strangers[] = {-1, 0, 1, STDERR_FILENO, 1 << 20, INT_MAX, INT_MIN};
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++) {
        all_refuse(strangers[i]);
    }
    bad_arguments();
    before_connecting();
    refused();
    int listener = listen_anywhere();
    CHECK(get(listener, SOL_SOCKET, SO_ACCEPTCONN) == 1);
    FAILS(sdp_bind(listener, NULL, sizeof(struct sockaddr_in)), EFAULT);
    FAILS(sdp_bind(listener, NULL, 0), EINVAL);
    int ends[2];
    make_pair(listener, ends);
    CHECK(get(ends[0], SOL_SOCKET, SO_ACCEPTCONN) == 0);
    FAILS(sdp_listen(ends[0], 1), EINVAL);
    options(ends[0]);
    transfer(ends);
    queues(listener, ends);
    urgent(ends);
    broken_pipe(ends);
    CHECK(sdp_close(ends[0]) == 0 && sdp_close(ends[1]) == 0);
    all_refuse(ends[0]);
    non_blocking_connect(listener);
    CHECK(sdp_shutdown(listener, SHUT_RDWR) == 0);
    FAILS(sdp_accept(listener, NULL, NULL), EINVAL);
    CHECK(sdp_close(listener) == 0);
    all_refuse(listener);
    puts("contract holds");
    return 0;
}
