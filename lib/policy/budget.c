#include "budget.h"

/* In hundredths of a retry, so that a percentage needs no division. */
#define RETRY 100

static int64_t bucket(const struct budget *budget)
{
	return RETRY * ((int64_t)budget->connections + BUDGET_FLOOR_PER_S);
}

int64_t dbha__budget_earned(const struct budget *budget, int64_t statements, int64_t elapsed_us)
{
	int64_t floor = elapsed_us / 1000 * BUDGET_FLOOR_PER_S * RETRY / 1000;
	return bucket(budget) + statements * budget->percent + floor;
}

bool dbha__budget_spend(const struct budget *budget, int64_t earned, int64_t *spent)
{
	if (budget->percent == 0)
		return true;
	/* What would not fit into the bucket is lost. */
	int64_t least = earned - bucket(budget);
	int64_t now = RETRY + (*spent > least ? *spent : least);
	if (now > earned)
		return false;
	*spent = now;
	return true;
}
