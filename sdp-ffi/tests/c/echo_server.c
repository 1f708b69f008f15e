/* echo_server alloc|heap CHUNK: prints its port, takes one connection, sends back what comes until
 * the peer ends, prints its counters. */
#include <limits.h>

#include "common.h"

int main(int count, char **arguments) {
    CHECK(count == 3);
    int registered = strcmp(arguments[1], "alloc") == 0;
    size_t chunk = strtoull(arguments[2], NULL, 10);
    char *memory = (char *)(registered ? sdp_alloc(chunk) : malloc(chunk));
    CHECK(memory != NULL);

    int listener = listen_anywhere();
    printf("port %d\n", port_of(listener));
    fflush(stdout);
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    int connection = sdp_accept(listener, (struct sockaddr *)&peer, &length);
    CHECK(connection >= 1 << 20);
    CHECK(length == sizeof peer && peer.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    CHECK(sdp_close(listener) == 0);

    for (;;) {
        ssize_t got = sdp_recv(connection, memory, chunk, MSG_WAITALL);
        CHECK(got >= 0);
        if (got == 0) {
            break;
        }
        CHECK(sdp_send(connection, memory, (size_t)got, MSG_NOSIGNAL) == got);
    }
    struct sdp_stats stats = stats_of(connection);
    printf("tx_zcopy %llu rx_zcopy %llu\n",
           (unsigned long long)(stats.tx_bytes_zcopy + stats.tx_bytes_inline),
           (unsigned long long)(stats.rx_bytes_zcopy + stats.rx_bytes_inline));
    CHECK(sdp_close(connection) == 0);
    if (registered) {
        CHECK(sdp_free(memory) == 0);
    } else {
        free(memory);
    }
    return 0;
}
