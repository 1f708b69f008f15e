/* How long a connect of rsockets takes, one at a time: rsetup ADDRESS COUNT prints the median in
 * microseconds. As `sdp perf conn` does it: connect, one byte, and the end from the other side. */
#include <arpa/inet.h>
#include <rdma/rsocket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void must(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static void serve(int listener, int count)
{
    char byte;
    while (count--) {
        int s = raccept(listener, NULL, NULL);
        must(s >= 0, "raccept");
        must(rrecv(s, &byte, 1, 0) == 1, "rrecv");
        must(rshutdown(s, SHUT_RDWR) == 0, "rshutdown");
        rclose(s);
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    must(argc == 3, "rsetup ADDRESS COUNT");
    int count = atoi(argv[2]), ready[2];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(7472)};
    must(count > 0 && inet_pton(AF_INET, argv[1], &address.sin_addr) == 1, "arguments");
    must(pipe(ready) == 0, "pipe");
    /* The library does not bear a fork once it is in use: each process opens it for itself. */
    pid_t child = fork();
    must(child >= 0, "fork");
    char byte = 0;
    if (child == 0) {
        int listener = rsocket(AF_INET, SOCK_STREAM, 0);
        must(listener >= 0, "rsocket");
        must(rbind(listener, (struct sockaddr *)&address, sizeof address) == 0, "rbind");
        must(rlisten(listener, 8) == 0, "rlisten");
        must(write(ready[1], &byte, 1) == 1, "write");
        serve(listener, count);
        return 0;
    }
    close(ready[1]);
    must(read(ready[0], &byte, 1) == 1, "the listener is not ready");
    double *times = calloc(count, sizeof *times);
    must(times != NULL, "calloc");
    for (int i = 0; i < count; i++) {
        double begin = now();
        int s = rsocket(AF_INET, SOCK_STREAM, 0);
        must(s >= 0, "rsocket");
        must(rconnect(s, (struct sockaddr *)&address, sizeof address) == 0, "rconnect");
        times[i] = now() - begin;
        must(rsend(s, &byte, 1, 0) == 1, "rsend");
        must(rrecv(s, &byte, 1, 0) == 0, "rrecv");
        rclose(s);
    }
    int status;
    must(waitpid(child, &status, 0) == child && status == 0, "the accepting process");
    qsort(times, count, sizeof *times, by_value);
    printf("%.1f\n", times[count / 2]);
    return 0;
}
