/*
 * batch_work: batches of the tests: n statements with what they came to. Rows are "rows (id bigint PRIMARY KEY, filler text)".
 */
#ifndef BATCH_WORK_H
#define BATCH_WORK_H

#include "cluster.h"

/* A batch, and what became of it. Made by pack_new, freed at the end of the test. */
struct pack {
	int n;
	dbha_batch_request rq;
	dbha_request *requests;
	const char *(*values)[2];
	char (*ids)[16];
	PGresult **results;
	int *codes;
	int failed;
	dbha_result_route route;
	int code;
	dbha_error err;
	int64_t took_ms;
	/* For a thread. */
	dbha *h;
	dbha_session *s;
	atomic_bool done;
};

/* n inserts with the ids 0 to n-1, and this filler. */
struct pack *pack_inserts(int n, int each, const char *filler);

/* n times this text, without parameters. */
struct pack *pack_texts(int n, int each, const char *sql);

/* Another text for one of them. */
void pack_text(struct pack *p, int i, const char *sql);

void packs_free(void);

/* Runs it; h or s. Results of an earlier run are freed. */
int fire(struct pack *p, dbha *h);
int fire_in(struct pack *p, dbha_session *s);

/* The same in a thread; `done` says when. */
void fire_in_a_thread(struct pack *p, dbha *h, dbha_session *s);

/* How many of them have this code. */
int pack_count(const struct pack *p, int code);

/* Of a batch of inserts that ended in some way: whether the rows of this node agree with what was said of them. */
void pack_expect_truth(const struct pack *p, const struct cluster *c, int node);

#endif
