/* A caller who breaks the header's own rules never gets FINE. Exit 0, or the failing line. */
#define XPB_VBD_IO_SLOTS 2
#include "vbd.h"
#include "vif.h"

#include <string.h>

#define HOLDS(what)          \
    do {                     \
        if (!(what))         \
            return __LINE__; \
    } while (0)

static const unsigned char SLOT[112] = {3}; /* a flush */

/* On zeroed memory what would be good elsewhere finds no table to be kept in. */
static int run_zeroed(void)
{
    static struct xpb_vif_tx tx;
    static struct xpb_vif_rx rx;
    static struct xpb_vif_ctrl ctrl;
    static const unsigned char packet[12] = {9, 0, 0, 0, 0, 0, 0, 0, 7, 1, 60};
    static const unsigned char sent[4] = {7, 1};
    static const unsigned char buffer[8] = {7, 1, 0, 0, 9};
    static const unsigned char received[8] = {7, 1};
    static const unsigned char command[16] = {7, 1, 1};
    struct xpb_vif_tx_request tx_copy;
    struct xpb_vif_tx_response tx_answer;
    struct xpb_vif_rx_request rx_copy;
    struct xpb_vif_rx_response rx_answer;
    struct xpb_vif_ctrl_request ctrl_copy;
    struct xpb_vif_ctrl_response ctrl_answer;

    HOLDS(xpb_vif_tx_request(&tx, packet, &tx_copy) == XPB_VIF_MISUSE);
    HOLDS(xpb_vif_tx_response(&tx, sent, &tx_answer) == XPB_VIF_MISUSE);
    HOLDS(xpb_vif_rx_request(&rx, buffer, &rx_copy) == XPB_VIF_MISUSE);
    HOLDS(xpb_vif_rx_response(&rx, received, &rx_answer) == XPB_VIF_MISUSE);
    HOLDS(xpb_vif_ctrl_request(&ctrl, command, &ctrl_copy) == XPB_VIF_MISUSE);
    HOLDS(xpb_vif_ctrl_response(&ctrl, command, &ctrl_answer) == XPB_VIF_MISUSE);
    return 0;
}

static int run(void)
{
    static struct xpb_vbd_io ring;
    struct xpb_vbd_io_request copy;
    struct xpb_vbd_io_response answer;
    struct xpb_vbd_given given;
    unsigned char indirect[112] = {6, 0, 1};
    unsigned char pages[8] = {9, 0, 0, 0, 0, 7};

    memset(&given, 0, sizeof given);
    given.g_sectors = 4096;
    given.g_sector_size = 512;
    given.g_flush = 1;
    given.g_max_indirect = 32;

    /* Memory of zeros is no connection, nor is one that was refused. */
    HOLDS(xpb_vbd_io_request(&ring, SLOT, &copy) == XPB_VBD_MISUSE);
    HOLDS(xpb_vbd_io_response(&ring, SLOT, &answer) == XPB_VBD_MISUSE);
    HOLDS(xpb_vbd_io_request_list(&ring, pages, 0) == XPB_VBD_MISUSE);
    memset(&ring, 0, sizeof ring);
    HOLDS(!xpb_vbd_io_connect(&ring, &given, XPB_VBD_ABI_X86_64_ABI, 0));
    HOLDS(!xpb_vbd_io_connect(&ring, &given, XPB_VBD_ABI_X86_64_ABI, 4));
    HOLDS(!xpb_vbd_io_connect(&ring, &given, (enum xpb_vbd_abi)7, 2));
    given.g_sector_size = 8192;
    HOLDS(!xpb_vbd_io_connect(&ring, &given, XPB_VBD_ABI_X86_64_ABI, 2));
    given.g_sector_size = 0;
    HOLDS(!xpb_vbd_io_connect(&ring, &given, XPB_VBD_ABI_X86_64_ABI, 2));
    HOLDS(xpb_vbd_io_request(&ring, SLOT, &copy) == XPB_VBD_MISUSE);
    HOLDS(xpb_vbd_io_response(&ring, SLOT, &answer) == XPB_VBD_MISUSE);
    HOLDS(xpb_vbd_rule_party(XPB_VBD_MISUSE) == XPB_NOBODY);

    given.g_sector_size = 512;
    HOLDS(xpb_vbd_io_connect(&ring, &given, XPB_VBD_ABI_X86_64_ABI, 2));
    HOLDS(xpb_vbd_io_request(&ring, SLOT, &copy) == XPB_VBD_FINE);
    HOLDS(memcmp(copy.bytes, SLOT, sizeof SLOT) == 0);

    /* What is given may change, but not to what cannot be. */
    given.g_sector_size = 511;
    HOLDS(!xpb_vbd_io_agree(&ring, &given) && ring.given.g_sector_size == 512);
    given.g_sector_size = 512;
    given.g_sectors = 8192;
    HOLDS(xpb_vbd_io_agree(&ring, &given) && ring.given.g_sectors == 8192);

    /* A list that is waited for comes first, and whole. */
    HOLDS(xpb_vbd_io_request_list(&ring, pages, 8) == XPB_VBD_MISUSE);
    indirect[8] = 1;  /* the id */
    indirect[28] = 5; /* the page */
    HOLDS(xpb_vbd_io_request(&ring, indirect, &copy) == XPB_VBD_FINE);
    HOLDS(ring.wants == 8);
    HOLDS(xpb_vbd_io_request(&ring, SLOT, &copy) == XPB_VBD_MISUSE);
    HOLDS(xpb_vbd_io_response(&ring, SLOT, &answer) == XPB_VBD_MISUSE);
    HOLDS(xpb_vbd_io_request_list(&ring, pages, 7) == XPB_VBD_MISUSE);
    HOLDS(xpb_vbd_io_request_list(&ring, pages, 8) == XPB_VBD_FINE);

    /* A broken ring stays broken. */
    HOLDS(xpb_vbd_io_request(&ring, SLOT, &copy) == XPB_VBD_IO__REQUEST__ID_IN_FLIGHT);
    HOLDS(ring.broken == XPB_VBD_IO__REQUEST__ID_IN_FLIGHT && ring.value == 0);
    HOLDS(xpb_vbd_io_response(&ring, SLOT, &answer) == XPB_VBD_IO__REQUEST__ID_IN_FLIGHT);
    HOLDS(xpb_vbd_io_request_list(&ring, pages, 8) == XPB_VBD_IO__REQUEST__ID_IN_FLIGHT);
    HOLDS(xpb_vbd_rule_party(ring.broken) == XPB_FRONTEND);
    HOLDS(strcmp(xpb_vbd_rule_name(ring.broken), "io.request.id-in-flight") == 0);
    HOLDS(strcmp(xpb_vbd_rule_name(XPB_VBD_FINE), "fine") == 0);
    HOLDS(strcmp(xpb_vbd_rule_name(XPB_VBD_MISUSE), "misuse") == 0);
    HOLDS(xpb_vbd_io_connect(&ring, &given, XPB_VBD_ABI_X86_64_ABI, 2));
    HOLDS(xpb_vbd_io_request(&ring, SLOT, &copy) == XPB_VBD_FINE);
    return 0;
}

int main(void)
{
    const int line = run_zeroed();

    return (line != 0 ? line : run()) & 255;
}
