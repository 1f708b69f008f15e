/* Each flag of a call in turn, on a socket that nothing has been asked of before. */
#ifndef DIFFER_FLAGS_H
#define DIFFER_FLAGS_H

#include "phases.h"

static const struct named flags[] = {
    {"0", 0},
    NAMED(MSG_OOB),
    NAMED(MSG_PEEK),
    NAMED(MSG_DONTROUTE),
    NAMED(MSG_CTRUNC),
    NAMED(MSG_PROXY),
    NAMED(MSG_TRUNC),
    NAMED(MSG_DONTWAIT),
    NAMED(MSG_EOR),
    NAMED(MSG_WAITALL),
    NAMED(MSG_FIN),
    NAMED(MSG_SYN),
    NAMED(MSG_CONFIRM),
    NAMED(MSG_RST),
    NAMED(MSG_ERRQUEUE),
    NAMED(MSG_NOSIGNAL),
    NAMED(MSG_MORE),
    NAMED(MSG_WAITFORONE),
    NAMED(MSG_BATCH),
    NAMED(MSG_ZEROCOPY),
    NAMED(MSG_FASTOPEN),
    NAMED(MSG_CMSG_CLOEXEC),
    NAMED(MSG_OOB | MSG_PEEK),
    NAMED(MSG_OOB | MSG_WAITALL),
    NAMED(MSG_OOB | MSG_TRUNC),
    NAMED(MSG_PEEK | MSG_WAITALL),
    NAMED(MSG_PEEK | MSG_TRUNC),
    NAMED(MSG_WAITALL | MSG_TRUNC),
};

/* One line of a call with that flag, as say(). */
static void say_flag(const char *call, const char *flag, long result) {
    char text[96];
    int why = errno;
    snprintf(text, sizeof text, "S(%s)(%s)", call, flag);
    errno = why;
    say(text, result);
}

/* A call, and what it is called. */
#define SAY_FLAG(name, flag, call) (errno = 0, say_flag(name, flag, (long)(call)))

static void shows_bytes(const char *bytes, long count) {
    printf("%s: bytes \"%.*s\"\n", phase, count > 0 ? (int)count : 0, bytes);
}

static void receives_by_flag(int s, size_t turn) {
    const char *flag = flags[turn].name;
    int number = flags[turn].number;
    /* Some flags leave it as it was. */
    char bytes[8] = "-------";
    struct iovec piece = {bytes, 1};
    struct mmsghdr message;
    do_not_wait(s);
    long got;
    SAY_FLAG("recv", flag, got = S(recv)(s, bytes, 1, number));
    shows_bytes(bytes, got);
    SAY_FLAG("recvfrom", flag, got = S(recvfrom)(s, bytes, 1, number, NULL, NULL));
    shows_bytes(bytes, got);
    memset(&message, 0, sizeof message);
    message.msg_hdr.msg_iov = &piece;
    message.msg_hdr.msg_iovlen = 1;
    message.msg_hdr.msg_flags = 77;
    SAY_FLAG("recvmsg", flag, got = S(recvmsg)(s, &message.msg_hdr, number));
    printf("%s: flags %#x\n", phase, (unsigned)message.msg_hdr.msg_flags);
    shows_bytes(bytes, got);
    SAY_FLAG("recvmmsg", flag, S(recvmmsg)(s, &message, 1, number, NULL));
    printf("%s: flags %#x length %u\n", phase, (unsigned)message.msg_hdr.msg_flags, message.msg_len);
    /* What all of them have left. */
    SAY_FLAG("recv", flag, got = S(recv)(s, bytes, sizeof bytes, 0));
    shows_bytes(bytes, got);
}

static void sends_by_flag(int s, size_t turn) {
    const char *flag = flags[turn].name;
    int number = flags[turn].number;
    char bytes[16];
    struct iovec piece = {(void *)"c", 1};
    struct mmsghdr message;
    do_not_wait(s);
    SAY_FLAG("send", flag, S(send)(s, "a", 1, number));
    SAY_FLAG("sendto", flag, S(sendto)(s, "b", 1, number, NULL, 0));
    memset(&message, 0, sizeof message);
    message.msg_hdr.msg_iov = &piece;
    message.msg_hdr.msg_iovlen = 1;
    SAY_FLAG("sendmsg", flag, S(sendmsg)(s, &message.msg_hdr, number));
    SAY_FLAG("sendmmsg", flag, S(sendmmsg)(s, &message, 1, number));
    SAY_FLAG("send", flag, S(send)(s, "", 0, number));
    /* Which of several urgent bytes leaves the stream depends on when they come. */
    if (peer >= 0 && (number & MSG_OOB) == 0 && S(send)(s, "z", 1, MSG_NOSIGNAL) == 1) {
        /* Everything has come when the last has. */
        size_t count = 0;
        do {
            ssize_t more = S(recv)(peer, bytes + count, sizeof bytes - count, 0);
            MUST(more > 0);
            count += (size_t)more;
        } while (bytes[count - 1] != 'z');
        shows_bytes(bytes, (long)count);
    }
}

/* Flags of accept4 and of socket. */
static const struct named kinds[] = {
    {"0", 0},
    NAMED(SOCK_NONBLOCK),
    NAMED(SOCK_CLOEXEC),
    NAMED(SOCK_NONBLOCK | SOCK_CLOEXEC),
    {"1", 1},
    {"-1", -1},
};

static void accepts_by_flag(int s, size_t turn) {
    do_not_wait(s);
    errno = 0;
    int made = S(accept4)(s, NULL, NULL, kinds[turn].number);
    say_flag("accept4", kinds[turn].name, made < 0 ? made : 0);
    if (made >= 0) {
        SAY_FLAG("accept4", kinds[turn].name, S(fcntl)(made, F_GETFL) & O_NONBLOCK);
        S(close)(made);
    }
}

static const struct named halves[] = {
    NAMED(SHUT_RD), NAMED(SHUT_WR), NAMED(SHUT_RDWR), {"3", 3}, {"-1", -1}};

/* What the other calls give behind it. */
static void shuts_by_half(int s, size_t turn) {
    const char *half = halves[turn].name;
    struct pollfd polled = {s, POLLIN | POLLOUT | POLLRDHUP | POLLPRI, 0};
    char bytes[8];
    do_not_wait(s);
    SAY_FLAG("shutdown", half, S(shutdown)(s, halves[turn].number));
    SAY_FLAG("poll", half, S(poll)(&polled, 1, 0));
    printf("%s: shows %#x\n", phase, (unsigned)polled.revents);
    SAY_FLAG("recv", half, S(recv)(s, bytes, sizeof bytes, 0));
    SAY_FLAG("recv", half, S(recv)(s, bytes, sizeof bytes, 0));
    SAY_FLAG("send", half, S(send)(s, "a", 1, 0));
    SAY_FLAG("send", half, S(send)(s, "a", 1, MSG_NOSIGNAL));
    SAY_FLAG("connect", half, S(connect)(s, NULL, 0));
    SAY_FLAG("listen", half, S(listen)(s, 1));
}

#endif
