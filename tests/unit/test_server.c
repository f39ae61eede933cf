/* The control socket and its client: answers, exit codes, who may do what, stale and busy sockets.
 */
#include "unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "control/server.h"

static void on_echo(void *ctx, const struct server_request *request, struct server_reply *reply)
{
	const char *word = server_request_arg(request, "word");

	server_reply_text(reply, 200, "%s", word ? word : "nothing");
}

static void on_refuse(void *ctx, const struct server_request *request, struct server_reply *reply)
{
	server_reply_text(reply, 400, "no");
}

/* What a change found while it was made. */
struct changing {
	struct server *s;
	const char *path;
	int made;
};

static int request(struct server *s, const char *socket, const char *method, const char *path,
	char **ret_text);

/* Whoever reads is answered while it is made; another change is not. */
static void on_change(void *ctx, const struct server_request *request_, struct server_reply *reply)
{
	struct changing *c = ctx;
	char *text;

	c->made++;
	assert_int_equal(request(c->s, c->path, "GET", "/echo?word=hi", &text), EXIT_CODE_DONE);
	assert_string_equal(text, "hi\n");
	free(text);
	server_reply_text(reply, 200, "%s", server_request_arg(request_, "word"));
}

static const struct server_route routes[] = {
	{"GET", "/echo", on_echo},
	{"POST", "/echo", on_echo},
	{"POST", "/refuse", on_refuse},
	{"POST", "/change", on_change, .change = true},
	{0},
};

struct request {
	const char *socket, *method, *path;
	char *text;
	int code;
	_Atomic int done;
};

static void *ask(void *ctx)
{
	struct request *r = ctx;

	r->code = client_request(r->socket, r->method, r->path, &r->text);
	r->done = 1;
	return NULL;
}

/* Asks in a second thread, as the server lives in this one. */
static int request(
	struct server *s, const char *socket, const char *method, const char *path, char **ret_text)
{
	struct request r = {.socket = socket, .method = method, .path = path};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, ask, &r), 0);
	while (!r.done) {
		struct pollfd fd = {.fd = server_fd(s), .events = POLLIN};

		(void)poll(&fd, 1, 10);
		server_run(s);
	}
	pthread_join(thread, NULL);
	*ret_text = r.text;
	return r.code;
}

static char folder[] = "/tmp/culvert-test-XXXXXX";
static char path[64];

static void answers_and_exit_codes(void **state)
{
	char query[128] = "/echo";
	struct server *s;
	struct reason r;
	struct stat st;
	char *text;

	assert_int_equal(server_open_unix(path, routes, NULL, &s, &r), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(client_path_add(query, sizeof(query), "word", "dpdk:net_null0,a=b &c"), 0);
	assert_int_equal(request(s, path, "GET", query, &text), EXIT_CODE_DONE);
	assert_string_equal(text, "dpdk:net_null0,a=b &c\n");
	free(text);
	assert_int_equal(request(s, path, "POST", "/refuse", &text), EXIT_CODE_USAGE);
	assert_string_equal(text, "no\n");
	free(text);
	assert_int_equal(request(s, path, "GET", "/absent", &text), EXIT_CODE_FAILED);
	free(text);
	server_close(s);
	assert_int_equal(access(path, F_OK), -1);
}

static void stale_is_replaced_busy_is_not(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct server *first, *second;
	struct reason r;

	strcpy(address.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	assert_int_equal(server_open_unix(path, routes, NULL, &first, &r), 0);
	assert_int_equal(server_open_unix(path, routes, NULL, &second, &r), -EADDRINUSE);
	assert_non_null(strstr(r.what, "another culvert"));
	server_close(first);
}

/* Without waiting for the answer. */
static int post(const char *line)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char text[128];
	int n = snprintf(text, sizeof(text),
		"POST %s HTTP/1.1\r\nHost: culvert\r\nContent-Length: 0\r\n\r\n", line);

	strcpy(address.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(send(fd, text, (size_t)n, 0), n);
	return fd;
}

static void run_often(struct server *s)
{
	for (int i = 0; i < 20; i++)
		server_run(s);
}

static void expect_answer(int fd, const char *code, const char *word)
{
	char text[1024] = "";

	assert_true(recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT) > 0);
	assert_non_null(strstr(text, code));
	assert_non_null(strstr(text, word));
	close(fd);
}

static void changes_wait_their_turn(void **state)
{
	struct changing c = {.path = path};
	int one, gone, half, two, late;
	struct reason r;

	assert_int_equal(server_open_unix(path, routes, &c, &c.s, &r), 0);
	assert_false(server_change(c.s));
	one = post("/change?word=one");
	gone = post("/change?word=gone");
	half = post("/change?word=half");
	two = post("/change?word=two");
	late = post("/change?word=late");
	run_often(c.s);
	assert_int_equal(c.made, 0);
	assert_true(server_change(c.s));
	assert_int_equal(c.made, 1);
	close(gone);
	assert_true(server_change(c.s));
	assert_int_equal(c.made, 1);
	assert_int_equal(shutdown(half, SHUT_WR), 0); /* it has said all, and may listen */
	assert_true(server_change(c.s));
	assert_int_equal(c.made, 2);
	close(half);
	assert_true(server_change(c.s));
	assert_int_equal(c.made, 3);
	run_often(c.s);
	expect_answer(one, " 200 ", "\r\n\r\none\n");
	expect_answer(two, " 200 ", "\r\n\r\ntwo\n");
	server_close(c.s);
	assert_int_equal(c.made, 3);
	expect_answer(late, " 503 ", "culvert is stopping");
}

#define MANY 100 /* more than may be connected at once */

/* Who reads is answered however many wait, and those that gave up take nobody's place. */
static void changes_leave_room(void **state)
{
	struct changing c = {.path = path};
	int fds[MANY], n = 0, fd;
	struct reason r;
	char *text;

	assert_int_equal(server_open_unix(path, routes, &c, &c.s, &r), 0);
	for (int i = 0; i < MANY; i++) {
		char byte;

		fd = post("/change?word=one");
		run_often(c.s);
		if (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1)
			expect_answer(fd, " 503 ", "changes wait already");
		else
			fds[n++] = fd;
	}
	assert_int_equal(request(c.s, path, "GET", "/echo?word=hi", &text), EXIT_CODE_DONE);
	free(text);
	while (n > 0)
		close(fds[--n]);
	run_often(c.s);
	fd = post("/change?word=two");
	run_often(c.s);
	assert_true(server_change(c.s));
	run_often(c.s);
	expect_answer(fd, " 200 ", "two");
	assert_false(server_change(c.s));
	assert_int_equal(c.made, 1);
	server_close(c.s);
}

/* Its descriptor would stay open until the next look at time-outs. */
static void client_that_leaves_is_seen(void **state)
{
	struct changing c = {.path = path};
	struct pollfd p = {.events = POLLIN};
	struct reason r;
	int fd;

	assert_int_equal(server_open_unix(path, routes, &c, &c.s, &r), 0);
	fd = post("/change?word=one");
	run_often(c.s);
	assert_true(server_change(c.s));
	server_run(c.s);
	expect_answer(fd, " 200 ", "one"); /* and closes */
	p.fd = server_fd(c.s);
	assert_int_equal(poll(&p, 1, 1000), 1);
	server_close(c.s);
}

/* A slip of --socket must not cost a file. */
static void what_is_no_socket_stays(void **state)
{
	FILE *f = fopen(path, "w");
	struct server *s;
	struct reason r;

	assert_non_null(f);
	fclose(f);
	assert_int_equal(server_open_unix(path, routes, NULL, &s, &r), -EADDRINUSE);
	assert_non_null(strstr(r.remedy, "a file of that name is there"));
	assert_int_equal(unlink(path), 0); /* it was there still */
}

/* Nor may it leave a folder. */
static void folder_must_be_there(void **state)
{
	char nowhere[96], folder_of_it[80];
	struct server *s;
	struct reason r;

	snprintf(folder_of_it, sizeof(folder_of_it), "%s/nodir", folder);
	snprintf(nowhere, sizeof(nowhere), "%s/s", folder_of_it);
	assert_int_equal(server_open_unix(nowhere, routes, NULL, &s, &r), -ENOENT);
	assert_non_null(strstr(r.what, "/nodir does not exist"));
	assert_non_null(strstr(r.remedy, "--socket"));
	assert_int_equal(access(folder_of_it, F_OK), -1);
}

static int exchange(
	unsigned int port, const char *ask_for, struct server *s, char *ret, size_t size)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	size_t got = 0;

	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(send(fd, ask_for, strlen(ask_for), 0), (ssize_t)strlen(ask_for));
	for (int turns = 0; turns < 1000; turns++) {
		ssize_t n;

		server_run(s);
		n = recv(fd, ret + got, size - 1 - got, MSG_DONTWAIT);
		if (n == 0)
			break;
		if (n > 0)
			got += (size_t)n;
		else
			usleep(1000);
	}
	ret[got] = '\0';
	close(fd);
	return 0;
}

static void tcp_only_reads(void **state)
{
	struct server *s;
	struct reason r;
	char text[2048];

	assert_int_equal(server_open_tcp("127.0.0.1:0", routes, NULL, &s, &r), 0);
	exchange(server_tcp_port(s), "GET /echo?word=hi HTTP/1.0\r\n\r\n", s, text, sizeof(text));
	assert_non_null(strstr(text, " 200 "));
	assert_non_null(strstr(text, "\r\n\r\nhi\n"));
	exchange(server_tcp_port(s), "POST /echo HTTP/1.0\r\nContent-Length: 0\r\n\r\n", s, text,
		sizeof(text));
	assert_non_null(strstr(text, " 403 "));
	server_close(s);
	assert_int_equal(server_open_tcp("nonsense", routes, NULL, &s, &r), -EINVAL);
}

/* The error line goes on with what helps. */
static void daemon_that_says_nothing(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct request r = {.socket = path, .method = "POST", .path = "/change"};
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), standard = dup(STDERR_FILENO), said[2], fd;
	char text[512] = "", asked[512];
	pthread_t thread;

	strcpy(address.sun_path, path);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(pipe(said), 0);
	dup2(said[1], STDERR_FILENO);
	assert_int_equal(pthread_create(&thread, NULL, ask, &r), 0);
	fd = accept(listener, NULL, NULL);
	assert_true(recv(fd, asked, sizeof(asked), 0) > 0);
	close(fd);
	pthread_join(thread, NULL);
	dup2(standard, STDERR_FILENO);
	assert_true(read(said[0], text, sizeof(text) - 1) > 0);
	assert_int_equal(r.code, EXIT_CODE_FAILED);
	assert_non_null(strstr(text, "does not answer"));
	assert_non_null(strstr(text, "`culvert status` shows what a change waits for"));
	close(said[0]);
	close(said[1]);
	close(standard);
	close(listener);
	unlink(path);
}

static int make_folder(void **state)
{
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/s", folder);
	return 0;
}

static int remove_folder(void **state)
{
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_and_exit_codes),
		cmocka_unit_test(changes_wait_their_turn),
		cmocka_unit_test(changes_leave_room),
		cmocka_unit_test(client_that_leaves_is_seen),
		cmocka_unit_test(stale_is_replaced_busy_is_not),
		cmocka_unit_test(what_is_no_socket_stays),
		cmocka_unit_test(folder_must_be_there),
		cmocka_unit_test(tcp_only_reads),
		cmocka_unit_test(daemon_that_says_nothing),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
