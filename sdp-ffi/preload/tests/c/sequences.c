/* Odd orders of calls: several numbers of one socket, several sets, ends in every order, children. What is
   printed is to be the same by TCP and by SDP. */
#include "common.h"

#include <limits.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <sys/wait.h>

static char bytes[4096];
static struct iovec pieces[1100];

/* What a set tells of: how many at most, how many there are, and which events they have together. */
static void told(int line, int set, int time) {
    struct epoll_event events[8];
    int count = epoll_wait(set, events, 8, time);
    unsigned all = 0;
    for (int at = 0; at < count; at++) {
        all |= events[at].events;
    }
    printf("%d: %d told, %x\n", line, count, all);
}

/* Something is to come, and nothing is. */
#define COMES(set) told(__LINE__, set, 20000)
#define IDLE(set) told(__LINE__, set, 0)

static void control(int line, int set, int what, int fd, unsigned events) {
    struct epoll_event event = {events, {.fd = fd}};
    int result = epoll_ctl(set, what, fd, &event);
    printf("%d: %d %s\n", line, result, name_of(result == -1 ? errno : 0));
}

#define ADD(set, fd, events) control(__LINE__, set, EPOLL_CTL_ADD, fd, events)
#define MODIFY(set, fd, events) control(__LINE__, set, EPOLL_CTL_MOD, fd, events)
#define DELETE(set, fd) control(__LINE__, set, EPOLL_CTL_DEL, fd, 0)

static void polled(int line, int fd, short events) {
    struct pollfd one = {fd, events, 0};
    int count = poll(&one, 1, 0);
    printf("%d: %d polled, %x\n", line, count, (unsigned)one.revents);
}

#define POLLED(fd, events) polled(__LINE__, fd, events)

/* Waits until so many bytes have come, whatever poll says of them. */
static void have_come(int fd, int count) {
    int there = 0;
    while (there < count) {
        CHECK(ioctl(fd, FIONREAD, &there) == 0);
    }
}

static void says(int fd, const char *words) {
    CHECK(write(fd, words, strlen(words)) == (ssize_t)strlen(words));
}

static void several_numbers(void) {
    struct pair pair = make_pair();
    int set = epoll_create1(0), other = dup(pair.server);
    ADD(set, pair.server, EPOLLIN);
    ADD(set, other, EPOLLIN | EPOLLOUT);
    IDLE(set);
    says(pair.client, "x");
    readable(pair.server);
    COMES(set);
    CHECK(close(pair.server) == 0);
    COMES(set);
    SHOW(read(other, bytes, 4));
    IDLE(set);
    CHECK(fcntl(other, F_SETFL, O_NONBLOCK) == 0);
    SHOW(read(other, bytes, 1));
    SHOW(close(other));
    IDLE(set);
    SHOW(read(pair.client, bytes, 1));
    CHECK(close(pair.client) == 0 && close(set) == 0);
}

static void one_over_the_other(void) {
    struct pair one = make_pair(), two = make_pair();
    int set = epoll_create1(0);
    ADD(set, one.server, EPOLLIN);
    ADD(set, two.server, EPOLLIN);
    says(two.client, "x");
    readable(two.server);
    SHOW(dup2(two.server, one.server) == one.server);
    COMES(set);
    SHOW(read(one.client, bytes, 1));
    ADD(set, one.server, EPOLLIN);
    COMES(set);
    CHECK(close(two.server) == 0);
    COMES(set);
    SHOW(read(one.server, bytes, 9));
    IDLE(set);
    DELETE(set, two.server);
    DELETE(set, one.server);
    DELETE(set, one.server);
    close_pair(one);
    CHECK(close(two.client) == 0 && close(set) == 0);
}

static void ends_of_streams(void) {
    struct pair pair = make_pair();
    int set = epoll_create1(0), count = -1;
    ADD(set, pair.server, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
    says(pair.client, "hello");
    readable(pair.server);
    SHOW(shutdown(pair.client, SHUT_WR));
    hung_up(pair.server, POLLRDHUP);
    COMES(set);
    SHOW(ioctl(pair.server, FIONREAD, &count));
    SHOW(count);
    SHOW(shutdown(pair.server, SHUT_RD));
    SHOW(ioctl(pair.server, FIONREAD, &count));
    SHOW(count);
    SHOW(read(pair.server, bytes, 2));
    SHOW(recv(pair.server, bytes, 10, MSG_PEEK));
    SHOW(read(pair.server, bytes, 10));
    SHOW(read(pair.server, bytes, 10));
    SHOW(shutdown(pair.server, SHUT_WR));
    hung_up(pair.server, POLLHUP);
    COMES(set);
    hung_up(pair.client, POLLHUP);
    POLLED(pair.client, POLLIN | POLLOUT | POLLRDHUP);
    close_pair(pair);
    CHECK(close(set) == 0);
}

static void ends_by_force(void) {
    struct pair pair = make_pair();
    struct linger now = {1, 0};
    struct sockaddr_in name;
    socklen_t length = sizeof name;
    int set = epoll_create1(0);
    ADD(set, pair.server, EPOLLIN | EPOLLRDHUP);
    CHECK(setsockopt(pair.client, SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
    CHECK(close(pair.client) == 0);
    hung_up(pair.server, POLLERR);
    POLLED(pair.server, POLLIN | POLLOUT | POLLRDHUP);
    COMES(set);
    option(pair.server, SOL_SOCKET, SO_ERROR, "SO_ERROR");
    option(pair.server, SOL_SOCKET, SO_ERROR, "SO_ERROR");
    POLLED(pair.server, POLLIN | POLLOUT);
    SHOW(getsockname(pair.server, (struct sockaddr *)&name, &length));
    SHOW(read(pair.server, bytes, 1));
    SHOW(send(pair.server, bytes, 1, MSG_NOSIGNAL));
    SHOW(shutdown(pair.server, SHUT_RDWR));
    CHECK(close(pair.server) == 0 && close(set) == 0);
}

static void edges_and_once(void) {
    struct pair pair = make_pair();
    int set = epoll_create1(0);
    ADD(set, pair.server, EPOLLIN | EPOLLET);
    says(pair.client, "abc");
    readable(pair.server);
    COMES(set);
    IDLE(set);
    SHOW(read(pair.server, bytes, 1));
    IDLE(set);
    says(pair.client, "d");
    have_come(pair.server, 3);
    COMES(set);
    MODIFY(set, pair.server, EPOLLIN | EPOLLONESHOT);
    COMES(set);
    IDLE(set);
    MODIFY(set, pair.server, EPOLLIN | EPOLLONESHOT);
    COMES(set);
    MODIFY(set, pair.server, EPOLLIN | EPOLLET);
    COMES(set);
    close_pair(pair);
    CHECK(close(set) == 0);
}

static void sets_of_sets(void) {
    struct pair pair = make_pair();
    int inner = epoll_create1(0), outer = epoll_create1(0);
    struct epoll_event event = {EPOLLIN, {0}};
    ADD(inner, pair.server, EPOLLIN | EPOLLEXCLUSIVE);
    MODIFY(inner, pair.server, EPOLLIN);
    ADD(inner, pair.client, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT);
    ADD(outer, inner, EPOLLIN);
    IDLE(outer);
    says(pair.client, "x");
    readable(pair.server);
    COMES(outer);
    COMES(inner);
    POLLED(inner, POLLIN);
    SHOW(read(pair.server, bytes, 9));
    IDLE(outer);
    SHOW(epoll_ctl(inner, EPOLL_CTL_ADD, pair.server, NULL));
    SHOW(epoll_ctl(pair.server, EPOLL_CTL_ADD, pair.client, &event));
    SHOW(epoll_ctl(inner, 9, pair.server, &event));
    close_pair(pair);
    CHECK(close(inner) == 0 && close(outer) == 0);
}

static void low_water(void) {
    struct pair pair = make_pair();
    int ten = 10, set = epoll_create1(0);
    SHOW(setsockopt(pair.server, SOL_SOCKET, SO_RCVLOWAT, &ten, sizeof ten));
    ADD(set, pair.server, EPOLLIN);
    says(pair.client, "12345");
    have_come(pair.server, 5);
    IDLE(set);
    POLLED(pair.server, POLLIN);
    says(pair.client, "67890");
    COMES(set);
    SHOW(read(pair.server, bytes, 3));
    IDLE(set);
    SHOW(shutdown(pair.client, SHUT_WR));
    COMES(set);
    SHOW(read(pair.server, bytes, 100));
    SHOW(read(pair.server, bytes, 100));
    close_pair(pair);
    CHECK(close(set) == 0);
}

static void urgent_in_a_set(void) {
    struct pair pair = make_pair();
    int set = epoll_create1(0);
    ADD(set, pair.server, EPOLLPRI);
    says(pair.client, "ab");
    readable(pair.server);
    IDLE(set);
    SHOW(send(pair.client, "!", 1, MSG_OOB));
    COMES(set);
    SHOW(sockatmark(pair.server));
    SHOW(recv(pair.server, bytes, 1, MSG_OOB));
    SHOW(recv(pair.server, bytes, 1, MSG_OOB));
    IDLE(set);
    SHOW(read(pair.server, bytes, 9));
    SHOW(sockatmark(pair.server));
    close_pair(pair);
    CHECK(close(set) == 0);
}

static void many_pieces(void) {
    struct pair pair = make_pair();
    struct iovec none[3] = {{bytes, 0}, {NULL, 0}, {bytes, 0}};
    struct iovec large[2] = {{bytes, SSIZE_MAX}, {bytes, 1}};
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = 1025};
    for (int at = 0; at < 1100; at++) {
        pieces[at] = (struct iovec){bytes + at, at % 3 != 0};
    }
    SHOW(writev(pair.client, pieces, 1024));
    SHOW(writev(pair.client, pieces, 1025));
    SHOW(sendmsg(pair.client, &message, 0));
    SHOW(writev(pair.client, none, 3));
    SHOW(writev(pair.client, none, 0));
    SHOW(writev(pair.client, large, 2));
    have_come(pair.server, 682);
    SHOW(readv(pair.server, none, 3));
    SHOW(readv(pair.server, pieces, 1025));
    SHOW(recv(pair.server, bytes, 682, MSG_PEEK | MSG_WAITALL));
    SHOW(readv(pair.server, pieces, 1024));
    close_pair(pair);
}

/* A child makes a set of its own for what its parent has accepted. */
static void a_child_and_its_set(void) {
    struct pair pair = make_pair();
    pid_t child;
    fflush(stdout);
    child = fork();
    if (child == 0) {
        int set = epoll_create1(0), on = 1;
        struct sockaddr_in name;
        socklen_t length = sizeof name;
        CHECK(close(pair.client) == 0);
        ADD(set, pair.server, EPOLLIN | EPOLLRDHUP);
        COMES(set);
        SHOW(read(pair.server, bytes, 9));
        IDLE(set);
        SHOW(setsockopt(pair.server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
        SHOW(getpeername(pair.server, (struct sockaddr *)&name, &length));
        SHOW(write(pair.server, "done", 4));
        hung_up(pair.server, POLLRDHUP);
        COMES(set);
        SHOW(read(pair.server, bytes, 9));
        SHOW(shutdown(pair.server, SHUT_WR));
        fflush(stdout);
        _exit(0);
    }
    CHECK(close(pair.server) == 0);
    says(pair.client, "go");
    CHECK(recv(pair.client, bytes, 4, MSG_WAITALL) == 4);
    CHECK(shutdown(pair.client, SHUT_WR) == 0);
    CHECK(waitpid(child, NULL, 0) == child);
    SHOW(read(pair.client, bytes, 1));
    CHECK(close(pair.client) == 0);
}

static void listeners(void) {
    int listener = socket(AF_INET, SOCK_STREAM, 0), other, count, client, server;
    struct sockaddr_in address;
    SHOW(listen(listener, 0));
    address = loopback(port_of(listener));
    SHOW(listen(listener, 10));
    SHOW(accept4(listener, NULL, NULL, SOCK_NONBLOCK | 0x40));
    SHOW(connect(listener, (struct sockaddr *)&address, sizeof address));
    SHOW(read(listener, bytes, 1));
    SHOW(send(listener, bytes, 1, MSG_NOSIGNAL));
    SHOW(shutdown(listener, SHUT_WR));
    SHOW(ioctl(listener, FIONREAD, &count));
    other = dup(listener);
    CHECK(close(listener) == 0);
    accept_nobody(other);
    client = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(connect(client, (struct sockaddr *)&address, sizeof address));
    server = accept4(other, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    SHOW(fcntl(server, F_GETFD));
    SHOW(read(server, bytes, 1));
    CHECK(close(other) == 0);
    says(client, "x");
    readable(server);
    SHOW(read(server, bytes, 1));
    close_pair((struct pair){client, server});
    client = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(connect(client, (struct sockaddr *)&address, sizeof address));
    SHOW(connect(client, (struct sockaddr *)&address, sizeof address));
    CHECK(close(client) == 0);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    several_numbers();
    one_over_the_other();
    ends_of_streams();
    ends_by_force();
    edges_and_once();
    sets_of_sets();
    low_water();
    urgent_in_a_set();
    many_pieces();
    a_child_and_its_set();
    listeners();
    return 0;
}
