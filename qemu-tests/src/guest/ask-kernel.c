/*
 * ask-kernel SCRIPT: performs each step of SCRIPT, a line each, and prints what the kernel answered:
 * "answer TEXT". What a step is, tells `Op::lines()` in rules.rs, which writes the script.
 *
 * A step that sleeps in the kernel and does not come to an end has the answer "hangs" and is left
 * alone. After the steps of a rule, "reset" makes everything as it was; what cannot be, it tells as
 * "problem TEXT".
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/fb.h>
#include <linux/netlink.h>
#include <linux/vfio.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LONGEST (64 * 1024)
#define MOST 64

#define DEVICES "/sys/bus/pci/devices"
#define DRIVERS "/sys/bus/pci/drivers"

/* How often a process may be seen asleep in the kernel, 20 ms apart, before it hangs. */
#define LOOKS 25

static FILE *script;
static char line[LONGEST];

static char *loaded[MOST];
static int loaded_count;
static pid_t hanging[MOST];
static int hanging_count;
static pid_t holder;
static int unplugged, read_only;

static struct device {
	char address[32], driver[64];
} initial[MOST];
static int initial_count;

static void problem(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	printf("problem ");
	vprintf(format, arguments);
	printf("\n");
	va_end(arguments);
	fflush(stdout);
}

static const char *name_of(int number)
{
	return number ? strerrorname_np(number) : "ok";
}

/* A buffer for an answer. */
static char answered[LONGEST];

static const char *answer_of(const char *text)
{
	return strncpy(answered, text, sizeof(answered) - 1);
}

/* What is printed stays on one line. */
static void answer(const char *text)
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

static int unhex(char *text)
{
	int count = 0;
	unsigned byte;

	for (; sscanf(text + 2 * count, "%2x", &byte) == 1; count++)
		text[count] = byte;
	return count;
}

/* 0, or the errno. */
static int write_all(const char *path, const char *value, int length)
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

static int write_text(const char *path, const char *value)
{
	return write_all(path, value, strlen(value));
}

static const char *content(const char *path)
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
static const char *link_end(const char *path)
{
	static char target[PATH_MAX];
	ssize_t length = readlink(path, target, sizeof(target) - 1);

	if (length < 0)
		return answer_of(name_of(errno));
	target[length] = 0;
	return answer_of(basename(target));
}

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

/* The seventh line of "resource" is the option ROM's; 2 is IORESOURCE_ROM_SHADOW. */
static const char *rom_shadow(const char *address)
{
	char path[PATH_MAX], *at;
	unsigned long long start = 0, flags = 0;

	snprintf(path, sizeof(path), DEVICES "/%s/resource", address);
	content(path);
	at = answered;
	for (int index = 0; index < 6 && at; index++)
		at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL;
	if (!at || sscanf(at, "%llx %*x %llx", &start, &flags) != 2)
		return "no such line";
	return start == 0xc0000 && flags & 2 ? "yes" : "no";
}

/* Of this machine's framebuffers any one, to ask. */
static int any_framebuffer(void)
{
	for (int number = 0; number < 8; number++) {
		char path[32];
		int file;

		snprintf(path, sizeof(path), "/dev/fb%d", number);
		file = open(path, O_RDWR | O_CLOEXEC);
		if (file >= 0)
			return file;
	}
	return -1;
}

static const char *map_consoles(unsigned framebuffer)
{
	char path[32];
	int file, result = 0;

	snprintf(path, sizeof(path), "/dev/fb%u", framebuffer);
	file = open(path, O_RDWR | O_CLOEXEC);
	if (file < 0)
		return name_of(errno);
	for (unsigned console = 1; console < 64 && !result; console++) {
		struct fb_con2fbmap map = { console, framebuffer };

		if (ioctl(file, FBIOPUT_CON2FBMAP, &map))
			result = errno;
	}
	close(file);
	return name_of(result);
}

/* The file "bind" of the console driver over all framebuffers; empty where there is none. */
static const char *fbcon(void)
{
	static char path[PATH_MAX];

	for (int number = 0; number < 8; number++) {
		snprintf(path, sizeof(path), "/sys/class/vtconsole/vtcon%d/name", number);
		if (strstr(content(path), "frame buffer device")) {
			snprintf(path, sizeof(path), "/sys/class/vtconsole/vtcon%d/bind", number);
			return path;
		}
	}
	return "";
}

/* The framebuffer that the first console is on. */
static const char *console(void)
{
	struct fb_con2fbmap map = { .console = 1 };
	const char *bind = fbcon();
	int file;

	if (!*bind || content(bind)[0] != '1')
		return "dark";
	file = any_framebuffer();
	if (file < 0)
		return "no framebuffer";
	if (ioctl(file, FBIOGET_CON2FBMAP, &map))
		answer_of(name_of(errno));
	else
		sprintf(answered, "fb%d", (int)map.framebuffer);
	close(file);
	return answered;
}

static const char *bind_console(void)
{
	const char *bind = fbcon();

	return *bind ? name_of(write_text(bind, "1")) : "no console driver";
}

static const char *driver_of(const char *address)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), DEVICES "/%s/driver", address);
	link_end(path);
	return strcmp(answered, "ENOENT") ? answered : "";
}

static void note_devices(struct device *devices, int *count)
{
	struct dirent **entries;
	int all = scandir(DEVICES, &entries, NULL, alphasort);

	*count = 0;
	for (int index = 0; index < all; index++) {
		struct device *device = devices + *count;

		if (entries[index]->d_name[0] != '.' && *count < MOST) {
			snprintf(device->address, sizeof(device->address), "%.31s",
				 entries[index]->d_name);
			snprintf(device->driver, sizeof(device->driver), "%.63s",
				 driver_of(device->address));
			++*count;
		}
		free(entries[index]);
	}
	if (all >= 0)
		free(entries);
}

/* Gives a device the driver that it had at first. */
static void restore(const struct device *device)
{
	char path[PATH_MAX], driver[64];

	snprintf(driver, sizeof(driver), "%.63s", driver_of(device->address));
	if (!strcmp(driver, device->driver))
		return;
	if (*driver) {
		snprintf(path, sizeof(path), DRIVERS "/%s/unbind", driver);
		write_text(path, device->address);
	}
	if (*device->driver)
		write_text("/sys/bus/pci/drivers_probe", device->address);
	if (strcmp(driver_of(device->address), device->driver))
		problem("%s is on \"%s\" and not on \"%s\" as at first", device->address,
			driver_of(device->address), device->driver);
}

/* 0, or the errno. */
static int remove_module(char *path)
{
	char name[64];

	snprintf(name, sizeof(name), "%.63s", basename(path));
	name[strcspn(name, ".")] = 0;
	return syscall(SYS_delete_module, name, O_NONBLOCK) && errno != ENOENT ? errno : 0;
}

/* Those that others need go when the others have gone. */
static void remove_modules(void)
{
	int before;

	do {
		before = loaded_count;
		for (int index = loaded_count - 1; index >= 0; index--) {
			if (remove_module(loaded[index]))
				continue;
			free(loaded[index]);
			memmove(loaded + index, loaded + index + 1,
				(--loaded_count - index) * sizeof(*loaded));
		}
	} while (loaded_count && loaded_count < before);
	for (int index = 0; index < loaded_count; index++)
		problem("%s stays: %s", loaded[index], name_of(remove_module(loaded[index])));
}

static void wait_for_hanging(void)
{
	for (int index = 0; index < hanging_count; index++) {
		int left = 500;

		while (waitpid(hanging[index], NULL, WNOHANG) == 0 && left-- > 0)
			usleep(20000);
		if (left <= 0)
			problem("process %d still hangs", hanging[index]);
	}
	hanging_count = 0;
}

static void reset(void)
{
	static struct device now[MOST];
	char path[PATH_MAX];
	int count;

	if (holder) {
		kill(holder, SIGKILL);
		waitpid(holder, NULL, 0);
	}
	holder = 0;
	wait_for_hanging();
	if (read_only && mount(NULL, "/sys", NULL, MS_REMOUNT | MS_BIND, NULL))
		problem("/sys stays read-only: %s", name_of(errno));
	read_only = 0;
	if (unplugged && write_text("/sys/bus/pci/rescan", "1"))
		problem("no rescan");
	unplugged = 0;
	for (int index = 0; index < initial_count; index++) {
		snprintf(path, sizeof(path), DEVICES "/%.31s/driver_override",
			 initial[index].address);
		if (strcmp(content(path), "(null)\n") && write_text(path, "\n"))
			problem("%s keeps its override", initial[index].address);
	}
	remove_modules();
	for (int index = 0; index < initial_count; index++)
		restore(initial + index);
	note_devices(now, &count);
	if (count != initial_count)
		problem("there are %d devices, and not %d as at first", count, initial_count);
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
	note_devices(initial, &initial_count);
	while (next(&verb, &rest))
		step(verb, rest);
	printf("end\n");
	return 0;
}
