/* A name server that does not answer holds up nobody but the thread that asks it. */
#include <errno.h>
#include <netdb.h>
#include <semaphore.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "relay/resolve.h"
#include "unit.h"

static sem_t asked, answer;
/* NULL: nothing. The thread that the first test leaves behind may look at any time. */
static struct addrinfo *_Atomic found;

/* In place of the C library's: as slow as the test wants it. */
int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
	struct addrinfo **ret_list)
{
	*ret_list = found;
	sem_post(&asked);
	sem_wait(&answer);
	return found ? 0 : EAI_AGAIN;
}

void freeaddrinfo(struct addrinfo *list)
{
	(void)list;
}

static void gone_while_it_is_asked(void **state)
{
	struct resolver *r;
	struct address a;
	uint32_t ticket;
	struct name *n;

	assert_int_equal(resolver_create(&r), 0);
	n = name_new(r, "name.invalid", 80);
	assert_non_null(n);
	sem_wait(&asked);
	assert_int_equal(name_wait(n, 1000000), -ETIMEDOUT);
	assert_int_equal(name_pick(n, &a, &ticket), -EHOSTUNREACH);
	name_free(r, n); /* these two wait for nothing, or the test would never end */
	resolver_free(r);
	sem_post(&answer);
}

static void gone_after_the_answer(void **state)
{
	struct resolver *r;
	struct name *n;

	assert_int_equal(resolver_create(&r), 0);
	n = name_new(r, "name.invalid", 80);
	assert_non_null(n);
	sem_wait(&asked);
	sem_post(&answer);
	assert_int_equal(name_wait(n, 60000000000), -ENOENT);
	name_free(r, n);
	resolver_free(r);
}

/* In place of the C library's: as late as the test wants it. */
static _Atomic time_t later_s;

int clock_gettime(clockid_t clock, struct timespec *ret_time)
{
	int r = (int)syscall(SYS_clock_gettime, clock, ret_time);

	ret_time->tv_sec += later_s;
	return r;
}

static unsigned int pick(struct name *n, uint32_t *ret_ticket)
{
	struct address a;

	assert_int_equal(name_pick(n, &a, ret_ticket), 0);
	assert_int_not_equal(*ret_ticket, 0);
	return ntohs(a.in.sin_port);
}

/* An answer of n addresses, told apart by their ports. */
static void find(unsigned int first, unsigned int n)
{
	static struct sockaddr_in in[3];
	static struct addrinfo list[3];

	for (unsigned int i = 0; i < n; i++) {
		in[i] = (struct sockaddr_in){
			.sin_family = AF_INET, .sin_port = htons((uint16_t)((first + i) % n))};
		list[i] = (struct addrinfo){.ai_addr = (struct sockaddr *)&in[i],
			.ai_addrlen = sizeof(in[i]),
			.ai_next = i < n - 1 ? &list[i + 1] : NULL};
	}
	found = list;
}

/* Three addresses in turn, told apart by their ports; those that fail are left out. */
static void failed_addresses(void **state)
{
	uint32_t tickets[3], ticket;
	struct resolver *r;
	struct name *n;

	find(0, 3);
	assert_int_equal(resolver_create(&r), 0);
	n = name_new(r, "name.invalid", 80);
	assert_non_null(n);
	assert_false(name_has_more(n));
	sem_post(&answer);
	assert_int_equal(name_wait(n, 60000000000), 0);
	for (unsigned int i = 0; i < 6; i++)
		assert_int_equal(pick(n, &tickets[i % 3]), i % 3);
	name_failed(n, tickets[1]);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(pick(n, &ticket), i % 2 ? 2 : 0);
	name_failed(n, tickets[0]);
	assert_true(name_has_more(n));
	assert_int_equal(pick(n, &ticket), 2);
	name_failed(n, ticket);
	assert_false(name_has_more(n));
	for (unsigned int i = 0; i < 3; i++) /* rather one that failed than none */
		assert_int_equal(pick(n, &ticket), i);
	name_reached(n, ticket);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(pick(n, &ticket), 2);
	name_failed(n, 0); /* of a connection that had no address yet */
	assert_true(name_has_more(n));
	name_free(r, n);
	resolver_free(r);
	found = NULL;
}

/* One attempt may try what had failed before the next answer, which has the addresses in another
 * order; and an attempt may last until then. */
static void the_next_answer(void **state)
{
	uint32_t tickets[3], ticket, again;
	struct name *n, *other;
	struct resolver *r;

	while (sem_trywait(&asked) == 0) /* of the tests before */
		;
	find(0, 3);
	assert_int_equal(resolver_create(&r), 0);
	n = name_new(r, "name.invalid", 80);
	assert_non_null(n);
	sem_wait(&asked);
	sem_post(&answer);
	assert_int_equal(name_wait(n, 60000000000), 0);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(pick(n, &tickets[i]), i);
	name_failed(n, tickets[1]);
	find(2, 3);
	later_s = 31;
	other = name_new(r, "other.invalid", 80); /* wakes the thread, which finds n due after it */
	assert_non_null(other);
	for (int i = 0; i < 2; i++) {
		sem_wait(&asked);
		sem_post(&answer);
	}
	name_free(r, other);
	other = name_new(r, "other.invalid", 80); /* asked when n has its answer */
	assert_non_null(other);
	sem_wait(&asked);
	sem_post(&answer);
	assert_int_equal(name_wait(other, 60000000000), 0);
	assert_int_equal(pick(n, &ticket), 1);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(pick(n, &again), i % 2 ? 0 : 2);
	name_reached(n, ticket);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(pick(n, &again), (i + 1) % 3);
	name_failed(n, tickets[1]);
	name_failed(n, tickets[2]);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pick(n, &ticket), 0);
	name_failed(n, tickets[0]);
	assert_false(name_has_more(n));
	name_free(r, other);
	name_free(r, n);
	resolver_free(r);
	found = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gone_while_it_is_asked),
		cmocka_unit_test(gone_after_the_answer),
		cmocka_unit_test(failed_addresses),
		cmocka_unit_test(the_next_answer),
	};

	sem_init(&asked, 0, 0);
	sem_init(&answer, 0, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
