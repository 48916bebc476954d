/*
 * fuzz_url: a libFuzzer target. Any text becomes a configuration or a refusal: no crash, no leak, and no message that
 * shows a password.
 *
 * The first byte of the input chooses what is done with the rest, so that seeds can be read and written by hand:
 *   u  the rest, with the password planted at its first "$", stands between "postgresql://u:" and "@h/db"
 *   k  the rest stands behind "host=h password=" and the planted password
 *   s  NAME=VALUE, for dbha_config_set on a plain configuration
 *   anything else: the whole input is the text
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_internal.h"

#define PLANTED "Pl4nted-S3cret"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a sanitizer would do: the input is kept and the run ends. */
static void must(bool held, const char *what, const char *text, const dbha_error *err)
{
	if (held)
		return;
	fprintf(stderr, "fuzz_url: %s\n text: %s\n message: %s\n", what, text, err->message);
	abort();
}

/* Once: nothing of the surroundings may have a say. PGUSER spares a look into the list of users for each input. */
static void clean_environment(void)
{
	static bool done;
	extern char **environ;
	if (done)
		return;
	done = true;
	for (char **at = environ; *at;) {
		char name[256];
		snprintf(name, sizeof name, "%.*s", (int)strcspn(*at, "="), *at);
		bool drop = strncmp(name, "PG", 2) == 0 || strncmp(name, "DB", 2) == 0 || strcmp(name, "DATABASE_URL") == 0;
		if (drop)
			unsetenv(name);
		at = drop ? environ : at + 1;
	}
	setenv("PGUSER", "fuzz", 1);
	setenv("HOME", "/nonexistent", 1);
	setenv("PGSYSCONFDIR", "/nonexistent", 1);
}

static void check_message(const char *text, const dbha_error *err, bool planted)
{
	must(err->code == DBHA_ERR_CONFIG, "refused with another code", text, err);
	must(err->message[0] && memchr(err->message, '\0', sizeof err->message), "no message", text, err);
	must(!planted || !strstr(err->message, PLANTED), "the password is shown", text, err);
}

static void check_built(const struct config *config, const char *text, const dbha_error *err)
{
	struct config copy;
	must(config->n_nodes >= 1 && config->n_nodes <= CONFIG_NODES_MAX, "number of nodes", text, err);
	for (int i = 0; i < config->n_nodes; i++) {
		const struct config_node *node = &config->nodes[i];
		must((node->host || node->hostaddr) && node->port && node->name[0], "half a node", text, err);
		for (int j = 0; j < i; j++)
			must(strcmp(node->name, config->nodes[j].name) != 0 || strlen(node->name) > 100, "twins", text, err);
	}
	must(dbha__config_copy(&copy, config, NULL) == DBHA_OK, "copy", text, err);
	must(copy.n_pairs == config->n_pairs && copy.n_nodes == config->n_nodes, "copy of another size", text, err);
	dbha__config_fini(&copy);
}

static void try_get(dbha_config *config, const char *text, const dbha_error *err)
{
	const char *password = dbha_config_get(config, "password");
	must(!password || strcmp(password, "********") == 0, "password by get", text, err);
	dbha_config_get(config, "host");
	for (int i = 0; dbha_option(i); i++) {
		const char *value = dbha_config_get(config, dbha_option(i)->name);
		must(value || strcmp(dbha_option(i)->type, "text") == 0, "an option without a value", text, err);
	}
}

static void try_text(const char *text, bool planted)
{
	dbha_error err = {0};
	dbha_config *config = dbha_config_new(text, &err);
	struct config built;
	if (!config) {
		check_message(text, &err, planted);
		return;
	}
	must(err.code == 0, "accepted with an error", text, &err);
	try_get(config, text, &err);
	if (dbha__config_build(config, &built, &err) == DBHA_OK)
		check_built(&built, text, &err);
	else
		check_message(text, &err, planted);
	dbha__config_fini(&built);
	dbha_config_free(config);
}

static void try_set(char *text)
{
	dbha_error err = {0};
	struct config built;
	char *value = strchr(text, '=');
	dbha_config *config = dbha_config_new("postgresql://u:" PLANTED "@h1,h2/db", &err);
	must(config, "a plain URL", text, &err);
	if (value)
		*value++ = '\0';
	if (dbha_config_set(config, text, value ? value : "", &err) != DBHA_OK)
		check_message(text, &err, true);
	else if (dbha__config_build(config, &built, &err) != DBHA_OK)
		check_message(text, &err, true);
	else
		dbha__config_fini(&built);
	dbha_config_get(config, text);
	dbha_config_free(config);
}

/* Three pieces in one; the caller frees it. */
static char *join(const char *a, const char *b, const char *c)
{
	char *text = malloc(strlen(a) + strlen(b) + strlen(c) + 1);
	if (!text)
		abort();
	sprintf(text, "%s%s%s", a, b, c);
	return text;
}

static void try_planted_url(char *rest)
{
	char *split = strchr(rest, '$');
	if (split)
		*split++ = '\0';
	char *password = join(rest, PLANTED, split ? split : "");
	char *text = join("postgresql://u:", password, "@h/db");
	try_text(text, true);
	free(password);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	clean_environment();
	char *input = malloc(size + 1);
	if (!input)
		abort();
	if (size)
		memcpy(input, data, size);
	input[size] = '\0';
	char *rest = input[0] ? input + 1 : input;
	bool holds_it = strstr(input, PLANTED);

	if (holds_it) {
		try_text(input, false); /* where it stands was chosen by the fuzzer, so that it may be no password */
	} else if (input[0] == 'u') {
		try_planted_url(rest);
	} else if (input[0] == 'k') {
		char *text = join("host=h password=" PLANTED, rest, "");
		try_text(text, true);
		free(text);
	} else if (input[0] == 's') {
		try_set(rest);
	} else {
		try_text(input, false);
	}
	free(input);
	return 0;
}
