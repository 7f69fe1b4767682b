/*
 * Sends one frame as it is, whatever the network card's address: send CARD HEX
 */
#include <net/if.h>
#include <linux/if_packet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int count, char **words)
{
	unsigned char frame[1514];
	struct sockaddr_ll to = { .sll_family = AF_PACKET };
	size_t length = 0;
	int fd = socket(AF_PACKET, SOCK_RAW, 0);

	if (count != 3 || fd < 0 || !(to.sll_ifindex = if_nametoindex(words[1]))) {
		perror("send");
		return 2;
	}
	for (char *digits = words[2]; digits[0] && digits[1] && length < sizeof frame; digits += 2)
		if (sscanf(digits, "%2hhx", &frame[length++]) != 1)
			return 2;
	if (sendto(fd, frame, length, 0, (struct sockaddr *)&to, sizeof to) != (ssize_t)length) {
		perror("send");
		return 1;
	}
	return 0;
}
