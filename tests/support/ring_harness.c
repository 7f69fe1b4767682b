/*
 * Runs messages from standard input through the generated headers, and answers each with 18
 * bytes: rule (2), index (4), value (8), in flight (4). A record is a ring's number (1), an
 * operation (1), a length (4), then so many bytes:
 *   C  layout (1), slots (4), eight bytes for everything given     connects
 *   Q, S, L  a request, a response, the list that a request granted pages for
 * With an argument N: instead of answering, keep all records and run them N times; print the
 * nanoseconds that one record took, and what copying its bytes alone took.
 */
#define _POSIX_C_SOURCE 200809L
/* The headers, and RINGS: an R(number, class, ring, what checks a list) for each ring. */
#include "rings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct answer {
    unsigned rule;
    uint32_t in_flight;
    uint64_t index, value;
};

static uint64_t number(const unsigned char *at, unsigned size)
{
    uint64_t found = 0;

    while (size-- > 0)
        found = found << 8 | at[size];
    return found;
}

#define GIVEN(class, size) ((size) - 5 == sizeof(struct xpb_##class##_given))

#define NO_LIST(ring, bytes, size) 0xffff

/* One record on one ring; every structure `given` is a row of 64-bit numbers. */
#define R(number_, class, name, list)                                                           \
    static struct xpb_##class##_##name name;                                                    \
                                                                                                \
    static struct answer on_##name(unsigned char what, const unsigned char *bytes, size_t size) \
    {                                                                                           \
        struct xpb_##class##_##name##_request request;                                          \
        struct xpb_##class##_##name##_response response;                                        \
        struct answer answer = {0xffff, 0, 0, 0};                                               \
                                                                                                \
        if (what == 'C' && GIVEN(class, size)) {                                                \
            struct xpb_##class##_given given;                                                   \
                                                                                                \
            memcpy(&given, bytes + 5, sizeof given);                                            \
            answer.rule = !xpb_##class##_##name##_connect(                                      \
                &name, &given, (enum xpb_##class##_abi)bytes[0], (uint32_t)number(bytes + 1, 4)); \
        } else if (what == 'Q')                                                                 \
            answer.rule = xpb_##class##_##name##_request(&name, bytes, &request);               \
        else if (what == 'S')                                                                   \
            answer.rule = xpb_##class##_##name##_response(&name, bytes, &response);             \
        else if (what == 'L')                                                                   \
            answer.rule = list(&name, bytes, size);                                             \
        answer.in_flight = name.in_flight;                                                      \
        answer.index = name.index;                                                              \
        answer.value = name.value;                                                              \
        return answer;                                                                          \
    }

RINGS
#undef R

static struct answer run(const unsigned char *record, size_t size)
{
    const struct answer unknown = {0xfffe, 0, 0, 0};

#define R(number_, class, name, list) \
    if (record[0] == (number_))       \
        return on_##name(record[1], record + 6, size);
    RINGS
    return unknown;
}

static void put(unsigned char *to, uint64_t value, unsigned size)
{
    for (; size-- > 0; value >>= 8)
        *to++ = (unsigned char)value;
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Every record's bytes lie alone in memory of their very size, so that a reader past them shows. */
static unsigned char *next_record(size_t *size)
{
    unsigned char head[6], *record;

    if (fread(head, 1, sizeof head, stdin) != sizeof head)
        return NULL;
    *size = (size_t)number(head + 2, 4);
    record = malloc(*size + sizeof head);
    if (record == NULL)
        abort();
    memcpy(record, head, sizeof head);
    if (fread(record + sizeof head, 1, *size, stdin) != *size)
        abort();
    return record;
}

static void measure(long rounds)
{
    static unsigned char *records[1 << 16];
    static size_t sizes[1 << 16];
    static unsigned char sink[1 << 16];
    volatile unsigned char seen = 0;
    size_t many = 0, i;
    unsigned long broken = 0;
    double began, ours, floor;
    long round;

    while (many < 1 << 16 && (records[many] = next_record(&sizes[many])) != NULL)
        many++;
    if (many == 0)
        exit(2);
    run(records[0], sizes[0]);
    began = seconds();
    for (round = 0; round < rounds; round++)
        for (i = 1; i < many; i++)
            broken += run(records[i], sizes[i]).rule != 0;
    ours = seconds() - began;
    began = seconds();
    for (round = 0; round < rounds; round++)
        for (i = 1; i < many; i++) {
            memcpy(sink, records[i] + 6, sizes[i]);
            seen = sink[round & 7];
        }
    floor = seconds() - began;
    (void)seen;
    printf("%.3f %.3f %lu\n", ours * 1e9 / (double)rounds / (double)(many - 1),
           floor * 1e9 / (double)rounds / (double)(many - 1), broken);
    for (i = 0; i < many; i++)
        free(records[i]);
}

int main(int count, char **arguments)
{
    unsigned char out[18], *record;
    size_t size;

    if (count > 1) {
        measure(atol(arguments[1]));
        return 0;
    }
    while ((record = next_record(&size)) != NULL) {
        const struct answer answer = run(record, size);

        put(out, answer.rule, 2);
        put(out + 2, answer.index, 4);
        put(out + 6, answer.value, 8);
        put(out + 14, answer.in_flight, 4);
        fwrite(out, 1, sizeof out, stdout);
        free(record);
    }
    return 0;
}
