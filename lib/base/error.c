#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct code_row {
	int number;
	const char *name;
	const char *sqlstate;
};

static const struct code_row codes[] = {
#define DBHA_XX(name, number, sqlstate, text) {number, #name, sqlstate},
    DBHA_ERROR_MAP(DBHA_XX)
#undef DBHA_XX
};

static const struct code_row *code_row(int code)
{
	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
		if (codes[i].number == code)
			return &codes[i];
	return NULL;
}

const char *dbha_code_name(int code)
{
	const struct code_row *row = code_row(code);
	return row ? row->name : "?";
}

const char *dbha__code_sqlstate(int code)
{
	const struct code_row *row = code_row(code);
	return row ? row->sqlstate : "";
}

int dbha__fail(dbha_error *err, int code, const char *format, ...)
{
	if (!err)
		return code;
	memset(err, 0, sizeof *err);
	err->code = code;
	snprintf(err->sqlstate, sizeof err->sqlstate, "%s", dbha__code_sqlstate(code));
	va_list args;
	va_start(args, format);
	vsnprintf(err->message, sizeof err->message, format, args);
	va_end(args);
	return code;
}
