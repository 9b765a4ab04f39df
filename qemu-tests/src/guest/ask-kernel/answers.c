#define _GNU_SOURCE
#include "ask-kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void problem(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	printf("problem ");
	vprintf(format, arguments);
	printf("\n");
	va_end(arguments);
	fflush(stdout);
}

const char *name_of(int number)
{
	return number ? strerrorname_np(number) : "ok";
}

char answered[LONGEST];

const char *answer_of(const char *text)
{
	return strncpy(answered, text, sizeof(answered) - 1);
}

/* What is printed stays on one line. */
void answer(const char *text)
{
	printf("answer ");
	for (; *text; text++) {
		if (*text == '\n')
			printf("\\n");
		else if (*text == '\\')
			printf("\\\\");
		else if (*text < ' ' || *text > '~')
			printf("\\x%02x", (unsigned char)*text);
		else
			putchar(*text);
	}
	printf("\n");
	fflush(stdout);
}

int unhex(char *text)
{
	int count = 0;
	unsigned byte;

	for (; sscanf(text + 2 * count, "%2x", &byte) == 1; count++)
		text[count] = byte;
	return count;
}

/* 0, or the errno. */
int write_all(const char *path, const char *value, int length)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);
	int result = 0;
	ssize_t written;

	if (file < 0)
		return errno;
	written = write(file, value, length);
	if (written < 0)
		result = errno;
	else if (written != length)
		result = EIO;
	close(file);
	return result;
}

int write_text(const char *path, const char *value)
{
	return write_all(path, value, strlen(value));
}

const char *content(const char *path)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length, all = 0;

	if (file < 0)
		return answer_of(name_of(errno));
	while ((length = read(file, answered + all, sizeof(answered) - 1 - all)) > 0)
		all += length;
	answered[all] = 0;
	if (length < 0)
		answer_of(name_of(errno));
	close(file);
	return answered;
}

/* Where a link leads to, the last part of it. */
const char *link_end(const char *path)
{
	static char target[PATH_MAX];
	ssize_t length = readlink(path, target, sizeof(target) - 1);

	if (length < 0)
		return answer_of(name_of(errno));
	target[length] = 0;
	return answer_of(basename(target));
}
