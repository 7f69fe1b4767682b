/*
 * Counts the frames a network card receives, by the sender's link address, until it is ended:
 *   listen CARD FILE      FILE then has a line for each sender: its address, how many frames
 */
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
		if (recvfrom(fd, frame, sizeof frame, 0, (struct sockaddr *)&from, &size) < 14 ||
		    from.sll_pkttype == PACKET_OUTGOING)
			continue;
		for (i = 0; i < used && memcmp(senders[i].mac, frame + 6, 6); i++)
			;
		if (i == used) {
			if (used == 256)
				continue;
			memcpy(senders[used++].mac, frame + 6, 6);
		}
		senders[i].frames++;
		FILE *file = fopen(words[2], "w");
		for (i = 0; file && i < used; i++) {
			unsigned char *m = senders[i].mac;
			fprintf(file, "%02x:%02x:%02x:%02x:%02x:%02x %lu\n", m[0], m[1], m[2], m[3],
				m[4], m[5], senders[i].frames);
		}
		if (file)
			fclose(file);
	}
}
