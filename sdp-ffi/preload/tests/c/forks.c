/* Servers that fork for a connection, and what else comes of it: one case a run. */
#include "common.h"
#include "streams.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* The process at the other end, which knows nothing of the children; and the server's descriptor. */
static pid_t client;

static int serve(void (*talks)(int)) {
    int listener = listen_anywhere(), fd;
    struct sockaddr_in address = loopback(port_of(listener));
    accept_nobody(listener);
    client = fork();
    if (client == 0) {
        CHECK(close(listener) == 0);
        fd = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
        talks(fd);
        exit(0);
    }
    fd = accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    CHECK(close(listener) == 0);
    return fd;
}

static int count_of(const char *folder) {
    DIR *directory = opendir(folder);
    int count = 0;
    CHECK(directory != NULL);
    while (readdir(directory) != NULL) {
        count++;
    }
    CHECK(closedir(directory) == 0);
    return count;
}

/* Waits until a relay has gone, with all that it had. */
static void back_to(int descriptors, int threads) {
    while (count_of("/proc/self/fd") > descriptors || count_of("/proc/self/task") > threads) {
        sched_yield();
    }
}

static void child_echoes(void) {
    int fd = serve(send_and_read_back), descriptors = count_of("/proc/self/fd");
    int threads = count_of("/proc/self/task");
    pid_t child = fork();
    if (child == 0) {
        echo(fd);
        CHECK(shutdown(fd, SHUT_WR) == 0);
        exit(0);
    }
    CHECK(close(fd) == 0);
    succeeds(child);
    succeeds(client);
    back_to(descriptors, threads + 1);
}

static void child_is_cat(void) {
    int fd = serve(send_and_read_back);
    pid_t child = fork();
    if (child == 0) {
        CHECK(dup2(fd, 0) == 0 && dup2(fd, 1) == 1);
        CHECK(close(fd) == 0);
        execlp("cat", "cat", (char *)NULL);
        CHECK(!"cat");
    }
    CHECK(close(fd) == 0);
    succeeds(child);
    succeeds(client);
}

static void says_its_name(int fd) {
    char name[32];
    snprintf(name, sizeof name, "%05d", port_of(fd));
    tell(fd, name);
    expect(fd, "well");
}

static void child_knows_names(void) {
    int fd = serve(says_its_name), own = port_of(fd), value = 1, other;
    struct sockaddr_in address, peer;
    struct timeval minute = {60, 0}, time;
    socklen_t length = sizeof peer, size = sizeof value, long_size = sizeof time;
    pid_t child;
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &minute, sizeof minute) == 0);
    CHECK(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
    other = dup(fd);
    CHECK(fcntl(other, F_SETFD, FD_CLOEXEC) == 0);
    child = fork();
    if (child == 0) {
        CHECK(fcntl(fd, F_GETFL) == (O_RDWR | O_NONBLOCK));
        CHECK(fcntl(fd, F_GETFD) == 0 && fcntl(other, F_GETFD) == FD_CLOEXEC);
        CHECK(fcntl(other, F_SETFL, O_RDWR) == 0 && fcntl(fd, F_GETFL) == O_RDWR);
        CHECK(port_of(fd) == own && port_of(other) == own);
        CHECK(getpeername(other, (struct sockaddr *)&peer, &length) == 0);
        CHECK(length == sizeof peer && peer.sin_family == AF_INET);
        CHECK(recv(fd, bytes, 5, MSG_WAITALL) == 5 && atoi(bytes) == ntohs(peer.sin_port));
        value = 0;
        CHECK(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &size) == 0 && value == 1);
        CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, size) == 0);
        CHECK(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, size) == 0);
        CHECK(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, &long_size) == 0 && time.tv_sec == 60);
        CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &size) == 0 && value == 0);
        CHECK(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &size) == 0 && value == AF_INET);
        CHECK(getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &size) == 0 && value == SOCK_STREAM);
        address = loopback(own);
        CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == -1 && errno == EISCONN);
        CHECK(listen(fd, 1) == -1 && errno == EINVAL);
        CHECK(accept(fd, NULL, NULL) == -1 && errno == EINVAL);
        /* A grandchild has it, too. */
        child = fork();
        if (child == 0) {
            CHECK(close(fd) == 0);
            CHECK(getpeername(other, (struct sockaddr *)&peer, &length) == 0);
            CHECK(peer.sin_family == AF_INET);
            tell(other, "well");
            exit(0);
        }
        succeeds(child);
        exit(0);
    }
    CHECK(close(fd) == 0 && close(other) == 0);
    succeeds(child);
    succeeds(client);
}

static void hears_from_the_parent(int fd) {
    expect(fd, "the parent");
    tell(fd, "is heard");
    CHECK(read(fd, bytes, 1) == 0);
}

static void parent_keeps_it(void) {
    int fd = serve(hears_from_the_parent), descriptors = count_of("/proc/self/fd");
    int threads = count_of("/proc/self/task");
    for (int turn = 0; turn < 20; turn++) {
        pid_t child = fork();
        if (child == 0) {
            if (turn % 2) {
                CHECK(close(fd) == 0);
            }
            exit(0);
        }
        succeeds(child);
    }
    /* What waits for children stays. */
    back_to(descriptors + 1, threads + 1);
    tell(fd, "the parent");
    expect(fd, "is heard");
    CHECK(close(fd) == 0);
    succeeds(client);
}

/* What it hears, whoever of the server's processes says it, and in the order in which they do. */
static void hears_both(int fd) {
    for (int turn = 0; turn < 20; turn++) {
        expect(fd, "the child, the parent; ");
        tell(fd, "heard");
    }
    expect(fd, "which answer?");
    tell(fd, "the parent's");
    expect(fd, "more");
    write_much(fd, MUCH);
    expect(fd, "even more");
    write_much(fd, MUCH);
    expect(fd, "for a program");
    tell(fd, "sixteen bytes!!!");
    expect(fd, "the parent is left");
    tell(fd, "with it");
    CHECK(read(fd, bytes, 1) == 0);
}

static void read_exactly(int fd, size_t count) {
    for (size_t at = 0; at < count;) {
        size_t length = count - at < sizeof bytes ? count - at : sizeof bytes;
        ssize_t got = read(fd, bytes, length);
        CHECK(got > 0 && is_right(at, (size_t)got));
        at += (size_t)got;
    }
}

/* A connection that parent and children use, as rsync and git do. */
static void both_use_it(void) {
    int fd = serve(hears_both), descriptors = count_of("/proc/self/fd"), pipes[2];
    int threads = count_of("/proc/self/task");
    struct pollfd one = {.fd = fd, .events = POLLIN};
    pid_t child;
    for (int turn = 0; turn < 20; turn++) {
        child = fork();
        if (child == 0) {
            tell(fd, "the child, ");
            exit(0);
        }
        succeeds(child);
        tell(fd, "the parent; ");
        expect(fd, "heard");
    }
    /* The child writes while the parent waits in a call. */
    child = fork();
    if (child == 0) {
        tell(fd, "which answer?");
        exit(0);
    }
    expect(fd, "the parent's");
    succeeds(child);
    /* The child reads what the parent asks for: by a call, and as it waits to. */
    for (int waits = 0; waits < 2; waits++) {
        child = fork();
        if (child == 0) {
            if (waits) {
                CHECK(poll(&one, 1, 20000) == 1 && one.revents == POLLIN);
            }
            read_exactly(fd, MUCH);
            exit(0);
        }
        tell(fd, waits ? "even more" : "more");
        succeeds(child);
    }
    /* So does a program whose standard input it is. */
    CHECK(pipe(pipes) == 0);
    child = fork();
    if (child == 0) {
        CHECK(dup2(fd, 0) == 0 && dup2(pipes[1], 1) == 1);
        execlp("head", "head", "-c", "16", (char *)NULL);
        CHECK(!"head");
    }
    CHECK(close(pipes[1]) == 0);
    tell(fd, "for a program");
    expect_by_read(pipes[0], "sixteen bytes!!!");
    succeeds(child);
    tell(fd, "the parent is left");
    expect(fd, "with it");
    CHECK(close(pipes[0]) == 0);
    /* What waits for children stays, and what tells of the connection. */
    back_to(descriptors + 3, threads + 1);
    CHECK(close(fd) == 0);
    succeeds(client);
}

/* Reads when it is told to, to the end of the stream: the last byte is the parent's. */
static int told_to_read[2];

static void hears_slowly(int fd) {
    static char piece[1 << 16];
    char last = 0;
    size_t at = 0;
    ssize_t got;
    CHECK(read(told_to_read[0], &last, 1) == 1);
    while ((got = read(fd, piece, sizeof piece)) > 0) {
        for (ssize_t one = 0; one < got; one++, at++) {
            CHECK(at == 0 || last == (char)((at - 1) * 31 >> 3));
            last = piece[one];
        }
    }
    CHECK(got == 0 && last == '!');
}

/* A connection that does not wait, to a peer that reads when it is told to: it has taken all that there was
   room for, which is written to `at`. */
static int filled_up(size_t *at) {
    struct pollfd one = {.events = POLLOUT};
    int little = 16 << 10;
    ssize_t written;
    CHECK(pipe(told_to_read) == 0);
    one.fd = serve(hears_slowly);
    CHECK(setsockopt(one.fd, SOL_SOCKET, SO_SNDBUF, &little, sizeof little) == 0);
    CHECK(fcntl(one.fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
    *at = 0;
    /* The peer's library takes some by itself, a little later. */
    do {
        do {
            fill(*at, sizeof bytes);
            written = write(one.fd, bytes, sizeof bytes);
            *at += written > 0 ? (size_t)written : 0;
        } while (written > 0);
        CHECK(errno == EAGAIN);
    } while (poll(&one, 1, 300) == 1);
    return one.fd;
}

/* A child writes more, for which there is no room, and ends. */
static void child_writes_on(int fd, size_t at) {
    pid_t child = fork();
    if (child == 0) {
        fill(at, 60000);
        CHECK(write(fd, bytes, 60000) == 60000);
        exit(0);
    }
    succeeds(child);
}

/* What a child has written is on its way, and the peer slow, when the parent sends and does not wait. */
static void nobody_overtakes(void) {
    size_t at;
    int fd = filled_up(&at), threads = count_of("/proc/self/task");
    child_writes_on(fd, at);
    /* That which waits for children, and that of the connection. */
    for (int turn = 0; turn < 1000 && count_of("/proc/self/task") < threads + 2; turn++) {
        sched_yield();
    }
    for (int turn = 0; turn < 100; turn++) {
        sched_yield();
    }
    tell(told_to_read[1], "g");
    while (write(fd, "!", 1) != 1) {
        CHECK(errno == EAGAIN);
    }
    CHECK(close(fd) == 0);
    succeeds(client);
}

/* The same, where the peer reads nothing: who does not wait is turned away at once, and told of room when
   the peer reads. */
static void nobody_waits_who_does_not(void) {
    size_t at;
    struct pollfd one = {.fd = filled_up(&at), .events = POLLOUT};
    child_writes_on(one.fd, at);
    for (int turn = 0; turn < 200; turn++) {
        CHECK(write(one.fd, "!", 1) == -1 && errno == EAGAIN);
        CHECK(send(one.fd, "!", 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
        CHECK(poll(&one, 1, turn < 20) == 0);
    }
    tell(told_to_read[1], "g");
    while (write(one.fd, "!", 1) != 1) {
        CHECK(errno == EAGAIN && poll(&one, 1, 20000) == 1);
    }
    CHECK(close(one.fd) == 0);
    succeeds(client);
}

static void does_nothing(int signal) {
    (void)signal;
}

/* Who waits does so for as long as it has said, and any handler ends that. */
static void a_time_ends_the_wait(void) {
    size_t at;
    int fd = filled_up(&at);
    struct timeval time = {.tv_usec = 30000};
    struct sigaction restarts = {.sa_handler = does_nothing, .sa_flags = SA_RESTART};
    struct itimerval soon = {.it_value = {.tv_usec = 10000}};
    child_writes_on(fd, at);
    CHECK(fcntl(fd, F_SETFL, O_RDWR) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time) == 0);
    CHECK(write(fd, "!", 1) == -1 && errno == EAGAIN);
    CHECK(shutdown(fd, SHUT_WR) == -1 && errno == EAGAIN);
    time = (struct timeval){.tv_sec = 3600};
    CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time) == 0);
    CHECK(sigaction(SIGALRM, &restarts, NULL) == 0 && setitimer(ITIMER_REAL, &soon, NULL) == 0);
    CHECK(write(fd, "!", 1) == -1 && errno == EINTR);
    tell(told_to_read[1], "g");
    CHECK(write(fd, "!", 1) == 1);
    CHECK(close(fd) == 0);
    succeeds(client);
}

static void does_not_read(int fd) {
    (void)fd;
    CHECK(read(told_to_read[0], bytes, 1) == 1);
}

/* A child goes on that has written more than the peer takes: its parent's exit does not wait for that. */
static void exit_is_not_kept(void) {
    pid_t parent;
    CHECK(pipe(told_to_read) == 0);
    parent = fork();
    if (parent == 0) {
        int fd = serve(does_not_read), full[2];
        struct pollfd one = {.fd = fd, .events = POLLOUT};
        CHECK(pipe(full) == 0);
        CHECK(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
        if (fork() == 0) {
            while (poll(&one, 1, 300) == 1) {
                CHECK(write(fd, bytes, sizeof bytes) > 0 || errno == EAGAIN);
            }
            tell(full[1], "full");
            CHECK(read(told_to_read[0], bytes, 1) == 1);
            exit(0);
        }
        expect_by_read(full[0], "full");
        exit(0);
    }
    succeeds(parent);
    tell(told_to_read[1], "go");
}

/* The child has begun to read when the parent closes its own. */
static void left_while_shared(void) {
    int fd = serve(send_and_read_back), pipes[2];
    pid_t child;
    CHECK(pipe(pipes) == 0);
    child = fork();
    if (child == 0) {
        CHECK(recv(fd, bytes, 1, MSG_PEEK) == 1);
        tell(pipes[1], "reads");
        echo(fd);
        CHECK(shutdown(fd, SHUT_WR) == 0);
        exit(0);
    }
    expect_by_read(pipes[0], "reads");
    CHECK(close(fd) == 0);
    succeeds(child);
    succeeds(client);
}

/* Writes until that fails, and sees the end. */
static void is_cut_off(int fd) {
    expect(fd, "ready");
    signal(SIGPIPE, SIG_IGN);
    while (write(fd, bytes, sizeof bytes) > 0) {
    }
    CHECK(errno == EPIPE || errno == ECONNRESET);
    CHECK(read(fd, bytes, 1) <= 0);
}

static void child_is_killed(void) {
    int fd = serve(is_cut_off), status, descriptors = count_of("/proc/self/fd");
    int threads = count_of("/proc/self/task");
    pid_t child = fork();
    if (child == 0) {
        tell(fd, "ready");
        CHECK(recv(fd, bytes, sizeof bytes, MSG_WAITALL) == sizeof bytes);
        raise(SIGKILL);
    }
    CHECK(close(fd) == 0);
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    succeeds(client);
    back_to(descriptors, threads + 1);
}

/* The peer is killed: the child sees an end. */
static void dies(int fd) {
    expect(fd, "die");
    raise(SIGKILL);
}

static void peer_is_killed(void) {
    int fd = serve(dies), status, descriptors = count_of("/proc/self/fd");
    int threads = count_of("/proc/self/task");
    pid_t child = fork();
    if (child == 0) {
        tell(fd, "die");
        CHECK(read(fd, bytes, 1) <= 0);
        signal(SIGPIPE, SIG_IGN);
        while (write(fd, bytes, sizeof bytes) > 0) {
        }
        CHECK(errno == EPIPE || errno == ECONNRESET);
        exit(0);
    }
    CHECK(close(fd) == 0);
    succeeds(child);
    CHECK(waitpid(client, &status, 0) == client && WIFSIGNALED(status));
    back_to(descriptors, threads + 1);
}

/* What processes say that outlive the one that made them. */
static int over[2];

static void reads_all(int fd) {
    read_much(fd, 100000);
    tell(over[1], "o");
}

/* What a child has left when it ended is delivered although its parent ends at once. */
static void child_leaves_bytes(int closes) {
    pid_t parent;
    CHECK(pipe(over) == 0);
    parent = fork();
    if (parent == 0) {
        int fd = serve(reads_all);
        pid_t child = fork();
        if (child == 0) {
            write_much(fd, 100000);
            exit(0);
        }
        succeeds(child);
        if (closes) {
            CHECK(close(fd) == 0);
        }
        exit(0);
    }
    succeeds(parent);
    CHECK(close(over[1]) == 0);
    CHECK(read(over[0], bytes, 2) == 1 && read(over[0], bytes, 1) == 0);
}

static void left_and_closed(void) {
    child_leaves_bytes(1);
}

static void left_and_open(void) {
    child_leaves_bytes(0);
}

static void no_descriptors(void) {
    int fd = serve(hears_from_the_parent);
    struct rlimit limit, before;
    pid_t child;
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    limit = before;
    limit.rlim_cur = (rlim_t)dup(0);
    CHECK(close((int)limit.rlim_cur) == 0);
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    signal(SIGPIPE, SIG_IGN);
    child = fork();
    if (child == 0) {
        CHECK(read(fd, bytes, 1) == -1 && errno == ENOTCONN);
        CHECK(write(fd, bytes, 1) == -1 && errno == EPIPE);
        exit(0);
    }
    succeeds(child);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    tell(fd, "the parent");
    expect(fd, "is heard");
    CHECK(close(fd) == 0);
    succeeds(client);
}

static void hears_two(int fd) {
    expect(fd, "second");
    tell(fd, "to the second");
    expect(fd, "first");
    tell(fd, "to the first");
    CHECK(read(fd, bytes, 1) == 0);
}

/* What comes goes to the child that was made last, while there is one. */
static void two_children(void) {
    int fd = serve(hears_two), go[2];
    pid_t first, second;
    CHECK(pipe(go) == 0);
    first = fork();
    if (first == 0) {
        CHECK(close(go[1]) == 0);
        CHECK(read(go[0], bytes, 1) == 0);
        tell(fd, "first");
        expect(fd, "to the first");
        exit(0);
    }
    second = fork();
    if (second == 0) {
        CHECK(close(go[1]) == 0);
        tell(fd, "second");
        expect(fd, "to the second");
        exit(0);
    }
    CHECK(close(fd) == 0);
    succeeds(second);
    CHECK(close(go[1]) == 0);
    succeeds(first);
    succeeds(client);
}

static void is_slow(int fd) {
    expect(fd, "ready");
    tell(fd, "late");
    CHECK(read(fd, bytes, 1) == 0);
}

static void *reads(void *fd) {
    expect(*(int *)fd, "late");
    return NULL;
}

/* A thread that is in a call stays there while others fork. */
static void threads_go_on(void) {
    int fd = serve(is_slow);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, reads, &fd) == 0);
    for (int turn = 0; turn < 50; turn++) {
        pid_t child = fork();
        if (child == 0) {
            _exit(0);
        }
        succeeds(child);
    }
    tell(fd, "ready");
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(close(fd) == 0);
    succeeds(client);
}

/* Where clients say that they are up. */
static int up[2];

static void sees_the_end(int fd) {
    tell(fd, "go");
    expect(fd, "up");
    tell(up[1], "u");
    CHECK(read(fd, bytes, 1) <= 0);
    tell(over[1], "o");
}

static void goes_on(int fd, int after) {
    expect(fd, "go");
    tell(fd, "up");
    CHECK(read(after, bytes, 1) == 0);
    CHECK(read(fd, bytes, 1) <= 0);
    tell(over[1], "o");
}

/* Who is killed relays nothing any more. A child has nothing of its elder brother's, so that one
   sees the end although the younger lives. */
static void parent_is_killed(void) {
    int gone[2], status;
    pid_t parent;
    CHECK(pipe(up) == 0 && pipe(over) == 0 && pipe(gone) == 0);
    parent = fork();
    if (parent == 0) {
        for (int turn = 0; turn < 2; turn++) {
            int fd = serve(sees_the_end);
            pid_t child = fork();
            if (child == 0) {
                CHECK(close(gone[1]) == 0);
                goes_on(fd, turn == 0 ? open("/dev/null", O_RDONLY) : gone[0]);
                exit(0);
            }
            CHECK(close(fd) == 0);
            CHECK(read(up[0], bytes, 1) == 1);
        }
        raise(SIGKILL);
    }
    CHECK(waitpid(parent, &status, 0) == parent && WIFSIGNALED(status));
    CHECK(close(over[1]) == 0);
    /* Both clients and the elder child; then the younger; then all have gone. */
    for (int turn = 0; turn < 3; turn++) {
        CHECK(read(over[0], bytes, 1) == 1);
    }
    CHECK(close(gone[1]) == 0);
    CHECK(read(over[0], bytes, 1) == 1 && read(over[0], bytes, 1) == 0);
}

#define MANY 100

static void asks_many(int listener, int port) {
    int fds[MANY];
    struct sockaddr_in address = loopback(port);
    CHECK(close(listener) == 0);
    for (int at = 0; at < MANY; at++) {
        fds[at] = socket(AF_INET, SOCK_STREAM, 0);
        CHECK(connect(fds[at], (struct sockaddr *)&address, sizeof address) == 0);
    }
    for (int at = 0; at < MANY; at++) {
        tell(fds[at], "number ");
        CHECK(write(fds[at], &at, sizeof at) == sizeof at);
    }
    for (int at = MANY - 1; at >= 0; at--) {
        int answer;
        CHECK(recv(fds[at], &answer, sizeof answer, MSG_WAITALL) == sizeof answer);
        CHECK(answer == at && close(fds[at]) == 0);
    }
}

/* Each goes on with its own. */
static void many_children(void) {
    int listener = listen_anywhere(), number;
    int descriptors = count_of("/proc/self/fd"), threads = count_of("/proc/self/task");
    pid_t children[MANY];
    accept_nobody(listener);
    client = fork();
    if (client == 0) {
        asks_many(listener, port_of(listener));
        exit(0);
    }
    for (int at = 0; at < MANY; at++) {
        int fd = accept(listener, NULL, NULL);
        CHECK(fd >= 0);
        children[at] = fork();
        if (children[at] == 0) {
            CHECK(close(listener) == 0);
            expect(fd, "number ");
            CHECK(recv(fd, &number, sizeof number, MSG_WAITALL) == sizeof number);
            CHECK(write(fd, &number, sizeof number) == sizeof number);
            CHECK(read(fd, bytes, 1) == 0);
            exit(0);
        }
        CHECK(close(fd) == 0);
    }
    for (int at = 0; at < MANY; at++) {
        succeeds(children[at]);
    }
    succeeds(client);
    /* What the library has opened for its first connection stays. */
    back_to(descriptors + 20, threads + 2);
}

/* By a rule for SDP alone: the parent's. */
static void listener_of_sdp(void) {
    int listener = listen_anywhere();
    pid_t child = fork();
    if (child == 0) {
        CHECK(accept(listener, NULL, NULL) == -1 && errno == EINVAL);
        exit(0);
    }
    succeeds(child);
    int client = socket(AF_INET, SOCK_STREAM, 0), server;
    struct sockaddr_in address = loopback(port_of(listener));
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
    server = accept(listener, NULL, NULL);
    tell(client, "still");
    expect(server, "still");
}

int main(int count, char **words) {
    const struct one_case cases[] = {
        CASE(child_echoes),
        CASE(child_is_cat),
        CASE(child_knows_names),
        CASE(parent_keeps_it),
        CASE(both_use_it),
        CASE(nobody_overtakes),
        CASE(nobody_waits_who_does_not),
        CASE(a_time_ends_the_wait),
        CASE(exit_is_not_kept),
        CASE(left_while_shared),
        CASE(child_is_killed),
        CASE(peer_is_killed),
        CASE(left_and_closed),
        CASE(left_and_open),
        CASE(no_descriptors),
        CASE(two_children),
        CASE(threads_go_on),
        CASE(many_children),
        CASE(parent_is_killed),
        CASE(listener_of_sdp),
    };
    return run_case(cases, sizeof cases / sizeof cases[0], count, words);
}
