/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Numbered datagrams between network name spaces, both ways, and how many of them were lost.
 *
 *   flood RATE CLIENT SERVER ADDRESS [RATE CLIENT SERVER ADDRESS]...
 *
 * CLIENT and SERVER are files of name spaces, ADDRESS is one of the server's. The client sends RATE packets a second, and
 * so does the server once it has heard of the client. It prints "ready", goes on until standard input ends, and reports
 * as JSON: for each end what it has sent, and what became of that. Of the rate it says what was reached, since a machine
 * may be too busy for it: time that was missed is not made up for.
 *
 * One thread does everything and comes before all others where it may, on one core: packets are received right after
 * they were sent, so no queue of a socket is ever long.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT 7008 /* of the first server, each other one has the next */
#define BATCH 64
#define WORDS 8 /* of a datagram, each of them its number */
#define TICK 1000000 /* ns between two bursts */
#define MOST 10 /* bursts that are made up for */
#define PATIENCE 1000000000ull /* ns for the last packets */
#define SECOND 1000000000ull
#define ROOM (64 << 20) /* bytes of a socket's queue */
#define DROPS 8 /* SK_MEMINFO_DROPS */

typedef uint64_t datagram[WORDS];

/* What it sends is told apart from what came of that, which the other end counts. */
struct end {
	int fd;
	bool open; /* it knows where to send to */
	uint64_t sent, refused;
	uint64_t received, distinct, reordered, next;
	uint8_t *seen; /* a bit for each number */
	uint64_t room; /* bytes of it */
};

struct pair {
	double rate, due; /* packets a second, packets */
	struct end client, server;
};

static datagram data[BATCH];
static struct iovec parts[BATCH];
static struct mmsghdr messages[BATCH];

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * SECOND + time.tv_nsec;
}

/* Whether it comes before other processes. */
static bool settle(void)
{
	struct sched_param fifo = { .sched_priority = 1 };
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		err(1, "stay on a CPU");
	return !sched_setscheduler(0, SCHED_FIFO, &fifo);
}

static int open_socket(const char *netns, int family)
{
	int fd, room = ROOM, space = open(netns, O_RDONLY | O_CLOEXEC);

	if (space < 0 || setns(space, CLONE_NEWNET))
		err(1, "enter %s", netns);
	close(space);
	fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)))
		err(1, "socket");
	return fd;
}

static void open_pair(struct pair *pair, char **words, int port)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	bool is_v4 = inet_pton(AF_INET, words[3], &v4.sin_addr) == 1;
	struct sockaddr *to = is_v4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6;
	socklen_t length = is_v4 ? sizeof(v4) : sizeof(v6);

	if (!is_v4 && inet_pton(AF_INET6, words[3], &v6.sin6_addr) != 1)
		errx(2, "no address: %s", words[3]);
	pair->rate = strtod(words[0], NULL);
	pair->client.fd = open_socket(words[1], to->sa_family);
	pair->server.fd = open_socket(words[2], to->sa_family);
	if (bind(pair->server.fd, to, length) || connect(pair->client.fd, to, length))
		err(1, "%s", words[3]);
	pair->client.open = true;
}

/* The first datagram says where a server's go to. */
static void answer(struct end *server)
{
	struct sockaddr_storage from;
	socklen_t length = sizeof(from);
	char byte;

	if (server->open || recvfrom(server->fd, &byte, 1, MSG_PEEK, (struct sockaddr *)&from, &length) < 0)
		return;
	if (connect(server->fd, (struct sockaddr *)&from, length))
		err(1, "answer");
	server->open = true;
}

static void send_numbers(struct end *end, int packets)
{
	while (end->open && packets) {
		int count = packets < BATCH ? packets : BATCH, sent;

		for (int i = 0; i < count; i++)
			for (int word = 0; word < WORDS; word++)
				data[i][word] = end->sent + i;
		sent = sendmmsg(end->fd, messages, count, 0);
		if (sent < 0) { /* of an ICMP error, or no room: this number comes once more */
			end->refused++;
			return;
		}
		end->sent += sent;
		packets -= sent;
	}
}

static void note(struct end *end, const struct end *sender, const datagram got, unsigned int length)
{
	uint64_t number = got[0];

	for (int word = 1; word < WORDS; word++)
		if (length != sizeof(datagram) || number >= sender->sent || got[word] != number)
			errx(1, "a datagram that nobody has sent");
	if (number / 8 >= end->room) {
		uint64_t room = 2 * (number / 8) + 4096;

		end->seen = realloc(end->seen, room);
		if (!end->seen)
			err(1, "realloc");
		memset(end->seen + end->room, 0, room - end->room);
		end->room = room;
	}
	end->received++;
	if (end->seen[number / 8] & 1 << number % 8)
		return;
	end->seen[number / 8] |= 1 << number % 8;
	end->distinct++;
	if (number < end->next)
		end->reordered++;
	else
		end->next = number + 1;
}

static void receive(struct end *end, const struct end *sender)
{
	int count;

	do {
		count = recvmmsg(end->fd, messages, BATCH, MSG_DONTWAIT, NULL);
		for (int i = 0; i < count; i++)
			note(end, sender, data[i], messages[i].msg_len);
	} while (count == BATCH);
}

static void exchange(struct pair *pair, double seconds)
{
	double most = pair->rate * MOST * TICK / SECOND + 1;
	int packets;

	pair->due += pair->rate * seconds;
	if (pair->due > most)
		pair->due = most;
	packets = pair->due;
	if (!packets)
		return;
	pair->due -= packets;
	send_numbers(&pair->server, packets); /* first: a client's packet would make a lost flow known again */
	receive(&pair->client, &pair->server);
	send_numbers(&pair->client, packets);
	answer(&pair->server);
	receive(&pair->server, &pair->client);
}

static uint64_t all_sent(const struct pair *pairs, int count)
{
	uint64_t sum = 0;

	for (int i = 0; i < count; i++)
		sum += pairs[i].client.sent + pairs[i].server.sent;
	return sum;
}

/* Until standard input ends; the fewest packets that any second has seen. */
static double run(struct pair *pairs, int count, uint64_t begin)
{
	struct pollfd input = { .fd = STDIN_FILENO, .events = POLLIN };
	struct timespec pause = { 0 };
	uint64_t last = begin, second = begin, before = 0;
	double slowest = -1;

	do {
		uint64_t start = now(), spent;

		for (int i = 0; i < count; i++)
			exchange(&pairs[i], (double)(start - last) / SECOND);
		last = start;
		if (start - second >= SECOND) {
			uint64_t sent = all_sent(pairs, count);
			double rate = (double)(sent - before) * SECOND / (start - second);

			if (slowest < 0 || rate < slowest)
				slowest = rate;
			before = sent;
			second = start;
		}
		spent = now() - start; /* three quarters of the core are left to others, on a slow machine too */
		pause.tv_nsec = spent < TICK / 4 ? TICK - spent : spent < SECOND / 3 ? 3 * spent : SECOND - 1;
	} while (!ppoll(&input, 1, &pause, NULL));
	return slowest;
}

static void finish(struct pair *pairs, int count)
{
	struct timespec pause = { .tv_nsec = TICK };
	uint64_t begin = now();
	bool complete = false;

	while (!complete && now() - begin < PATIENCE) {
		complete = true;
		for (int i = 0; i < count; i++) {
			struct end *client = &pairs[i].client, *server = &pairs[i].server;

			receive(server, client);
			receive(client, server);
			complete &= server->distinct == client->sent && client->distinct == server->sent;
		}
		nanosleep(&pause, NULL);
	}
}

static void report(const char *name, const struct end *from, const struct end *to)
{
	uint32_t memory[DROPS + 1] = { 0 };
	socklen_t length = sizeof(memory);

	if (getsockopt(to->fd, SOL_SOCKET, SO_MEMINFO, memory, &length))
		err(1, "SO_MEMINFO");
	printf("\"%s\": {\"sent\": %lu, \"refused\": %lu, \"received\": %lu, \"lost\": %lu, \"doubled\": %lu, "
	       "\"reordered\": %lu, \"overflown\": %u}",
	       name, from->sent, from->refused, to->received, from->sent - to->distinct, to->received - to->distinct,
	       to->reordered, memory[DROPS]);
}

int main(int argc, char **argv)
{
	int count = (argc - 1) / 4;
	struct pair *pairs = calloc(count + 1, sizeof(*pairs));
	uint64_t begin;
	double slowest, seconds;
	bool first;

	if (!count || argc != 4 * count + 1)
		errx(2, "usage: flood RATE CLIENT SERVER ADDRESS [RATE CLIENT SERVER ADDRESS]...");
	if (!pairs)
		err(1, "calloc");
	for (int i = 0; i < BATCH; i++) {
		parts[i] = (struct iovec){ data[i], sizeof(datagram) };
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = &parts[i], .msg_iovlen = 1 };
	}
	for (int i = 0; i < count; i++)
		open_pair(&pairs[i], argv + 1 + 4 * i, PORT + i);
	first = settle();
	printf("ready\n");
	fflush(stdout);
	begin = now();
	slowest = run(pairs, count, begin);
	seconds = (double)(now() - begin) / SECOND;
	finish(pairs, count);
	printf("{\"seconds\": %.3f, \"slowest_second\": %.0f, \"fifo\": %s, \"pairs\": [", seconds, slowest,
	       first ? "true" : "false");
	for (int i = 0; i < count; i++) {
		printf("%s{", i ? ", " : "");
		report("there", &pairs[i].client, &pairs[i].server);
		printf(", ");
		report("back", &pairs[i].server, &pairs[i].client);
		printf("}");
	}
	printf("]}\n");
	return 0;
}
