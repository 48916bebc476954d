/*
 * names: the words for roles, states and events, from the tables of the public header.
 */
#include "dbha.h"

const char *dbha_role_name(int role)
{
	switch (role) {
	case DBHA_ROLE_UNKNOWN:
		return "unknown";
	case DBHA_ROLE_PRIMARY:
		return "primary";
	case DBHA_ROLE_STANDBY:
		return "standby";
	default:
		return "?";
	}
}

const char *dbha_state_name(int state)
{
	switch (state) {
#define DBHA_XX(name, number, word, text)                                                                              \
	case number:                                                                                                       \
		return word;
		DBHA_STATE_MAP(DBHA_XX)
#undef DBHA_XX
	default:
		return "?";
	}
}

const char *dbha_event_name(int kind)
{
	switch (kind) {
#define DBHA_XX(name, number, word, text)                                                                              \
	case number:                                                                                                       \
		return word;
		DBHA_EVENT_MAP(DBHA_XX)
#undef DBHA_XX
	default:
		return "?";
	}
}

const char *dbha_reason_name(int reason)
{
	switch (reason) {
#define DBHA_XX(name, number, word, text)                                                                              \
	case number:                                                                                                       \
		return word;
		DBHA_REASON_MAP(DBHA_XX)
#undef DBHA_XX
	default:
		return "?";
	}
}

const char *dbha_reason_text(int reason)
{
	switch (reason) {
#define DBHA_XX(name, number, word, text)                                                                              \
	case number:                                                                                                       \
		return text;
		DBHA_REASON_MAP(DBHA_XX)
#undef DBHA_XX
	default:
		return "?";
	}
}
