// SPDX-License-Identifier: Apache-2.0

// libcontainer's nsexec is an ELF constructor: it runs in every start of this
// program, before Go does, and obeys _LIBCONTAINER_* variables. The kernel hands
// words of its command line that contain '=' to PID 1 as environment, so for a
// guest agent those variables are the host's to write: with _LIBCONTAINER_INITPIPE=0
// nsexec would read its orders from the console.
//
// This constructor has a lower priority number and therefore runs first. Unless
// the process was started by its own parent as a container's init, it blanks the
// variables. The array keeps its length, because the Go runtime later walks the
// very same memory and finds the auxiliary vector behind the array's end.

#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

extern char **environ;

static const char prefix[] = "_LIBCONTAINER_";
static const char pipe_name[] = "_LIBCONTAINER_INITPIPE";

// A genuine start: the init pipe is one end of a socket pair that our parent
// process made, running as the same user. PID 1 has no such parent.
static int started_by_parent(void)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	char *value = getenv(pipe_name), *end;
	long fd;

	if (getpid() == 1 || value == NULL || *value < '0' || *value > '9')
		return 0;
	errno = 0;
	fd = strtol(value, &end, 10);
	if (errno != 0 || *end != '\0' || fd < 3 || fd > 1 << 20)
		return 0;
	if (getsockopt((int)fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0 || len != sizeof(peer))
		return 0;
	return peer.pid > 0 && peer.pid == getppid() && peer.uid == geteuid();
}

static void __attribute__((constructor(101))) casemate_guard(void)
{
	char **entry;

	if (environ == NULL || started_by_parent())
		return;
	for (entry = environ; *entry != NULL; entry++)
		if (strncmp(*entry, prefix, sizeof(prefix) - 1) == 0)
			**entry = '\0';
}
