/*
 * Counts the frames a network card receives, by the sender's link address, until it is ended:
 *   listen CARD FILE      FILE then has a line for each sender: its address, how many frames;
 *                         and one for each mark (tools/testbed/frames.py): "marked", its number
 */
#define _GNU_SOURCE
#include <net/if.h>
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

struct sender { unsigned char mac[6]; unsigned long frames; };

int main(int count, char **words)
{
	static struct sender senders[256];
	static unsigned char marks[256];
	unsigned char frame[2048];
	unsigned used = 0, i;
	struct sockaddr_ll here = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	struct sockaddr_ll from;
	int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));

	if (count != 3 || fd < 0 || !(here.sll_ifindex = if_nametoindex(words[1])) ||
	    bind(fd, (struct sockaddr *)&here, sizeof here)) {
		perror("listen");
		return 2;
	}
	for (;;) {
		socklen_t size = sizeof from;
		ssize_t length = recvfrom(fd, frame, sizeof frame, 0, (struct sockaddr *)&from, &size);
		if (length < 14 || from.sll_pkttype == PACKET_OUTGOING)
			continue;
		for (i = 0; i < used && memcmp(senders[i].mac, frame + 6, 6); i++)
			;
		if (i == used) {
			if (used == 256)
				continue;
			memcpy(senders[used++].mac, frame + 6, 6);
		}
		senders[i].frames++;
		unsigned char *mark = memmem(frame, length, "xpb!", 4);
		if (mark && mark + 4 < frame + length)
			marks[mark[4]] = 1;
		FILE *file = fopen(words[2], "w");
		for (i = 0; file && i < used; i++) {
			unsigned char *m = senders[i].mac;
			fprintf(file, "%02x:%02x:%02x:%02x:%02x:%02x %lu\n", m[0], m[1], m[2], m[3],
				m[4], m[5], senders[i].frames);
		}
		for (i = 0; file && i < 256; i++)
			if (marks[i])
				fprintf(file, "marked %u\n", i);
		if (file)
			fclose(file);
	}
}
