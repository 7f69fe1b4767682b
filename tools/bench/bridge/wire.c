/* Frames between guests, timed or counted: the benchmarks' only part that must be quick.
 *   wire trip NS_A NS_B ADDRESS_B COUNT           prints the median round trip in ns, A and B
 *       being processes of their own as guests are
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

static int trip(char **arg) {
    int a = socket_in(arg[0]), b = socket_in(arg[1]), count = atoi(arg[3]);
    struct sockaddr_in to = address(arg[2]);
    struct timeval limit = {.tv_sec = 2};
    setsockopt(a, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    cpu_set_t first;
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    sched_setaffinity(0, sizeof first, &first);
    pid_t other = fork();
    if (other < 0) fail("fork");
    if (!other) echo(b);
    long *taken = calloc(count, sizeof *taken);
    char data[64] = {0};
    for (int i = -count / 10; i < count; i++) {
        long began = now();
        if (sendto(a, data, sizeof data, 0, (void *)&to, sizeof to) < 0) fail("send");
        if (recv(a, data, sizeof data, 0) < 0) fail("receive");
        if (i >= 0) taken[i] = now() - began;
    }
    kill(other, SIGKILL);
    qsort(taken, count, sizeof *taken, ascending);
    printf("%ld\n", taken[count / 2]);
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
    if (argc == 6 && !strcmp(argv[1], "trip")) return trip(argv + 2);
    if (argc == 9 && !strcmp(argv[1], "blast")) return blast(argv + 2);
    fputs("usage: see wire.c\n", stderr);
    return 2;
}
