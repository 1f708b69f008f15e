/* Servers of every kind that waits for connections before somebody accepts them; one case a run.
   Whoever calls is served, whichever process accepts. */
#include "common.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

/* A process that calls when it is told to. It is older than every listener, so it has none. */
struct caller {
    pid_t pid;
    int tell, hear;
};

/* How a call went: by SDP or by TCP, and how many milliseconds the connect took. */
struct call {
    char by;
    int millis;
};

static int64_t now(void) {
    struct timespec time;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &time) == 0);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static void call(int port, struct call *made) {
    struct sockaddr_in address = loopback(port), name;
    socklen_t length = sizeof name;
    int64_t start = now();
    char back[8];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    made->millis = (int)(now() - start);
    /* By SDP the kernel's own socket is not connected. */
    made->by = syscall(SYS_getpeername, fd, &name, &length) == 0 ? 'T' : 'S';
    CHECK(write(fd, "hello", 5) == 5);
    CHECK(recv(fd, back, 5, MSG_WAITALL) == 5 && memcmp(back, "hello", 5) == 0);
    CHECK(close(fd) == 0);
}

static struct caller make_caller(void) {
    int there[2], back[2], port;
    struct caller made;
    CHECK(pipe(there) == 0 && pipe(back) == 0);
    made = (struct caller){fork(), there[1], back[0]};
    if (made.pid == 0) {
        struct call one;
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
        while (read(there[0], &port, sizeof port) == sizeof port && port != 0) {
            call(port, &one);
            CHECK(write(back[1], &one, sizeof one) == sizeof one);
        }
        exit(0);
    }
    CHECK(close(there[0]) == 0 && close(back[1]) == 0);
    return made;
}

static void ask(struct caller caller, int listener) {
    int port = port_of(listener);
    CHECK(write(caller.tell, &port, sizeof port) == sizeof port);
}

static struct call answer_of(struct caller caller) {
    struct call one;
    CHECK(read(caller.hear, &one, sizeof one) == sizeof one);
    return one;
}

static void succeeds(pid_t child) {
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void end_caller(struct caller caller) {
    const int none = 0;
    CHECK(write(caller.tell, &none, sizeof none) == sizeof none);
    succeeds(caller.pid);
    CHECK(close(caller.tell) == 0 && close(caller.hear) == 0);
}

static void serve(int fd) {
    char got[8];
    CHECK(fd >= 0);
    CHECK(recv(fd, got, 5, MSG_WAITALL) == 5 && write(fd, got, 5) == 5);
    CHECK(close(fd) == 0);
}

/* Accepts one, whatever accept says before. */
static int accept_at_last(int listener) {
    int fd;
    while ((fd = accept(listener, NULL, NULL)) == -1) {
        CHECK(errno == EAGAIN);
        readable(listener);
    }
    return fd;
}

/* A server with one process has its first client by SDP, by every way to wait. */
static void waits_and_accepts(void) {
    struct caller caller = make_caller();
    for (int way = 0; way < 8; way++) {
        int listener = listen_anywhere(), set = epoll_create1(0);
        struct epoll_event event = {EPOLLIN, {.u64 = 4}}, got;
        struct timeval long_time = {20, 0};
        fd_set fds;
        if (way % 2 == 1) {
            CHECK(fcntl(listener, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
        }
        if (way / 2 == 0) {
            struct pollfd one = {listener, POLLIN, 0};
            CHECK(poll(&one, 1, 0) == 0);
            ask(caller, listener);
            readable(listener);
        } else if (way / 2 == 1) {
            ask(caller, listener);
            FD_ZERO(&fds);
            FD_SET(listener, &fds);
            /* It may have come by TCP before. */
            CHECK(select(listener + 1, &fds, NULL, NULL, &long_time) == 1);
        } else {
            event.events = way / 2 == 2 ? EPOLLIN : EPOLLIN | EPOLLET;
            CHECK(epoll_ctl(set, EPOLL_CTL_ADD, listener, &event) == 0);
            CHECK(epoll_wait(set, &got, 1, 0) == 0);
            ask(caller, listener);
            CHECK(epoll_wait(set, &got, 1, 20000) == 1 && got.data.u64 == 4);
        }
        serve(accept_at_last(listener));
        CHECK(answer_of(caller).by == 'S' || way / 2 == 1);
        CHECK(close(set) == 0 && close(listener) == 0);
    }
    end_caller(caller);
}

/* A parent that waits, and has a child accept: nobody waits for it. When it accepts itself it has
   SDP's, too, also by registrations made before. */
static void child_accepts(void) {
    struct caller caller = make_caller();
    int listener = listen_anywhere(), set = epoll_create1(0), status;
    struct epoll_event event = {EPOLLIN, {.u64 = 4}}, got;
    struct call one;
    pid_t child;
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, listener, &event) == 0);
    for (int turn = 0; turn < 3; turn++) {
        ask(caller, listener);
        CHECK(epoll_wait(set, &got, 1, 20000) == 1 && got.data.u64 == 4);
        child = fork();
        if (child == 0) {
            serve(accept(listener, NULL, NULL));
            exit(0);
        }
        one = answer_of(caller);
        CHECK(one.by == 'T' && one.millis < 10000);
        succeeds(child);
    }
    accept_nobody(listener);
    ask(caller, listener);
    CHECK(epoll_wait(set, &got, 1, 20000) == 1 && got.data.u64 == 4);
    serve(accept_at_last(listener));
    CHECK(answer_of(caller).by == 'S');
    CHECK(waitpid(-1, &status, WNOHANG) == 0);
    end_caller(caller);
}

/* What a program does that has a listener for standard input. */
static void accepts_from_0(void) {
    serve(accept(0, NULL, NULL));
}

extern char **environ;

/* A parent that waits, and starts a program which accepts. The first client is late, and then nobody
   is. */
static void program_accepts(void) {
    struct caller caller;
    int listener;
    posix_spawn_file_actions_t actions;
    char *words[] = {(char *)"servers", (char *)"accepts_from_0", NULL};
    CHECK(setenv("SDP_PRELOAD_WAIT", "200", 1) == 0);
    caller = make_caller();
    listener = listen_anywhere();
    for (int turn = 0; turn < 3; turn++) {
        pid_t child;
        struct pollfd one = {listener, POLLIN, 0};
        CHECK(turn > 0 || poll(&one, 1, 0) == 0);
        ask(caller, listener);
        readable(listener);
        CHECK(posix_spawn_file_actions_init(&actions) == 0);
        CHECK(posix_spawn_file_actions_adddup2(&actions, listener, 0) == 0);
        CHECK(posix_spawn(&child, "/proc/self/exe", &actions, NULL, words, environ) == 0);
        CHECK(posix_spawn_file_actions_destroy(&actions) == 0);
        CHECK(answer_of(caller).by == 'T');
        succeeds(child);
    }
    end_caller(caller);
}

/* Says that a worker is there; and by what is written, how many of them may go on. */
static int up[2], go[2];

static pid_t make_worker(void (*works)(int), int listener) {
    char byte;
    pid_t worker = fork();
    if (worker == 0) {
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
        works(listener);
        exit(0);
    }
    CHECK(read(up[0], &byte, 1) == 1);
    return worker;
}

static void end_worker(pid_t worker) {
    int status;
    CHECK(kill(worker, SIGKILL) == 0 && waitpid(worker, &status, 0) == worker);
    CHECK(WIFSIGNALED(status));
}

static void works_by_epoll(int listener) {
    int set = epoll_create1(0), fd;
    struct epoll_event event = {EPOLLIN, {0}};
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, listener, &event) == 0);
    CHECK(write(up[1], "u", 1) == 1);
    for (;;) {
        CHECK(epoll_wait(set, &event, 1, -1) == 1);
        while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
            serve(fd);
        }
        CHECK(errno == EAGAIN);
    }
}

#define CALLERS 4

/* A parent that listens, and workers that wait by epoll and accept. */
static void workers_by_epoll(void) {
    struct caller callers[CALLERS];
    pid_t workers[3];
    int listener;
    for (int at = 0; at < CALLERS; at++) {
        callers[at] = make_caller();
    }
    CHECK(pipe(up) == 0);
    listener = listen_anywhere();
    CHECK(fcntl(listener, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
    for (int at = 0; at < 3; at++) {
        workers[at] = make_worker(works_by_epoll, listener);
    }
    for (int turn = 0; turn < 10; turn++) {
        for (int at = 0; at < CALLERS; at++) {
            ask(callers[at], listener);
        }
        for (int at = 0; at < CALLERS; at++) {
            CHECK(answer_of(callers[at]).by == 'S');
        }
    }
    for (int at = 0; at < 3; at++) {
        end_worker(workers[at]);
    }
    for (int at = 0; at < CALLERS; at++) {
        end_caller(callers[at]);
    }
}

static int waits_first;

static void works_one_by_one(int listener) {
    int is_first = 1;
    if (waits_first) {
        struct pollfd one = {listener, POLLIN, 0};
        CHECK(poll(&one, 1, 0) == 0);
    }
    CHECK(write(up[1], "u", 1) == 1);
    for (;; is_first = 0) {
        char byte;
        int fd;
        if (waits_first) {
            CHECK(poll(&(struct pollfd){listener, POLLIN, 0}, 1, -1) == 1);
        }
        fd = accept(listener, NULL, NULL);
        CHECK(fd >= 0);
        if (is_first) {
            CHECK(write(up[1], "u", 1) == 1 && read(go[0], &byte, 1) == 1);
        }
        serve(fd);
    }
}

/* Workers that accept one client and have no eye for others meanwhile: these are the other workers'. */
static void busy_workers(void) {
    struct caller callers[2];
    pid_t workers[2];
    int listener;
    CHECK(setenv("SDP_PRELOAD_WAIT", "200", 1) == 0);
    for (waits_first = 0; waits_first < 2; waits_first++) {
        char byte;
        callers[0] = make_caller();
        callers[1] = make_caller();
        CHECK(pipe(up) == 0 && pipe(go) == 0);
        listener = listen_anywhere();
        workers[0] = make_worker(works_one_by_one, listener);
        workers[1] = make_worker(works_one_by_one, listener);
        ask(callers[0], listener);
        ask(callers[1], listener);
        /* Each of them takes one, and keeps it until both have. */
        CHECK(read(up[0], &byte, 1) == 1 && read(up[0], &byte, 1) == 1);
        CHECK(write(go[1], "go", 2) == 2);
        answer_of(callers[0]);
        answer_of(callers[1]);
        end_worker(workers[0]);
        end_worker(workers[1]);
        end_caller(callers[0]);
        end_caller(callers[1]);
        CHECK(close(listener) == 0 && close(up[0]) == 0 && close(up[1]) == 0);
        CHECK(close(go[0]) == 0 && close(go[1]) == 0);
    }
}

static void *polls(void *listener) {
    readable(*(int *)listener);
    return NULL;
}

/* A thread waits while another makes the child that accepts. */
static void thread_waits(void) {
    struct caller caller;
    int listener;
    pthread_t thread;
    pid_t child;
    CHECK(setenv("SDP_PRELOAD_WAIT", "200", 1) == 0);
    caller = make_caller();
    listener = listen_anywhere();
    CHECK(pthread_create(&thread, NULL, polls, &listener) == 0);
    for (int turn = 0; turn < 3; turn++) {
        child = fork();
        if (child == 0) {
            serve(accept(listener, NULL, NULL));
            exit(0);
        }
        ask(caller, listener);
        answer_of(caller);
        succeeds(child);
    }
    /* One more, which the thread sees if none of them. */
    ask(caller, listener);
    CHECK(pthread_join(thread, NULL) == 0);
    serve(accept_at_last(listener));
    answer_of(caller);
    end_caller(caller);
}

/* A thread that connects to a listener of its own process does not wait for itself. */
static void calls_itself(void) {
    int listener = listen_anywhere(), client, server;
    struct sockaddr_in address = loopback(port_of(listener));
    struct pollfd one = {listener, POLLIN, 0};
    int64_t start = now();
    CHECK(poll(&one, 1, 0) == 0);
    client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(now() - start < 10000);
    server = accept(listener, NULL, NULL);
    CHECK(write(client, "hello", 5) == 5);
    serve(server);
    /* Now it accepts, and who connects has SDP. */
    client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(client, (struct sockaddr *)&address, sizeof address) == 0);
    server = accept(listener, NULL, NULL);
    CHECK(write(client, "hello", 5) == 5);
    serve(server);
}

/* A server that listens anew where it has accepted has callers by SDP before it waits for them. */
static void listens_again(void) {
    struct caller caller = make_caller();
    int listener = listen_anywhere(), on = 1;
    struct sockaddr_in address = loopback(port_of(listener));
    struct pollfd one;
    accept_nobody(listener);
    ask(caller, listener);
    serve(accept(listener, NULL, NULL));
    CHECK(answer_of(caller).by == 'S');
    CHECK(close(listener) == 0);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(listener, 1) == 0);
    ask(caller, listener);
    /* Behind the library's back: nobody comes by TCP. */
    one = (struct pollfd){listener, POLLIN, 0};
    CHECK(syscall(SYS_poll, &one, 1, 300) == 0);
    serve(accept(listener, NULL, NULL));
    CHECK(answer_of(caller).by == 'S');
    end_caller(caller);
}

/* A caller that is killed while it waits is not shown any more, and no later one waits in vain. */
static void caller_is_killed(void) {
    struct caller first = make_caller(), second = make_caller();
    int listener = listen_anywhere(), status;
    struct pollfd one = {listener, POLLIN, 0};
    CHECK(poll(&one, 1, 0) == 0);
    ask(first, listener);
    readable(listener);
    CHECK(kill(first.pid, SIGKILL) == 0 && waitpid(first.pid, &status, 0) == first.pid);
    while (poll(&one, 1, 0) != 0) {
        sched_yield();
    }
    ask(second, listener);
    readable(listener);
    serve(accept(listener, NULL, NULL));
    CHECK(answer_of(second).by == 'T');
    ask(second, listener);
    serve(accept(listener, NULL, NULL));
    CHECK(answer_of(second).by == 'S');
    end_caller(second);
}

int main(int count, char **words) {
    const struct one_case cases[] = {
        CASE(waits_and_accepts),
        CASE(child_accepts),
        CASE(accepts_from_0),
        CASE(program_accepts),
        CASE(workers_by_epoll),
        CASE(busy_workers),
        CASE(thread_waits),
        CASE(calls_itself),
        CASE(caller_is_killed),
        CASE(listens_again),
    };
    return run_case(cases, sizeof cases / sizeof cases[0], count, words);
}
