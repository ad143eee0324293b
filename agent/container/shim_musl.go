// SPDX-License-Identifier: Apache-2.0

//go:build muslshim

package container

// Distributions build libseccomp.a against glibc with _FORTIFY_SOURCE, which
// leaves one symbol undefined that musl has no use for. With this file the same
// archive links into a static musl program.

/*
#include <stdarg.h>
#include <stdio.h>

int __fprintf_chk(FILE *stream, int flag, const char *format, ...)
{
	va_list args;
	int written;

	(void)flag;
	va_start(args, format);
	written = vfprintf(stream, format, args);
	va_end(args);
	return written;
}
*/
import "C"
