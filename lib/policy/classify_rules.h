/*
 * classify_rules: the table of what is harmless in a parse tree, for classify. Data only.
 */
#ifndef DBHA_POLICY_CLASSIFY_RULES_H
#define DBHA_POLICY_CLASSIFY_RULES_H

#include <stdbool.h>

/* What stands behind a member's name, and what is done with it. */
enum member_is {
	IS_SCALAR,    /* a number, a word, a text: says nothing that matters */
	IS_ANYTHING,  /* the same, with brackets */
	IS_NODES,     /* {"NodeName": {...}}, {} or a list of them */
	IS_OBJECT,    /* an object whose kind the member's name tells: `rule` */
	IS_WRAPPED,   /* a list of {"NodeName": {...}} where `rule` decides instead of the node's own */
	IS_FUNCTION,  /* lists of String: the name of a function */
	IS_OPERATOR,  /* of an operator */
	IS_TYPE,      /* of a type */
	IS_SAMPLE,    /* of a way to sample */
	IS_COLUMN,    /* of a column, whose last part may be a function */
	IS_ATTRIBUTE, /* what is taken from a value, among other nodes */
	IS_SCHEMA,    /* of the relation at hand: its schema */
	IS_RELATION,  /* its name */
	IS_CTE,       /* the name of a WITH query */
	IS_SETTING,   /* of SHOW */
	IS_EXPLAIN_OPTION,
	IS_LOCKING, /* these three must not be there */
	IS_INTO,
	IS_COPY,
	IS_FALSE_COPY, /* this one must be false */
};

struct node_rule;

struct member_rule {
	const char *name;
	enum member_is is;
	const struct node_rule *(*rule)(void);
};

struct node_rule {
	const char *name;
	const struct member_rule *members; /* ends with a NULL name */
	bool statement;                    /* only as a whole statement */
};

/* NULL: not in the table. */
const struct node_rule *dbha__classify_rule(const char *node);
const struct member_rule *dbha__classify_member(const struct node_rule *rule, const char *member);

/* Whether every node answers SHOW of it alike, as far as it matters. */
bool dbha__classify_setting(const char *name);

#endif
