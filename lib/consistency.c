#include "consistency.h"

#include "error.h"
#include "tell.h"

int dbha__consistency_check(dbha *h, const char *what, int consistency, dbha_error *err)
{
	const struct config_options *options = &h->config.options;
	if (consistency < DBHA_CONSISTENCY_DEFAULT || consistency > DBHA_CONSISTENCY_PRIMARY)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: consistency is %d: a dbha_consistency", what, consistency);
	if (consistency == DBHA_CONSISTENCY_BOUNDED && options->max_lag_ms == 0 && options->max_lag_bytes == 0)
		return dbha__fail(err, DBHA_ERR_CONFIG, "%s: consistency=bounded needs max_lag, which is not set", what);
	return DBHA_OK;
}

int dbha__consistency_token(dbha *h, const char *what, const char *text, struct causal *causal, dbha_error *err)
{
	struct token token;
	if (!dbha__token_read(text, &token))
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: \"%.*s\" is no token, or a damaged one", what, DBHA_TOKEN_MAX,
		                  text);
	uint64_t ours = dbha__view_borrow(&h->view)->system_identifier;
	dbha__view_return(&h->view);
	if (!ours)
		ours = causal->floor.timeline ? causal->floor.system_identifier : 0;
	if (ours && token.system_identifier && token.system_identifier != ours)
		return dbha__fail(err, DBHA_ERR_FOREIGN, "%s: the token is of cluster %llu, this one is %llu", what,
		                  (unsigned long long)token.system_identifier, (unsigned long long)ours);
	dbha__causal_see(causal, &token);
	return DBHA_OK;
}

/* A write finds its way without looking at the view, and may be the first that hears of a failover. */
static void follow(dbha *h, struct causal *causal)
{
	struct token lost;
	bool has_lost = dbha__causal_follow(causal, dbha__view_borrow(&h->view), &lost);
	dbha__view_return(&h->view);
	if (has_lost)
		dbha__tell_lost(h, &lost, &causal->floor);
}

void dbha__consistency_at(dbha *h, struct causal *causal, const struct token *position)
{
	if (causal->floor.timeline && causal->floor.timeline < position->timeline)
		follow(h, causal);
	struct token before = causal->floor;
	if (dbha__causal_at(causal, position))
		dbha__tell_lost(h, &before, position);
}

const char *dbha__consistency_tell(dbha *h, struct causal *causal, const struct seen_position *seen)
{
	struct token at = seen->at;
	const struct view *view = dbha__view_borrow(&h->view);
	uint64_t system_identifier = view->system_identifier;
	/* Of what a standby has replayed the timeline is no higher than the newest that is known; too low, it would be taken for lost. */
	if (seen->told && seen->replayed && !at.timeline)
		at.timeline = view->timeline;
	dbha__view_return(&h->view);
	if (!seen->told || !at.timeline)
		return "no token: how far its server has come was asked, and not answered in time";
	if (seen->replayed)
		dbha__causal_see(causal, &at);
	else
		dbha__consistency_at(h, causal, &at);
	if (causal->seen != SEEN_NOTHING)
		return "no token: it was done on an older timeline than what it had to see";
	if (!causal->floor.system_identifier)
		causal->floor.system_identifier = system_identifier;
	return NULL;
}
