/*
 * ask-kernel SCRIPT: performs each step of SCRIPT, a line each, and prints what the kernel answered:
 * "answer TEXT". What a step is, tells `Op::line()` in checks/rules/ask.rs, which writes the script.
 *
 * A step that sleeps in the kernel and does not come to an end has the answer "hangs" and is left
 * alone. After the steps of a rule, "reset" makes everything as it was; what cannot be, it tells as
 * "problem TEXT".
 */
#define _GNU_SOURCE
#include "ask-kernel/ask-kernel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#include <linux/vfio.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* How often a process may be seen asleep in the kernel, 20 ms apart, before it hangs. */
#define LOOKS 25

static FILE *script;
static char line[LONGEST];

static int insert(const char *path)
{
	int file = open(path, O_RDONLY | O_CLOEXEC), result;

	if (file < 0)
		return errno;
	result = syscall(SYS_finit_module, file, "", 0) ? errno : 0;
	close(file);
	return result;
}

static int is_remembered(const char *path)
{
	for (int index = 0; index < loaded_count; index++)
		if (!strcmp(loaded[index], path))
			return 1;
	return 0;
}

static void remember(char *words)
{
	for (char *path = strtok(words, " "); path; path = strtok(NULL, " "))
		if (!is_remembered(path))
			loaded[loaded_count++] = strdup(path);
}

/* Inserts all of them, those that are there left out. */
static int insert_all(char *words)
{
	for (char *path = strtok(words, " "); path; path = strtok(NULL, " ")) {
		int result = insert(path);

		if (result && result != EEXIST)
			return result;
	}
	return 0;
}

/* Paths of the script are below the root. */
static const char *place(const char *path)
{
	static char full[PATH_MAX];

	snprintf(full, sizeof(full), "/%s", path);
	return full;
}

static const char *perform(char *verb, char *rest)
{
	char *second = strchr(rest, ' ');

	if (!strcmp(verb, "store")) {
		*second++ = 0;
		return answer_of(name_of(write_all(place(rest), second, unhex(second))));
	}
	if (!strcmp(verb, "read"))
		return content(place(rest));
	if (!strcmp(verb, "link"))
		return link_end(place(rest));
	if (!strcmp(verb, "exists"))
		return answer_of(access(place(rest), F_OK) ? "no" : "yes");
	if (!strcmp(verb, "insert"))
		return answer_of(name_of(insert(rest)));
	if (!strcmp(verb, "load"))
		return answer_of(name_of(insert_all(rest)));
	return answer_of("no such step");
}

static char state_of(pid_t pid)
{
	char path[64], text[512] = "", *end;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	if (!file)
		return 0;
	if (!fgets(text, sizeof(text), file))
		text[0] = 0;
	fclose(file);
	end = strrchr(text, ')');
	return end && end[1] ? end[2] : 0;
}

/* Performs a step in a process of its own, so that one that hangs spoils nothing else. */
static const char *attempt(char *verb, char *rest)
{
	int ends[2], looks = 0;
	ssize_t length, all = 0;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return "no pipe";
	fflush(stdout);
	pid = fork();
	if (!pid) {
		const char *text = perform(verb, rest);

		_exit(write(ends[1], text, strlen(text)) < 0);
	}
	close(ends[1]);
	while (looks < LOOKS) {
		struct pollfd readable = { .fd = ends[0], .events = POLLIN };

		if (poll(&readable, 1, 20) > 0)
			break;
		looks = state_of(pid) == 'D' ? looks + 1 : 0;
	}
	if (looks == LOOKS) {
		hanging[hanging_count++] = pid;
		close(ends[0]);
		return "hangs";
	}
	while ((length = read(ends[0], answered + all, sizeof(answered) - 1 - all)) > 0)
		all += length;
	answered[all] = 0;
	close(ends[0]);
	waitpid(pid, NULL, 0);
	return answered;
}

/* Whether a VM could use the device's group now. */
static const char *viable(const char *address)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char path[PATH_MAX];
	int file;

	snprintf(path, sizeof(path), DEVICES "/%s/iommu_group", address);
	link_end(path);
	snprintf(path, sizeof(path), "/dev/vfio/%.16s", answered);
	file = open(path, O_RDWR | O_CLOEXEC);
	if (file < 0)
		return errno == ENOENT ? "no file" : name_of(errno);
	if (ioctl(file, VFIO_GROUP_GET_STATUS, &status))
		answer_of(name_of(errno));
	else
		answer_of(status.flags & VFIO_GROUP_FLAGS_VIABLE ? "viable" : "not viable");
	close(file);
	return answered;
}

/* The file of the serial port that the device is; empty where there is none. */
static const char *port_of(const char *address)
{
	static char path[PATH_MAX];
	DIR *folder = opendir("/sys/class/tty");
	struct dirent *entry;
	char target[PATH_MAX], part[64], *found = "";
	ssize_t length;

	snprintf(part, sizeof(part), "/%s/", address);
	while (folder && !*found && (entry = readdir(folder))) {
		snprintf(path, sizeof(path), "/sys/class/tty/%s", entry->d_name);
		length = readlink(path, target, sizeof(target) - 1);
		target[length < 0 ? 0 : length] = 0;
		if (strstr(target, part)) {
			snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
			found = path;
		}
	}
	if (folder)
		closedir(folder);
	return found;
}

/* Has a process wait for the port's modem lines, as hold-port does. */
static const char *hold(const char *address)
{
	const char *path = port_of(address);
	int file = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	if (file < 0)
		return name_of(errno);
	fflush(stdout);
	holder = fork();
	if (!holder) {
		ioctl(file, TIOCMIWAIT, TIOCM_RNG | TIOCM_DSR | TIOCM_CD | TIOCM_CTS);
		_exit(0);
	}
	close(file);
	while (state_of(holder) != 'S')
		if (waitpid(holder, NULL, WNOHANG))
			return "it does not wait";
		else
			usleep(1000);
	return "ok";
}

static int listen_for_uevents(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int listener = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);

	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof(address)))
		problem("no uevents: %s", name_of(errno));
	return listener;
}

static int next(char **verb, char **rest)
{
	if (!fgets(line, sizeof(line), script))
		return 0;
	line[strcspn(line, "\n")] = 0;
	*verb = line;
	*rest = strchr(line, ' ');
	if (*rest)
		*(*rest)++ = 0;
	else
		*rest = line + strlen(line);
	return 1;
}

/* The address is at the end of the path in "add@PATH". */
static int announces(const char *message, const char *address)
{
	size_t length = strlen(message), end = strlen(address);

	return !strncmp(message, "add@", 4) && length > end &&
	       !strcmp(message + length - end, address);
}

/*
 * Lets the device come back and performs the next steps of the script when it has been announced,
 * before the kernel goes on: this process, which waits for the announcement, goes before the one
 * in which the kernel looks for devices.
 */
static void replug(char *rest)
{
	struct sched_param first = { .sched_priority = 1 }, none = { 0 };
	int listener = listen_for_uevents(), count, heard = 0;
	char address[32], message[8192], *verb;
	pid_t pid;

	if (sscanf(rest, "%31s %d", address, &count) != 2)
		problem("what is to be plugged in again: %s", rest);
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(write_text("/sys/bus/pci/rescan", "1"));
	if (sched_setscheduler(0, SCHED_FIFO, &first))
		problem("no precedence: %s", name_of(errno));
	while (!heard) {
		struct pollfd readable = { .fd = listener, .events = POLLIN };
		ssize_t length;

		if (poll(&readable, 1, 10000) <= 0)
			break;
		length = recv(listener, message, sizeof(message) - 1, 0);
		message[length < 0 ? 0 : length] = 0;
		heard = announces(message, address);
	}
	if (!heard)
		problem("%s was not announced", address);
	answer(heard ? "announced" : "nothing");
	while (count-- > 0 && next(&verb, &rest))
		answer(perform(verb, rest));
	sched_setscheduler(0, SCHED_OTHER, &none);
	close(listener);
	waitpid(pid, NULL, 0);
	unplugged = 0;
}

static const char *unplug(const char *address)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), DEVICES "/%s/remove", address);
	unplugged = 1;
	return name_of(write_text(path, "1"));
}

static void step(char *verb, char *rest)
{
	static const char *const others[] = { "store", "read", "link", "exists", "insert", "load" };

	if (!strcmp(verb, "rule"))
		printf("rule %s\n", rest);
	else if (!strcmp(verb, "reset"))
		reset();
	else if (!strcmp(verb, "viable"))
		answer(viable(rest));
	else if (!strcmp(verb, "rom-shadow"))
		answer(rom_shadow(rest));
	else if (!strcmp(verb, "hold"))
		answer(hold(rest));
	else if (!strcmp(verb, "unplug"))
		answer(unplug(rest));
	else if (!strcmp(verb, "replug"))
		replug(rest);
	else if (!strcmp(verb, "map"))
		answer(map_consoles(atoi(rest)));
	else if (!strcmp(verb, "console"))
		answer(console());
	else if (!strcmp(verb, "bind-console"))
		answer(bind_console());
	else if (!strcmp(verb, "read-only")) {
		read_only = 1;
		answer(name_of(mount(NULL, "/sys", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) ?
				       errno : 0));
	} else {
		for (size_t index = 0; index < sizeof(others) / sizeof(*others); index++) {
			if (strcmp(verb, others[index]))
				continue;
			/* Those of a step that hangs are there later. */
			if (!strcmp(verb, "insert") || !strcmp(verb, "load")) {
				char *words = strdup(rest);

				remember(words);
				free(words);
			}
			answer(attempt(verb, rest));
			return;
		}
		problem("no such step: %s", verb);
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	char *verb, *rest;

	if (argc != 2 || !(script = fopen(argv[1], "r"))) {
		fprintf(stderr, "usage: ask-kernel SCRIPT\n");
		return 2;
	}
	note_initial_devices();
	while (next(&verb, &rest))
		step(verb, rest);
	printf("end\n");
	return 0;
}
