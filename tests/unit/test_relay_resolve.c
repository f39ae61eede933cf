/* A name server that does not answer holds up nobody but the thread that asks it. */
#include <errno.h>
#include <netdb.h>
#include <semaphore.h>
#include <stdint.h>
#include <sys/socket.h>

#include "relay/resolve.h"
#include "unit.h"

static sem_t asked, answer;
static struct addrinfo *found; /* NULL: nothing */

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

static unsigned int pick(struct name *n, uint32_t *ret_ticket)
{
	struct address a;

	assert_int_equal(name_pick(n, &a, ret_ticket), 0);
	assert_int_not_equal(*ret_ticket, 0);
	return ntohs(a.in.sin_port);
}

/* Three addresses in turn, told apart by their ports; those that fail are left out. */
static void failed_addresses(void **state)
{
	struct sockaddr_in in[3];
	struct addrinfo list[3];
	uint32_t tickets[3], ticket;
	struct resolver *r;
	struct name *n;

	for (int i = 0; i < 3; i++) {
		in[i] = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)i)};
		list[i] = (struct addrinfo){.ai_addr = (struct sockaddr *)&in[i],
			.ai_addrlen = sizeof(in[i]),
			.ai_next = i < 2 ? &list[i + 1] : NULL};
	}
	found = list;
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gone_while_it_is_asked),
		cmocka_unit_test(gone_after_the_answer),
		cmocka_unit_test(failed_addresses),
	};

	sem_init(&asked, 0, 0);
	sem_init(&answer, 0, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
