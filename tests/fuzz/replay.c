/*
 * replay: runs a fuzz target over the files named on the command line, so that a corpus is an ordinary test and needs
 * neither clang nor libFuzzer.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX (1 << 20) /* far beyond any seed */

static int replay(const char *path)
{
	FILE *file = fopen(path, "rb");
	uint8_t *data = malloc(INPUT_MAX);
	if (!file || !data) {
		perror(path);
		if (file)
			fclose(file);
		free(data);
		return -1;
	}
	size_t size = fread(data, 1, INPUT_MAX, file);
	int failed = ferror(file);
	fclose(file);
	/* A copy of the exact size, so that a sanitizer sees a read beyond the end. */
	uint8_t *exact = realloc(data, size ? size : 1);
	LLVMFuzzerTestOneInput(exact ? exact : data, size);
	free(exact ? exact : data);
	return failed ? -1 : 0;
}

int main(int argc, char **argv)
{
	int failed = 0;
	for (int i = 1; i < argc; i++)
		failed += replay(argv[i]) != 0;
	printf("replay: %d inputs, %d could not be read\n", argc - 1, failed);
	/* No input at all is a mistake in how the test was started. */
	return failed || argc < 2 ? EXIT_FAILURE : EXIT_SUCCESS;
}
