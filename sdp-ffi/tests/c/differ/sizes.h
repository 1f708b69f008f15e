/* No bytes, very many, and as many pieces as there may be. */
#ifndef DIFFER_SIZES_H
#define DIFFER_SIZES_H

#include "phases.h"

/* As many pieces as Linux takes, which is in no header. */
#define PIECES_MAX 1024

/* Kept from the compiler, which would know that it is too small. */
static char few_bytes[8];
static void *volatile some_bytes = few_bytes;
static struct iovec pieces[PIECES_MAX + 1];

/* All of them empty but the last. */
static void lay_out_pieces(void) {
    for (size_t i = 0; i <= PIECES_MAX; i++) {
        pieces[i].iov_base = some_bytes;
        pieces[i].iov_len = i == PIECES_MAX - 1;
    }
}

static void receives_sizes(int s) {
    struct msghdr message;
    do_not_wait(s);
    lay_out_pieces();
    SAY(S(recv)(s, some_bytes, 0, 0));
    SAY(S(recv)(s, some_bytes, 0, MSG_PEEK));
    SAY(S(recv)(s, some_bytes, 0, MSG_OOB));
    SAY(S(read)(s, some_bytes, 0));
    SAY(S(readv)(s, pieces, 0));
    SAY(S(readv)(s, pieces, 1));
    SAY(S(readv)(s, pieces, PIECES_MAX));
    SAY(S(readv)(s, pieces, PIECES_MAX + 1));
    SAY(S(readv)(s, pieces, INT_MAX));
    SAY(S(readv)(s, pieces, INT_MIN));
    pieces[0].iov_len = SIZE_MAX;
    SAY(S(readv)(s, pieces, 1));
    pieces[0].iov_len = SSIZE_MAX;
    pieces[1].iov_len = SSIZE_MAX;
    SAY(S(readv)(s, pieces, 2));
    lay_out_pieces();
    memset(&message, 0, sizeof message);
    message.msg_iov = pieces;
    SAY(S(recvmsg)(s, &message, 0));
    message.msg_iovlen = PIECES_MAX;
    SAY(S(recvmsg)(s, &message, 0));
    message.msg_iovlen = PIECES_MAX + 1;
    SAY(S(recvmsg)(s, &message, 0));
    message.msg_iovlen = SIZE_MAX;
    SAY(S(recvmsg)(s, &message, 0));
    message.msg_iov = NULL;
    message.msg_iovlen = 0;
    SAY(S(recvmsg)(s, &message, 0));
    SAY(S(read)(s, some_bytes, SSIZE_MAX));
    SAY(S(read)(s, some_bytes, SIZE_MAX));
    SAY(S(recv)(s, some_bytes, SIZE_MAX, MSG_PEEK));
    SAY(S(recv)(s, some_bytes, INT_MAX, 0));
}

static void sends_sizes(int s) {
    struct msghdr message;
    do_not_wait(s);
    lay_out_pieces();
    SAY(S(send)(s, some_bytes, 0, MSG_NOSIGNAL));
    SAY(S(send)(s, some_bytes, 0, MSG_NOSIGNAL | MSG_OOB));
    SAY(S(write)(s, some_bytes, 0));
    SAY(S(writev)(s, pieces, 0));
    SAY(S(writev)(s, pieces, 1));
    SAY(S(writev)(s, pieces, PIECES_MAX));
    SAY(S(writev)(s, pieces, PIECES_MAX + 1));
    SAY(S(writev)(s, pieces, INT_MAX));
    SAY(S(writev)(s, pieces, INT_MIN));
    pieces[0].iov_len = SIZE_MAX;
    SAY(S(writev)(s, pieces, 1));
    pieces[0].iov_len = SSIZE_MAX;
    pieces[1].iov_len = SSIZE_MAX;
    SAY(S(writev)(s, pieces, 2));
    lay_out_pieces();
    memset(&message, 0, sizeof message);
    message.msg_iov = pieces;
    SAY(S(sendmsg)(s, &message, MSG_NOSIGNAL));
    message.msg_iovlen = PIECES_MAX;
    SAY(S(sendmsg)(s, &message, MSG_NOSIGNAL));
    message.msg_iovlen = PIECES_MAX + 1;
    SAY(S(sendmsg)(s, &message, MSG_NOSIGNAL));
    message.msg_iovlen = SIZE_MAX;
    SAY(S(sendmsg)(s, &message, MSG_NOSIGNAL));
    message.msg_iov = NULL;
    message.msg_iovlen = 0;
    SAY(S(sendmsg)(s, &message, MSG_NOSIGNAL));
    SAY(S(write)(s, some_bytes, SSIZE_MAX));
    SAY(S(write)(s, some_bytes, SIZE_MAX));
}

#endif
