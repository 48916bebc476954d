/*
 * test_conninfo: texts into pairs; what libpq makes of them without a network; and that no message shows a password.
 */
/* Its macros would get in the way of the stand-ins. */
#include <libintl.h>
#undef dgettext
#undef dcgettext
#include <libpq-fe.h>
#include <locale.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conninfo.h"
#include "effective.h"
#include "keywords.h"
#include "error.h"
#include "option.h"
#include "unit.h"

/* No word of any message, and long enough not to be in one by chance. */
#define PASSWORD "Pl4nted-S3cret"

/* ---- libpq's way to the network, watched: these stand in for the C library's. ---- */

static int network_calls;

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
	(void)name;
	(void)service;
	(void)hints;
	*out = NULL;
	network_calls++;
	return EAI_FAIL;
}

int socket(int domain, int type, int protocol)
{
	(void)domain;
	(void)type;
	(void)protocol;
	network_calls++;
	return -1;
}

/* ---- A language for libpq's messages, as gettext would give it to a process with another locale. ---- */

static bool translate;

char *dcgettext(const char *domain, const char *msgid, int category)
{
	(void)domain;
	(void)category;
	bool foreign = translate && uselocale((locale_t)0) == LC_GLOBAL_LOCALE && strstr(msgid, "missing \"=\" after");
	return (char *)(uintptr_t)(foreign ? "il manque << = >> apres <<%s>>\n" : msgid);
}

char *dgettext(const char *domain, const char *msgid)
{
	return dcgettext(domain, msgid, 0);
}

static void clean_environment(void)
{
	static const char *const names[] = {"PGHOST",
	                                    "PGHOSTADDR",
	                                    "PGPORT",
	                                    "PGDATABASE",
	                                    "PGUSER",
	                                    "PGPASSWORD",
	                                    "PGPASSFILE",
	                                    "PGSERVICE",
	                                    "PGSERVICEFILE",
	                                    "PGOPTIONS",
	                                    "PGAPPNAME",
	                                    "PGSSLMODE",
	                                    "PGCONNECT_TIMEOUT",
	                                    "PGTARGETSESSIONATTRS",
	                                    "PGCHANNELBINDING"};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		unsetenv(names[i]);
	setenv("HOME", "/nonexistent", 1);
	setenv("PGSYSCONFDIR", "/nonexistent", 1);
	network_calls = 0;
}

/* ---- Texts that are accepted ---- */

static const struct good {
	const char *text;
	const char *pairs[14];
} goods[] = {
    {"", {NULL}},
    {"   ", {NULL}},
    {"postgresql://", {NULL}},
    {"postgres://", {NULL}},
    {"postgresql://h", {"host", "h"}},
    {"postgresql://u:p@h1:5432,h2:5433,h3/db",
     {"user", "u", "password", "p", "host", "h1,h2,h3", "port", "5432,5433,", "dbname", "db"}},
    {"postgresql+psycopg://u@h:1/db", {"user", "u", "host", "h", "port", "1", "dbname", "db"}},
    {"postgresql+psycopg2://h:1", {"host", "h", "port", "1"}},
    {"postgres+asyncpg://h:1", {"host", "h", "port", "1"}},
    {"postgresql+my_driver.x-1://h:1", {"host", "h", "port", "1"}},
    {"postgresql:///db", {"dbname", "db"}},
    {"postgresql://:5433/db", {"port", "5433", "dbname", "db"}},
    {"postgresql://u@/db", {"user", "u", "dbname", "db"}},
    {"postgresql://h1,,h2:3/db", {"host", "h1,,h2", "port", ",,3", "dbname", "db"}},
    {"postgresql://h1,h2/db", {"host", "h1,h2", "port", "5432", "dbname", "db"}},
    {"postgresql://[::1]:5433,[fe80::1]/db", {"host", "::1,fe80::1", "port", "5433,", "dbname", "db"}},
    {"postgresql://%2Fvar%2Frun%2Fpg:5433/db", {"host", "/var/run/pg", "port", "5433", "dbname", "db"}},
    {"postgresql:///db?host=/var/run/pg", {"host", "/var/run/pg", "dbname", "db"}},
    {"postgresql:///db?host=%2Fa,%2Fb&port=1,2", {"host", "/a,/b", "port", "1,2", "dbname", "db"}},
    {"postgresql://h:1/db?hostaddr=10.0.0.1", {"host", "h", "port", "1", "hostaddr", "10.0.0.1", "dbname", "db"}},
    {"postgresql://u%40x:p%40%3A%2F%3F%26@h:1/d%20b",
     {"user", "u@x", "password", "p@:/?&", "host", "h", "port", "1", "dbname", "d b"}},
    {"postgresql://u:a?b&c=d@h:1", {"user", "u", "password", "a?b&c=d", "host", "h", "port", "1"}},
    {"postgresql://u:a b@h:1", {"user", "u", "password", "a b", "host", "h", "port", "1"}},
    {"postgresql://u:p@h:1/db?application_name=a@b", {"application_name", "a@b", "host", "h"}},
    {"postgresql:///db?password=p%40q", {"password", "p@q", "dbname", "db"}},
    {"postgresql:///db?ssl=true", {"sslmode", "require", "dbname", "db"}},
    {"postgresql:///?", {NULL}},
    /* own options: first, last, between, alone, percent-encoded, twice */
    {"postgresql:///?call_timeout=5s", {"call_timeout", "5s"}},
    {"postgresql:///db?call_timeout=5s&sslmode=require", {"call_timeout", "5s", "sslmode", "require", "dbname", "db"}},
    {"postgresql:///db?sslmode=require&call_timeout=5s", {"call_timeout", "5s", "sslmode", "require", "dbname", "db"}},
    {"postgresql:///db?user=u&call_timeout=5s&sslmode=require",
     {"user", "u", "call_timeout", "5s", "sslmode", "require", "dbname", "db"}},
    {"postgresql:///?c%61ll_timeout=%35%73", {"call_timeout", "5s"}},
    {"postgresql:///?log_file=%2Ftmp%2Fa%26b%3Dc", {"log_file", "/tmp/a&b=c"}},
    {"postgresql:///?call_timeout=5s&call_timeout=6s", {"call_timeout", "6s"}},
    {"postgresql:///?call_timeout=", {"call_timeout", ""}},
    {"postgresql:///?connect_timeout=3&target_session_attrs=read-write",
     {"connect_timeout", "3", "target_session_attrs", "read-write"}},
    /* ... and one that newer versions of libpq know as well: it is taken by every version */
    {"postgresql://h/?load_balance_hosts=random", {"host", "h", "load_balance_hosts", "random"}},
    {"load_balance_hosts=disable host=h", {"host", "h", "load_balance_hosts", "disable"}},
    /* keyword/value text by libpq's quoting rules */
    {"host=h1,h2 port=1,2 dbname=db", {"host", "h1,h2", "port", "1,2", "dbname", "db"}},
    {" host = h\tport\n=\n1 ", {"host", "h", "port", "1"}},
    {"host=h call_timeout=5s port=1", {"host", "h", "port", "1", "call_timeout", "5s"}},
    {"call_timeout = '5 s' host=h", {"host", "h", "call_timeout", "5 s"}},
    {"log_file='/tmp/it\\'s \\\\' host=h", {"host", "h", "log_file", "/tmp/it's \\"}},
    {"log_file=/tmp/a\\ b host=h", {"host", "h", "log_file", "/tmp/a b"}},
    {"log_file=''host=h", {"host", "h", "log_file", ""}},
    {"password='a b=c \\' call_timeout=1s' host=h", {"password", "a b=c ' call_timeout=1s", "host", "h"}},
    {"host=h host=i", {"host", "i"}},
    {"host=h port=''", {"host", "h"}},
    {"connect_timeout=3 target_session_attrs=any", {"connect_timeout", "3", "target_session_attrs", "any"}},
    {"host=::1,/sock,@abstract", {"host", "::1,/sock,@abstract"}},
};

START_TEST(good_texts_become_pairs)
{
	const struct good *g = &goods[_i];
	struct config_pairs pairs = {0};
	dbha_error err = {0};
	int n = 0;
	ck_assert_msg(dbha__conninfo_parse(g->text, &pairs, &err) == DBHA_OK, "%s: %s", g->text, err.message);
	for (const char *const *words = g->pairs; *words; words += 2, n++) {
		int i = 0;
		while (i < pairs.n && strcmp(pairs.items[i].keyword, words[0]) != 0)
			i++;
		ck_assert_msg(i < pairs.n && strcmp(pairs.items[i].value, words[1]) == 0, "%s: %s is %s, not %s", g->text,
		              words[0], i < pairs.n ? pairs.items[i].value : "missing", words[1]);
	}
	/* One row lists only some of its pairs. */
	if (!strstr(g->text, "a@b"))
		ck_assert_msg(pairs.n == n, "%s: %d pairs", g->text, pairs.n);
	dbha__pairs_fini(&pairs);
}
END_TEST

/* ---- Texts that are refused ---- */

static const struct bad {
	const char *text, *says;
} bads[] = {
    {"postgresql://h/db?nonsense=1", "unknown option \"nonsense\""},
    {"postgresql://h/db?call_timout=1s", "did you mean call_timeout?"},
    {"postgresql://h/db?sslmod=require", "did you mean sslmode?"},
    {"host=h pool_max_siez=3", "did you mean pool_max_size?"},
    {"hots=h", "did you mean host?"},
    {"host=h frobnicate=3", "unknown option \"frobnicate\""},
    {"postgresql://h?ssl=false", "ssl: \"false\""},
    {"postgresql://h?host=a:1&host=b:2", "host: given twice"},
    {"postgresql://h?port=1&port=2", "port: given twice"},
    {"postgresql://[::1/db", "matching \"]\""},
    {"postgresql://[]/db", "IPv6 host address may not be empty"},
    {"postgresql://[::1]x/db", "unexpected character"},
    {"postgresql://h/db?sslmode", "missing key/value separator \"=\""},
    {"postgresql://h/db?sslmode=a=b", "extra key/value separator \"=\""},
    {"postgresql://h/db?call_timeout=a=b", "extra key/value separator \"=\""},
    {"postgresql://h/db?call_timeout=%zz", "invalid percent-encoded token"},
    {"postgresql://h/db?call_timeout=%0", "invalid percent-encoded token"},
    {"postgresql://h/db?call_timeout=%00", "forbidden value %00"},
    {"postgresql://h/%zz", "invalid percent-encoded token"},
    {"host='h", "unterminated quoted string"},
    {"call_timeout='5s", "unterminated quoted string"},
    {"host", "missing \"=\""},
    {"mydb", "accepted: postgresql://"},
    {"=x", ""},
    {"mysql://h/db", "scheme \"mysql\" is not accepted; accepted: postgresql://"},
    {"POSTGRESQL://h/db", "scheme \"POSTGRESQL\""},
    {"postgresql+://h/db", "scheme \"postgresql+\""},
    {"postgresqlx://h/db", "scheme \"postgresqlx\""},
    {"postgresql://h:54x2/db", "port: "},
    {"postgresql://u:p@@h/db", "\"@\" as %40"},
};

START_TEST(bad_texts_are_refused)
{
	const struct bad *b = &bads[_i];
	struct config_pairs pairs = {0};
	dbha_error err = {0};
	ck_assert_msg(dbha__conninfo_parse(b->text, &pairs, &err) == DBHA_ERR_CONFIG, "%s was taken", b->text);
	ck_assert_int_eq(err.code, DBHA_ERR_CONFIG);
	ck_assert_msg(strstr(err.message, b->says), "%s: %s", b->text, err.message);
	ck_assert_msg(!strchr(err.message, '\n'), "%s", err.message);
	dbha__pairs_fini(&pairs);
}
END_TEST

START_TEST(newer_keywords_are_explained)
{
	struct config_pairs pairs = {0};
	dbha_error err = {0};
	if (PQlibVersion() >= 160000)
		return;
	ck_assert_int_eq(dbha__conninfo_parse("postgresql://h/?require_auth=md5", &pairs, &err), DBHA_ERR_CONFIG);
	ck_assert_ptr_nonnull(strstr(err.message, "require_auth: not known to libpq"));
	ck_assert_ptr_nonnull(strstr(err.message, "came with libpq 16"));
	dbha__pairs_fini(&pairs);
}
END_TEST

/* ---- Passwords ---- */

/* Each text has the password, or a part of it, somewhere it may be misread. */
static const struct secret {
	const char *text;
	bool refused;
} secrets[] = {
    {"postgresql://u:" PASSWORD "@h/db", false},
    {"postgresql://u:" PASSWORD "@h/db?nonsense=1", true},
    {"postgresql://u:" PASSWORD "@h/db?sslmode=x", true},
    {"postgresql://u:" PASSWORD "@h/db?sslmode", true},
    {"postgresql://u:" PASSWORD "@h/db?pool_max_size=x", true},
    {"postgresql://u:" PASSWORD "@[::1/db", true},
    {"postgresql://u:" PASSWORD "@[::1]x/db", true},
    {"postgresql://u:" PASSWORD "@h:54x2/db", true},
    {"postgresql://u:" PASSWORD "@h x/db", true},
    {"postgresql://u:" PASSWORD "@h:1,2/db", false},
    {"postgresql://u:p@" PASSWORD "@h/db", true},
    {"postgresql://u:" PASSWORD "@ss@h/db", true},
    {"postgresql://u:p/" PASSWORD "@h/db", true},
    {"postgresql://u:" PASSWORD "/x@h/db", true},
    {"postgresql://u:12/" PASSWORD "@h/db", true},
    {"postgresql://u:1/x?sslmode=" PASSWORD "@h/db", true},
    {"postgresql://u:1/x?" PASSWORD "=y@h/db", true},
    {"postgresql://u:1/x?" PASSWORD "@h/db", true},
    {"postgresql://u:1/x?host=" PASSWORD "%20@h/db", true},
    {"postgresql://u:1/x?call_timeout=" PASSWORD "@h/db", true},
    {"postgresql://u:p@x:" PASSWORD "@h/db", true},
    {"postgresql://u:p@x/db?sslmode=" PASSWORD "@h/db", true},
    {"postgresql://u:" PASSWORD "%zz@h/db", true},
    {"postgresql://u:%zz" PASSWORD "@h/db", true},
    {"postgresql://u:%00" PASSWORD "@h/db", true},
    {"postgresql://u:" PASSWORD, true},
    {"postgresql://u:" PASSWORD "/db", true},
    {"postgresql://me@corp:" PASSWORD "/db", true},
    {"postgresql://[" PASSWORD "]x@h/db", false},
    {"postgresql://[" PASSWORD "@h/db", false},
    {"postgresql://u:a\"b\" " PASSWORD "@[h/db", true},
    {"mysql://u:" PASSWORD "@h/db", true},
    {"//u:" PASSWORD "@h/db", true},
    {"u:" PASSWORD "@h/db", true},
    {"host=h password=" PASSWORD, false},
    {"host=h password=" PASSWORD " nonsense=1", true},
    {"host=h password=my " PASSWORD " word", true},
    {"host=h password=my " PASSWORD, true},
    {"host=h password=my " PASSWORD "=x", true},
    {"host=h password='it's " PASSWORD "' user=u", true},
    {"host=h password='" PASSWORD, true},
    {"host=h password=a\"b " PASSWORD "\"c", true},
    {"host=h password=" PASSWORD " sslmode=x", true},
    {"host=h password=" PASSWORD " port=x", true},
    {"host=h sslpassword=my " PASSWORD "=x", true},
    {"host=h password=" PASSWORD " service=x", true},
    {"password=" PASSWORD " sslmode=" PASSWORD, true},
};

static int parse_and_resolve(const char *text, dbha_error *err)
{
	struct config_pairs pairs = {0};
	struct effective resolved = {0};
	int rc = dbha__conninfo_parse(text, &pairs, err);
	if (rc == DBHA_OK)
		rc = dbha__effective_resolve(&pairs, &resolved, err);
	dbha__effective_fini(&resolved);
	dbha__pairs_fini(&pairs);
	return rc;
}

START_TEST(no_message_shows_a_password)
{
	const struct secret *s = &secrets[_i];
	dbha_error err = {0};
	dbha_config *config = dbha_config_new(s->text, &err);
	ck_assert_msg(!config == s->refused, "%s: %d %s", s->text, err.code, err.message);
	ck_assert_int_eq(err.code, s->refused ? DBHA_ERR_CONFIG : DBHA_OK);
	ck_assert_msg(!strstr(err.message, PASSWORD), "%s: %s", s->text, err.message);
	dbha_config_free(config);
}
END_TEST

/*
 * The redaction knows the quotes of untranslated messages only. The stand-in for gettext above translates into others.
 */
START_TEST(the_language_of_the_process_does_not_matter)
{
	dbha_error err = {0};
	char *message = NULL;
	translate = true;
	/* First that it works: libpq alone does speak that language. */
	ck_assert_ptr_null(PQconninfoParse("password=my word", &message));
	ck_assert_ptr_nonnull(strstr(message, "<<word>>"));
	PQfreemem(message);

	ck_assert_int_eq(parse_and_resolve("password=my " PASSWORD, &err), DBHA_ERR_CONFIG);
	ck_assert_ptr_nonnull(strstr(err.message, "missing \"=\" after \"...\" in connection info string"));
	ck_assert_ptr_eq(uselocale((locale_t)0), LC_GLOBAL_LOCALE);
}
END_TEST

START_TEST(some_keywords_are_secret)
{
	ck_assert(dbha__keyword_is_secret("password"));
	ck_assert(dbha__keyword_is_secret("sslpassword"));
	ck_assert(!dbha__keyword_is_secret("passfile"));
	ck_assert(!dbha__keyword_is_secret("user"));
}
END_TEST

/* Every keyword that libpq itself marks as a password must be one of ours. */
START_TEST(libpq_has_no_other_secrets)
{
	PQconninfoOption *all = PQconninfoParse("", NULL);
	ck_assert_ptr_nonnull(all);
	for (PQconninfoOption *o = all; o->keyword; o++)
		if (strchr(o->dispchar, '*'))
			ck_assert_msg(dbha__keyword_is_secret(o->keyword), "%s", o->keyword);
	PQconninfoFree(all);
}
END_TEST

/* ---- What libpq makes of it ---- */

static void resolve(const char *text, struct effective *out)
{
	struct config_pairs pairs = {0};
	dbha_error err = {0};
	ck_assert_msg(dbha__conninfo_parse(text, &pairs, &err) == DBHA_OK, "%s", err.message);
	ck_assert_msg(dbha__effective_resolve(&pairs, out, &err) == DBHA_OK, "%s", err.message);
	dbha__pairs_fini(&pairs);
}

static void check_pair(const struct effective *r, const char *keyword, const char *want)
{
	const char *got = dbha__pairs_get(&r->pairs, keyword);
	ck_assert_msg(want ? got && strcmp(got, want) == 0 : !got, "%s is %s", keyword, got ? got : "NULL");
}

START_TEST(resolving_never_touches_the_network)
{
	struct effective r;
	/* First that the watch works: with nothing wrong libpq does look the name up. */
	PGconn *pg = PQconnectStart("host=nosuch.invalid user=u password=p");
	PQfinish(pg);
	pg = PQconnectStart("hostaddr=127.0.0.1 user=u password=p");
	PQfinish(pg);
	ck_assert_int_gt(network_calls, 0);
	network_calls = 0;

	resolve("postgresql://u:p@nosuch.invalid,127.0.0.1,[::1]/db?target_session_attrs=any", &r);
	dbha__effective_fini(&r);
	ck_assert_int_eq(dbha__effective_check("sslmode", "require", NULL), DBHA_OK);
	ck_assert_int_eq(dbha__effective_check("user", "me", NULL), DBHA_OK);
	ck_assert_int_eq(network_calls, 0);
}
END_TEST

START_TEST(only_what_was_set_is_passed_on)
{
	struct effective r;
	resolve("host=h user=me", &r);
	check_pair(&r, "host", "h");
	check_pair(&r, "user", "me");
	check_pair(&r, "dbname", "me"); /* libpq's own rule */
	for (int i = 0; i < r.pairs.n; i++)
		ck_assert_msg(r.pairs.n == 3, "also %s", r.pairs.items[i].keyword);
	ck_assert_str_eq(r.default_port, "5432");
	ck_assert(r.default_host[0] == '/' || strcmp(r.default_host, "localhost") == 0);
	dbha__effective_fini(&r);

	/* A default that was written down is not a default: a variable says otherwise. */
	setenv("PGSSLMODE", "require", 1);
	resolve("host=h user=me sslmode=prefer", &r);
	check_pair(&r, "sslmode", "prefer");
	dbha__effective_fini(&r);
	resolve("host=h user=me", &r);
	check_pair(&r, "sslmode", "require");
	dbha__effective_fini(&r);
}
END_TEST

START_TEST(the_environment_of_libpq_is_read)
{
	struct effective r;
	setenv("PGHOST", "a,b", 1);
	setenv("PGPORT", "1,2", 1);
	setenv("PGUSER", "u", 1);
	setenv("PGPASSWORD", PASSWORD, 1);
	setenv("PGAPPNAME", "app", 1);
	setenv("PGCONNECT_TIMEOUT", "9", 1);
	setenv("PGTARGETSESSIONATTRS", "standby", 1);
	resolve("", &r);
	check_pair(&r, "host", "a,b");
	check_pair(&r, "port", "1,2");
	check_pair(&r, "user", "u");
	check_pair(&r, "password", PASSWORD);
	check_pair(&r, "application_name", "app");
	check_pair(&r, "connect_timeout", "9");
	check_pair(&r, "target_session_attrs", "standby");
	/* The default host is libpq's own, whatever PGHOST says. */
	ck_assert_str_ne(r.default_host, "a");
	dbha__effective_fini(&r);
	resolve("host=c,d", &r);
	check_pair(&r, "host", "c,d");
	check_pair(&r, "port", "1,2");
	dbha__effective_fini(&r);
}
END_TEST

static char service_path[] = "/tmp/dbha-service-XXXXXX";

START_TEST(a_service_file_is_read)
{
	static const char text[] =
	    "[s]\nhost=sh\nport=7\nsslmode=require\nconnect_timeout=8\ntarget_session_attrs=standby\n";
	struct effective r;
	int fd = mkstemp(service_path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, sizeof text - 1), sizeof text - 1);
	close(fd);
	setenv("PGSERVICEFILE", service_path, 1);
	setenv("PGTARGETSESSIONATTRS", "primary", 1);
	setenv("PGPORT", "8", 1);
	resolve("service=s port=9", &r);
	check_pair(&r, "service", "s");
	check_pair(&r, "host", "sh");
	check_pair(&r, "port", "9");
	check_pair(&r, "sslmode", "require");
	check_pair(&r, "connect_timeout", "8");
	check_pair(&r, "target_session_attrs", "standby");
	dbha__effective_fini(&r);
	resolve("service=s", &r);
	check_pair(&r, "port", "7");
	dbha__effective_fini(&r);
	unlink(service_path);
}
END_TEST

START_TEST(password_files_are_left_to_libpq)
{
	static char path[] = "/tmp/dbha-passfile-XXXXXX";
	static const char line[] = "*:*:*:*:" PASSWORD "\n";
	struct effective r;
	int fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, line, sizeof line - 1), sizeof line - 1);
	close(fd);
	char text[100];
	snprintf(text, sizeof text, "host=h user=u passfile=%s", path);
	resolve(text, &r);
	check_pair(&r, "passfile", path);
	check_pair(&r, "password", NULL);
	dbha__effective_fini(&r);
	setenv("PGPASSFILE", path, 1);
	resolve("host=h user=u", &r);
	check_pair(&r, "passfile", NULL);
	check_pair(&r, "password", NULL);
	dbha__effective_fini(&r);
	unlink(path);
}
END_TEST

static const struct bad bad_together[] = {
    {"host=a,b port=1,2,3", "port: the list of 3 does not match the list of 2 hosts"},
    {"host=a,b hostaddr=1.1.1.1", "hostaddr: the list of 1 does not match the list of 2"},
    {"host=a sslmode=maybe", "invalid sslmode value: \"maybe\""},
    {"host=a channel_binding=maybe", "invalid channel_binding value: \"maybe\""},
    {"host=a gssencmode=maybe", "invalid gssencmode value: \"maybe\""},
    {"host=a ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", "invalid SSL protocol version range"},
    {"service=nosuch", "definition of service \"nosuch\" not found"},
};

START_TEST(what_libpq_refuses_is_refused)
{
	dbha_error err = {0};
	ck_assert_int_eq(parse_and_resolve(bad_together[_i].text, &err), DBHA_ERR_CONFIG);
	ck_assert_msg(strstr(err.message, bad_together[_i].says), "%s", err.message);
	ck_assert_int_eq(network_calls, 0);
}
END_TEST

START_TEST(lists_elsewhere_do_not_disturb_a_check)
{
	dbha_error err = {0};
	setenv("PGHOST", "a,b,c", 1);
	setenv("PGPORT", "1,2", 1);
	setenv("PGHOSTADDR", "1.1.1.1,2.2.2.2", 1);
	ck_assert_msg(dbha__effective_check("sslmode", "require", &err) == DBHA_OK, "%s", err.message);
	ck_assert_msg(dbha__effective_check("port", "1,2,3,4", &err) == DBHA_OK, "%s", err.message);
	ck_assert_int_eq(dbha__effective_check("sslmode", "maybe", &err), DBHA_ERR_CONFIG);
	ck_assert_int_eq(dbha__effective_check("sslmod", "require", &err), DBHA_ERR_CONFIG);
	ck_assert_int_eq(dbha__effective_check("password", "a\nb", &err), DBHA_OK);
}
END_TEST

static const char *env_of_words(const char *name, void *data)
{
	for (const char *const *words = data; *words; words += 2)
		if (strcmp(words[0], name) == 0)
			return words[1];
	return NULL;
}

START_TEST(db_variables_become_pairs)
{
	static const char *const env[] = {"DB_HOST", "a,b", "DB_PORT", "",  "DB_NAME", "n",
	                                  "DB_USER", "u",   "DB_PASS", "p", NULL};
	struct config_pairs pairs = {0};
	ck_assert_int_eq(dbha__conninfo_from_env(env_of_words, (void *)(uintptr_t)env, &pairs, NULL), DBHA_OK);
	ck_assert_int_eq(pairs.n, 4);
	ck_assert_str_eq(dbha__pairs_get(&pairs, "host"), "a,b");
	ck_assert_str_eq(dbha__pairs_get(&pairs, "dbname"), "n");
	ck_assert_str_eq(dbha__pairs_get(&pairs, "user"), "u");
	ck_assert_str_eq(dbha__pairs_get(&pairs, "password"), "p");
	dbha__pairs_fini(&pairs);
}
END_TEST

static TCase *text_case(void)
{
	TCase *tcase = tcase_create("text");
	tcase_add_checked_fixture(tcase, clean_environment, NULL);
	tcase_add_loop_test(tcase, good_texts_become_pairs, 0, sizeof goods / sizeof goods[0]);
	tcase_add_loop_test(tcase, bad_texts_are_refused, 0, sizeof bads / sizeof bads[0]);
	tcase_add_test(tcase, newer_keywords_are_explained);
	tcase_add_loop_test(tcase, no_message_shows_a_password, 0, sizeof secrets / sizeof secrets[0]);
	tcase_add_test(tcase, the_language_of_the_process_does_not_matter);
	tcase_add_test(tcase, some_keywords_are_secret);
	tcase_add_test(tcase, libpq_has_no_other_secrets);
	return tcase;
}

static TCase *libpq_case(void)
{
	TCase *tcase = tcase_create("libpq");
	tcase_add_checked_fixture(tcase, clean_environment, NULL);
	tcase_add_test(tcase, resolving_never_touches_the_network);
	tcase_add_test(tcase, only_what_was_set_is_passed_on);
	tcase_add_test(tcase, the_environment_of_libpq_is_read);
	tcase_add_test(tcase, a_service_file_is_read);
	tcase_add_test(tcase, password_files_are_left_to_libpq);
	tcase_add_loop_test(tcase, what_libpq_refuses_is_refused, 0, sizeof bad_together / sizeof bad_together[0]);
	tcase_add_test(tcase, lists_elsewhere_do_not_disturb_a_check);
	tcase_add_test(tcase, db_variables_become_pairs);
	return tcase;
}

static Suite *conninfo_suite(void)
{
	Suite *suite = suite_create("conninfo");
	suite_add_tcase(suite, text_case());
	suite_add_tcase(suite, libpq_case());
	return suite;
}

UNIT_MAIN(conninfo_suite)
