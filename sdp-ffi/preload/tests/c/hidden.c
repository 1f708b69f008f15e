/* What a program must not notice of the library: one case a run. */
#include "common.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static char bytes[9000];

/* From the first accept on a listener speaks SDP. */
static void first_accept(int listener) {
    int flags = fcntl(listener, F_GETFL);
    CHECK(fcntl(listener, F_SETFL, flags | O_NONBLOCK) == 0);
    CHECK(accept(listener, NULL, NULL) == -1 && errno == EAGAIN);
    CHECK(fcntl(listener, F_SETFL, flags) == 0);
}

/* A child that has closed the program's sockets, and lives until the pipe it reads is closed. */
static pid_t bystander(const int *fds, int count, int *ends) {
    int until[2];
    pid_t child;
    CHECK(pipe(until) == 0);
    child = fork();
    if (child == 0) {
        for (int at = 0; at < count; at++) {
            CHECK(close(fds[at]) == 0);
        }
        CHECK(close(until[1]) == 0);
        CHECK(read(until[0], bytes, 1) == 0);
        _exit(0);
    }
    CHECK(close(until[0]) == 0);
    *ends = until[1];
    return child;
}

static void end_bystander(pid_t child, int ends) {
    int status = -1;
    CHECK(close(ends) == 0);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* A listener that the parent has closed is nobody's, though a child lives. */
static void port_after_fork(void) {
    int listener = listen_anywhere(), port = port_of(listener), ends, fd;
    struct sockaddr_in address = loopback(port);
    pid_t child;
    first_accept(listener);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    int fds[3] = {listener, fd, accept(listener, NULL, NULL)};
    CHECK(fds[2] >= 0);
    child = bystander(fds, 3, &ends);
    /* The child may not have closed its own yet: until it has, the port is its to hold. */
    for (int at = 0; at < 3; at++) {
        CHECK(close(fds[at]) == 0);
    }
    for (;;) {
        fd = socket(AF_INET, SOCK_STREAM, 0);
        int result = connect(fd, (struct sockaddr *)&address, sizeof address);
        int error = errno;
        CHECK(close(fd) == 0);
        if (result == -1) {
            CHECK(error == ECONNREFUSED);
            break;
        }
    }
    end_bystander(child, ends);
}

/* Who waits for the end alone is told of it, though a child lives. */
static void end_after_fork(void) {
    struct pair pair = make_pair();
    struct pollfd one = {pair.server, 0, 0};
    struct linger now = {1, 0};
    int fds[2] = {pair.client, pair.server}, ends;
    pid_t child;
    CHECK(poll(&one, 1, 0) == 0);
    child = bystander(fds, 2, &ends);
    CHECK(setsockopt(pair.client, SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
    CHECK(close(pair.client) == 0);
    CHECK(poll(&one, 1, 20000) == 1 && one.revents & POLLHUP);
    end_bystander(child, ends);
    CHECK(close(pair.server) == 0);
}

/* A message that is no good is the call's fault, not the connection's. */
static void bad_second_message(void) {
    struct pair pair = make_pair();
    struct iovec piece = {"abc", 3};
    struct mmsghdr two[2];
    memset(two, 0, sizeof two);
    two[0].msg_hdr.msg_iov = two[1].msg_hdr.msg_iov = &piece;
    two[0].msg_hdr.msg_iovlen = 1;
    two[1].msg_hdr.msg_iovlen = 2000;
    CHECK(sendmmsg(pair.client, two, 2, 0) == 1);
    CHECK(write(pair.server, "q", 1) == 1);
    CHECK(read(pair.client, bytes, 8) == 1);
    CHECK(read(pair.server, bytes, 8) == 3);
    close_pair(pair);
}

/* An address without a port is where a connection comes from. */
static void address_without_port(void) {
    int listener = listen_anywhere(), fd = socket(AF_INET, SOCK_STREAM, 0), one = 1, server;
    struct sockaddr_in address = loopback(0), peer;
    socklen_t length = sizeof peer;
    first_accept(listener);
    CHECK(setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one) == 0);
    address.sin_addr.s_addr = inet_addr("127.0.0.9");
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    address = loopback(port_of(listener));
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    server = accept(listener, (struct sockaddr *)&peer, &length);
    CHECK(server >= 0 && peer.sin_addr.s_addr == inet_addr("127.0.0.9"));
    CHECK(same_names((struct pair){fd, server}));
    CHECK(close(listener) == 0);
    close_pair((struct pair){fd, server});
}

/* What was read ahead does not make fflush fail. */
static void stream_read_ahead(void) {
    struct pair pair = make_pair();
    FILE *stream = fdopen(pair.server, "r");
    CHECK(stream != NULL);
    CHECK(write(pair.client, "one\ntwo\n", 8) == 8);
    CHECK(fgets(bytes, 64, stream) != NULL && strcmp(bytes, "one\n") == 0);
    CHECK(fflush(stream) == 0);
    CHECK(fseek(stream, 0, SEEK_SET) == -1 && errno == ESPIPE);
    CHECK(fclose(stream) == 0 && close(pair.client) == 0);
}

/* The log goes to standard error, and not into a file that has its number. */
static void other_stderr(void) {
    int kept = dup(2), file;
    struct pair pair = make_pair();
    CHECK(kept >= 0 && close(2) == 0);
    file = open(".", O_TMPFILE | O_RDWR, 0600);
    CHECK(file == 2);
    close_pair(pair);
    close_pair(make_pair());
    CHECK(lseek(file, 0, SEEK_END) == 0);
    CHECK(dup2(kept, 2) == 2 && close(kept) == 0);
}

/* What MSG_TRUNC throws away is not written, and counted whole. */
static void thrown_away(void) {
    struct pair pair = make_pair();
    char four[] = "abcd";
    struct iovec piece = {four, 4};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    CHECK(write(pair.client, "0123456789", 10) == 10);
    CHECK(recvmsg(pair.server, &message, MSG_TRUNC) == 4 && strcmp(four, "abcd") == 0);
    CHECK(message.msg_iov == &piece && message.msg_iovlen == 1 && message.msg_flags == 0);
    CHECK(write(pair.client, bytes, sizeof bytes) == sizeof bytes);
    CHECK(recv(pair.server, NULL, 9006, MSG_TRUNC | MSG_WAITALL | MSG_PEEK) == 9006);
    CHECK(recv(pair.server, NULL, 9006, MSG_TRUNC | MSG_WAITALL) == 9006);
    CHECK(recv(pair.server, NULL, 1, MSG_TRUNC | MSG_DONTWAIT) == -1 && errno == EAGAIN);
    CHECK(write(pair.client, bytes, 5000) == 5000);
    readable(pair.server);
    for (int left = 5000; left > 0;) {
        left -= (int)recv(pair.server, NULL, 1 << 20, MSG_TRUNC);
        CHECK(left >= 0);
    }
    close_pair(pair);
}

/* A signal ends a connect that waits, which goes on meanwhile. */
static void signal_in_connect(void) {
    struct itimerval often = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    struct sigaction action = {.sa_handler = count_signal};
    struct sockaddr_in address = loopback(0);
    int listener = socket(AF_INET, SOCK_STREAM, 0), fds[64], count = 0, result, error;
    struct pollfd one;
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(listener, 1) == 0);
    address = loopback(port_of(listener));
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    /* Until the listener's queue is full. */
    do {
        CHECK(count < 64);
        fds[count] = socket(AF_INET, SOCK_STREAM, 0);
        result = connect(fds[count], (struct sockaddr *)&address, sizeof address);
        error = errno;
        count++;
    } while (result == 0);
    CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(error == EINTR && signals > 0);
    for (int at = 0; at < count; at++) {
        int server = accept(listener, NULL, NULL);
        CHECK(server >= 0 && close(server) == 0);
    }
    one = (struct pollfd){fds[count - 1], POLLOUT, 0};
    CHECK(poll(&one, 1, 20000) == 1 && one.revents & POLLOUT);
    CHECK(connect(fds[count - 1], (struct sockaddr *)&address, sizeof address) == 0 ||
          errno == EISCONN);
}

/* A connection that is passed on is logged. */
static void passed_on(void) {
    struct pair pair = make_pair();
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec piece = {bytes, 1};
    struct msghdr message = {
        .msg_iov = &piece,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control,
    };
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    memcpy(CMSG_DATA(&control.header), &pair.client, sizeof(int));
    CHECK(sendmsg(ends[0], &message, 0) == 1);
    CHECK(recvmsg(ends[1], &message, 0) == 1 && message.msg_controllen >= CMSG_LEN(sizeof(int)));
    close_pair(pair);
}

int main(int count, char **words) {
    const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {
        {"port_after_fork", port_after_fork},
        {"end_after_fork", end_after_fork},
        {"bad_second_message", bad_second_message},
        {"address_without_port", address_without_port},
        {"stream_read_ahead", stream_read_ahead},
        {"other_stderr", other_stderr},
        {"thrown_away", thrown_away},
        {"signal_in_connect", signal_in_connect},
        {"passed_on", passed_on},
    };
    CHECK(count == 2);
    for (size_t at = 0; at < sizeof cases / sizeof cases[0]; at++) {
        if (strcmp(cases[at].name, words[1]) == 0) {
            cases[at].run();
            printf("%s holds\n", words[1]);
            return 0;
        }
    }
    return 2;
}
