#include "classify_rules.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

#define MEMBERS(node) static const struct member_rule node##_members[]
#define END                                                                                                            \
	{                                                                                                                  \
		NULL, IS_SCALAR, NULL                                                                                          \
	}
#define SCALAR(name)                                                                                                   \
	{                                                                                                                  \
		name, IS_SCALAR, NULL                                                                                          \
	}
#define NODES(name)                                                                                                    \
	{                                                                                                                  \
		name, IS_NODES, NULL                                                                                           \
	}
#define LOCATION SCALAR("location")

/* Objects that stand behind a member without their name. */
#define OBJECT_RULE(name)                                                                                              \
	static const struct node_rule *name##_rule(void)                                                                   \
	{                                                                                                                  \
		return dbha__classify_rule(#name);                                                                             \
	}
OBJECT_RULE(Alias)
OBJECT_RULE(CTECycleClause)
OBJECT_RULE(CTESearchClause)
OBJECT_RULE(RangeVar)
OBJECT_RULE(SelectStmt)
OBJECT_RULE(TypeName)
OBJECT_RULE(WindowDef)
OBJECT_RULE(WithClause)
OBJECT_RULE(CopyOption)
OBJECT_RULE(ExplainOption)

#define ALIAS                                                                                                          \
	{                                                                                                                  \
		"alias", IS_OBJECT, Alias_rule                                                                                 \
	}

/* ---- statements ------------------------------------------------------------------------------------------------- */

MEMBERS(SelectStmt) = {
    NODES("distinctClause"),
    {"intoClause", IS_INTO, NULL},
    NODES("targetList"),
    NODES("fromClause"),
    NODES("whereClause"),
    NODES("groupClause"),
    SCALAR("groupDistinct"),
    NODES("havingClause"),
    NODES("windowClause"),
    NODES("valuesLists"),
    NODES("sortClause"),
    NODES("limitOffset"),
    NODES("limitCount"),
    SCALAR("limitOption"),
    {"lockingClause", IS_LOCKING, NULL},
    {"withClause", IS_OBJECT, WithClause_rule},
    SCALAR("op"),
    SCALAR("all"),
    {"larg", IS_OBJECT, SelectStmt_rule},
    {"rarg", IS_OBJECT, SelectStmt_rule},
    END,
};

MEMBERS(CopyStmt) = {
    {"relation", IS_OBJECT, RangeVar_rule},
    NODES("query"),
    NODES("attlist"),
    {"is_from", IS_FALSE_COPY, NULL},
    {"is_program", IS_FALSE_COPY, NULL},
    {"filename", IS_COPY, NULL},
    {"options", IS_WRAPPED, CopyOption_rule},
    END,
};

MEMBERS(ExplainStmt) = {
    NODES("query"),
    {"options", IS_WRAPPED, ExplainOption_rule},
    END,
};

MEMBERS(VariableShowStmt) = {
    {"name", IS_SETTING, NULL},
    END,
};

/* DefElem, in its two places. */
MEMBERS(CopyOption) = {
    SCALAR("defnamespace"), SCALAR("defname"), {"arg", IS_ANYTHING, NULL}, SCALAR("defaction"), LOCATION, END,
};
MEMBERS(ExplainOption) = {
    {"defname", IS_EXPLAIN_OPTION, NULL}, {"arg", IS_ANYTHING, NULL}, SCALAR("defaction"), LOCATION, END,
};

/* ---- WITH and FROM ---------------------------------------------------------------------------------------------- */

MEMBERS(WithClause) = {NODES("ctes"), SCALAR("recursive"), LOCATION, END};
MEMBERS(CommonTableExpr) = {
    {"ctename", IS_CTE, NULL},
    NODES("aliascolnames"),
    SCALAR("ctematerialized"),
    NODES("ctequery"),
    {"search_clause", IS_OBJECT, CTESearchClause_rule},
    {"cycle_clause", IS_OBJECT, CTECycleClause_rule},
    SCALAR("cterecursive"),
    SCALAR("cterefcount"),
    LOCATION,
    END,
};
MEMBERS(CTESearchClause) = {
    NODES("search_col_list"), SCALAR("search_breadth_first"), SCALAR("search_seq_column"), LOCATION, END,
};
MEMBERS(CTECycleClause) = {
    NODES("cycle_col_list"),
    SCALAR("cycle_mark_column"),
    NODES("cycle_mark_value"),
    NODES("cycle_mark_default"),
    SCALAR("cycle_path_column"),
    LOCATION,
    END,
};
/* catalogname is missing: another database is an error anyway. */
MEMBERS(RangeVar) = {
    {"schemaname", IS_SCHEMA, NULL},
    {"relname", IS_RELATION, NULL},
    SCALAR("inh"),
    SCALAR("relpersistence"),
    ALIAS,
    LOCATION,
    END,
};
MEMBERS(Alias) = {SCALAR("aliasname"), NODES("colnames"), END};
MEMBERS(JoinExpr) = {
    SCALAR("jointype"),   SCALAR("isNatural"),
    NODES("larg"),        NODES("rarg"),
    NODES("usingClause"), {"join_using_alias", IS_OBJECT, Alias_rule},
    NODES("quals"),       ALIAS,
    SCALAR("rtindex"),    END,
};
MEMBERS(RangeSubselect) = {SCALAR("lateral"), NODES("subquery"), ALIAS, END};
MEMBERS(RangeFunction) = {
    SCALAR("lateral"), SCALAR("ordinality"), SCALAR("is_rowsfrom"), NODES("functions"), ALIAS, NODES("coldeflist"), END,
};
MEMBERS(ColumnDef) = {
    SCALAR("colname"),
    {"typeName", IS_OBJECT, TypeName_rule},
    SCALAR("is_local"),
    SCALAR("inhcount"),
    SCALAR("is_not_null"),
    SCALAR("is_from_type"),
    {"collClause", IS_ANYTHING, NULL},
    LOCATION,
    END,
};
MEMBERS(RangeTableSample) = {
    NODES("relation"), {"method", IS_SAMPLE, NULL}, NODES("args"), NODES("repeatable"), LOCATION, END,
};
MEMBERS(RangeTableFunc) = {
    SCALAR("lateral"), NODES("docexpr"), NODES("rowexpr"), NODES("namespaces"), NODES("columns"), ALIAS, LOCATION, END,
};
MEMBERS(RangeTableFuncCol) = {
    SCALAR("colname"),
    {"typeName", IS_OBJECT, TypeName_rule},
    SCALAR("for_ordinality"),
    SCALAR("is_not_null"),
    NODES("colexpr"),
    NODES("coldefexpr"),
    LOCATION,
    END,
};

/* ---- expressions ------------------------------------------------------------------------------------------------ */

MEMBERS(A_ArrayExpr) = {NODES("elements"), LOCATION, END};
MEMBERS(A_Const) = {
    {"val", IS_ANYTHING, NULL},
    {"ival", IS_ANYTHING, NULL},
    {"fval", IS_ANYTHING, NULL},
    {"sval", IS_ANYTHING, NULL},
    {"boolval", IS_ANYTHING, NULL},
    {"bsval", IS_ANYTHING, NULL},
    SCALAR("isnull"),
    LOCATION,
    END,
};
MEMBERS(A_Expr) = {
    SCALAR("kind"), {"name", IS_OPERATOR, NULL}, NODES("lexpr"), NODES("rexpr"), LOCATION, END,
};
MEMBERS(A_Indices) = {SCALAR("is_slice"), NODES("lidx"), NODES("uidx"), END};
MEMBERS(A_Indirection) = {NODES("arg"), {"indirection", IS_ATTRIBUTE, NULL}, END};
MEMBERS(BoolExpr) = {SCALAR("boolop"), NODES("args"), LOCATION, END};
MEMBERS(BooleanTest) = {NODES("arg"), SCALAR("booltesttype"), LOCATION, END};
MEMBERS(CaseExpr) = {NODES("arg"), NODES("args"), NODES("defresult"), LOCATION, END};
MEMBERS(CaseWhen) = {NODES("expr"), NODES("result"), LOCATION, END};
MEMBERS(CoalesceExpr) = {NODES("args"), LOCATION, END};
MEMBERS(CollateClause) = {NODES("arg"), {"collname", IS_ANYTHING, NULL}, LOCATION, END};
MEMBERS(ColumnRef) = {{"fields", IS_COLUMN, NULL}, LOCATION, END};
MEMBERS(FuncCall) = {
    {"funcname", IS_FUNCTION, NULL},
    NODES("args"),
    NODES("agg_order"),
    NODES("agg_filter"),
    {"over", IS_OBJECT, WindowDef_rule},
    SCALAR("agg_within_group"),
    SCALAR("agg_star"),
    SCALAR("agg_distinct"),
    SCALAR("func_variadic"),
    SCALAR("funcformat"),
    LOCATION,
    END,
};
MEMBERS(GroupingFunc) = {NODES("args"), LOCATION, END};
MEMBERS(GroupingSet) = {SCALAR("kind"), NODES("content"), LOCATION, END};
MEMBERS(List) = {NODES("items"), END};
MEMBERS(MinMaxExpr) = {SCALAR("op"), NODES("args"), LOCATION, END};
MEMBERS(NamedArgExpr) = {NODES("arg"), SCALAR("name"), SCALAR("argnumber"), LOCATION, END};
MEMBERS(NullTest) = {NODES("arg"), SCALAR("nulltesttype"), LOCATION, END};
MEMBERS(ParamRef) = {SCALAR("number"), LOCATION, END};
MEMBERS(ResTarget) = {SCALAR("name"), NODES("val"), LOCATION, END};
MEMBERS(RowExpr) = {NODES("args"), SCALAR("row_format"), LOCATION, END};
MEMBERS(SQLValueFunction) = {SCALAR("op"), SCALAR("typmod"), LOCATION, END};
MEMBERS(SortBy) = {
    NODES("node"), SCALAR("sortby_dir"), SCALAR("sortby_nulls"), {"useOp", IS_OPERATOR, NULL}, LOCATION, END,
};
MEMBERS(SubLink) = {
    SCALAR("subLinkType"), NODES("testexpr"), {"operName", IS_OPERATOR, NULL}, NODES("subselect"), LOCATION, END,
};
MEMBERS(TypeCast) = {NODES("arg"), {"typeName", IS_OBJECT, TypeName_rule}, LOCATION, END};
MEMBERS(TypeName) = {
    {"names", IS_TYPE, NULL},
    SCALAR("setof"),
    NODES("typmods"),
    SCALAR("typemod"),
    {"arrayBounds", IS_ANYTHING, NULL},
    LOCATION,
    END,
};
MEMBERS(WindowDef) = {
    SCALAR("name"),
    SCALAR("refname"),
    NODES("partitionClause"),
    NODES("orderClause"),
    SCALAR("frameOptions"),
    NODES("startOffset"),
    NODES("endOffset"),
    LOCATION,
    END,
};
MEMBERS(XmlExpr) = {
    SCALAR("op"), SCALAR("name"), NODES("named_args"), NODES("arg_names"), NODES("args"), SCALAR("xmloption"), LOCATION,
    END,
};
MEMBERS(XmlSerialize) = {
    SCALAR("xmloption"), NODES("expr"), {"typeName", IS_OBJECT, TypeName_rule}, LOCATION, END,
};

/* What stands in lists of columns and the like. "str": libpg_query 13 and 14. */
MEMBERS(String) = {SCALAR("sval"), SCALAR("str"), END};
MEMBERS(A_Star) = {END};

#define NODE(name)                                                                                                     \
	{                                                                                                                  \
#name, name##_members, false                                                                                   \
	}
#define STATEMENT(name)                                                                                                \
	{                                                                                                                  \
#name, name##_members, true                                                                                    \
	}

/* In the order in which they are likely to be asked for. */
static const struct node_rule rules[] = {
    NODE(ColumnRef),
    NODE(ResTarget),
    NODE(A_Expr),
    NODE(A_Const),
    NODE(RangeVar),
    NODE(FuncCall),
    NODE(ParamRef),
    NODE(SelectStmt),
    NODE(Alias),
    NODE(BoolExpr),
    NODE(JoinExpr),
    NODE(SortBy),
    NODE(TypeName),
    NODE(TypeCast),
    NODE(SubLink),
    NODE(List),
    NODE(NullTest),
    NODE(String),
    NODE(A_Star),
    NODE(CaseExpr),
    NODE(CaseWhen),
    NODE(CoalesceExpr),
    NODE(RangeSubselect),
    NODE(WithClause),
    NODE(CommonTableExpr),
    NODE(A_ArrayExpr),
    NODE(A_Indices),
    NODE(A_Indirection),
    NODE(BooleanTest),
    NODE(CollateClause),
    NODE(GroupingFunc),
    NODE(GroupingSet),
    NODE(MinMaxExpr),
    NODE(NamedArgExpr),
    NODE(RowExpr),
    NODE(SQLValueFunction),
    NODE(WindowDef),
    NODE(RangeFunction),
    NODE(ColumnDef),
    NODE(RangeTableSample),
    NODE(RangeTableFunc),
    NODE(XmlExpr),
    NODE(XmlSerialize),
    NODE(RangeTableFuncCol),
    NODE(CTESearchClause),
    NODE(CTECycleClause),
    STATEMENT(CopyOption),
    STATEMENT(ExplainOption),
    STATEMENT(CopyStmt),
    STATEMENT(ExplainStmt),
    STATEMENT(VariableShowStmt),
};

const struct node_rule *dbha__classify_rule(const char *node)
{
	for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
		if (strcmp(rules[i].name, node) == 0)
			return &rules[i];
	return NULL;
}

const struct member_rule *dbha__classify_member(const struct node_rule *rule, const char *member)
{
	for (const struct member_rule *m = rule->members; m->name; m++)
		if (strcmp(m->name, member) == 0)
			return m;
	return NULL;
}

/* ---- SHOW ------------------------------------------------------------------------------------------------------- */

/*
 * What the session asked for at its start, what follows from the data, and what is compiled in. Not: what says which server this is
 * (port, data_directory, in_hot_standby), nor what differs in sessions for reads (transaction_read_only), nor ALL.
 */
static const char *const settings[] = {
    "application_name",
    "block_size",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "DateStyle",
    "default_transaction_isolation",
    "extra_float_digits",
    "integer_datetimes",
    "IntervalStyle",
    "lc_collate",
    "lc_ctype",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "max_identifier_length",
    "search_path",
    "server_encoding",
    "server_version",
    "server_version_num",
    "session_authorization",
    "standard_conforming_strings",
    "statement_timeout",
    "TimeZone",
    "transaction_isolation",
    "role",
};

bool dbha__classify_setting(const char *name)
{
	for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
		if (strcasecmp(settings[i], name) == 0)
			return true;
	return false;
}
