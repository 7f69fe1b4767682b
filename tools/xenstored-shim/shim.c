/*
 * The hypervisor as far as a xenstore daemon sees it, faked for LD_PRELOAD: real C xenstored and
 * real oxenstored of Xen 4.17 run unmodified, unprivileged, many at a time, on a machine without
 * Xen. Nothing of the daemons themselves is replaced.
 *
 * All state is in files of the directory $XENSTORED_SHIM_DIR, so it outlives a daemon's restart:
 *   dom.N      domain N exists; its first byte is r, s, c or d: running, shut down, crashed, dying
 *   ring.N     domain N's ring page (struct xenstore_domain_interface), 4096 bytes
 *   kick.N     fifo, daemon to domain N: one byte an event
 *   evtchn     fifo, domains to daemon: u32 event-channel ports
 *   xsd_port   domain 0's remote port, decimal, without a newline
 * Domain N's event channel has the local port PORT_BASE + N; domain exceptions have PORT_VIRQ.
 * A daemon's own fixed directory /var/run/xenstored is redirected to the shim's directory.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define XC_WANT_COMPAT_MAP_FOREIGN_API
#include <xenctrl.h>
#include <xenevtchn.h>
#include <xengnttab.h>

#define PORT_VIRQ 1
#define PORT_BASE 1000
#define RING_BYTES 4096
#define DAEMON_DIR "/var/run/xenstored"

struct xenevtchn_handle {
    int fd;
};

/* What the daemons get for the handles they only pass back. */
static char a_handle;

/* The real libc function behind one that is defined here. */
#define REAL(name) ((__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name))

static const char *shim_dir(void)
{
    const char *dir = getenv("XENSTORED_SHIM_DIR");

    if (!dir || !*dir) {
        fputs("xenstored-shim: XENSTORED_SHIM_DIR is not set\n", stderr);
        _exit(127);
    }
    return dir;
}

/* "<shim dir>/<name>.<number>", or without the number where it is negative. */
static void state_path(char path[PATH_MAX], const char *name, long number)
{
    if (number < 0)
        snprintf(path, PATH_MAX, "%s/%s", shim_dir(), name);
    else
        snprintf(path, PATH_MAX, "%s/%s.%ld", shim_dir(), name, number);
}

static int real_open(const char *path, int flags, mode_t mode)
{
    return REAL(open)(path, flags, mode);
}

/* ---- domains ---- */

/* The state of a domain: 0 where there is none. Domain 0 always runs. */
static char domain_state(uint32_t domid)
{
    char path[PATH_MAX], state = 'r';
    int fd;

    if (domid == 0)
        return 'r';
    state_path(path, "dom", domid);
    fd = real_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    if (read(fd, &state, 1) != 1)
        state = 'r';
    close(fd);
    return state;
}

xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *dombuild_logger,
                                unsigned open_flags)
{
    (void)logger, (void)dombuild_logger, (void)open_flags;
    return (xc_interface *)&a_handle;
}

int xc_interface_close(xc_interface *xch)
{
    (void)xch;
    return 0;
}

/* C xenstored asks for one domain at a time, and takes no answer for "gone". */
int xc_domain_getinfo(xc_interface *xch, uint32_t first_domid, unsigned int max_doms,
                      xc_dominfo_t *info)
{
    char state = domain_state(first_domid);

    (void)xch;
    if (!state || max_doms < 1)
        return 0;
    memset(info, 0, sizeof(*info));
    info->domid = first_domid;
    info->dying = state == 'd';
    info->crashed = state == 'c';
    info->shutdown = state == 's' || state == 'c';
    info->running = state == 'r';
    return 1;
}

/* oxenstored, likewise. */
int xc_domain_getinfolist(xc_interface *xch, uint32_t first_domain, unsigned int max_domains,
                          xc_domaininfo_t *info)
{
    char state = domain_state(first_domain);

    (void)xch;
    if (!state || max_domains < 1)
        return 0;
    memset(info, 0, sizeof(*info));
    info->domain = first_domain;
    if (state == 'r')
        info->flags = XEN_DOMINF_running;
    else if (state == 'd')
        info->flags = XEN_DOMINF_dying;
    else
        info->flags = XEN_DOMINF_shutdown |
                      ((state == 'c' ? SHUTDOWN_crash : SHUTDOWN_poweroff)
                       << XEN_DOMINF_shutdownshift);
    return 1;
}

const xc_error *xc_get_last_error(xc_interface *xch)
{
    static const xc_error none = {.code = XC_ERROR_NONE};

    (void)xch;
    return &none;
}

const char *xc_error_code_to_desc(int code)
{
    (void)code;
    return "no such domain";
}

/* ---- ring pages ---- */

static void *map_ring(uint32_t domid)
{
    char path[PATH_MAX];
    void *page;
    int fd;

    state_path(path, "ring", domid);
    fd = real_open(path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    page = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return page == MAP_FAILED ? NULL : page;
}

void *xc_map_foreign_range(xc_interface *xch, uint32_t dom, int size, int prot, unsigned long mfn)
{
    (void)xch, (void)size, (void)prot, (void)mfn;
    return map_ring(dom);
}

xengnttab_handle *xengnttab_open(struct xentoollog_logger *logger, unsigned open_flags)
{
    (void)logger, (void)open_flags;
    return (xengnttab_handle *)&a_handle;
}

int xengnttab_close(xengnttab_handle *xgt)
{
    (void)xgt;
    return 0;
}

int xengnttab_set_max_grants(xengnttab_handle *xgt, uint32_t nr_grants)
{
    (void)xgt, (void)nr_grants;
    return 0;
}

void *xengnttab_map_grant_ref(xengnttab_handle *xgt, uint32_t domid, uint32_t ref, int prot)
{
    (void)xgt, (void)ref, (void)prot;
    return map_ring(domid);
}

int xengnttab_unmap(xengnttab_handle *xgt, void *start_address, uint32_t count)
{
    (void)xgt, (void)count;
    return munmap(start_address, RING_BYTES);
}

/* ---- event channels ---- */

xenevtchn_handle *xenevtchn_fdopen(struct xentoollog_logger *logger, int fd, unsigned open_flags)
{
    xenevtchn_handle *xce = malloc(sizeof(*xce));

    (void)logger, (void)open_flags;
    if (xce)
        xce->fd = fd;
    return xce;
}

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger, unsigned open_flags)
{
    char path[PATH_MAX];
    int fd;

    state_path(path, "evtchn", -1);
    /* Both ends, so that it never reads as ended. */
    fd = real_open(path, O_RDWR | O_NONBLOCK, 0);
    return fd < 0 ? NULL : xenevtchn_fdopen(logger, fd, open_flags);
}

int xenevtchn_close(xenevtchn_handle *xce)
{
    close(xce->fd);
    free(xce);
    return 0;
}

int xenevtchn_fd(xenevtchn_handle *xce)
{
    return xce->fd;
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *xce, uint32_t domid,
                                                     evtchn_port_t remote_port)
{
    (void)xce, (void)remote_port;
    return PORT_BASE + domid;
}

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *xce, unsigned int virq)
{
    (void)xce, (void)virq;
    return PORT_VIRQ;
}

int xenevtchn_unbind(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce, (void)port;
    return 0;
}

int xenevtchn_unmask(xenevtchn_handle *xce, evtchn_port_t port)
{
    (void)xce, (void)port;
    return 0;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *xce)
{
    uint32_t port;

    /* Writers write four bytes at once, which a fifo keeps whole. */
    return read(xce->fd, &port, sizeof(port)) == sizeof(port) ? (int)port : -1;
}

int xenevtchn_notify(xenevtchn_handle *xce, evtchn_port_t port)
{
    char path[PATH_MAX];
    ssize_t sent;
    int fd;

    (void)xce;
    if (port < PORT_BASE)
        return 0;
    state_path(path, "kick", port - PORT_BASE);
    fd = real_open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd < 0)
        return 0; /* nobody listens, as in a domain that has not booted */
    sent = write(fd, "k", 1);
    close(fd);
    return sent == 1 || errno == EAGAIN ? 0 : -1; /* full: it has been kicked enough */
}

/* ---- libc, for the fixed paths ---- */

/* Where `path` really is: kernel files and the daemons' directory are in the shim's. */
static const char *redirected(const char *path, char buffer[PATH_MAX])
{
    if (!strcmp(path, "/proc/xen/xsd_kva"))
        state_path(buffer, "ring", 0);
    else if (!strcmp(path, "/proc/xen/xsd_port"))
        state_path(buffer, "xsd_port", -1);
    else if (!strncmp(path, DAEMON_DIR, strlen(DAEMON_DIR)))
        snprintf(buffer, PATH_MAX, "%s%s", shim_dir(), path + strlen(DAEMON_DIR));
    else
        return path;
    return buffer;
}

#define OPEN(name)                                                  \
    int name(const char *path, int flags, ...)                      \
    {                                                               \
        char buffer[PATH_MAX];                                      \
        mode_t mode = 0;                                            \
        va_list arguments;                                          \
                                                                    \
        if (flags & (O_CREAT | O_TMPFILE)) {                        \
            va_start(arguments, flags);                             \
            mode = va_arg(arguments, mode_t);                       \
            va_end(arguments);                                      \
        }                                                           \
        return real_open(redirected(path, buffer), flags, mode);    \
    }

OPEN(open)
OPEN(open64)

int unlink(const char *path)
{
    char buffer[PATH_MAX];

    return REAL(unlink)(redirected(path, buffer));
}

int chmod(const char *path, mode_t mode)
{
    char buffer[PATH_MAX];

    return REAL(chmod)(redirected(path, buffer), mode);
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    const struct sockaddr_un *unix_address = (const struct sockaddr_un *)address;
    struct sockaddr_un moved = {.sun_family = AF_UNIX};
    char buffer[PATH_MAX];
    const char *path;

    if (address->sa_family == AF_UNIX && unix_address->sun_path[0] == '/') {
        path = redirected(unix_address->sun_path, buffer);
        if (path == buffer) {
            if (strlen(path) >= sizeof(moved.sun_path)) {
                errno = ENAMETOOLONG;
                return -1;
            }
            strcpy(moved.sun_path, path);
            address = (const struct sockaddr *)&moved;
            length = sizeof(moved);
        }
    }
    return REAL(bind)(fd, address, length);
}

/* An unprivileged daemon may not raise its limits, and need not for a test. */
int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
    if (REAL(setrlimit)(resource, limit) == 0 || errno == EPERM)
        return 0;
    return -1;
}
