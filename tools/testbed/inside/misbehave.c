/*
 * A guest that does what it can to its own devices' nodes, as fast as it can, for some seconds:
 *   misbehave rewrite SECONDS DIR   random values into DIR's backend-id, backend, state, mac, handle
 *   misbehave flood SECONDS DIR     nodes without end below DIR
 *   misbehave write PATH VALUE      one write; says what xenstored answered
 *   misbehave read PATH             one read; says what xenstored answered
 * Wire format: Xen's public io/xs_wire.h, over /dev/xen/xenbus.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { XS_READ = 2, XS_WRITE = 11, XS_ERROR = 16 };
struct header { uint32_t type, id, transaction, length; };
static int bus;

static int request(uint32_t type, const char *path, const char *value, char *answer)
{
	char frame[4096];
	struct header head = { type, 1, 0, 0 };
	size_t length = strlen(path) + 1;

	memcpy(frame + sizeof head, path, length);
	if (value) {
		memcpy(frame + sizeof head + length, value, strlen(value));
		length += strlen(value);
	}
	head.length = length;
	memcpy(frame, &head, sizeof head);
	if (write(bus, frame, sizeof head + length) < 0)
		return -1;
	if (read(bus, &head, sizeof head) != sizeof head || head.length > 4000)
		return -1;
	for (length = 0; length < head.length;) {
		ssize_t got = read(bus, answer + length, head.length - length);
		if (got <= 0)
			return -1;
		length += got;
	}
	answer[length] = 0;
	return head.type == XS_ERROR ? 1 : 0;
}

int main(int count, char **words)
{
	static const char *names[] = { "backend-id", "backend", "state", "mac", "handle" };
	static const char *values[] = {
		"0", "1", "2", "3", "4", "5", "6", "7", "9999", "00:16:3e:00:00:01",
		"/local/domain/0/backend/vif/1/0", "/local/domain/0/backend/vbd/1/51712", "x",
	};
	char answer[4096], path[512];
	unsigned long done = 0, refused = 0;

	bus = open("/dev/xen/xenbus", O_RDWR);
	if (bus < 0 || count < 3) {
		perror("misbehave");
		return 2;
	}
	if (!strcmp(words[1], "write") || !strcmp(words[1], "read")) {
		int failed = request(words[1][0] == 'w' ? XS_WRITE : XS_READ, words[2],
				     count > 3 ? words[3] : NULL, answer);
		printf("%s\n", answer);
		return failed != 0;
	}
	if (count < 4)
		return 2;
	for (time_t end = time(NULL) + atoi(words[2]); time(NULL) < end; done++) {
		if (!strcmp(words[1], "flood"))
			snprintf(path, sizeof path, "%s/n%lu", words[3], done % 5000);
		else
			snprintf(path, sizeof path, "%s/%s", words[3], names[rand() % 5]);
		refused += request(XS_WRITE, path, values[rand() % 13], answer) != 0;
	}
	printf("%lu writes, %lu refused\n", done, refused);
	return 0;
}
