/* Frames between guests, timed or counted: the benchmarks' only part that must be quick.
 *   wire trip ADDRESS_B COUNT NS_A NS_B [NS_A NS_B]   prints the median round trip in ns, A and B
 *       being processes of their own as guests are; of two such pairs, some packets each in turn
 *   wire blast NS_A NS_B ADDRESS_B NS_C ADDRESS_C RATE SECONDS
 *       sends RATE packets a second to each of B and C; prints sent, got at B, got at C
 * Namespaces are names of `ip netns`; everything is UDP, port 7000. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what) { perror(what); exit(1); }

static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static int socket_in(const char *ns) {
    char path[128];
    snprintf(path, sizeof path, "/run/netns/%s", ns);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || setns(fd, CLONE_NEWNET)) fail(path);
    close(fd);
    int s = socket(AF_INET, SOCK_DGRAM, 0), big = 32 << 20;
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(7000)};
    if (s < 0 || bind(s, (void *)&any, sizeof any)) fail("socket");
    setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big);
    return s;
}

static struct sockaddr_in address(const char *text) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(7000)};
    inet_pton(AF_INET, text, &a.sin_addr);
    return a;
}

static int ascending(const void *a, const void *b) {
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

static void echo(int s) {
    char data[64];
    struct sockaddr_in from;
    for (;;) {
        socklen_t size = sizeof from;
        ssize_t got = recvfrom(s, data, sizeof data, 0, (void *)&from, &size);
        if (got < 0 || sendto(s, data, got, 0, (void *)&from, size) < 0) fail("echo");
    }
}

/* Pairs at most, and packets of one before it is the other's turn: few, so that both see the same
 * machine, and enough for each to have its own caches warm. */
enum { MOST = 2, TURN = 100 };

static int trip(char **arg, int pairs) {
    struct sockaddr_in to = address(arg[0]);
    int count = atoi(arg[1]), here[MOST];
    pid_t there[MOST];
    struct timeval limit = {.tv_sec = 2};
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    sched_setaffinity(0, sizeof first, &first);
    for (int p = 0; p < pairs; p++) {
        here[p] = socket_in(arg[2 + 2 * p]);
        setsockopt(here[p], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        int b = socket_in(arg[3 + 2 * p]);
        there[p] = fork();
        if (there[p] < 0) fail("fork");
        if (!there[p]) echo(b);
    }
    long *taken[MOST];
    for (int p = 0; p < pairs; p++) taken[p] = calloc(count, sizeof **taken);
    char data[64] = {0};
    for (int from = -TURN; from < count; from += TURN) {
        for (int p = 0; p < pairs; p++) {
            for (int i = from; i < from + TURN && i < count; i++) {
                long began = now();
                if (sendto(here[p], data, sizeof data, 0, (void *)&to, sizeof to) < 0) fail("send");
                if (recv(here[p], data, sizeof data, 0) < 0) fail("receive");
                if (i >= 0) taken[p][i] = now() - began;
            }
        }
    }
    for (int p = 0; p < pairs; p++) {
        kill(there[p], SIGKILL);
        qsort(taken[p], count, sizeof **taken, ascending);
        printf("%ld\n", taken[p][count / 2]);
    }
    return 0;
}

/* Messages to or from one socket, as many as one call moves. */
enum { BATCH = 128 };
struct batch {
    struct mmsghdr each[BATCH];
    struct iovec part[BATCH];
    char data[BATCH][64];
};

static struct batch *batch(void) {
    struct batch *made = calloc(1, sizeof *made);
    for (int i = 0; i < BATCH; i++) {
        made->part[i] = (struct iovec){made->data[i], sizeof made->data[i]};
        made->each[i].msg_hdr.msg_iov = &made->part[i];
        made->each[i].msg_hdr.msg_iovlen = 1;
    }
    return made;
}

static long drained(int s, struct batch *into) {
    long got = 0;
    int n;
    while ((n = recvmmsg(s, into->each, BATCH, MSG_DONTWAIT, NULL)) > 0) got += n;
    return got;
}

/* Sends what is due each millisecond and sleeps in between: a processor that is always busy
 * would take from the programs that are measured. It goes first when it is due. */
static int blast(char **arg) {
    int a = socket_in(arg[0]), b = socket_in(arg[1]), c = socket_in(arg[3]);
    struct sockaddr_in to[] = {address(arg[2]), address(arg[4])};
    struct sched_param first = {.sched_priority = 1};
    if (sched_setscheduler(0, SCHED_FIFO, &first)) fail("SCHED_FIFO");
    struct batch *out = batch(), *in = batch();
    for (int i = 0; i < BATCH; i++) {
        out->each[i].msg_hdr.msg_name = &to[i % 2];
        out->each[i].msg_hdr.msg_namelen = sizeof to[0];
    }
    long rate = atol(arg[5]), sent = 0, at_b = 0, at_c = 0;
    long began = now(), length = (long)(atof(arg[6]) * 1e9);
    for (long spent; (spent = now() - began) < length;) {
        long due = spent / 1000 * rate / 1000000;
        while (sent < due) {
            int pairs = due - sent < BATCH / 2 ? (int)(due - sent) : BATCH / 2;
            for (int done = 0, n; done < 2 * pairs; done += n) {
                n = sendmmsg(a, out->each + done, 2 * pairs - done, 0);
                if (n < 0) fail("send");
            }
            sent += pairs;
            at_b += drained(b, in);
            at_c += drained(c, in);
        }
        usleep(1000);
    }
    usleep(200000);
    at_b += drained(b, in);
    at_c += drained(c, in);
    printf("%ld %ld %ld\n", sent, at_b, at_c);
    return 0;
}

int main(int argc, char **argv) {
    if ((argc == 6 || argc == 8) && !strcmp(argv[1], "trip")) return trip(argv + 2, argc / 2 - 2);
    if (argc == 9 && !strcmp(argv[1], "blast")) return blast(argv + 2);
    fputs("usage: see wire.c\n", stderr);
    return 2;
}
