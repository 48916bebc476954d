/*
 * unit: what every test program ends in: UNIT_MAIN(the function that makes its suite).
 *
 * The environment is Check's own: CK_DEFAULT_TIMEOUT for the tests that set no limit of theirs, CK_VERBOSITY (normal unless told),
 * CK_RUN_CASE, CK_FORK, CK_TAP_LOG_FILE_NAME.
 */
#ifndef UNIT_H
#define UNIT_H

#include <check.h>
#include <stdlib.h>

/* Runs the suite and frees it. Returns the exit status of the program. */
static inline int unit_run(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#define UNIT_MAIN(make_suite)                                                                                          \
	int main(void)                                                                                                     \
	{                                                                                                                  \
		return unit_run(make_suite());                                                                                 \
	}

#endif
