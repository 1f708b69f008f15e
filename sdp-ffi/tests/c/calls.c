/* The calls beyond send and recv, as a C program sees them: messages of several pieces, several
 * messages, files, poll over sockets and descriptors together, flags and options. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "common.h"

#define FILE_LENGTH (3 << 20)
/* Only a hang is as long: milliseconds. */
#define LONG 30000

static void make_pair(int listener, int ends[2]) {
    struct sockaddr_in address = loopback(port_of(listener));
    ends[0] = sdp_socket(AF_INET_SDP, SOCK_STREAM, 0);
    CHECK(sdp_connect(ends[0], (struct sockaddr *)&address, sizeof address) == 0);
    ends[1] = sdp_accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK(ends[1] >= 1 << 20);
}

static void close_pair(int ends[2]) {
    CHECK(sdp_close(ends[0]) == 0 && sdp_close(ends[1]) == 0);
}

static void names_are_passed_over(int ends[2]) {
    char bytes[8];
    struct sockaddr_in nobody = loopback(1);
    struct sockaddr *name = (struct sockaddr *)&nobody;
    socklen_t length = sizeof nobody;
    CHECK(sdp_sendto(ends[0], "abcd", 4, 0, name, length) == 4);
    CHECK(sdp_write(ends[0], "ef", 2) == 2);
    CHECK(sdp_recvfrom(ends[1], bytes, 6, MSG_WAITALL | MSG_PEEK, name, &length) == 6);
    CHECK(length == 0 && memcmp(bytes, "abcdef", 6) == 0);
    CHECK(sdp_read(ends[1], bytes, 4) == 4);
    CHECK(sdp_recvfrom(ends[1], bytes, 2, MSG_WAITALL, NULL, NULL) == 2);
    /* What is refused takes nothing out of the stream. */
    CHECK(sdp_write(ends[0], "gh", 2) == 2);
    FAILS(sdp_recvfrom(ends[1], bytes, 2, 0, name, NULL), EFAULT);
    length = (socklen_t)-1;
    FAILS(sdp_recvfrom(ends[1], bytes, 2, 0, name, &length), EINVAL);
    FAILS(sdp_sendto(ends[0], bytes, 2, 0, name, 129), EINVAL);
    FAILS(sdp_sendto(ends[0], bytes, 2, 0, name, (socklen_t)-1), EINVAL);
    CHECK(sdp_recv(ends[1], bytes, 2, MSG_WAITALL) == 2 && memcmp(bytes, "gh", 2) == 0);
    FAILS(sdp_recvfrom(ends[1], bytes, 2, MSG_DONTWAIT, NULL, NULL), EAGAIN);
    CHECK(sdp_read(ends[1], NULL, 0) == 0);
    FAILS(sdp_recv(ends[1], NULL, 0, MSG_DONTWAIT), EAGAIN);
    FAILS(sdp_recv(ends[1], NULL, 1, MSG_DONTWAIT), EAGAIN);
    CHECK(sdp_write(ends[0], "x", 1) == 1);
    FAILS(sdp_read(ends[1], NULL, 1), EFAULT);
    CHECK(sdp_recv(ends[1], NULL, 0, 0) == 0);
    CHECK(sdp_read(ends[1], bytes, 1) == 1 && bytes[0] == 'x');
    FAILS(sdp_write(ends[1], NULL, 1), EFAULT);
}

/* Control data of one item. */
union control {
    struct cmsghdr header;
    char bytes[64];
};

static void item(union control *control, int level, int type) {
    memset(control, 0, sizeof *control);
    control->header.cmsg_len = CMSG_LEN(sizeof(int));
    control->header.cmsg_level = level;
    control->header.cmsg_type = type;
}

static void messages_of_pieces(int ends[2]) {
    char first[3], second[8];
    struct iovec out[2] = {{(void *)"abc", 3}, {(void *)"defgh", 5}};
    struct iovec in[2] = {{first, sizeof first}, {second, 5}};
    struct sockaddr_in nobody = loopback(1);
    union control control;
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = out;
    message.msg_iovlen = 2;
    message.msg_name = &nobody;
    message.msg_namelen = sizeof nobody;
    CHECK(sdp_sendmsg(ends[0], &message, MSG_NOSIGNAL) == 8);
    message.msg_iov = in;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    message.msg_flags = -1;
    CHECK(sdp_recvmsg(ends[1], &message, MSG_WAITALL) == 8);
    CHECK(message.msg_namelen == 0 && message.msg_controllen == 0 && message.msg_flags == 0);
    CHECK(memcmp(first, "abc", 3) == 0 && memcmp(second, "defgh", 5) == 0);
    FAILS(sdp_recvmsg(ends[1], &message, MSG_DONTWAIT), EAGAIN);

    /* An urgent byte behind two pieces is the last of both. */
    message.msg_iov = out;
    CHECK(sdp_sendmsg(ends[0], &message, MSG_OOB) == 8);
    struct pollfd polled = {ends[1], POLLIN, 0};
    CHECK(sdp_poll(&polled, 1, LONG) == 1);
    struct iovec none_then_one[2] = {{NULL, 0}, {first, 1}};
    message.msg_iov = none_then_one;
    CHECK(sdp_recv(ends[1], second, 7, MSG_WAITALL) == 7);
    CHECK(sdp_recvmsg(ends[1], &message, MSG_OOB | MSG_CMSG_CLOEXEC) == 1);
    CHECK(first[0] == 'h' && message.msg_flags == (MSG_OOB | MSG_CMSG_CLOEXEC));

    message.msg_iov = out;
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(sizeof(int));
    item(&control, SOL_SOCKET, SCM_RIGHTS);
    CHECK(sdp_sendmsg(ends[0], &message, 0) == 8);
    item(&control, IPPROTO_UDP, 1);
    CHECK(sdp_sendmsg(ends[0], &message, 0) == 8);
    item(&control, SOL_SOCKET, 9999);
    FAILS(sdp_sendmsg(ends[0], &message, 0), EINVAL);
    control.header.cmsg_len = 3;
    FAILS(sdp_sendmsg(ends[0], &message, 0), EINVAL);
    control.header.cmsg_len = sizeof control;
    FAILS(sdp_sendmsg(ends[0], &message, 0), EINVAL);
    message.msg_control = NULL;
    FAILS(sdp_sendmsg(ends[0], &message, 0), EFAULT);
    message.msg_controllen = (size_t)1 << 31;
    FAILS(sdp_sendmsg(ends[0], &message, 0), ENOBUFS);
    message.msg_controllen = 0;
    message.msg_iovlen = 1025;
    FAILS(sdp_sendmsg(ends[0], &message, 0), EMSGSIZE);
    FAILS(sdp_recvmsg(ends[0], &message, 0), EMSGSIZE);
    message.msg_iovlen = 2;
    message.msg_namelen = (socklen_t)-1;
    FAILS(sdp_sendmsg(ends[0], &message, 0), EINVAL);
    FAILS(sdp_recvmsg(ends[0], &message, 0), EINVAL);
    FAILS(sdp_sendmsg(ends[0], NULL, 0), EFAULT);
    FAILS(sdp_recvmsg(ends[0], NULL, 0), EFAULT);
    FAILS(sdp_sendmsg(ends[0], &message, MSG_FASTOPEN), EINVAL);
    message.msg_namelen = 0;
    FAILS(sdp_sendmsg(ends[0], &message, MSG_FASTOPEN), EOPNOTSUPP);
    FAILS(sdp_recvmsg(ends[0], &message, MSG_TRUNC), EOPNOTSUPP);
    char rest[16];
    CHECK(sdp_recv(ends[1], rest, sizeof rest, MSG_WAITALL) == sizeof rest);
}

static void several_messages(int ends[2]) {
    char bytes[3][4];
    struct iovec out[3] = {{(void *)"abcd", 4}, {(void *)"", 0}, {(void *)"efgh", 4}};
    struct iovec in[3] = {{bytes[0], 4}, {bytes[1], 4}, {bytes[2], 4}};
    struct mmsghdr messages[3];
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < 3; i++) {
        messages[i].msg_hdr.msg_iov = &out[i];
        messages[i].msg_hdr.msg_iovlen = 1;
        messages[i].msg_len = 77;
    }
    CHECK(sdp_sendmmsg(ends[0], messages, 3, 0) == 3);
    CHECK(messages[0].msg_len == 4 && messages[1].msg_len == 0 && messages[2].msg_len == 4);
    CHECK(sdp_sendmmsg(ends[0], NULL, 0, 0) == 0);
    FAILS(sdp_sendmmsg(ends[0], NULL, 1, 0), EFAULT);
    FAILS(sdp_sendmmsg(ends[0], messages, 1, MSG_ERRQUEUE), EOPNOTSUPP);
    for (int i = 0; i < 3; i++) {
        messages[i].msg_hdr.msg_iov = &in[i];
        messages[i].msg_len = 77;
    }
    /* Both have come when the queue says so: the third finds nothing and is not waited for. */
    int queued = 0;
    while (queued < 8) {
        CHECK(sdp_ioctl(ends[1], FIONREAD, &queued) == 0);
    }
    CHECK(sdp_recvmmsg(ends[1], messages, 3, MSG_WAITFORONE, NULL) == 2);
    CHECK(messages[0].msg_len == 4 && messages[1].msg_len == 4 && messages[2].msg_len == 77);
    CHECK(memcmp(bytes[0], "abcd", 4) == 0 && memcmp(bytes[1], "efgh", 4) == 0);
    FAILS(sdp_recvmmsg(ends[1], messages, 3, MSG_DONTWAIT, NULL), EAGAIN);

    struct timespec time = {0, 1000000000};
    FAILS(sdp_recvmmsg(ends[1], messages, 1, 0, &time), EINVAL);
    time.tv_nsec = -1;
    FAILS(sdp_recvmmsg(ends[1], messages, 1, 0, &time), EINVAL);
    /* The time is looked at behind a message: none is left behind the first. */
    time.tv_nsec = 0;
    CHECK(sdp_write(ends[0], "abcdefgh", 8) == 8);
    CHECK(sdp_recvmmsg(ends[1], messages, 3, MSG_WAITALL, &time) == 1);
    CHECK(time.tv_sec == 0 && time.tv_nsec == 0);
    time.tv_sec = 1000;
    CHECK(sdp_recvmmsg(ends[1], messages, 1, MSG_WAITALL, &time) == 1);
    CHECK(time.tv_sec == 999 && memcmp(bytes[0], "efgh", 4) == 0);
}

/* What ends the second message is told by the next call, once. */
static void an_error_behind_bytes(int listener) {
    char bytes[2][4];
    struct iovec in[2] = {{bytes[0], 4}, {bytes[1], 4}};
    struct mmsghdr messages[2];
    struct linger linger = {1, 0};
    int ends[2], queued = 0, value = -1;
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < 2; i++) {
        messages[i].msg_hdr.msg_iov = &in[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    for (int by_option = 0; by_option < 2; by_option++) {
        make_pair(listener, ends);
        CHECK(sdp_write(ends[0], "abcd", 4) == 4);
        for (queued = 0; queued < 4;) {
            CHECK(sdp_ioctl(ends[1], FIONREAD, &queued) == 0);
        }
        CHECK(sdp_setsockopt(ends[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
        CHECK(sdp_close(ends[0]) == 0);
        CHECK(sdp_recvmmsg(ends[1], messages, 2, MSG_WAITALL, NULL) == 1);
        CHECK(messages[0].msg_len == 4 && memcmp(bytes[0], "abcd", 4) == 0);
        socklen_t length = sizeof value;
        if (by_option) {
            CHECK(sdp_getsockopt(ends[1], SOL_SOCKET, SO_ERROR, &value, &length) == 0);
            CHECK(value == ECONNRESET);
        } else {
            FAILS(sdp_read(ends[1], bytes[0], 1), ECONNRESET);
        }
        CHECK(sdp_read(ends[1], bytes[0], 1) == 0);
        CHECK(sdp_getsockopt(ends[1], SOL_SOCKET, SO_ERROR, &value, &length) == 0 && value == 0);
        CHECK(sdp_close(ends[1]) == 0);
    }
}

static unsigned char byte_at(size_t place) {
    return (unsigned char)(place % 251);
}

static int a_file(void) {
    char path[] = "/tmp/sdp-calls-XXXXXX";
    int file = mkstemp(path);
    CHECK(file >= 0 && unlink(path) == 0);
    unsigned char *bytes = (unsigned char *)malloc(FILE_LENGTH);
    CHECK(bytes != NULL);
    for (size_t i = 0; i < FILE_LENGTH; i++) {
        bytes[i] = byte_at(i);
    }
    CHECK(write(file, bytes, FILE_LENGTH) == FILE_LENGTH);
    free(bytes);
    return file;
}

/* Takes that many bytes out of the stream, which begin at that place of the file. */
static void expect_bytes(int socket, size_t place, size_t count) {
    static unsigned char part[1 << 16];
    while (count > 0) {
        size_t want = count < sizeof part ? count : sizeof part;
        CHECK(sdp_recv(socket, part, want, MSG_WAITALL) == (ssize_t)want);
        for (size_t i = 0; i < want; i++) {
            CHECK(part[i] == byte_at(place + i));
        }
        place += want;
        count -= want;
    }
}

struct sending {
    int socket, file;
    off_t *offset;
    size_t count;
    ssize_t sent;
};

static void *send_file(void *argument) {
    struct sending *sending = (struct sending *)argument;
    sending->sent =
        sdp_sendfile(sending->socket, sending->file, sending->offset, sending->count);
    return NULL;
}

static void files(int ends[2]) {
    int file = a_file();
    CHECK(lseek(file, 0, SEEK_SET) == 0);
    /* All of it, by the file's own position, which ends behind it. */
    struct sending sending = {ends[0], file, NULL, FILE_LENGTH * 2, -1};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, send_file, &sending) == 0);
    expect_bytes(ends[1], 0, FILE_LENGTH);
    CHECK(pthread_join(thread, NULL) == 0 && sending.sent == FILE_LENGTH);
    CHECK(lseek(file, 0, SEEK_CUR) == FILE_LENGTH);
    CHECK(sdp_sendfile(ends[0], file, NULL, 1) == 0);
    /* From an offset, which moves in the place of the position. */
    off_t offset = 1000;
    CHECK(sdp_sendfile(ends[0], file, &offset, 5000) == 5000);
    CHECK(offset == 6000 && lseek(file, 0, SEEK_CUR) == FILE_LENGTH);
    expect_bytes(ends[1], 1000, 5000);
    CHECK(sdp_sendfile(ends[0], file, &offset, 0) == 0 && offset == 6000);

    /* What a full stream does not take stays in the file. */
    CHECK(sdp_fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
    CHECK(lseek(file, 0, SEEK_SET) == 0);
    ssize_t taken = 0, sent;
    while ((sent = sdp_sendfile(ends[0], file, NULL, FILE_LENGTH)) > 0) {
        taken += sent;
        CHECK(lseek(file, 0, SEEK_CUR) == taken);
    }
    CHECK(sent == (taken == FILE_LENGTH ? 0 : -1) && taken > 0);
    CHECK(sent == 0 || errno == EAGAIN);
    expect_bytes(ends[1], 0, (size_t)taken);
    CHECK(sdp_fcntl(ends[0], F_SETFL, 0) == 0);

    FAILS(sdp_sendfile(ends[0], -1, NULL, 1), EBADF);
    FAILS(sdp_sendfile(ends[0], ends[1], NULL, 1), EBADF);
    FAILS(sdp_sendfile(ends[0], file, NULL, SIZE_MAX), EINVAL);
    offset = -1;
    FAILS(sdp_sendfile(ends[0], file, &offset, 1), EINVAL);
    int folder = open("/", O_RDONLY), pipes[2];
    CHECK(folder >= 0 && pipe(pipes) == 0);
    FAILS(sdp_sendfile(ends[0], folder, NULL, 1), EINVAL);
    offset = 0;
    FAILS(sdp_sendfile(ends[0], pipes[0], NULL, 1), EINVAL);
    FAILS(sdp_sendfile(ends[0], pipes[0], &offset, 1), ESPIPE);
    int blind = open("/dev/null", O_WRONLY);
    FAILS(sdp_sendfile(ends[0], blind, NULL, 1), EBADF);
    CHECK(close(file) == 0 && close(folder) == 0 && close(blind) == 0);
    CHECK(close(pipes[0]) == 0 && close(pipes[1]) == 0);
}

/* Sockets and descriptors in one array, each answered at its place. */
static void mixed_poll(int listener, int ends[2]) {
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    int fresh = sdp_socket(AF_INET, SOCK_STREAM, 0);
    struct pollfd polled[8] = {
        {ends[1], POLLIN | POLLOUT, 7}, {pipes[0], POLLIN, 7}, {-1, POLLIN, 7},
        {1 << 30, POLLIN, 7},           {fresh, POLLOUT, 7},   {listener, POLLIN, 7},
        {pipes[1], POLLOUT, 7},         {ends[1], POLLIN, 7},
    };
    CHECK(sdp_poll(polled, 8, LONG) == 4);
    CHECK(polled[0].revents == POLLOUT && polled[1].revents == 0 && polled[2].revents == 0);
    CHECK(polled[3].revents == POLLNVAL && polled[4].revents == (POLLOUT | POLLHUP));
    CHECK(polled[5].revents == 0 && polled[6].revents == POLLOUT && polled[7].revents == 0);
    CHECK(sdp_close(fresh) == 0);

    polled[0].events = POLLIN;
    polled[3].fd = polled[4].fd = polled[6].fd = -1;
    CHECK(sdp_poll(polled, 8, 0) == 0 && sdp_poll(polled, 8, 10) == 0);
    CHECK(write(pipes[1], "x", 1) == 1);
    CHECK(sdp_poll(polled, 8, LONG) == 1 && polled[1].revents == POLLIN);
    char byte;
    CHECK(read(pipes[0], &byte, 1) == 1);
    CHECK(sdp_write(ends[0], "x", 1) == 1);
    CHECK(sdp_poll(polled, 8, -1) == 2);
    CHECK(polled[0].revents == POLLIN && polled[7].revents == POLLIN);
    CHECK(sdp_read(ends[1], &byte, 1) == 1);

    FAILS(sdp_poll(NULL, 1, 0), EFAULT);
    CHECK(sdp_poll(NULL, 0, 0) == 0);
    FAILS(sdp_poll(polled, (nfds_t)-1, 0), EINVAL);
    struct timespec time = {-1, 0};
    FAILS(sdp_ppoll(polled, 8, &time, NULL), EINVAL);
    CHECK(close(pipes[0]) == 0 && close(pipes[1]) == 0);
}

static volatile sig_atomic_t signals;

static void on_signal(int number) {
    (void)number;
    signals = signals + 1;
}

/* A signal that is blocked but for the wait ends the wait. */
static void masked_poll(int ends[2]) {
    sigset_t blocked, none;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    CHECK(sigaction(SIGUSR2, &action, NULL) == 0);
    CHECK(sigemptyset(&none) == 0 && sigemptyset(&blocked) == 0);
    CHECK(sigaddset(&blocked, SIGUSR2) == 0);
    CHECK(pthread_sigmask(SIG_BLOCK, &blocked, NULL) == 0);
    CHECK(raise(SIGUSR2) == 0 && signals == 0);
    struct pollfd polled = {ends[1], POLLIN, 0};
    FAILS(sdp_ppoll(&polled, 1, NULL, &none), EINTR);
    CHECK(signals == 1);
    struct timespec time = {0, 0};
    CHECK(sdp_ppoll(&polled, 1, &time, NULL) == 0);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &blocked, NULL) == 0);
}

/* As every event loop connects. */
static void connect_and_poll(int listener) {
    struct sockaddr_in address = loopback(port_of(listener));
    int socket = sdp_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    FAILS(sdp_fileno(socket), EOPNOTSUPP);
    FAILS(sdp_connect(socket, (struct sockaddr *)&address, sizeof address), EINPROGRESS);
    int descriptor = sdp_fileno(socket);
    CHECK(descriptor >= 0);
    struct pollfd polled = {socket, POLLOUT, 0};
    CHECK(sdp_poll(&polled, 1, LONG) == 1 && polled.revents == POLLOUT);
    int value = -1;
    socklen_t length = sizeof value;
    CHECK(sdp_getsockopt(socket, SOL_SOCKET, SO_ERROR, &value, &length) == 0 && value == 0);
    CHECK(sdp_fileno(socket) == descriptor);
    polled.fd = listener;
    polled.events = POLLIN;
    CHECK(sdp_poll(&polled, 1, LONG) == 1 && polled.revents == POLLIN);
    FAILS(sdp_accept4(listener, NULL, NULL, 1), EINVAL);
    int accepted = sdp_accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    CHECK(sdp_fcntl(accepted, F_GETFL) == (O_RDWR | O_NONBLOCK));
    CHECK(sdp_close(accepted) == 0 && sdp_close(socket) == 0);

    /* Refused: told by poll, and by SO_ERROR once; then the socket may try again. */
    int taken = sdp_socket(AF_INET, SOCK_STREAM, 0);
    address = loopback(0);
    CHECK(sdp_bind(taken, (struct sockaddr *)&address, sizeof address) == 0);
    address = loopback(port_of(taken));
    socket = sdp_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    FAILS(sdp_connect(socket, (struct sockaddr *)&address, sizeof address), EINPROGRESS);
    polled.fd = socket;
    polled.events = POLLIN | POLLOUT;
    /* The kernel sets them one after the other. */
    do {
        CHECK(sdp_poll(&polled, 1, LONG) == 1);
    } while (polled.revents != (POLLIN | POLLOUT | POLLERR | POLLHUP));
    CHECK(sdp_getsockopt(socket, SOL_SOCKET, SO_ERROR, &value, &length) == 0);
    CHECK(value == ECONNREFUSED);
    CHECK(sdp_getsockopt(socket, SOL_SOCKET, SO_ERROR, &value, &length) == 0 && value == 0);
    address = loopback(port_of(listener));
    FAILS(sdp_connect(socket, (struct sockaddr *)&address, sizeof address), EINPROGRESS);
    CHECK(sdp_poll(&polled, 1, LONG) == 1 && polled.revents == POLLOUT);
    accepted = sdp_accept(listener, NULL, NULL);
    CHECK(sdp_close(accepted) == 0 && sdp_close(socket) == 0 && sdp_close(taken) == 0);
}

static void *poll_long(void *argument) {
    struct pollfd polled = {*(int *)argument, POLLIN, 0};
    CHECK(sdp_poll(&polled, 1, LONG) == 1);
    CHECK(polled.revents == POLLNVAL);
    return NULL;
}

/* Who polls a socket that is closed is told. */
static void closed_while_polled(int listener) {
    int ends[2];
    pthread_t thread;
    make_pair(listener, ends);
    int closed = ends[1];
    CHECK(pthread_create(&thread, NULL, poll_long, &closed) == 0);
    CHECK(sdp_close(ends[1]) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(sdp_close(ends[0]) == 0);
}

static void flags(int socket) {
    CHECK(sdp_fcntl(socket, F_GETFL) == O_RDWR);
    CHECK(sdp_fcntl(socket, F_SETFL, sdp_fcntl(socket, F_GETFL, 0) | O_NONBLOCK) == 0);
    CHECK(sdp_fcntl(socket, F_GETFL) == (O_RDWR | O_NONBLOCK));
    char byte;
    FAILS(sdp_read(socket, &byte, 1), EAGAIN);
    CHECK(sdp_fcntl(socket, F_SETFL, O_RDWR) == 0 && sdp_fcntl(socket, F_GETFL) == O_RDWR);
    CHECK(sdp_fcntl(socket, F_GETFD) == FD_CLOEXEC);
    CHECK(sdp_fcntl(socket, F_SETFD, FD_CLOEXEC) == 0);
    FAILS(sdp_fcntl(socket, F_SETFD, 0), EINVAL);
    FAILS(sdp_fcntl(socket, F_SETFL, O_ASYNC), EINVAL);
    FAILS(sdp_fcntl(socket, F_DUPFD, 0), EINVAL);
    FAILS(sdp_fcntl(socket, -1), EINVAL);
    CHECK((sdp_fcntl)(socket, F_GETFL, 0) == O_RDWR);
}

static int get(int socket, int level, int option) {
    int value = -77;
    socklen_t length = sizeof value;
    CHECK(sdp_getsockopt(socket, level, option, &value, &length) == 0);
    CHECK(length == sizeof value);
    return value;
}

static void options(int ends[2]) {
    int on = 1, much = 1 << 20;
    CHECK(sdp_setsockopt(ends[0], IPPROTO_TCP, TCP_CORK, &on, sizeof on) == 0);
    CHECK(get(ends[0], IPPROTO_TCP, TCP_CORK) == 1 && get(ends[0], IPPROTO_TCP, TCP_QUICKACK) == 1);
    CHECK(get(ends[0], SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP);
    CHECK(get(ends[0], IPPROTO_TCP, TCP_MAXSEG) > 536 && get(ends[0], IPPROTO_IP, IP_TOS) == 0);
    CHECK(sdp_setsockopt(ends[0], SOL_SOCKET, SO_SNDBUFFORCE, &much, sizeof much) == 0);
    CHECK(get(ends[0], SOL_SOCKET, SO_SNDBUF) == much);
    FAILS(sdp_setsockopt(ends[0], IPPROTO_IPV6, IPV6_TCLASS, &on, sizeof on), ENOPROTOOPT);
    FAILS(sdp_setsockopt(ends[0], IPPROTO_TCP, TCP_CONGESTION, "cubic", 5), ENOENT);
    FAILS(sdp_setsockopt(ends[0], SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on), ENOPROTOOPT);
    FAILS(sdp_setsockopt(ends[0], SOL_SOCKET, SO_BINDTODEVICE, "lo", 3), ENOPROTOOPT);
    char name[16];
    socklen_t length = sizeof name;
    CHECK(sdp_getsockopt(ends[0], IPPROTO_TCP, TCP_CONGESTION, name, &length) == 0);
    CHECK(length == sizeof name && strcmp(name, "sdp") == 0);
    struct tcp_info info;
    memset(&info, 0xff, sizeof info);
    length = sizeof info;
    CHECK(sdp_getsockopt(ends[0], IPPROTO_TCP, TCP_INFO, &info, &length) == 0);
    CHECK(length == sizeof info && info.tcpi_state == TCP_ESTABLISHED && info.tcpi_snd_mss > 536);
    CHECK(info.tcpi_rtt == 0 && info.tcpi_lost == 0);

    /* The counters say why bytes were copied; who asks for fewer gets the first ones. */
    CHECK(sdp_write(ends[0], "x", 1) == 1 && sdp_read(ends[1], name, 1) == 1);
    struct sdp_stats stats = stats_of(ends[0]);
    CHECK(stats.tx_bytes_bcopy > 0 && stats.copied_below_threshold > 0);
    struct sdp_stats few;
    memset(&few, 0xff, sizeof few);
    length = 2 * sizeof(uint64_t);
    CHECK(sdp_getsockopt(ends[0], SOL_SDP, SDP_STATS, &few, &length) == 0);
    CHECK(length == 2 * sizeof(uint64_t) && few.tx_bytes_bcopy == stats.tx_bytes_bcopy);
    CHECK(few.tx_bytes_zcopy == UINT64_MAX);
}

int main(void) {
    int listener = listen_anywhere();
    int ends[2];
    make_pair(listener, ends);
    names_are_passed_over(ends);
    messages_of_pieces(ends);
    several_messages(ends);
    an_error_behind_bytes(listener);
    files(ends);
    mixed_poll(listener, ends);
    masked_poll(ends);
    connect_and_poll(listener);
    closed_while_polled(listener);
    flags(ends[1]);
    options(ends);
    close_pair(ends);
    CHECK(sdp_close(listener) == 0);
    puts("calls hold");
    return 0;
}
