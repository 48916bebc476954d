#ifndef DBHA_POLICY_OUTCOME_H
#define DBHA_POLICY_OUTCOME_H
#include <stdint.h>
struct xact_mark {
	uint64_t xid;
	uint64_t lsn;
	uint32_t timeline;
	int64_t started_us;
	uint64_t replay_lsn;
	int32_t pid;
};
#endif
