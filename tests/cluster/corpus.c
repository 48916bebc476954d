#include "corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *corpus_text(const char *directory, const char *file)
{
	char path[500];
	snprintf(path, sizeof path, "%s/%s", directory, file);
	FILE *stream = fopen(path, "r");
	char *text = NULL;
	size_t size = 0;
	if (!stream)
		return NULL;
	if (getdelim(&text, &size, '\0', stream) < 0) {
		free(text);
		text = NULL;
	}
	fclose(stream);
	return text;
}

static bool go_on(struct corpus_statement *statement, const char *line)
{
	size_t size = strlen(statement->sql) + strlen(line) + 2;
	char *longer = malloc(size);
	if (!longer)
		return false;
	snprintf(longer, size, "%s\n%s", statement->sql, line);
	free(statement->sql);
	statement->sql = longer;
	return true;
}

static bool take_line(struct corpus *corpus, const char *file, int number, const char *line)
{
	if (*line == '\0' || *line == '#')
		return true;
	if (line[1] != ' ')
		return false;
	if (*line == '|')
		return corpus->n > 0 && go_on(&corpus->statements[corpus->n - 1], line + 2);
	if (!strchr("RVWES", *line) || corpus->n == CORPUS_MAX)
		return false;
	corpus->statements[corpus->n++] = (struct corpus_statement){*line, file, number, strdup(line + 2)};
	return true;
}

bool corpus_add(struct corpus *corpus, const char *directory, const char *file)
{
	char *text = corpus_text(directory, file), *rest = text;
	bool good = text != NULL;
	int number = 0;
	for (char *line; good && (line = strsep(&rest, "\n")) != NULL;) {
		good = take_line(corpus, file, ++number, line);
		if (!good)
			fprintf(stderr, "%s:%d: %s\n", file, number, line);
	}
	free(text);
	return good;
}

void corpus_free(struct corpus *corpus)
{
	for (int i = 0; i < corpus->n; i++)
		free(corpus->statements[i].sql);
	corpus->n = 0;
}
