/* What only a program with the library can see, one case a run. */
#include "common.h"

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define AF_INET_SDP 27

static char end[16];

/* A connection by TCP, past the library. */
static int raw_connect(int port) {
    struct sockaddr_in address = loopback(port);
    int fd = (int)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0);
    CHECK(syscall(SYS_connect, fd, &address, sizeof address) == 0);
    return fd;
}

static int connect_to(int port) {
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

static void talk(int one, int other) {
    CHECK(write(one, "there", 5) == 5 && read(other, end, 8) == 5);
    CHECK(write(other, "back", 4) == 4 && read(one, end, 8) == 4);
}

static int error_of(int fd) {
    int error = -1;
    socklen_t length = sizeof error;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0);
    return error;
}

static int status_of(pid_t child) {
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

/* By SDP only, a connect that does not wait is one that is under way, for poll, epoll and all. */
static void nonblocking(void) {
    int listener = listen_anywhere(), set = epoll_create1(0), server, client, again;
    struct sockaddr_in address = loopback(port_of(listener));
    struct epoll_event event = {EPOLLOUT | EPOLLIN, {.u64 = 5}}, got;
    struct pollfd one;
    client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    again = connect(client, (struct sockaddr *)&address, sizeof address);
    CHECK(again == 0 || errno == EINPROGRESS);
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, client, &event) == 0);
    one = (struct pollfd){client, POLLOUT, 0};
    CHECK(poll(&one, 1, 20000) == 1 && one.revents == POLLOUT);
    CHECK(epoll_wait(set, &got, 1, 20000) == 1 && got.data.u64 == 5);
    CHECK(error_of(client) == 0);
    again = connect(client, (struct sockaddr *)&address, sizeof address);
    CHECK(again == 0 || errno == EISCONN);
    CHECK(read(client, end, 1) == -1 && errno == EAGAIN);
    server = accept(listener, NULL, NULL);
    CHECK(write(server, "x", 1) == 1);
    do {
        CHECK(epoll_wait(set, &got, 1, 20000) == 1 && got.data.u64 == 5);
    } while (!(got.events & EPOLLIN));
    CHECK(read(client, end, 8) == 1);
    CHECK(close(listener) == 0);
    client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == -1);
    if (errno == EINPROGRESS) {
        one = (struct pollfd){client, POLLOUT, 0};
        CHECK(poll(&one, 1, 20000) == 1 && one.revents & POLLERR);
        CHECK(error_of(client) == ECONNREFUSED);
        CHECK(error_of(client) == 0);
    } else {
        CHECK(errno == ECONNREFUSED);
    }
}

/* The address families of the SDP of old. */
static void families(void) {
    int listener = socket(AF_INET_SDP, SOCK_STREAM, 0), client, server;
    struct sockaddr_in address = loopback(0), name;
    socklen_t length = sizeof name;
    address.sin_family = AF_INET_SDP;
    CHECK(listener >= 0);
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(listener, 5) == 0);
    address.sin_port = htons((in_port_t)port_of(listener));
    client = socket(AF_INET_SDP, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
    server = accept(listener, (struct sockaddr *)&name, &length);
    CHECK(length == sizeof name && name.sin_family == AF_INET);
    talk(client, server);
    CHECK(close(listener) == 0);
    /* With addresses of the other family, as qperf has them. */
    struct sockaddr_in6 other = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT};
    listener = socket(AF_INET_SDP, SOCK_STREAM, 0);
    CHECK(bind(listener, (struct sockaddr *)&other, sizeof other) == 0);
    CHECK(listen(listener, 5) == 0);
    other.sin6_port = htons((in_port_t)port_of(listener));
    CHECK(inet_pton(AF_INET6, "::ffff:127.0.0.1", &other.sin6_addr) == 1);
    client = socket(AF_INET_SDP, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr *)&other, sizeof other) == 0);
    server = accept(listener, NULL, NULL);
    talk(client, server);
    CHECK(close(listener) == 0);
    other.sin6_addr = in6addr_loopback;
    client = socket(AF_INET_SDP, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr *)&other, sizeof other) == -1 && errno == EAFNOSUPPORT);
    /* They never fall back. */
    address.sin_family = AF_INET;
    listener = (int)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
    address.sin_port = 0;
    CHECK(syscall(SYS_bind, listener, &address, sizeof address) == 0);
    CHECK(syscall(SYS_listen, listener, 5) == 0);
    address.sin_port = htons((in_port_t)port_of(listener));
    client = socket(AF_INET_SDP, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == -1 && errno == ECONNREFUSED);
}

/* A socket of SDP's family in the place of one of TCP's that did not wait does not either, as Java has it;
   every other one is what it was. */
static void in_the_place_of_tcp(void) {
    int listener = listen_anywhere(), client, server, other;
    struct sockaddr_in address = loopback(port_of(listener));
    char byte;
    accept_nobody(listener);
    client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    other = socket(AF_INET_SDP, SOCK_STREAM, 0);
    CHECK(dup2(other, client) == client && close(other) == 0);
    CHECK(fcntl(client, F_GETFL) & O_NONBLOCK);
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == -1 && errno == EINPROGRESS);
    server = accept(listener, NULL, NULL);
    CHECK(server >= 0);
    hung_up(client, POLLOUT);
    CHECK(read(client, &byte, 1) == -1 && errno == EAGAIN);
    CHECK(fcntl(client, F_SETFL, 0) == 0);
    talk(client, server);
    client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    other = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(dup2(other, client) == client && !(fcntl(client, F_GETFL) & O_NONBLOCK));
    CHECK(close(client) == 0 && close(other) == 0);
    CHECK(close(listener) == 0);
}

/* What a child may use: sockets that were new, and a listener that spoke TCP only. */
static void fork_of_new_ones(void) {
    int fresh = socket(AF_INET, SOCK_STREAM, 0), listener = listen_anywhere();
    int elsewhere = listen_anywhere();
    int port = port_of(listener), client, server;
    struct sockaddr_in address = loopback(port_of(elsewhere));
    pid_t child;
    accept_nobody(elsewhere);
    child = fork();
    if (child == 0) {
        CHECK(connect(fresh, (struct sockaddr *)&address, sizeof address) == 0);
        /* It has SDP before the parent connects. */
        accept_nobody(listener);
        CHECK(write(fresh, "go", 2) == 2);
        server = accept(listener, NULL, NULL);
        CHECK(read(server, end, 8) == 5 && write(server, "back", 4) == 4);
        CHECK(read(server, end, 8) == 0);
        exit(0);
    }
    server = accept(elsewhere, NULL, NULL);
    CHECK(read(server, end, 8) == 2);
    client = connect_to(port);
    CHECK(write(client, "there", 5) == 5 && read(client, end, 8) == 4);
    CHECK(close(client) == 0);
    CHECK(status_of(child) == 0);
}

/* A child closes connections that its parent has, too; that disturbs nobody. */
static void fork_of_connected_ones(void) {
    struct pair pair = make_pair();
    int listener = listen_anywhere(), client, server;
    pid_t child;
    accept_nobody(listener);
    signal(SIGPIPE, SIG_IGN);
    child = fork();
    if (child == 0) {
        CHECK(close(pair.server) == 0);
        CHECK(dup2(1, pair.client) == pair.client);
        /* Its listener is TCP's only, and waits although the kernel's does not. */
        client = raw_connect(port_of(listener));
        server = accept(listener, NULL, NULL);
        CHECK(server >= 0);
        talk(client, server);
        exit(0);
    }
    CHECK(status_of(child) == 0);
    talk(pair.client, pair.server);
    client = connect_to(port_of(listener));
    server = accept(listener, NULL, NULL);
    talk(client, server);
}

/* A listener that waits does so for whoever has it, by the kernel's own flag. */
static void listener_that_waits(void) {
    int listener = listen_anywhere(), port = port_of(listener), client, server;
    accept_nobody(listener);
    for (int turn = 0; turn < 4; turn++) {
        CHECK((syscall(SYS_fcntl, listener, F_GETFL) & O_NONBLOCK) == 0);
        client = turn % 2 ? raw_connect(port) : connect_to(port);
        server = accept(listener, NULL, NULL);
        talk(client, server);
        CHECK(close(client) == 0 && close(server) == 0);
    }
    CHECK(fcntl(listener, F_SETFL, O_NONBLOCK) == 0);
    client = raw_connect(port);
    readable(listener);
    CHECK(accept(listener, NULL, NULL) >= 0);
    CHECK(syscall(SYS_fcntl, listener, F_GETFL) & O_NONBLOCK);
}

/* Children that borrow this process's memory, and start something else. */
static void vfork_and_spawn(void) {
    struct pair pair = make_pair();
    char *words[] = {(char *)"true", NULL};
    posix_spawn_file_actions_t actions;
    pid_t child = vfork();
    if (child == 0) {
        if (dup2(pair.client, 400) != 400 || dup2(1, pair.server) < 0 || close(pair.client) != 0) {
            _exit(3);
        }
        close_range(3, 1000, 0);
        execvp("true", words);
        _exit(4);
    }
    CHECK(status_of(child) == 0);
    CHECK(fcntl(400, F_GETFD) == -1);
    talk(pair.client, pair.server);
    CHECK(posix_spawn_file_actions_init(&actions) == 0);
    CHECK(posix_spawn_file_actions_adddup2(&actions, pair.client, 0) == 0);
    CHECK(posix_spawnp(&child, "true", &actions, NULL, words, NULL) == 0);
    CHECK(posix_spawn_file_actions_destroy(&actions) == 0);
    CHECK(status_of(child) == 0);
    talk(pair.client, pair.server);
}

/* Whoever goes past the library meets a socket that is not connected. */
static void past_the_library(void) {
    struct pair pair = make_pair();
    signal(SIGPIPE, SIG_IGN);
    CHECK(syscall(SYS_write, pair.client, "x", 1) == -1 && errno == EPIPE);
    CHECK(syscall(SYS_read, pair.client, end, 1) == -1 && errno == ENOTCONN);
    talk(pair.client, pair.server);
}

/* One listener, two protocols: whichever comes is accepted, by every way to wait. */
static void both_queues(void) {
    int listener = listen_anywhere(), port = port_of(listener), set = epoll_create1(0);
    const uint32_t ways[] = {EPOLLIN, EPOLLIN | EPOLLET, EPOLLIN | EPOLLEXCLUSIVE,
                             EPOLLIN | EPOLLONESHOT};
    struct pollfd one = {listener, POLLIN, 0};
    struct epoll_event event = {0, {.u64 = 9}}, got[4];
    accept_nobody(listener);
    for (int turn = 0; turn < 8; turn++) {
        int client, server;
        client = turn % 2 ? raw_connect(port) : connect_to(port);
        CHECK(poll(&one, 1, 20000) == 1 && one.revents == POLLIN);
        server = accept4(listener, NULL, NULL, turn & 2 ? SOCK_CLOEXEC : 0);
        CHECK(fcntl(server, F_GETFD) == (turn & 2 ? FD_CLOEXEC : 0));
        talk(client, server);
        CHECK(close(client) == 0 && close(server) == 0);
    }
    CHECK(fcntl(listener, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
    for (int way = 0; way < 4; way++) {
        int first, second, count = 0;
        event.events = ways[way];
        CHECK(epoll_ctl(set, EPOLL_CTL_ADD, listener, &event) == 0);
        CHECK(epoll_ctl(set, EPOLL_CTL_ADD, listener, &event) == -1 && errno == EEXIST);
        CHECK(epoll_wait(set, got, 4, 0) == 0);
        first = raw_connect(port);
        second = connect_to(port);
        CHECK(epoll_wait(set, got, 4, 20000) >= 1);
        CHECK(got[0].data.u64 == 9 && got[0].events == EPOLLIN);
        if (ways[way] & EPOLLONESHOT) {
            CHECK(epoll_wait(set, got, 4, 0) == 0);
            CHECK(epoll_ctl(set, EPOLL_CTL_MOD, listener, &event) == 0);
            CHECK(epoll_wait(set, got, 4, 20000) == 1 && got[0].data.u64 == 9);
        }
        while (count < 2) {
            /* A connect may have returned a moment before the other side has it. */
            CHECK(poll(&one, 1, 20000) == 1);
            int server = accept(listener, NULL, NULL);
            CHECK(server >= 0);
            CHECK(close(server) == 0);
            count++;
        }
        CHECK(accept(listener, NULL, NULL) == -1 && errno == EAGAIN);
        CHECK(epoll_ctl(set, EPOLL_CTL_DEL, listener, NULL) == 0);
        CHECK(epoll_ctl(set, EPOLL_CTL_DEL, listener, NULL) == -1 && errno == ENOENT);
        CHECK(close(first) == 0 && close(second) == 0);
    }
    CHECK(close(listener) == 0);
    CHECK(epoll_wait(set, got, 4, 0) == 0);
}

static pthread_barrier_t gate;

static void *accepts(void *argument) {
    int listener = *(int *)argument;
    pthread_barrier_wait(&gate);
    return (void *)(intptr_t)accept(listener, NULL, NULL);
}

static void *polls(void *argument) {
    struct pollfd one = {*(int *)argument, POLLIN, 0};
    pthread_barrier_wait(&gate);
    return (void *)(intptr_t)poll(&one, 1, -1);
}

static void *reads(void *argument) {
    pthread_barrier_wait(&gate);
    intptr_t got = read(*(int *)argument, end, 1);
    return (void *)(got == -1 ? (intptr_t)-errno : got);
}

/* Calls that wait, and what ends them. */
static void waiting(void) {
    int listener = listen_anywhere(), port = port_of(listener);
    struct pair pair = make_pair();
    struct sigaction action;
    pthread_t thread;
    void *result;
    accept_nobody(listener);
    CHECK(pthread_barrier_init(&gate, NULL, 2) == 0);
    for (int turn = 0; turn < 6; turn++) {
        int client;
        CHECK(pthread_create(&thread, NULL, accepts, &listener) == 0);
        pthread_barrier_wait(&gate);
        client = turn % 2 ? raw_connect(port) : connect_to(port);
        CHECK(pthread_join(thread, &result) == 0);
        talk(client, (int)(intptr_t)result);
        CHECK(close(client) == 0 && close((int)(intptr_t)result) == 0);
    }
    /* A thread that polls may be cancelled. */
    CHECK(pthread_create(&thread, NULL, polls, &pair.client) == 0);
    pthread_barrier_wait(&gate);
    CHECK(pthread_cancel(thread) == 0);
    CHECK(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
    talk(pair.client, pair.server);
    /* One that reads ends when the socket is closed. Who comes late may meet the kernel's, not connected. */
    CHECK(pthread_create(&thread, NULL, reads, &pair.client) == 0);
    pthread_barrier_wait(&gate);
    CHECK(close(pair.client) == 0);
    CHECK(pthread_join(thread, &result) == 0);
    CHECK((intptr_t)result == -EBADF || (intptr_t)result == -ENOTCONN);
    /* A signal whose handler restarts calls leaves an accept alone. */
    memset(&action, 0, sizeof action);
    action.sa_handler = count_signal;
    action.sa_flags = SA_RESTART;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    CHECK(pthread_create(&thread, NULL, accepts, &listener) == 0);
    pthread_barrier_wait(&gate);
    CHECK(pthread_kill(thread, SIGUSR1) == 0);
    while (signals == 0) {
        sched_yield();
    }
    close(connect_to(port));
    CHECK(pthread_join(thread, &result) == 0 && (intptr_t)result >= 0);
}

/* Options of the stream go with it, whichever protocol takes it. */
static void options(void) {
    int listener = listen_anywhere(), port = port_of(listener), client, value = 1;
    struct sockaddr_in address = loopback(port);
    accept_nobody(listener);
    client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value) == 0);
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
    option(client, IPPROTO_TCP, TCP_NODELAY, "by SDP");
    {
        struct tcp_info info;
        socklen_t length = sizeof info;
        CHECK(getsockopt(client, IPPROTO_TCP, TCP_INFO, &info, &length) == 0);
        CHECK(info.tcpi_state == TCP_ESTABLISHED);
    }
    CHECK(setsockopt(client, SOL_SOCKET, SO_ZEROCOPY, &value, sizeof value) == -1);
    CHECK(errno == EOPNOTSUPP);
    client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value) == 0);
    /* The kernel is to do what only TCP has. */
    CHECK(setsockopt(client, SOL_SOCKET, SO_ZEROCOPY, &value, sizeof value) == 0);
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
    option(client, IPPROTO_TCP, TCP_NODELAY, "by TCP");
}

static int open_count(void) {
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;
    CHECK(folder != NULL);
    while (readdir(folder) != NULL) {
        count++;
    }
    CHECK(closedir(folder) == 0);
    return count;
}

/* A set that has the number of one that was closed has its own registration, for its own events. */
static void set_with_an_old_number(void) {
    struct pair pair = make_pair();
    struct epoll_event event = {EPOLLIN, {.u64 = 1}}, got;
    int set = epoll_create1(0), old = set;
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, pair.server, &event) == 0);
    CHECK(epoll_wait(set, &got, 1, 0) == 0);
    CHECK(close(set) == 0);
    set = epoll_create1(0);
    CHECK(set == old);
    event = (struct epoll_event){EPOLLIN | EPOLLET, {.u64 = 2}};
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, pair.server, &event) == 0);
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, pair.server, &event) == -1 && errno == EEXIST);
    for (int turn = 0; turn < 3; turn++) {
        CHECK(write(pair.client, "x", 1) == 1);
        CHECK(epoll_wait(set, &got, 1, 20000) == 1);
        CHECK(got.data.u64 == 2 && got.events == EPOLLIN);
    }
}

/* A registration for one event that has come is told of no other, until it is modified. */
static void one_event(void) {
    int listener = listen_anywhere(), set = epoll_create1(0), client, server;
    struct sockaddr_in address = loopback(port_of(listener));
    struct epoll_event event = {EPOLLOUT | EPOLLONESHOT, {.u64 = 3}}, got;
    accept_nobody(listener);
    for (int turn = 0; turn < 2; turn++) {
        client = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(epoll_ctl(set, EPOLL_CTL_ADD, client, &event) == 0);
        /* It is not connected, which is an event. */
        CHECK(turn == 0 || epoll_wait(set, &got, 1, 20000) == 1);
        CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
        CHECK(epoll_wait(set, &got, 1, turn == 0 ? 20000 : 0) == 1 - turn);
        CHECK(epoll_ctl(set, EPOLL_CTL_ADD, client, &event) == -1 && errno == EEXIST);
        CHECK(epoll_ctl(set, EPOLL_CTL_MOD, client, &event) == 0);
        CHECK(epoll_wait(set, &got, 1, 20000) == 1);
        CHECK(got.data.u64 == 3 && got.events == EPOLLOUT);
        CHECK(epoll_wait(set, &got, 1, 0) == 0);
        server = accept(listener, NULL, NULL);
        talk(client, server);
        CHECK(epoll_ctl(set, EPOLL_CTL_DEL, client, NULL) == 0);
        CHECK(close(client) == 0 && close(server) == 0);
    }
}

/* What is no memory is an error, as the kernel's. */
static void bad_addresses(void) {
    struct pair pair = make_pair();
    /* Two pages, of which the second is none. */
    long page = sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, (size_t)page * 2, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct pollfd *volatile nowhere = (struct pollfd *)8, *volatile edge;
    fd_set *volatile no_set = (fd_set *)16;
    CHECK(pages != MAP_FAILED && munmap(pages + page, (size_t)page) == 0);
    edge = (struct pollfd *)(pages + page) - 1;
    edge[0] = (struct pollfd){pair.server, POLLOUT, 0};
    CHECK(poll(nowhere, 1, 0) == -1 && errno == EFAULT);
    CHECK(ppoll(nowhere, 1, NULL, NULL) == -1 && errno == EFAULT);
    CHECK(poll(edge, 2, 0) == -1 && errno == EFAULT);
    errno = 0;
    CHECK(poll(edge, 1, 0) == 1 && edge[0].revents == POLLOUT && errno == 0);
    CHECK(select(pair.server + 1, no_set, NULL, NULL, NULL) == -1 && errno == EFAULT);
    talk(pair.client, pair.server);
}

/* So many more descriptors may be opened; with less than none, as many as the system lets. */
static void leave_room(int room) {
    static rlim_t most;
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    if (most == 0) {
        most = limit.rlim_cur;
    }
    limit.rlim_cur = most;
    if (room >= 0) {
        int lowest = dup(1);
        CHECK(lowest >= 0 && close(lowest) == 0);
        limit.rlim_cur = (rlim_t)(lowest + room);
    }
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

/* Without descriptors for what tells of SDP a wait fails; it does not sleep past what arrives. */
static void waits_at_the_limit(void) {
    int refused = 0;
    for (int room = 0; room < 4; room++) {
        struct pair pair = make_pair();
        struct epoll_event event = {EPOLLIN | EPOLLET, {.u64 = 6}}, got;
        struct pollfd one = {pair.server, POLLIN, 0};
        struct timeval none = {0, 0};
        int set = epoll_create1(0), result;
        fd_set fds;
        leave_room(room);
        result = poll(&one, 1, 0);
        CHECK(result == 0 || (result == -1 && errno == ENOMEM));
        FD_ZERO(&fds);
        FD_SET(pair.server, &fds);
        result = select(pair.server + 1, &fds, NULL, NULL, &none);
        CHECK(result == 0 || (result == -1 && errno == ENOMEM));
        result = epoll_ctl(set, EPOLL_CTL_ADD, pair.server, &event);
        CHECK(result == 0 || (result == -1 && errno == EMFILE));
        leave_room(-1);
        if (result != 0) {
            refused++;
            CHECK(epoll_ctl(set, EPOLL_CTL_ADD, pair.server, &event) == 0);
        }
        CHECK(epoll_wait(set, &got, 1, 0) == 0);
        CHECK(write(pair.client, "x", 1) == 1);
        CHECK(epoll_wait(set, &got, 1, 20000) == 1 && got.data.u64 == 6);
        CHECK(close(set) == 0);
        close_pair(pair);
    }
    CHECK(refused > 0);
}

/* A socket that a set has before it is connected is in it afterwards, whoever takes it. */
static void connects_at_the_limit(void) {
    int listener = listen_anywhere(), ready[2];
    struct sockaddr_in address = loopback(port_of(listener));
    pid_t child;
    CHECK(pipe(ready) == 0);
    child = fork();
    if (child == 0) {
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
        accept_nobody(listener);
        CHECK(write(ready[1], "r", 1) == 1);
        for (;;) {
            /* What the client had to give up gets one, too. */
            send(accept(listener, NULL, NULL), "x", 1, MSG_NOSIGNAL);
        }
    }
    CHECK(close(listener) == 0);
    CHECK(read(ready[0], end, 1) == 1);
    /* What SDP has once between two processes is there. */
    connect_to(ntohs(address.sin_port));
    for (int room = 0; room < 16; room++) {
        int set = epoll_create1(0), client = socket(AF_INET, SOCK_STREAM, 0);
        struct epoll_event event = {EPOLLIN | EPOLLET, {.u64 = 7}}, got;
        CHECK(epoll_ctl(set, EPOLL_CTL_ADD, client, &event) == 0);
        leave_room(room);
        CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
        leave_room(-1);
        do {
            CHECK(epoll_wait(set, &got, 1, 20000) == 1 && got.data.u64 == 7);
        } while (recv(client, end, 8, MSG_DONTWAIT) == -1);
        CHECK(end[0] == 'x');
        CHECK(close(set) == 0 && close(client) == 0);
    }
    CHECK(kill(child, SIGKILL) == 0 && status_of(child) == SIGKILL);
}

/* Two numbers of one socket in one set are two registrations, and closing leaves nothing behind. */
static void registrations(void) {
    int set = epoll_create1(0), before = 0;
    struct timespec start, now;
    for (int round = 0; round < 200; round++) {
        struct pair pair = make_pair();
        int copy = dup(pair.client);
        struct epoll_event event = {EPOLLIN, {.u64 = 1}}, got[4];
        CHECK(epoll_ctl(set, EPOLL_CTL_ADD, pair.client, &event) == 0);
        event.data.u64 = 2;
        CHECK(epoll_ctl(set, EPOLL_CTL_ADD, copy, &event) == 0);
        CHECK(epoll_wait(set, got, 4, 0) == 0);
        CHECK(write(pair.server, "both", 4) == 4);
        CHECK(epoll_wait(set, got, 4, 20000) >= 1);
        CHECK(epoll_wait(set, got, 4, 20000) == 2 && got[0].data.u64 + got[1].data.u64 == 3);
        CHECK(close(pair.client) == 0);
        CHECK(read(copy, end, 8) == 4);
        CHECK(epoll_ctl(set, EPOLL_CTL_DEL, copy, NULL) == 0);
        CHECK(close(copy) == 0 && close(pair.server) == 0);
        CHECK(epoll_wait(set, got, 4, 0) == 0);
        if (round == 20) {
            before = open_count();
        }
    }
    CHECK(clock_gettime(CLOCK_MONOTONIC, &start) == 0);
    /* What was sent leaves in the background. */
    while (open_count() > before) {
        CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0 && now.tv_sec - start.tv_sec < 20);
        sched_yield();
    }
}

int main(int count, char **words) {
    const struct one_case cases[] = {
        CASE(nonblocking),
        CASE(families),
        CASE(in_the_place_of_tcp),
        CASE(fork_of_new_ones),
        CASE(fork_of_connected_ones),
        CASE(vfork_and_spawn),
        CASE(past_the_library),
        CASE(both_queues),
        CASE(waiting),
        CASE(options),
        CASE(registrations),
        CASE(set_with_an_old_number),
        CASE(one_event),
        CASE(bad_addresses),
        CASE(listener_that_waits),
        CASE(waits_at_the_limit),
        CASE(connects_at_the_limit),
    };
    return run_case(cases, sizeof cases / sizeof cases[0], count, words);
}
