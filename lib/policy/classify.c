#include "classify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "classify_rules.h"
#include "parsetree.h"

/* Levels of nodes: some 400 bytes of stack each. What nests deeper is doubtful. */
#define DEPTH_MAX 500

/* WITH queries, and relations that may be such, in one statement. */
#define CTES_MAX 32

struct name {
	char text[CLASSIFY_NAME_MAX];
};

/* Reads one tree, from left to right, once. The first doubt ends it. */
struct walk {
	const char *at;
	int depth;
	const struct function_book *book;
	struct classify_verdict *verdict;
	struct name schema, relation; /* of the relation at hand */
	struct name ctes[CTES_MAX];
	struct name
	    unknown[CTES_MAX]; /* names without a schema that only a WITH query can explain, which comes behind them */
	int n_ctes, n_unknown;
};

bool dbha__classify_available(void)
{
	return dbha__parsetree_available();
}

static bool doubt(struct walk *w, enum classify_why why, const char *name)
{
	w->verdict->is = CLASS_WRITE;
	w->verdict->why = why;
	snprintf(w->verdict->name, sizeof w->verdict->name, "%s", name);
	return false;
}

/* ---- JSON, as libpg_query writes it: without blanks ---------------------------------------------------------------- */

static bool broken(struct walk *w)
{
	return doubt(w, WHY_PART, "the tree");
}

static bool take(struct walk *w, char c)
{
	if (*w->at != c)
		return false;
	w->at++;
	return true;
}

static bool goes_on_with(struct walk *w, const char *text)
{
	size_t length = strlen(text);
	if (strncmp(w->at, text, length) != 0)
		return false;
	w->at += length;
	return true;
}

/* The character of an escape, whose backslash has been taken; -1: not ASCII, or nonsense. */
static int read_escape(struct walk *w)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	char c = *w->at;
	const char *at = c ? strchr(from, c) : NULL;
	if (at) {
		w->at++;
		return to[at - from];
	}
	if (c != 'u' || strspn(w->at + 1, "0123456789abcdefABCDEF") < 4)
		return -1;
	char digits[5] = "";
	memcpy(digits, w->at + 1, 4);
	unsigned long code = strtoul(digits, NULL, 16);
	w->at += 5;
	return code > 0 && code < 0x80 ? (int)code : -1;
}

/* A text, which has to fit and to be a possible name. */
static bool read_name(struct walk *w, struct name *name)
{
	size_t n = 0;
	if (!take(w, '"'))
		return broken(w);
	while (*w->at && *w->at != '"') {
		int c = take(w, '\\') ? read_escape(w) : *w->at++;
		if (c == -1 || (c > 0 && c < ' ') || c == 0x7f || n + 1 >= sizeof name->text)
			return doubt(w, WHY_PART, "an unusual name");
		name->text[n++] = (char)c;
	}
	name->text[n] = '\0';
	return take(w, '"') || broken(w);
}

static bool skip_string(struct walk *w)
{
	if (!take(w, '"'))
		return broken(w);
	while (*w->at && *w->at != '"')
		w->at += *w->at == '\\' && w->at[1] ? 2 : 1;
	return take(w, '"') || broken(w);
}

static bool skip_scalar(struct walk *w)
{
	if (*w->at == '"')
		return skip_string(w);
	size_t n = strspn(w->at, "-+.0123456789abcdefghijklmnopqrstuvwxyzE");
	w->at += n;
	return n > 0 || broken(w);
}

/* With brackets; what stands in them is not looked at. */
static bool skip_anything(struct walk *w)
{
	int open = 0;
	do {
		if (*w->at == '{' || *w->at == '[') {
			open++;
			w->at++;
		} else if (*w->at == '}' || *w->at == ']') {
			open--;
			w->at++;
		} else if (*w->at == ',' || *w->at == ':') {
			w->at++;
		} else if (!skip_scalar(w)) {
			return false;
		}
		/* Behind the name of a member comes its value. */
	} while (open > 0);
	return true;
}

/* "name": */
static bool read_key(struct walk *w, struct name *key)
{
	return read_name(w, key) && (take(w, ':') || broken(w));
}

/* ---- what names mean ---------------------------------------------------------------------------------------------- */

/* The parts of a qualified name: {"String":{"sval":"x"}}, ... */
struct parts {
	struct name part[4];
	int n;
	bool star;
};

static bool read_part(struct walk *w, struct parts *parts)
{
	struct name key;
	if (!take(w, '{') || !read_key(w, &key) || !take(w, '{'))
		return broken(w);
	if (strcmp(key.text, "A_Star") == 0) {
		parts->star = true;
		return goes_on_with(w, "}}") || broken(w);
	}
	if (strcmp(key.text, "String") != 0 || parts->n == 4)
		return doubt(w, WHY_PART, key.text);
	struct name *part = &parts->part[parts->n++];
	part->text[0] = '\0';
	if (*w->at != '}' && (!read_key(w, &key) || !read_name(w, part)))
		return false;
	return goes_on_with(w, "}}") || broken(w);
}

static bool read_parts(struct walk *w, struct parts *parts)
{
	parts->n = 0;
	parts->star = false;
	if (!take(w, '['))
		return broken(w);
	do
		if (!read_part(w, parts))
			return false;
	while (take(w, ','));
	return take(w, ']') || broken(w);
}

static bool is_builtin_method(const char *name)
{
	return strcmp(name, "bernoulli") == 0 || strcmp(name, "system") == 0;
}

static bool judge_function(struct walk *w, enum book_verdict verdict, const char *name)
{
	switch (verdict) {
	case BOOK_HARMLESS:
		return true;
	case BOOK_WRITE:
		return doubt(w, WHY_FUNCTION_WRITE, name);
	case BOOK_DENIED:
		return doubt(w, WHY_FUNCTION_DENIED, name);
	case BOOK_VOLATILE:
		return doubt(w, WHY_FUNCTION_VOLATILE, name);
	case BOOK_UNKNOWN:
		break;
	}
	return doubt(w, WHY_FUNCTION_UNKNOWN, name);
}

static bool judge_parts(struct walk *w, enum member_is is, const struct parts *parts)
{
	if (parts->n < 1 || parts->n > 2 || parts->star)
		return doubt(w, WHY_PART, "a name of an unusual form");
	const char *schema = parts->n == 2 ? parts->part[0].text : NULL;
	const char *name = parts->part[parts->n - 1].text;
	switch (is) {
	case IS_FUNCTION:
		return judge_function(w, dbha__function_book_ask(w->book, BOOK_FUNCTION, schema, name), name);
	case IS_OPERATOR:
		/* BETWEEN and its kin are made of comparisons, and stand for them in the tree. */
		if (!schema && strstr(name, "BETWEEN"))
			return true;
		return dbha__function_book_ask(w->book, BOOK_OPERATOR, schema, name) == BOOK_HARMLESS ||
		       doubt(w, WHY_OPERATOR, name);
	case IS_TYPE:
		return dbha__function_book_ask(w->book, BOOK_TYPE, schema, name) == BOOK_HARMLESS || doubt(w, WHY_TYPE, name);
	case IS_SAMPLE:
		return (!schema && is_builtin_method(name)) || doubt(w, WHY_SAMPLE, name);
	default:
		return doubt(w, WHY_PART, name);
	}
}

/* row.function, or (expression).function: where there is no such column, PostgreSQL calls it. */
static bool judge_attribute(struct walk *w, const char *name)
{
	return dbha__function_book_ask(w->book, BOOK_ATTRIBUTE, NULL, name) == BOOK_UNKNOWN ||
	       doubt(w, WHY_ATTRIBUTE, name);
}

static bool read_column(struct walk *w)
{
	struct parts parts;
	if (!read_parts(w, &parts))
		return false;
	for (int i = 1; i < parts.n; i++)
		if (!judge_attribute(w, parts.part[i].text))
			return false;
	return true;
}

static bool remember(struct walk *w, struct name *names, int *n, const struct name *name)
{
	if (*n == CTES_MAX)
		return doubt(w, WHY_RELATION_UNKNOWN, name->text);
	names[(*n)++] = *name;
	return true;
}

/*
 * A name that only a WITH query has. Where one is told is not looked at: if the same name stands elsewhere for a relation, that is
 * either in the book, and judged by it, or it came into being after the book was made.
 */
static bool judge_relation(struct walk *w)
{
	const char *schema = w->schema.text[0] ? w->schema.text : NULL;
	switch (dbha__function_book_ask(w->book, BOOK_RELATION, schema, w->relation.text)) {
	case BOOK_HARMLESS:
		return true;
	case BOOK_UNKNOWN:
		return schema ? doubt(w, WHY_RELATION_UNKNOWN, w->relation.text)
		              : remember(w, w->unknown, &w->n_unknown, &w->relation);
	default:
		return doubt(w, WHY_RELATION, w->relation.text);
	}
}

static bool has_cte(const struct walk *w, const char *name)
{
	for (int i = 0; i < w->n_ctes; i++)
		if (strcmp(w->ctes[i].text, name) == 0)
			return true;
	return false;
}

static bool judge_unknown_relations(struct walk *w)
{
	for (int i = 0; i < w->n_unknown; i++)
		if (!has_cte(w, w->unknown[i].text))
			return doubt(w, WHY_RELATION_UNKNOWN, w->unknown[i].text);
	return true;
}

/* ---- nodes ---------------------------------------------------------------------------------------------------------- */

static bool read_object(struct walk *w, const struct node_rule *rule);

static bool doubt_node(struct walk *w, const char *node)
{
	static const char *const writing[] = {"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"};
	for (size_t i = 0; i < sizeof writing / sizeof writing[0]; i++)
		if (strcmp(node, writing[i]) == 0)
			return doubt(w, WHY_WRITING_CTE, "");
	return doubt(w, WHY_PART, node);
}

/* {"NodeName":{...}}, or {} for no node. wrapped: decides in the place of the node's own rule. */
static bool read_node(struct walk *w, const struct node_rule *wrapped)
{
	struct name node;
	if (!take(w, '{'))
		return broken(w);
	if (take(w, '}'))
		return true;
	if (!read_key(w, &node))
		return false;
	const struct node_rule *rule = wrapped ? wrapped : dbha__classify_rule(node.text);
	if (!rule || (rule->statement && !wrapped))
		return doubt_node(w, node.text);
	return read_object(w, rule) && (take(w, '}') || broken(w));
}

static bool read_nodes(struct walk *w, const struct node_rule *wrapped)
{
	if (!take(w, '['))
		return read_node(w, wrapped);
	if (take(w, ']'))
		return true;
	do
		if (!read_node(w, wrapped))
			return false;
	while (take(w, ','));
	return take(w, ']') || broken(w);
}

/* Names among other nodes: (x).a[1].b */
static bool read_attributes(struct walk *w)
{
	static const char string[] = "{\"String\":";
	if (!take(w, '['))
		return broken(w);
	do {
		struct parts parts = {.n = 0};
		bool is_name = strncmp(w->at, string, sizeof string - 1) == 0;
		if (is_name ? !read_part(w, &parts) || !judge_attribute(w, parts.part[0].text) : !read_node(w, NULL))
			return false;
	} while (take(w, ','));
	return take(w, ']') || broken(w);
}

static bool read_setting(struct walk *w)
{
	struct name name;
	return read_name(w, &name) && (dbha__classify_setting(name.text) || doubt(w, WHY_SETTING, name.text));
}

/* EXPLAIN (ANALYZE false) is doubtful too; nobody writes it. */
static bool read_explain_option(struct walk *w)
{
	static const char *const harmless[] = {"verbose", "costs",  "settings", "generic_plan", "buffers",
	                                       "wal",     "timing", "summary",  "memory",       "format"};
	struct name name;
	if (!read_name(w, &name))
		return false;
	for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
		if (strcmp(name.text, harmless[i]) == 0)
			return true;
	return doubt(w, WHY_EXPLAIN_ANALYZE, "");
}

static bool read_qualified(struct walk *w, enum member_is is)
{
	struct parts parts;
	return read_parts(w, &parts) && judge_parts(w, is, &parts);
}

static bool read_cte_name(struct walk *w)
{
	struct name name;
	return read_name(w, &name) && remember(w, w->ctes, &w->n_ctes, &name);
}

static bool read_member(struct walk *w, const struct member_rule *member)
{
	switch (member->is) {
	case IS_SCALAR:
		return skip_scalar(w);
	case IS_ANYTHING:
		return skip_anything(w);
	case IS_NODES:
		return read_nodes(w, NULL);
	case IS_OBJECT:
		return read_object(w, member->rule());
	case IS_WRAPPED:
		return read_nodes(w, member->rule());
	case IS_FUNCTION:
	case IS_OPERATOR:
	case IS_TYPE:
	case IS_SAMPLE:
		return read_qualified(w, member->is);
	case IS_COLUMN:
		return read_column(w);
	case IS_ATTRIBUTE:
		return read_attributes(w);
	case IS_SCHEMA:
		return read_name(w, &w->schema);
	case IS_RELATION:
		return read_name(w, &w->relation) && judge_relation(w);
	case IS_CTE:
		return read_cte_name(w);
	case IS_SETTING:
		return read_setting(w);
	case IS_EXPLAIN_OPTION:
		return read_explain_option(w);
	case IS_LOCKING:
		return doubt(w, WHY_LOCKING, "");
	case IS_INTO:
		return doubt(w, WHY_INTO, "");
	case IS_COPY:
		return doubt(w, WHY_COPY, "");
	case IS_FALSE_COPY:
		if (strncmp(w->at, "false", 5) != 0)
			return doubt(w, WHY_COPY, "");
		return skip_scalar(w);
	}
	return broken(w);
}

/* {"member":value,...}, by its rule. Of a relation the schema comes before the name. */
static bool read_object(struct walk *w, const struct node_rule *rule)
{
	struct name key;
	if (++w->depth > DEPTH_MAX)
		return doubt(w, WHY_TOO_DEEP, "");
	if (!take(w, '{'))
		return broken(w);
	w->schema.text[0] = '\0';
	while (*w->at != '}') {
		if (!read_key(w, &key))
			return false;
		const struct member_rule *member = dbha__classify_member(rule, key.text);
		if (!member)
			return doubt(w, WHY_PART, key.text);
		if (!read_member(w, member))
			return false;
		if (!take(w, ',') && *w->at != '}')
			return broken(w);
	}
	w->at++;
	w->depth--;
	return true;
}

/* ---- statements ------------------------------------------------------------------------------------------------------ */

/* "SelectStmt":{...} */
static bool read_statement(struct walk *w)
{
	struct name node;
	if (!read_key(w, &node))
		return false;
	const struct node_rule *rule = dbha__classify_rule(node.text);
	bool is_one = rule && (rule->statement || strcmp(node.text, "SelectStmt") == 0);
	if (!is_one || strstr(node.text, "Stmt") == NULL)
		return doubt(w, WHY_STATEMENT, node.text);
	return read_object(w, rule) && judge_unknown_relations(w);
}

/* {"version":150001,"stmts":[{"stmt":{...},"stmt_len":8}]} */
static bool read_tree(struct walk *w)
{
	if (!goes_on_with(w, "{\"version\":") || !skip_scalar(w) || !goes_on_with(w, ",\"stmts\":["))
		return broken(w);
	if (take(w, ']'))
		return doubt(w, WHY_EMPTY, "");
	if (!goes_on_with(w, "{\"stmt\":{") || !read_statement(w) || !take(w, '}'))
		return w->verdict->why != WHY_READ ? false : broken(w);
	while (take(w, ',')) {
		struct name key;
		if (!read_key(w, &key) || !skip_scalar(w))
			return false;
	}
	if (!take(w, '}'))
		return broken(w);
	if (take(w, ','))
		return doubt(w, WHY_TWO_STATEMENTS, "");
	return goes_on_with(w, "]}") || broken(w);
}

/* ---- the hint ---------------------------------------------------------------------------------------------------------- */

#define BLANKS " \t\r\n\f"

/* Block comments nest; a text that ends inside of one is an error to the server. */
static const char *behind_block(const char *text)
{
	int depth = 0;
	do {
		if (strncmp(text, "/*", 2) == 0 || strncmp(text, "*/", 2) == 0) {
			depth += *text == '/' ? 1 : -1;
			text += 2;
		} else {
			text++;
		}
	} while (depth > 0 && *text);
	return text;
}

/* Whether a comment says this word and nothing else. */
static bool says(const char *comment, const char *word)
{
	comment += 2 + strspn(comment + 2, BLANKS);
	size_t length = strlen(word);
	if (strncmp(comment, word, length) != 0)
		return false;
	comment += length;
	return strncmp(comment + strspn(comment, BLANKS), "*/", 2) == 0;
}

/* The comments before the first word, skipped as PostgreSQL's scanner skips them. Of two hints "primary" wins. */
static enum classify_why find_hint(const char *sql)
{
	enum classify_why hint = WHY_READ;
	for (;;) {
		sql += strspn(sql, BLANKS);
		if (strncmp(sql, "--", 2) == 0) {
			sql += strcspn(sql, "\r\n");
		} else if (strncmp(sql, "/*", 2) == 0) {
			if (says(sql, "dbha:primary"))
				return WHY_HINT_PRIMARY;
			if (says(sql, "dbha:standby"))
				hint = WHY_HINT_STANDBY;
			sql = behind_block(sql);
		} else {
			return hint;
		}
	}
}

/* ---- all of it -------------------------------------------------------------------------------------------------------- */

static bool is_ascii(const char *text)
{
	for (; *text; text++)
		if (*text & 0x80)
			return false;
	return true;
}

/*
 * What the parser here might read otherwise than the server. In SJIS, BIG5, GBK and others a byte of a character can be a
 * backslash.
 */
static enum classify_why stands_in_the_way(const char *sql, const struct classify_limits *limits)
{
	if (!dbha__parsetree_available())
		return WHY_NO_PARSER;
	if (strnlen(sql, limits->length_max + 1) > limits->length_max)
		return WHY_TOO_LONG;
	if (!limits->utf8 && !is_ascii(sql))
		return WHY_ENCODING;
	if (!limits->standard_strings && strchr(sql, '\\'))
		return WHY_BACKSLASH;
	return dbha__parsetree_nesting(sql) > limits->nesting_max ? WHY_TOO_DEEP : WHY_READ;
}

static void parse_and_walk(const char *sql, const struct function_book *book, struct classify_verdict *verdict)
{
	struct parsetree tree;
	dbha__parsetree_make(sql, &tree);
	struct walk w = {.at = tree.json, .book = book, .verdict = verdict};
	if (tree.error || !tree.json)
		doubt(&w, WHY_NOT_PARSED, "");
	else if (read_tree(&w))
		verdict->is = CLASS_READ;
	dbha__parsetree_free(&tree);
}

struct classify_verdict dbha__classify(const char *sql, const struct classify_limits *limits,
                                       const struct function_book *book)
{
	struct classify_verdict verdict = {.is = CLASS_WRITE, .why = find_hint(sql)};
	if (verdict.why != WHY_READ) {
		verdict.is = verdict.why == WHY_HINT_STANDBY ? CLASS_READ : CLASS_WRITE;
		return verdict;
	}
	verdict.why = stands_in_the_way(sql, limits);
	if (verdict.why != WHY_READ)
		return verdict;
	const char *trouble = book ? dbha__function_book_trouble(book) : NULL;
	if (!book)
		verdict.why = WHY_NO_BOOK;
	else if (trouble)
		doubt(&(struct walk){.verdict = &verdict}, WHY_TROUBLE, trouble);
	else
		parse_and_walk(sql, book, &verdict);
	return verdict;
}

const char *dbha__classify_reason(const struct classify_verdict *verdict, char *text, size_t size)
{
	static const char *const texts[] = {
#define X(name, text) text,
	    CLASSIFY_WHYS(X)
#undef X
	};
	const char *format = texts[verdict->why];
	const char *hole = strstr(format, "%s");
	if (hole)
		snprintf(text, size, "%.*s%s%s", (int)(hole - format), format, verdict->name, hole + 2);
	else
		snprintf(text, size, "%s", format);
	return text;
}
