/* Connections that messages pass to other processes, and what executes without a fork: one case a run. */
#include "common.h"
#include "streams.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* A message with descriptors, and one byte. */
struct letter {
    struct msghdr message;
    struct iovec piece;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(2 * sizeof(int))];
    } control;
    char byte;
};

static struct msghdr *write_letter(struct letter *letter, const int *fds, int count) {
    memset(letter, 0, sizeof *letter);
    letter->piece = (struct iovec){&letter->byte, 1};
    letter->message.msg_iov = &letter->piece;
    letter->message.msg_iovlen = 1;
    letter->message.msg_control = &letter->control;
    letter->message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    letter->control.header.cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    letter->control.header.cmsg_level = SOL_SOCKET;
    letter->control.header.cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(&letter->control.header), fds, (size_t)count * sizeof(int));
    return &letter->message;
}

static void pass(int by, int fd) {
    struct letter letter;
    CHECK(sendmsg(by, write_letter(&letter, &fd, 1), 0) == 1);
    /* What the program has written is the program's. */
    CHECK(memcmp(CMSG_DATA(&letter.control.header), &fd, sizeof fd) == 0);
}

/* What came; -1 at the end. */
static int take(int by) {
    struct letter letter;
    int fd = -1;
    ssize_t got = recvmsg(by, write_letter(&letter, &fd, 1), 0);
    CHECK(got >= 0);
    if (got == 0) {
        return -1;
    }
    CHECK(letter.message.msg_controllen >= CMSG_LEN(sizeof fd));
    memcpy(&fd, CMSG_DATA(&letter.control.header), sizeof fd);
    return fd;
}

static int to_worker;

/* A process that was there before the connections, and works on each that it is given. */
static pid_t start_worker(void (*works)(int)) {
    int ends[2], fd;
    pid_t worker;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    worker = fork();
    if (worker == 0) {
        CHECK(close(ends[0]) == 0);
        while ((fd = take(ends[1])) >= 0) {
            works(fd);
            CHECK(close(fd) == 0);
        }
        exit(0);
    }
    CHECK(close(ends[1]) == 0);
    to_worker = ends[0];
    return worker;
}

static void end_worker(pid_t worker) {
    CHECK(close(to_worker) == 0);
    succeeds(worker);
}

static void echoes(int fd) {
    echo(fd);
    CHECK(shutdown(fd, SHUT_WR) == 0);
}

/* Each connection is passed on and closed here. */
static void to_a_worker(void) {
    pid_t worker = start_worker(echoes);
    for (int turn = 0; turn < 20; turn++) {
        struct pair pair = make_pair();
        pass(to_worker, pair.server);
        CHECK(close(pair.server) == 0);
        send_and_read_back(pair.client);
        CHECK(close(pair.client) == 0);
    }
    end_worker(worker);
}

static void answers(int fd) {
    expect(fd, "question");
    tell(fd, "answer");
    expect(fd, "more");
}

/* The connection stays open here, too; what comes is the worker's, and what either writes goes out. */
static void and_kept(void) {
    pid_t worker = start_worker(answers);
    struct pair pair = make_pair();
    pass(to_worker, pair.server);
    tell(pair.client, "question");
    expect(pair.client, "answer");
    tell(pair.server, "own");
    expect(pair.client, "own");
    CHECK(close(pair.server) == 0);
    tell(pair.client, "more");
    CHECK(read(pair.client, bytes, 1) == 0);
    CHECK(close(pair.client) == 0);
    end_worker(worker);
}

static void asks_for_two(int fd) {
    tell(fd, "ready");
    expect(fd, "done");
}

/* Several messages at once, one with two connections; and one of a socket that is the kernel's. */
static void several_at_once(void) {
    struct pair pairs[3] = {make_pair(), make_pair(), make_pair()};
    struct letter letters[2];
    struct mmsghdr both[2];
    int ends[2], fds[2] = {pairs[1].server, pairs[2].server}, listener = listen_anywhere();
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    memset(both, 0, sizeof both);
    both[0].msg_hdr = *write_letter(&letters[0], &pairs[0].server, 1);
    both[1].msg_hdr = *write_letter(&letters[1], fds, 2);
    CHECK(sendmmsg(ends[0], both, 2, 0) == 2 && both[0].msg_len == 1 && both[1].msg_len == 1);
    for (int at = 0; at < 2; at++) {
        struct letter letter;
        int got[2] = {-1, -1}, count = at + 1;
        CHECK(recvmsg(ends[1], write_letter(&letter, got, count), 0) == 1);
        memcpy(got, CMSG_DATA(&letter.control.header), (size_t)count * sizeof(int));
        for (int one = 0; one < count; one++) {
            CHECK(close(pairs[at + one].server) == 0);
            tell(pairs[at + one].client, "done");
            asks_for_two(got[one]);
            expect(pairs[at + one].client, "ready");
            CHECK(close(got[one]) == 0);
            CHECK(read(pairs[at + one].client, bytes, 1) == 0);
            CHECK(close(pairs[at + one].client) == 0);
        }
    }
    pass(ends[0], listener);
    int same = take(ends[1]);
    CHECK(same >= 0 && port_of(same) == port_of(listener));
}

/* Who gets no such message has no connection, and the sender keeps its own. */
static void nobody_takes_it(void) {
    struct pair pair = make_pair();
    struct letter letter;
    int ends[2], fd = pair.server;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    pass(ends[0], fd);
    CHECK(close(ends[1]) == 0);
    CHECK(sendmsg(ends[0], write_letter(&letter, &fd, 1), MSG_NOSIGNAL) == -1 && errno == EPIPE);
    CHECK(sendmsg(ends[0], NULL, MSG_NOSIGNAL) == -1 && errno == EFAULT);
    CHECK(close(ends[0]) == 0);
    tell(pair.client, "still");
    expect(pair.server, "still");
    tell(pair.server, "there");
    expect(pair.client, "there");
    close_pair(pair);
}

/* A worker that is killed ends its connection, which its peer sees. */
static void worker_is_killed(void) {
    pid_t worker = start_worker(echoes);
    struct pair pair = make_pair();
    int status;
    pass(to_worker, pair.server);
    CHECK(close(pair.server) == 0);
    tell(pair.client, "there");
    expect(pair.client, "there");
    CHECK(kill(worker, SIGKILL) == 0 && waitpid(worker, &status, 0) == worker);
    CHECK(read(pair.client, bytes, 1) <= 0);
    CHECK(close(pair.client) == 0);
}

/* With one descriptor left there is none for a pair: who receives it has a socket that is not connected. */
static void no_descriptors(void) {
    struct rlimit limit = {200, 200};
    struct pair pair;
    int ends[2], last = -1, fd;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    pair = make_pair();
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    while ((fd = dup(1)) >= 0) {
        last = fd;
    }
    CHECK(errno == EMFILE && close(last) == 0);
    pass(ends[0], pair.server);
    fd = take(ends[1]);
    CHECK(fd >= 0 && read(fd, bytes, 1) == -1 && errno == ENOTCONN);
    tell(pair.client, "still");
    expect(pair.server, "still");
    /* The report needs one. */
    CHECK(close(fd) == 0 && close(ends[0]) == 0);
}

/* One connection would be the next program's; an exec that fails leaves all as it was. */
static void executes(void) {
    struct pair pair = make_pair();
    char number[16], *words[] = {"passes", "executed", NULL};
    CHECK(fcntl(pair.client, F_SETFD, FD_CLOEXEC) == 0);
    CHECK(execv("/nowhere", words) == -1 && errno == ENOENT);
    tell(pair.client, "still");
    expect(pair.server, "still");
    snprintf(number, sizeof number, "%d", pair.server);
    CHECK(setenv("NUMBER", number, 1) == 0);
    execv("/proc/self/exe", words);
    CHECK(!"executed");
}

static void executed(void) {
    CHECK(read(atoi(getenv("NUMBER")), bytes, 1) == -1 && errno == ENOTCONN);
}

/* A ring of io_uring(7); -1 where there is none. */
static int make_ring(void) {
    unsigned int parameters[30] = {0};
    int ring = (int)syscall(SYS_io_uring_setup, 4, parameters);
    if (ring < 0) {
        printf("no io_uring: %s\n", strerror(errno));
    }
    return ring;
}

static void ring_at_first(void) {
    int ring = make_ring();
    close_pair(make_pair());
    CHECK(ring < 0 || close(ring) == 0);
}

static void ring_at_the_end(void) {
    close_pair(make_pair());
    make_ring();
}

int main(int count, char **words) {
    const struct one_case cases[] = {
        CASE(to_a_worker),
        CASE(and_kept),
        CASE(several_at_once),
        CASE(nobody_takes_it),
        CASE(worker_is_killed),
        CASE(no_descriptors),
        CASE(executes),
        CASE(executed),
        CASE(ring_at_first),
        CASE(ring_at_the_end),
    };
    return run_case(cases, sizeof cases / sizeof cases[0], count, words);
}
