/* Signal handlers that call what POSIX lets them call, and threads that are cancelled, one case a run. */
#include "common.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* Spoken on by the program and by its handlers; by the handlers alone. */
static struct pair both, own;
static volatile long handled, from_handlers, failed_here, failed_with;

static void handle(int number, void (*handler)(int), int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = flags;
    CHECK(sigaction(number, &action, NULL) == 0);
}

/* Every hundred microseconds. */
static void tick(int micros) {
    struct itimerval every = {{0, micros}, {0, micros}};
    CHECK(setitimer(ITIMER_REAL, &every, NULL) == 0);
}

#define EXPECT(condition)                  \
    do {                                   \
        if (!(condition)) {                \
            failed_here = __LINE__;        \
            failed_with = errno;           \
        }                                  \
    } while (0)

static void show_failure(void) {
    if (failed_here != 0) {
        printf("a handler fails at line %ld: %s\n", failed_here, name_of((int)failed_with));
        exit(1);
    }
}

static void calls(int number) {
    struct sockaddr_in name;
    socklen_t length = sizeof name, size = sizeof number;
    struct pollfd fds[2] = {{own.server, POLLIN, 0}, {both.client, POLLOUT, 0}};
    char bytes[8];
    int saved = errno, fd, error = 0;
    /* On its own connection all is as it always is. */
    EXPECT(send(own.client, "own", 3, 0) == 3);
    EXPECT(poll(fds, 2, 20000) >= 1);
    EXPECT(recv(own.server, bytes, 3, MSG_WAITALL) == 3);
    EXPECT(getpeername(own.client, (struct sockaddr *)&name, &length) == 0);
    EXPECT(getsockopt(both.client, SOL_SOCKET, SO_ERROR, &error, &size) == 0);
    EXPECT(ioctl(both.server, FIONREAD, &error) == 0);
    /* On one that a call may be under way on, nothing waits. */
    if (send(both.client, "h", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1) {
        __atomic_fetch_add(&from_handlers, 1, __ATOMIC_RELAXED);
    } else {
        /* The last one may come when all is over. */
        EXPECT(errno == EAGAIN || errno == EPIPE);
    }
    EXPECT(recv(both.client, bytes, 8, MSG_DONTWAIT | MSG_PEEK) == -1 && errno == EAGAIN);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT(fd >= 0 && close(fd) == 0);
    __atomic_fetch_add(&handled, 1, __ATOMIC_RELAXED);
    errno = saved;
}

static void *takes_all(void *argument) {
    long *sum = argument;
    char bytes[4096];
    for (;;) {
        ssize_t len = read(both.server, bytes, sizeof bytes);
        if (len == 0) {
            return NULL;
        }
        CHECK(len > 0);
        *sum += len;
    }
}

/* A handler that comes at any moment of a call, on the thread that sends and on the one that waits. */
static void handlers_call(void) {
    char bytes[64] = {0};
    static char large[1 << 18];
    long sum = 0, sent = 0;
    pthread_t reader;
    both = make_pair();
    own = make_pair();
    handle(SIGALRM, calls, SA_RESTART);
    CHECK(pthread_create(&reader, NULL, takes_all, &sum) == 0);
    tick(100);
    for (long round = 0; handled < 3000 && failed_here == 0; round++) {
        ssize_t len = round % 64 == 0 ? write(both.client, large, sizeof large)
                                      : write(both.client, bytes, sizeof bytes);
        CHECK(len > 0);
        sent += len;
    }
    tick(0);
    show_failure();
    CHECK(shutdown(both.client, SHUT_WR) == 0);
    CHECK(pthread_join(reader, NULL) == 0);
    CHECK(sum == sent + from_handlers && from_handlers > 0);
}

/* The same where the program is in calls that take and give memory, and threads have a handler each. */
static void handlers_close(void) {
    both = make_pair();
    own = make_pair();
    handle(SIGALRM, calls, SA_RESTART);
    tick(100);
    for (int round = 0; handled < 500 && failed_here == 0; round++) {
        struct pair pair = make_pair();
        char bytes[8];
        CHECK(write(pair.client, "there", 5) == 5 && read(pair.server, bytes, 8) == 5);
        CHECK(close(pair.client) == 0 && close(pair.server) == 0);
    }
    tick(0);
    show_failure();
}

/* A handler that comes while the program itself takes and gives memory. */
static void handlers_meet_malloc(void) {
    void *kept[64] = {NULL};
    both = make_pair();
    own = make_pair();
    handle(SIGALRM, calls, SA_RESTART);
    tick(100);
    for (size_t round = 0; handled < 3000 && failed_here == 0; round++) {
        free(kept[round % 64]);
        kept[round % 64] = malloc(round * 977 % 70000 + 1);
        CHECK(kept[round % 64] != NULL);
        if (round % 1000 == 0) {
            char bytes[64];
            while (recv(both.server, bytes, sizeof bytes, MSG_DONTWAIT) > 0) {
            }
        }
    }
    tick(0);
    show_failure();
}

static volatile long values, came;
static volatile int stack_is_right = 1;
static char stack[1 << 16];

static void adds(int number, siginfo_t *info, void *context) {
    char here;
    if (&here < stack || &here >= stack + sizeof stack || context == NULL || number != info->si_signo) {
        stack_is_right = 0;
    }
    if (info->si_code == SI_QUEUE && info->si_pid == getpid()) {
        values += info->si_value.sival_int;
        came++;
    }
}

static pthread_t target;
static volatile int is_over;

static void *queues(void *argument) {
    long *sum = argument;
    for (int value = 1; value <= 2000; value++) {
        union sigval with = {.sival_int = value};
        while (pthread_sigqueue(target, SIGRTMIN, with) != 0) {
            sched_yield();
        }
        *sum += value;
        if (value % 8 == 0) {
            usleep(50);
        }
    }
    is_over = 1;
    return NULL;
}

/* What comes with a signal is the handler's, whenever it comes; so is its stack. */
static void handlers_find_all(void) {
    struct sigaction action, old;
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    pthread_t sender;
    char bytes[64] = {0};
    long sum = 0;
    both = make_pair();
    memset(&action, 0, sizeof action);
    action.sa_sigaction = adds;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigaddset(&action.sa_mask, SIGUSR2);
    CHECK(sigaltstack(&other, NULL) == 0);
    CHECK(sigaction(SIGRTMIN, &action, NULL) == 0);
    target = pthread_self();
    CHECK(pthread_create(&sender, NULL, queues, &sum) == 0);
    while (!is_over || came < 2000) {
        CHECK(write(both.client, bytes, 64) == 64 && read(both.server, bytes, 64) == 64);
    }
    CHECK(pthread_join(sender, NULL) == 0);
    CHECK(values == sum && stack_is_right);
    CHECK(sigaction(SIGRTMIN, NULL, &old) == 0);
    CHECK(old.sa_sigaction == adds && sigismember(&old.sa_mask, SIGUSR2) == 1);
    CHECK((old.sa_flags & (SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER))
          == (SA_SIGINFO | SA_ONSTACK | SA_RESTART));
}

/* Actions are read back as they were set, by whatever function, and one that is for once is. */
static void actions(void) {
    struct sigaction old;
    CHECK(signal(SIGUSR1, count_signal) == SIG_DFL);
    CHECK(signal(SIGUSR1, calls) == count_signal);
    CHECK(sigaction(SIGUSR1, NULL, &old) == 0);
    CHECK(old.sa_handler == calls && old.sa_flags & SA_RESTART && !(old.sa_flags & SA_SIGINFO));
    CHECK(signal(SIGUSR1, SIG_IGN) == calls && raise(SIGUSR1) == 0);
    CHECK(signal(SIGUSR1, SIG_DFL) == SIG_IGN);
    CHECK(sysv_signal(SIGUSR1, count_signal) == SIG_DFL);
    CHECK(sigaction(SIGUSR1, NULL, &old) == 0);
    CHECK(old.sa_handler == count_signal && old.sa_flags & (int)SA_RESETHAND);
    CHECK(raise(SIGUSR1) == 0 && signals == 1);
    CHECK(sigaction(SIGUSR1, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
    CHECK(signal(0, count_signal) == SIG_ERR && errno == EINVAL);
    CHECK(signal(SIGKILL, count_signal) == SIG_ERR && errno == EINVAL);
    CHECK(sigaction(65, NULL, &old) == -1 && errno == EINVAL);
    CHECK(signal(SIGSEGV, count_signal) == SIG_DFL && signal(SIGSEGV, SIG_DFL) == count_signal);
}

/* Where the handler returns to: to the library, or to the kernel if that has called it. */
static void *volatile caller, *volatile other;

static void is_called(int number) {
    void *at = __builtin_extract_return_addr(__builtin_return_address(0));
    (void)number;
    if (caller == NULL) {
        caller = at;
    } else if (at != caller) {
        other = at;
    }
    handled++;
}

static volatile int is_over;

static void *kills(void *argument) {
    (void)argument;
    while (!is_over) {
        kill(getpid(), SIGUSR1);
    }
    return NULL;
}

/* Old programs have functions of which new ones are warned. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

/* However a handler is set, the kernel calls it by the library from the first moment on. */
static void no_moment_between(void) {
    pthread_t thread;
    sigset_t set;
    struct sigaction now;
    handle(SIGUSR1, is_called, SA_RESTART);
    CHECK(raise(SIGUSR1) == 0 && handled == 1 && caller != NULL);
    CHECK(signal(SIGUSR1, SIG_IGN) == is_called);
    CHECK(pthread_create(&thread, NULL, kills, NULL) == 0);
    for (int turn = 0; turn < 20000 || handled < 100; turn++) {
        CHECK(signal(SIGUSR1, is_called) != SIG_ERR);
        CHECK(signal(SIGUSR1, SIG_IGN) == is_called);
        CHECK(sigset(SIGUSR1, is_called) == SIG_IGN);
        CHECK(sigset(SIGUSR1, SIG_IGN) == is_called);
    }
    is_over = 1;
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(other == NULL);
    /* What sigset(3) says of a signal that is held, and that it lets it through. */
    CHECK(sigset(SIGUSR1, is_called) == SIG_IGN && sigset(SIGUSR1, SIG_HOLD) == is_called);
    CHECK(sigset(SIGUSR1, is_called) == SIG_HOLD && sigset(SIGUSR1, SIG_DFL) == is_called);
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &set) == 0 && !sigismember(&set, SIGUSR1));
    /* What siginterrupt(3) says holds for handlers that are set later. */
    CHECK(siginterrupt(SIGUSR2, 1) == 0 && signal(SIGUSR2, is_called) == SIG_DFL);
    CHECK(sigaction(SIGUSR2, NULL, &now) == 0 && !(now.sa_flags & SA_RESTART));
    CHECK(sigismember(&now.sa_mask, SIGUSR2) == 1);
    CHECK(siginterrupt(SIGUSR2, 0) == 0 && sigaction(SIGUSR2, NULL, &now) == 0);
    CHECK(now.sa_handler == is_called && now.sa_flags & SA_RESTART);
    CHECK(signal(SIGUSR2, is_called) == is_called && sigaction(SIGUSR2, NULL, &now) == 0);
    CHECK(now.sa_flags & SA_RESTART);
    CHECK(signal(SIGUSR2, SIG_ERR) == SIG_ERR && errno == EINVAL);
}

static volatile int waits;

static void *interrupts(void *argument) {
    (void)argument;
    while (!is_over) {
        if (waits) {
            CHECK(pthread_kill(target, SIGUSR1) == 0);
        }
        usleep(200);
    }
    return NULL;
}

static void sends_there(int number) {
    char bytes[8];
    (void)number;
    signals++;
    EXPECT(recv(both.server, bytes, 8, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    if (signals == 3) {
        EXPECT(write(both.client, "done", 4) == 4);
    }
}

/* A handler runs at once while a call waits, and ends it unless it is to be restarted. */
static void waits_are_interrupted(void) {
    pthread_t other;
    char bytes[8];
    both = make_pair();
    target = pthread_self();
    handle(SIGUSR1, count_signal, 0);
    CHECK(pthread_create(&other, NULL, interrupts, NULL) == 0);
    for (int round = 0; round < 50; round++) {
        waits = 1;
        CHECK(recv(both.server, bytes, 8, 0) == -1 && errno == EINTR);
        waits = 0;
    }
    handle(SIGUSR1, sends_there, SA_RESTART);
    signals = 0;
    waits = 1;
    CHECK(recv(both.server, bytes, 8, 0) == 4 && memcmp(bytes, "done", 4) == 0);
    waits = 0;
    is_over = 1;
    CHECK(pthread_join(other, NULL) == 0);
    show_failure();
}

static sigjmp_buf start;
static volatile int may_jump;

static void jumps(int number) {
    (void)number;
    handled++;
    if (may_jump) {
        siglongjmp(start, 1);
    }
}

/* A handler that leaves by a jump, from wherever a call that does not wait lets it run, leaves the thread
   as it was: its mask, its cancel state, and its calls. */
static void handlers_jump(void) {
    char bytes[64] = {0};
    struct pollfd one;
    sigset_t mask;
    int state;
    both = make_pair();
    own = make_pair();
    one.fd = both.server;
    one.events = POLLIN;
    handle(SIGALRM, jumps, SA_RESTART);
    tick(100);
    sigsetjmp(start, 1);
    may_jump = 1;
    while (handled < 3000) {
        send(both.client, bytes, sizeof bytes, MSG_DONTWAIT);
        recv(both.server, bytes, sizeof bytes, MSG_DONTWAIT);
        poll(&one, 1, 0);
    }
    may_jump = 0;
    tick(0);
    CHECK(sigprocmask(SIG_SETMASK, NULL, &mask) == 0);
    CHECK(sigismember(&mask, SIGALRM) == 0 && sigismember(&mask, SIGUSR1) == 0);
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state) == 0);
    CHECK(state == PTHREAD_CANCEL_ENABLE);
    CHECK(write(own.client, "there", 5) == 5 && read(own.server, bytes, 8) == 5);
}

static pid_t forked;

static void forks(int number) {
    (void)number;
    handled++;
    EXPECT(write(own.client, "h", 1) == 1 || errno == EAGAIN);
}

/* A fork holds locks from before it until after it. */
static void handlers_meet_forks(void) {
    char bytes[64];
    both = make_pair();
    own = make_pair();
    CHECK(fcntl(own.client, F_SETFL, O_NONBLOCK) == 0);
    handle(SIGALRM, forks, SA_RESTART);
    tick(200);
    for (int round = 0; round < 60; round++) {
        forked = fork();
        if (forked == 0) {
            sigset_t mask;
            CHECK(sigprocmask(SIG_SETMASK, NULL, &mask) == 0 && sigismember(&mask, SIGUSR1) == 0);
            CHECK(write(both.client, "child", 5) == 5);
            _exit(0);
        }
        CHECK(forked > 0);
        CHECK(read(both.server, bytes, 5) == 5);
        while (waitpid(forked, NULL, 0) == -1) {
            CHECK(errno == EINTR);
        }
        while (recv(own.server, bytes, sizeof bytes, MSG_DONTWAIT) > 0) {
        }
    }
    tick(0);
    CHECK(handled > 0);
    show_failure();
}

static pthread_barrier_t gate;
static int listening;
static int cleaned;

static void cleans(void *argument) {
    (void)argument;
    cleaned++;
}

static void *receives(void *argument) {
    char bytes[8];
    (void)argument;
    pthread_cleanup_push(cleans, NULL);
    pthread_barrier_wait(&gate);
    recv(both.server, bytes, 8, 0);
    pthread_cleanup_pop(0);
    return NULL;
}

static char much[1 << 24];

static void *sends(void *argument) {
    (void)argument;
    pthread_cleanup_push(cleans, NULL);
    pthread_barrier_wait(&gate);
    while (send(both.client, much, sizeof much, 0) > 0) {
    }
    pthread_cleanup_pop(0);
    return NULL;
}

static void *accepts(void *argument) {
    (void)argument;
    pthread_cleanup_push(cleans, NULL);
    pthread_barrier_wait(&gate);
    accept(listening, NULL, NULL);
    pthread_cleanup_pop(0);
    return NULL;
}

static void *polls(void *argument) {
    struct pollfd one = {both.server, POLLIN, 0};
    (void)argument;
    pthread_cleanup_push(cleans, NULL);
    pthread_barrier_wait(&gate);
    poll(&one, 1, -1);
    pthread_cleanup_pop(0);
    return NULL;
}

static void *receives_undisturbed(void *argument) {
    char bytes[8];
    int state;
    (void)argument;
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state) == 0);
    pthread_cleanup_push(cleans, NULL);
    pthread_barrier_wait(&gate);
    CHECK(recv(both.server, bytes, 8, 0) == 5);
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state) == 0);
    recv(both.server, bytes, 8, 0);
    pthread_cleanup_pop(0);
    return NULL;
}

static void *receives_at_any_moment(void *argument) {
    int type;
    CHECK(pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type) == 0);
    return receives(argument);
}

/* A thread that waits in a call, or is just about to, ends when it is cancelled, and leaves all as it was. */
static void cancelled_threads_end(void) {
    void *(*const runs[])(void *) = {receives, sends, accepts, polls, receives_undisturbed,
                                     receives_at_any_moment};
    char bytes[8];
    void *result;
    pthread_t thread;
    CHECK(pthread_barrier_init(&gate, NULL, 2) == 0);
    for (int round = 0; round < 60; round++) {
        int expected = cleaned + 1;
        both = make_pair();
        listening = listen_anywhere();
        CHECK(pthread_create(&thread, NULL, runs[round % 6], NULL) == 0);
        pthread_barrier_wait(&gate);
        usleep(round % 4 * 1000);
        CHECK(pthread_cancel(thread) == 0);
        if (runs[round % 6] == receives_undisturbed) {
            CHECK(write(both.client, "there", 5) == 5);
        }
        CHECK(pthread_join(thread, &result) == 0);
        CHECK(result == PTHREAD_CANCELED && cleaned == expected);
        /* The other direction, and where nothing was sent both, go on. */
        CHECK(write(both.server, "back", 4) == 4 && read(both.client, bytes, 8) == 4);
        if (runs[round % 6] != sends) {
            CHECK(write(both.client, "there", 5) == 5 && read(both.server, bytes, 8) == 5);
        }
        CHECK(close(both.client) == 0 && close(both.server) == 0 && close(listening) == 0);
    }
}

int main(int count, char **words) {
    const struct one_case cases[] = {
        CASE(handlers_call),
        CASE(handlers_close),
        CASE(handlers_meet_malloc),
        CASE(handlers_find_all),
        CASE(handlers_jump),
        CASE(handlers_meet_forks),
        CASE(actions),
        CASE(no_moment_between),
        CASE(waits_are_interrupted),
        CASE(cancelled_threads_end),
    };
    return run_case(cases, sizeof cases / sizeof cases[0], count, words);
}
