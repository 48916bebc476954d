#include "function_book.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- the lists -------------------------------------------------------------------------------------------------- */

/* Names with a blank in between; "*" at the end: whatever begins so. */
struct list_row {
	const char *kind;
	const char *names;
	const char *why;
};

/*
 * "deny" and "allow" are for functions in pg_catalog and of extensions. What is volatile and not on the list "allow" needs no word
 * here: it is doubtful. So "deny" is for what calls itself stable or immutable; a few others stand with their kin. Views are those of PostgreSQL's own which only
 * read catalogs: the others show the state of a server, and a new version's are doubtful until they stand here.
 */
static const struct list_row list[] = {
    {"deny", "txid_current pg_current_xact_id", "assigns a transaction id, which a standby refuses"},
    {"deny",
     "txid_current_if_assigned pg_current_xact_id_if_assigned txid_current_snapshot pg_current_snapshot txid_status "
     "pg_xact_status",
     "tells of the transactions of the server that is asked"},
    {"deny",
     "query_to_xml* cursor_to_xml* table_to_xml* schema_to_xml* database_to_xml* ts_rewrite crosstab* "
     "connectby xpath_table dblink*",
     "takes a statement as text, or a relation that nobody has looked at"},
    {"deny", "current_setting pg_show_all_settings pg_settings_get_flags pg_show_all_file_settings",
     "settings differ from server to server: transaction_read_only is on wherever reads run"},
    {"deny", "pg_stat_* pg_stat_statements* pg_buffercache* pg_lock_status pg_blocking_pids",
     "statistics and locks of one server"},
    {"deny",
     "pg_backend_pid inet_server_* inet_client_* pg_postmaster_start_time pg_conf_load_time pg_config "
     "pg_available_extension* pg_get_loaded_modules pg_hba_file_rules pg_ident_file_mappings",
     "about the server or the connection, not about the data"},
    {"deny",
     "pg_is_in_recovery pg_last_wal_* pg_last_xact_replay_timestamp pg_walfile_name* pg_control_* "
     "pg_get_replication_slots pg_show_replication_origin_status pg_replication_origin_*",
     "a standby gives another answer than the primary, or none"},
    {"deny", "pg_cursor pg_prepared_statement pg_prepared_xact pg_listening_channels", "the state of a session"},
    {"allow",
     "random random_normal clock_timestamp timeofday gen_random_uuid uuidv4 uuidv7 gen_random_bytes "
     "uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4",
     "another answer each time, wherever it runs"},
    {"allow", "pg_sleep pg_sleep_for pg_sleep_until", "only waits"},
    {"allow",
     "pg_database_size pg_indexes_size pg_relation_size pg_table_size pg_tablespace_size pg_total_relation_size "
     "pg_partition_tree pg_partition_ancestors current_query",
     "reads what is the same everywhere"},
    {"views",
     "information_schema.* pg_catalog.pg_group pg_catalog.pg_indexes pg_catalog.pg_matviews pg_catalog.pg_policies "
     "pg_catalog.pg_publication_tables pg_catalog.pg_roles pg_catalog.pg_rules pg_catalog.pg_seclabels "
     "pg_catalog.pg_shadow pg_catalog.pg_stats pg_catalog.pg_stats_ext pg_catalog.pg_stats_ext_exprs "
     "pg_catalog.pg_tables pg_catalog.pg_timezone_abbrevs pg_catalog.pg_timezone_names pg_catalog.pg_user "
     "pg_catalog.pg_user_mappings pg_catalog.pg_views",
     "only read catalogs"},
};

#define N_ROWS (sizeof list / sizeof list[0])

bool dbha__book_list(int i, const char **kind, const char **names, const char **why)
{
	if (i < 0 || (size_t)i >= N_ROWS)
		return false;
	*kind = list[i].kind;
	*names = list[i].names;
	*why = list[i].why;
	return true;
}

#define SEPARATORS " \t\r\n,"
#define HEAD       "^(?:"
#define TAIL       "\\n)$" /* an alternative that no name is, so that an empty list matches nothing */

static bool is_name_character(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || (c & 0x80);
}

/* One name as a regular expression. Returns behind it, or NULL: it is no name, and `at` is the character that is wrong. */
static char *put_name(char *out, const char *name, size_t length, const char **at)
{
	for (size_t i = 0; i < length; i++) {
		*at = name + i;
		if (is_name_character(name[i])) {
			*out++ = name[i];
		} else if (name[i] == '.' || name[i] == '$') {
			*out++ = '\\';
			*out++ = name[i];
		} else if (name[i] == '*' && i + 1 == length && i > 0) {
			*out++ = '.';
			*out++ = '*';
		} else {
			return NULL;
		}
	}
	*out++ = '|';
	return out;
}

/* The names of a text, behind `out`, which has room for twice its length and one more per name. */
static char *put_names(char *out, const char *names, const char **wrong)
{
	const char *at = names ? names : "";
	while (out && *(at += strspn(at, SEPARATORS))) {
		size_t length = strcspn(at, SEPARATORS);
		out = put_name(out, at, length, wrong);
		at += length;
	}
	return out;
}

static char *pattern_of_list(const char *kind)
{
	size_t room = sizeof HEAD + sizeof TAIL;
	for (size_t i = 0; i < N_ROWS; i++)
		room += 2 * strlen(list[i].names) + 1;
	char *text = malloc(room);
	if (!text)
		return NULL;
	char *out = stpcpy(text, HEAD);
	const char *wrong;
	for (size_t i = 0; i < N_ROWS; i++)
		if (strcmp(list[i].kind, kind) == 0)
			out = put_names(out, list[i].names, &wrong);
	memcpy(out, TAIL, sizeof TAIL);
	return text;
}

/* wrong: set where the list is at fault. */
static char *pattern_of_names(const char *names, const char **wrong)
{
	char *text = malloc(sizeof HEAD + sizeof TAIL + 2 * strlen(names ? names : "") + 1);
	if (!text)
		return NULL;
	const char *at = NULL;
	char *out = put_names(stpcpy(text, HEAD), names, &at);
	if (!out) {
		*wrong = at;
		free(text);
		return NULL;
	}
	memcpy(out, TAIL, sizeof TAIL);
	return text;
}

bool dbha__book_patterns_init(struct book_patterns *patterns, const char *read, const char *write, const char **wrong)
{
	*wrong = NULL;
	patterns->deny = pattern_of_list("deny");
	patterns->allow = pattern_of_list("allow");
	patterns->views = pattern_of_list("views");
	patterns->read = pattern_of_names(read, wrong);
	patterns->write = *wrong ? NULL : pattern_of_names(write, wrong);
	if (patterns->deny && patterns->allow && patterns->views && patterns->read && patterns->write)
		return true;
	dbha__book_patterns_fini(patterns);
	return false;
}

void dbha__book_patterns_fini(struct book_patterns *patterns)
{
	free(patterns->deny);
	free(patterns->allow);
	free(patterns->views);
	free(patterns->read);
	free(patterns->write);
	memset(patterns, 0, sizeof *patterns);
}

/* ---- the book --------------------------------------------------------------------------------------------------- */

/* Where texts stand in `text`, since it moves while it grows. */
struct entry {
	uint32_t name, schema;
	uint32_t next; /* the next of the same bucket, counted from 1; 0: none */
	char kind;
	short verdict;
};

struct function_book {
	char *text;
	struct entry *entries;
	uint32_t *buckets; /* the first entry, counted from 1; NULL until finished */
	uint32_t used, size, n, room, mask;
	uint32_t trouble; /* entry, counted from 1 */
};

#define TEXT_MAX (1u << 28) /* so that no sum below overflows */

struct function_book *dbha__function_book_new(void)
{
	return calloc(1, sizeof(struct function_book));
}

void dbha__function_book_free(struct function_book *book)
{
	if (!book)
		return;
	free(book->text);
	free(book->entries);
	free(book->buckets);
	free(book);
}

static bool keep_text(struct function_book *book, const char *text, size_t length, uint32_t *where)
{
	if (length > TEXT_MAX || book->used > TEXT_MAX)
		return false;
	uint32_t need = book->used + (uint32_t)length + 1;
	if (need > book->size) {
		uint32_t size = need * 2 + 4096;
		char *bigger = realloc(book->text, size);
		if (!bigger)
			return false;
		book->text = bigger;
		book->size = size;
	}
	*where = book->used;
	memcpy(book->text + book->used, text, length);
	book->text[book->used + length] = '\0';
	book->used = need;
	return true;
}

static struct entry *new_entry(struct function_book *book)
{
	if (book->n == book->room) {
		uint32_t room = book->room * 2 + 512;
		struct entry *bigger = realloc(book->entries, room * sizeof *bigger);
		if (!bigger)
			return NULL;
		book->entries = bigger;
		book->room = room;
	}
	return &book->entries[book->n++];
}

bool dbha__function_book_add(struct function_book *book, char kind, const char *schema, char verdict, const char *names)
{
	uint32_t where_schema;
	if (book->buckets || !strchr("faotrg", kind) || kind == '\0' || verdict < '0' || verdict > '3' ||
	    !keep_text(book, schema, strlen(schema), &where_schema))
		return false;
	while (*names) {
		size_t length = strcspn(names, "\n");
		uint32_t where;
		if (!keep_text(book, names, length, &where))
			return false;
		struct entry *entry = new_entry(book);
		if (!entry)
			return false;
		*entry = (struct entry){where, where_schema, 0, kind, (short)(verdict - '0')};
		if (kind == BOOK_TROUBLE)
			book->trouble = book->n;
		names += length + (names[length] == '\n');
	}
	return true;
}

static uint32_t hash_of(char kind, const char *name)
{
	uint32_t hash = 2166136261u ^ (unsigned char)kind;
	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * 16777619u;
	return hash ^ hash >> 15;
}

bool dbha__function_book_finish(struct function_book *book)
{
	uint32_t size = 64;
	while (size < book->n + book->n / 2)
		size *= 2;
	book->buckets = calloc(size, sizeof *book->buckets);
	if (!book->buckets)
		return false;
	book->mask = size - 1;
	for (uint32_t i = 0; i < book->n; i++) {
		struct entry *entry = &book->entries[i];
		uint32_t *bucket = &book->buckets[hash_of(entry->kind, book->text + entry->name) & book->mask];
		entry->next = *bucket;
		*bucket = i + 1;
	}
	return true;
}

enum book_verdict dbha__function_book_ask(const struct function_book *book, char kind, const char *schema,
                                          const char *name)
{
	int worst = BOOK_UNKNOWN;
	for (uint32_t i = book->buckets[hash_of(kind, name) & book->mask]; i; i = book->entries[i - 1].next) {
		const struct entry *entry = &book->entries[i - 1];
		if (entry->kind != kind || strcmp(book->text + entry->name, name) != 0 ||
		    (schema && strcmp(book->text + entry->schema, schema) != 0))
			continue;
		if (worst == BOOK_UNKNOWN || entry->verdict < worst)
			worst = entry->verdict;
	}
	return (enum book_verdict)worst;
}

const char *dbha__function_book_trouble(const struct function_book *book)
{
	return book->trouble ? book->text + book->entries[book->trouble - 1].name : NULL;
}

size_t dbha__function_book_names(const struct function_book *book, size_t *bytes)
{
	*bytes = sizeof *book + book->size + book->room * sizeof *book->entries +
	         (book->buckets ? ((size_t)book->mask + 1) * sizeof *book->buckets : 0);
	return book->n;
}
