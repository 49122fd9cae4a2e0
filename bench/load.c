/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * One measurement between two network namespaces, all of it on one core:
 *
 *   load METHOD SERVER_NETNS CLIENT_NETNS ADDRESS MILLISECONDS CPU
 *
 * METHOD   prints
 * rr       median time of one byte there and back over TCP, ns
 * udp      datagrams of 64 bytes that arrived, per second
 * tcp      bits per second of one TCP stream
 * connect  TCP connections per second: opened, one byte there and back, closed
 * send     time of sending a datagram of 64 bytes that nobody need receive, ns
 * nops     time of 1,000 instructions that do nothing, ns: tells whether a virtual clock counts instructions
 *
 * The second word is the scheduling class that it got: fifo or other.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PORT 7007
#define BURST 64
#define DATAGRAM 64
#define CHUNK (128 << 10)
#define MAX_SAMPLES (4 << 20)

static struct sockaddr_in address;

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* Sockets made from here on belong to this namespace. */
static void enter(const char *netns)
{
	int fd = open(netns, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || setns(fd, CLONE_NEWNET))
		err(1, "enter %s", netns);
	close(fd);
}

/* Alone on one core if the machine lets us; a real-time class keeps its other work away. */
static const char *settle(int cpu)
{
	struct sched_param fifo = { .sched_priority = 1 };
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		err(1, "run on CPU %d", cpu);
	return sched_setscheduler(0, SCHED_FIFO, &fifo) ? "other" : "fifo";
}

static int open_socket(int type)
{
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0), yes = 1;

	if (fd < 0)
		err(1, "socket");
	if (type == SOCK_STREAM && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes)))
		err(1, "TCP_NODELAY");
	return fd;
}

static int serve(int type)
{
	int fd = open_socket(type), yes = 1;

	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) ||
	    bind(fd, (struct sockaddr *)&address, sizeof(address)))
		err(1, "bind");
	if (type == SOCK_STREAM && listen(fd, 128))
		err(1, "listen");
	return fd;
}

static int dial(int type)
{
	int fd = open_socket(type);

	if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
		err(1, "connect");
	return fd;
}

static int answer(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		err(1, "accept");
	return fd;
}

static void put(int fd)
{
	if (send(fd, "x", 1, MSG_NOSIGNAL) != 1)
		err(1, "send");
}

static void take(int fd)
{
	char byte;

	if (recv(fd, &byte, 1, 0) != 1)
		err(1, "receive");
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void rr_server(int listener)
{
	char byte;
	int fd = answer(listener), yes = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	while (recv(fd, &byte, 1, 0) == 1)
		put(fd);
}

static double rr_client(uint64_t duration)
{
	uint32_t *samples = malloc(MAX_SAMPLES * sizeof(*samples));
	uint64_t before, after, end;
	size_t n = 0;
	int fd = dial(SOCK_STREAM);

	if (!samples)
		err(1, "malloc");
	after = now();
	end = after + duration;
	do {
		before = after;
		put(fd);
		take(fd);
		after = now();
		samples[n++] = after - before;
	} while (after < end && n < MAX_SAMPLES);
	qsort(samples, n, sizeof(*samples), compare);
	return samples[n / 2];
}

static void tcp_server(int listener)
{
	static char data[CHUNK];
	int fd = answer(listener);

	while (recv(fd, data, sizeof(data), 0) > 0)
		;
}

static double tcp_client(uint64_t duration)
{
	static char data[CHUNK];
	uint64_t sent = 0, begin = now();
	int fd = dial(SOCK_STREAM);
	char byte;

	while (now() - begin < duration) {
		ssize_t n = send(fd, data, sizeof(data), MSG_NOSIGNAL);

		if (n < 0)
			err(1, "send");
		sent += n;
	}
	shutdown(fd, SHUT_WR);
	if (recv(fd, &byte, 1, 0) != 0) /* the server ends when it has read everything */
		err(1, "receive");
	return sent * 8e9 / (now() - begin);
}

static void connect_server(int listener)
{
	for (;;) {
		int fd = answer(listener);

		take(fd);
		put(fd);
		close(fd);
	}
}

static double connect_client(uint64_t duration)
{
	struct linger reset = { .l_onoff = 1 }; /* else TIME_WAIT would use up the ports */
	uint64_t begin = now(), end = begin + duration, n = 0;

	do {
		int fd = dial(SOCK_STREAM);

		put(fd);
		take(fd);
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(fd);
		n++;
	} while (now() < end);
	return n * 1e9 / (now() - begin);
}

/* One thread at both ends: a sender on the receiver's core could otherwise only flood it. */
static double udp(int receiver, uint64_t duration)
{
	struct timeval patience = { .tv_usec = 20000 };
	char data[DATAGRAM] = { 0 };
	uint64_t begin, arrived = 0;
	int sender = dial(SOCK_DGRAM);

	setsockopt(receiver, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	begin = now();
	while (now() - begin < duration) {
		for (int i = 0; i < BURST; i++)
			if (send(sender, data, sizeof(data), 0) != sizeof(data))
				err(1, "send");
		for (int i = 0; i < BURST; i++) {
			if (recv(receiver, data, sizeof(data), 0) != sizeof(data))
				errx(1, "a datagram was lost");
			arrived++;
		}
	}
	return arrived * 1e9 / (now() - begin);
}

/* A device has time to empty its queue after each burst, and that time does not count. */
static double send_only(int receiver, uint64_t duration)
{
	struct timespec pause = { .tv_nsec = 1000000 };
	char data[DATAGRAM] = { 0 };
	uint64_t spent = 0, sent = 0;
	int sender = dial(SOCK_DGRAM);

	(void)receiver;
	while (spent < duration) {
		uint64_t begin = now();

		for (int i = 0; i < BURST; i++)
			if (send(sender, data, sizeof(data), 0) != sizeof(data))
				err(1, "send");
		spent += now() - begin;
		sent += BURST;
		nanosleep(&pause, NULL);
	}
	return (double)spent / sent;
}

static double nops(int receiver, uint64_t duration)
{
	uint64_t begin = now(), end = begin, n = 0;

	(void)receiver;
	for (; end - begin < duration; end = now(), n += 100)
		for (int i = 0; i < 100; i++)
			asm volatile(".rept 1000\n\tnop\n\t.endr");
	return (double)(end - begin) / n;
}

/* Either a server and a client, or one that is both. */
static const struct method {
	const char *name;
	void (*server)(int listener);
	double (*client)(uint64_t duration);
	double (*both)(int receiver, uint64_t duration);
} methods[] = {
	{ "rr", rr_server, rr_client, NULL },
	{ "tcp", tcp_server, tcp_client, NULL },
	{ "connect", connect_server, connect_client, NULL },
	{ "udp", NULL, NULL, udp },
	{ "send", NULL, NULL, send_only },
	{ "nops", NULL, NULL, nops },
};

static const struct method *find(const char *name)
{
	for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++)
		if (!strcmp(methods[i].name, name))
			return &methods[i];
	errx(2, "no method %s", name);
}

static double stream(const struct method *method, int listener, uint64_t duration)
{
	pid_t server = fork();
	double result;

	if (server < 0)
		err(1, "fork");
	if (!server) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		method->server(listener);
		_exit(0);
	}
	close(listener); /* so that a dead server is a refused connection, not a wait */
	result = method->client(duration);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	return result;
}

int main(int argc, char **argv)
{
	const struct method *method;
	const char *class;
	uint64_t duration;
	double result;
	int server;

	if (argc != 7)
		errx(2, "usage: load METHOD SERVER_NETNS CLIENT_NETNS ADDRESS MILLISECONDS CPU");
	method = find(argv[1]);
	address.sin_family = AF_INET;
	address.sin_port = htons(PORT);
	if (inet_pton(AF_INET, argv[4], &address.sin_addr) != 1)
		errx(2, "no IPv4 address: %s", argv[4]);
	duration = strtoull(argv[5], NULL, 10) * 1000000;
	class = settle(atoi(argv[6]));
	enter(argv[2]);
	server = serve(method->both ? SOCK_DGRAM : SOCK_STREAM);
	enter(argv[3]);
	result = method->both ? method->both(server, duration) : stream(method, server, duration);
	printf("%.1f %s\n", result, class);
	return 0;
}
