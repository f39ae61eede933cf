/*
 * The cheapest relay that can be: each connection has two threads which block in recv and send.
 * No event loop, limits, counters or safety: what is left is the price of a hop.
 *
 *   hop ENDPOINT TO         until stdin closes
 */
#include "../relay/endpoint.h"

#include <fcntl.h>
#include <pthread.h>

struct way {
	int from, to;
};

static struct endpoint target;

static void *carry(void *arg)
{
	struct way w = *(struct way *)arg;
	char *bytes = malloc(65536);
	ssize_t n = 0;

	while (bytes && (n = recv(w.from, bytes, 65536, 0)) > 0) {
		if (send(w.to, bytes, (size_t)n, MSG_NOSIGNAL) != n)
			break;
	}
	shutdown(w.to, SHUT_WR);
	free(bytes);
	return NULL;
}

static void *serve(void *arg)
{
	struct way there = {(int)(intptr_t)arg, endpoint_socket(&target, 0, 0)};
	struct way back = {there.to, there.from};
	pthread_t thread;

	if (fcntl(there.to, F_SETFL, 0) < 0 ||
		connect(there.to, (struct sockaddr *)&target.addr, target.addr_size) ||
		pthread_create(&thread, NULL, carry, &back))
		die("hop");
	carry(&there);
	pthread_join(thread, NULL);
	close(there.from);
	close(there.to);
	return NULL;
}

static void *accept_all(void *arg)
{
	int fd, one = 1;

	while ((fd = accept4((int)(intptr_t)arg, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		pthread_t thread;

		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd) ||
			pthread_detach(thread))
			die("pthread_create");
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	char byte;
	int fd;

	if (argc != 3) {
		fprintf(stderr, "usage: hop ENDPOINT TO\n");
		return 2;
	}
	target = endpoint_parse(argv[2]);
	fd = endpoint_listen(argv[1], 0, 0);
	if (fcntl(fd, F_SETFL, 0) < 0 ||
		pthread_create(&thread, NULL, accept_all, (void *)(intptr_t)fd))
		die("hop");
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}
