/*
 * cli_output.c: prints tables of texts: aligned for people, CSV and JSON for programs, Markdown for documents.
 */
#include "cli.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --------------------------------------------------------------------------------------------------------------- */

/* How many bytes the UTF-8 character at `s` has, or 0 if it is none (overlong, a surrogate, cut off). */
static int utf8_length(const unsigned char *s)
{
	if (s[0] < 0x80)
		return 1;
	int length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	for (int i = 1; i < length; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
	    (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return length;
}

void cli_json_string(FILE *out, const char *text)
{
	if (text == NULL) {
		fputs("null", out);
		return;
	}
	fputc('"', out);
	for (const unsigned char *s = (const unsigned char *)text; *s != '\0';) {
		int length = utf8_length(s);
		if (*s == '"' || *s == '\\')
			fprintf(out, "\\%c", *s);
		else if (*s == '\n')
			fputs("\\n", out);
		else if (*s < 0x20 || *s == 0x7f)
			fprintf(out, "\\u%04x", *s);
		else if (length == 0)
			fputs("\\ufffd", out);
		else
			fwrite(s, 1, (size_t)length, out);
		s += length > 0 ? length : 1;
	}
	fputc('"', out);
}

/*
 * Whether a number of PostgreSQL is one of JSON too. It always writes a digit before the point, so NaN and Infinity
 * are the only ones that are not.
 */
static bool is_json_number(const char *text)
{
	if (*text == '-')
		text++;
	return *text >= '0' && *text <= '9';
}

static void json_value(FILE *out, const char *text, enum cli_kind kind)
{
	if (text == NULL)
		fputs("null", out);
	else if (kind == CLI_VERBATIM || (kind == CLI_NUMBER && is_json_number(text)))
		fputs(text, out);
	else if (kind == CLI_BOOLEAN)
		fputs(text[0] == 't' ? "true" : "false", out);
	else
		cli_json_string(out, text);
}

static const char *cell(const struct cli_table *t, int row, int column)
{
	return t->cells[(size_t)row * (size_t)t->columns + (size_t)column];
}

static void print_json(FILE *out, const struct cli_table *t)
{
	fputc('[', out);
	for (int row = 0; row < t->rows; row++) {
		fputs(row == 0 ? "\n  {" : ",\n  {", out);
		for (int column = 0; column < t->columns; column++) {
			if (column > 0)
				fputs(", ", out);
			cli_json_string(out, t->names[column]);
			fputs(": ", out);
			json_value(out, cell(t, row, column), t->kinds[column]);
		}
		fputc('}', out);
	}
	fputs(t->rows > 0 ? "\n]\n" : "]\n", out);
}

/* --------------------------------------------------------------------------------------------------------------- */

static void csv_field(FILE *out, const char *text)
{
	if (text == NULL)
		return;
	if (*text != '\0' && strpbrk(text, ",\"\r\n") == NULL && strcmp(text, "\\.") != 0) {
		fputs(text, out);
		return;
	}
	fputc('"', out);
	for (; *text != '\0'; text++) {
		if (*text == '"')
			fputc('"', out);
		fputc(*text, out);
	}
	fputc('"', out);
}

static void print_csv(FILE *out, const struct cli_table *t)
{
	for (int column = 0; column < t->columns; column++) {
		if (column > 0)
			fputc(',', out);
		csv_field(out, t->names[column]);
	}
	fputc('\n', out);
	for (int row = 0; row < t->rows; row++) {
		for (int column = 0; column < t->columns; column++) {
			if (column > 0)
				fputc(',', out);
			csv_field(out, cell(t, row, column));
		}
		fputc('\n', out);
	}
}

static void print_markdown(FILE *out, const struct cli_table *t)
{
	for (int column = 0; column < t->columns; column++)
		fprintf(out, "| %s ", t->names[column]);
	fputs("|\n", out);
	for (int column = 0; column < t->columns; column++)
		fputs("|---", out);
	fputs("|\n", out);
	for (int row = 0; row < t->rows; row++) {
		for (int column = 0; column < t->columns; column++) {
			fputs("| ", out);
			const char *text = cell(t, row, column);
			for (; text != NULL && *text != '\0'; text++) {
				if (*text == '|')
					fputc('\\', out);
				fputc(*text, out);
			}
			fputc(' ', out);
		}
		fputs("|\n", out);
	}
}

/* --------------------------------------------------------------------------------------------------------------- */

/* What is shown for the character of `length` bytes at `s`, or NULL if it can be printed as it is. */
static const char *escape_for(const unsigned char *s, int length, char buffer[8])
{
	if (*s == '\n')
		return "\\n";
	if (*s == '\t')
		return "\\t";
	/* A control character of ISO 8859-1 is C2 80 to C2 9F in UTF-8; terminals obey these too. */
	bool upper_control = length == 2 && *s == 0xc2 && s[1] < 0xa0;
	if (length > 0 && *s >= 0x20 && *s != 0x7f && !upper_control)
		return NULL;
	snprintf(buffer, 8, "\\x%02x", upper_control ? s[1] : *s);
	return buffer;
}

/*
 * Prints a text for a terminal and returns how many columns it takes; NULL for `out` only measures. What could move
 * the cursor or change the terminal is shown as an escape. Every other character counts as one column.
 */
static int put_visible(FILE *out, const char *text)
{
	int width = 0;
	for (const unsigned char *s = (const unsigned char *)(text != NULL ? text : ""); *s != '\0';) {
		char buffer[8];
		int length = utf8_length(s);
		const char *escape = escape_for(s, length, buffer);
		width += escape != NULL ? (int)strlen(escape) : 1;
		if (out != NULL && escape != NULL)
			fputs(escape, out);
		else if (out != NULL)
			fwrite(s, 1, (size_t)length, out);
		s += length > 0 ? length : 1;
	}
	return width;
}

static void put_spaces(FILE *out, int n)
{
	for (; n > 0; n--)
		fputc(' ', out);
}

static void aligned_row(FILE *out, const struct cli_table *t, const int *widths, const char *const *texts)
{
	for (int column = 0; column < t->columns; column++) {
		const char *text = texts[column];
		int missing = widths[column] - put_visible(NULL, text);
		bool right = t->kinds[column] == CLI_NUMBER && texts != t->names;
		fputs(column == 0 ? " " : " | ", out);
		if (right)
			put_spaces(out, missing);
		put_visible(out, text);
		if (!right && column + 1 < t->columns)
			put_spaces(out, missing);
	}
	fputc('\n', out);
}

static bool print_aligned(FILE *out, const struct cli_table *t)
{
	int *widths = calloc((size_t)t->columns + 1, sizeof(*widths));
	if (widths == NULL)
		return false;
	for (int column = 0; column < t->columns; column++) {
		widths[column] = put_visible(NULL, t->names[column]);
		for (int row = 0; row < t->rows; row++) {
			int width = put_visible(NULL, cell(t, row, column));
			if (width > widths[column])
				widths[column] = width;
		}
	}
	aligned_row(out, t, widths, t->names);
	for (int column = 0; column < t->columns; column++) {
		fputs(column == 0 ? "-" : "-+-", out);
		for (int i = 0; i < widths[column]; i++)
			fputc('-', out);
	}
	fputs("-\n", out);
	for (int row = 0; row < t->rows; row++)
		aligned_row(out, t, widths, t->cells + (size_t)row * (size_t)t->columns);
	free(widths);
	return true;
}

bool cli_table_print(FILE *out, const struct cli_table *table, enum cli_format format)
{
	switch (format) {
	case CLI_ALIGNED:
		return print_aligned(out, table);
	case CLI_CSV:
		print_csv(out, table);
		return true;
	case CLI_JSON:
		print_json(out, table);
		return true;
	case CLI_MARKDOWN:
		print_markdown(out, table);
		return true;
	}
	return false;
}

/* --------------------------------------------------------------------------------------------------------------- */

const char *cli_lsn(uint64_t lsn, char buffer[CLI_LSN_MAX])
{
	if (lsn == 0)
		return "-";
	snprintf(buffer, CLI_LSN_MAX, "%" PRIX32 "/%" PRIX32, (uint32_t)(lsn >> 32), (uint32_t)lsn);
	return buffer;
}

const char *cli_moment(int64_t unix_us, char buffer[CLI_MOMENT_MAX])
{
	time_t seconds = (time_t)(unix_us / 1000000);
	struct tm parts;
	char day[24];
	localtime_r(&seconds, &parts);
	strftime(day, sizeof(day), "%Y-%m-%d %H:%M:%S", &parts);
	snprintf(buffer, CLI_MOMENT_MAX, "%s.%06d", day, (int)(unix_us % 1000000));
	return buffer;
}
