/* Drivers that take their time, fail, or never come back, while control waits for them. */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "control/state.h"

static sem_t may_go_on; /* what the driver waits for */
static pthread_t caller;
static uint32_t closed;

static int engine_open(const struct port_settings *s, const struct memory *m,
	struct port **ret_port, struct reason *r)
{
	assert_false(pthread_equal(pthread_self(), caller));
	sem_wait(&may_go_on);
	if (strcmp(s->device, "fake:bad") == 0)
		return reason_set(r, -ENODEV, "another", "no %s", s->device);
	*ret_port = calloc(1, sizeof(**ret_port));
	assert_non_null(*ret_port);
	(*ret_port)->engine = m->engine;
	return 0;
}

static void engine_close(struct port *p)
{
	assert_false(pthread_equal(pthread_self(), caller));
	sem_wait(&may_go_on);
	free(p);
	closed++;
}

static const struct engine_ops engine = {
	.name = "fake", .open = engine_open, .close = engine_close, .may_hang = true};
static const struct memory memory = {.engine = &engine};
static const struct daemon_options options;

static struct daemon *make(struct daemon_port **ret_port, const char *device)
{
	struct daemon *d = calloc(1, sizeof(*d));
	sigset_t set;

	assert_non_null(d);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	d->options = &options;
	d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	assert_true(d->signal_fd >= 0);
	*ret_port = &d->ports[3];
	(*ret_port)->plan.engine = &engine;
	strcpy((*ret_port)->asked.name, "wan");
	strcpy((*ret_port)->asked.device, device);
	return d;
}

static void end(struct daemon *d)
{
	close(d->signal_fd);
	free(d);
}

static int driver_opens(struct daemon *d, struct daemon_port *p, struct reason *r)
{
	const struct port_settings s = {.name = p->asked.name, .device = p->asked.device};

	return driver_open(d, p, &s, &memory, r);
}

static void opens_and_closes(void **state)
{
	struct daemon_port *p;
	struct daemon *d = make(&p, "fake:good");
	struct reason r = {0};

	sem_post(&may_go_on);
	assert_int_equal(driver_opens(d, p, &r), 0);
	assert_non_null(p->port);
	assert_null(p->at);
	sem_post(&may_go_on);
	driver_close(d, p);
	assert_null(p->port);
	assert_int_equal(closed, 1);
	assert_null(d->hung);
	end(d);
}

static void fails_with_its_reason(void **state)
{
	struct daemon_port *p;
	struct daemon *d = make(&p, "fake:bad");
	struct reason r = {0};

	sem_post(&may_go_on);
	assert_int_equal(driver_opens(d, p, &r), -ENODEV);
	assert_string_equal(r.what, "no fake:bad");
	assert_string_equal(r.remedy, "another");
	assert_null(p->port);
	end(d);
}

/* Told to end, control waits for a while, in which the driver may come back. */
static void told_to_end_it_waits(void **state)
{
	struct daemon_port *p;
	struct daemon *d = make(&p, "fake:good");
	struct reason r = {0};

	d->stopping = true;
	sem_post(&may_go_on);
	assert_int_equal(driver_opens(d, p, &r), 0);
	assert_null(d->hung);
	sem_post(&may_go_on);
	driver_close(d, p);
	assert_null(d->hung);
	end(d);
}

/* A second signal: no more waiting. */
static void told_twice_it_leaves_it_behind(void **state)
{
	struct daemon_port *p;
	struct daemon *d = make(&p, "fake:good");
	struct reason r = {0};
	uint64_t began_ns;

	d->stopping = true;
	raise(SIGTERM);
	began_ns = daemon_now_ns();
	assert_int_equal(driver_opens(d, p, &r), -ECANCELED);
	assert_true(daemon_now_ns() - began_ns < 3 * SECOND_NS); /* of 5 for who has patience */
	assert_string_equal(r.what, "culvert is stopping");
	assert_ptr_equal(d->hung, &engine);
	assert_null(p->port);
	sem_post(&may_go_on); /* what it makes is its own */
	end(d);
}

/* A thread that is left behind has no list that its caller frees. */
static void none_that_may_hang_has_addresses(void **state)
{
	for (int i = 0; engines[i]; i++)
		assert_false(engines[i]->may_hang && engines[i]->host_addresses);
}

static int setup(void **state)
{
	sigset_t set;

	caller = pthread_self();
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	return pthread_sigmask(SIG_BLOCK, &set, NULL) || sem_init(&may_go_on, 0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opens_and_closes),
		cmocka_unit_test(fails_with_its_reason),
		cmocka_unit_test(told_to_end_it_waits),
		cmocka_unit_test(told_twice_it_leaves_it_behind),
		cmocka_unit_test(none_that_may_hang_has_addresses),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
