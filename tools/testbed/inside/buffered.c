/*
 * Preloaded into xenstored, which writes its trace byte by byte, a system call each: where every
 * processor is emulated a scenario would take minutes more. Here it is written a buffer at a time.
 */
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char first[] = "\n***\n"; /* what xenstored writes into a trace that it opened */
static int trace = -1;
static char held[1 << 16];
static size_t used;

static void flush(void)
{
	size_t done = 0;

	while (done < used) {
		long wrote = syscall(SYS_write, trace, held + done, used - done);
		if (wrote <= 0)
			break;
		done += wrote;
	}
	used = 0;
}

ssize_t write(int fd, const void *data, size_t size)
{
	if (size == sizeof first - 1 && !memcmp(data, first, size))
		trace = fd;
	if (fd != trace || size > sizeof held)
		return syscall(SYS_write, fd, data, size);
	if (used + size > sizeof held)
		flush();
	memcpy(held + used, data, size);
	used += size;
	return size;
}

int close(int fd)
{
	if (fd == trace) {
		flush();
		trace = -1;
	}
	return syscall(SYS_close, fd);
}
