/* echo_client PORT alloc|heap CHUNK BYTES: sends BYTES in pieces of CHUNK, checks each byte that
 * comes back, prints its counters. */
#include "common.h"

/* A word that depends on its place in the stream. */
static uint64_t word_at(uint64_t place) {
    uint64_t word = (place + 1) * 0x9e3779b97f4a7c15u;
    return word ^ word >> 29;
}

int main(int count, char **arguments) {
    CHECK(count == 5);
    int registered = strcmp(arguments[2], "alloc") == 0;
    size_t chunk = strtoull(arguments[3], NULL, 10);
    uint64_t total = strtoull(arguments[4], NULL, 10);
    CHECK(chunk % sizeof(uint64_t) == 0 && total % chunk == 0);
    uint64_t *out = (uint64_t *)(registered ? sdp_alloc(chunk) : malloc(chunk));
    uint64_t *in = (uint64_t *)(registered ? sdp_alloc(chunk) : malloc(chunk));
    CHECK(out != NULL && in != NULL);

    int connection = sdp_socket(AF_INET_SDP, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    struct sockaddr_in address = loopback(atoi(arguments[1]));
    CHECK(sdp_connect(connection, (struct sockaddr *)&address, sizeof address) == 0);

    size_t words = chunk / sizeof(uint64_t);
    for (uint64_t done = 0; done < total; done += chunk) {
        uint64_t first = done / sizeof(uint64_t);
        for (size_t i = 0; i < words; i++) {
            out[i] = word_at(first + i);
            in[i] = 0;
        }
        CHECK(sdp_send(connection, out, chunk, 0) == (ssize_t)chunk);
        CHECK(sdp_recv(connection, in, chunk, MSG_WAITALL) == (ssize_t)chunk);
        for (size_t i = 0; i < words; i++) {
            if (in[i] != word_at(first + i)) {
                FAIL("word %llu differs", (unsigned long long)(first + i));
            }
        }
    }
    CHECK(sdp_shutdown(connection, SHUT_WR) == 0);
    CHECK(sdp_recv(connection, in, chunk, 0) == 0);
    struct sdp_stats stats = stats_of(connection);
    printf("tx_zcopy %llu rx_zcopy %llu\n",
           (unsigned long long)(stats.tx_bytes_zcopy + stats.tx_bytes_inline),
           (unsigned long long)(stats.rx_bytes_zcopy + stats.rx_bytes_inline));
    CHECK(sdp_close(connection) == 0);
    if (registered) {
        CHECK(sdp_free(out) == 0 && sdp_free(in) == 0);
    } else {
        free(out);
        free(in);
    }
    return 0;
}
