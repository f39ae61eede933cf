/* A name server that does not answer holds up nobody but the thread that asks it. */
#include <errno.h>
#include <netdb.h>
#include <semaphore.h>
#include <stdint.h>
#include <sys/socket.h>

#include "relay/resolve.h"
#include "unit.h"

static sem_t asked, answer;

/* In place of the C library's: as slow as the test wants it. */
int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
	struct addrinfo **ret_list)
{
	*ret_list = NULL;
	sem_post(&asked);
	sem_wait(&answer);
	return EAI_AGAIN;
}

static void gone_while_it_is_asked(void **state)
{
	struct resolver *r;
	struct address a;
	struct name *n;

	assert_int_equal(resolver_create(&r), 0);
	n = name_new(r, "name.invalid", 80);
	assert_non_null(n);
	sem_wait(&asked);
	assert_int_equal(name_wait(n, 1000000), -ETIMEDOUT);
	assert_int_equal(name_pick(n, &a), -EHOSTUNREACH);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gone_while_it_is_asked),
		cmocka_unit_test(gone_after_the_answer),
	};

	sem_init(&asked, 0, 0);
	sem_init(&answer, 0, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
