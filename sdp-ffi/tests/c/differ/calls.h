/* Calls with good and odd arguments, in one phase. */
#ifndef DIFFER_CALLS_H
#define DIFFER_CALLS_H

#include "phases.h"

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
    int caller, listener = listening_to(&caller, 16);
    address = loopback(port_of(listener));
    errno = 0;
    int result = S(connect)(s, name, sizeof address), why = errno;
    say("S(connect)(s, name, sizeof address)", result);
    if (result == -1 && why == EINPROGRESS) {
        MUST(poll_one(s, POLLOUT, LONG) == POLLOUT);
    }
    SAY(S(connect)(s, name, sizeof address));
    MUST(S(close)(caller) == 0 && S(close)(listener) == 0);
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

static void closes(int s) {
    SAY(S(close)(s));
    SAY(S(close)(s));
}

#endif
