/*
 * /init of a machine that measures: `init CONTENDER COUNT` runs one contender, tells over the
 * second serial port what it took and what it left, and powers off.
 *
 * With AGAIN in the environment it undoes all that and runs it once more: an emulator translates code
 * when it first comes to it, and the second run is without that.
 *
 * /bench/contenders/CONTENDER has its environment (NAME=VALUE) and its words, one a line; the word
 * ADDRESSES stands for all lines of /bench/devices/COUNT. Behind the word THEN comes another command: with
 * the first one's end the devices are claimed. One whose environment has MOMENT tells that by itself, as
 * the time on this clock, through the file of that number.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define OUTPUT "/run/bench-output"
#define CALLS "/run/bench-calls"
/* MODULE_INIT_COMPRESSED_FILE in include/uapi/linux/module.h. */
#define COMPRESSED 4
/* The file's number that MOMENT names. */
#define MOMENT 3

static FILE *port;

/* The host prints it: whatever follows was not measured. */
static void fail(const char *what)
{
	fprintf(port, "\n@@ problem\nmeasure: %s: %s\n", what, strerror(errno));
	fclose(port);
	reboot(RB_POWER_OFF);
}

/* The file's lines, NULL after the last. */
static char **lines(const char *folder, const char *name, int *count)
{
	char path[256];
	char *line = NULL;
	size_t size = 0;
	ssize_t length;
	char **all = calloc(4096, sizeof(*all));

	snprintf(path, sizeof(path), "/bench/%s/%s", folder, name);
	FILE *file = fopen(path, "r");
	if (!file)
		fail(path);
	*count = 0;
	while ((length = getline(&line, &size, file)) > 1) {
		line[strcspn(line, "\n")] = '\0';
		all[(*count)++] = strdup(line);
	}
	fclose(file);
	return all;
}

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Copies a file to the port; nothing where there is none. */
static void send(const char *path)
{
	char block[4096];
	size_t length;
	FILE *file = fopen(path, "r");

	if (!file)
		return;
	while ((length = fread(block, 1, sizeof(block), file)) > 0)
		fwrite(block, 1, length, port);
	fclose(file);
}

/* The last part of where a link leads. */
static const char *target(const char *address, const char *link)
{
	static char text[512];
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", address, link);
	ssize_t length = readlink(path, text, sizeof(text) - 1);
	text[length < 0 ? 0 : length] = '\0';
	const char *slash = strrchr(text, '/');
	return slash ? slash + 1 : text;
}

/* What a virtual machine does first with a device; the step that fails, or NULL. */
static const char *start(const char *address)
{
	char path[64];
	int container = open("/dev/vfio/vfio", O_RDWR);
	struct vfio_group_status status = { .argsz = sizeof(status) };

	if (container < 0)
		return "container";
	snprintf(path, sizeof(path), "/dev/vfio/%s", target(address, "iommu_group"));
	int group = open(path, O_RDWR);
	if (group < 0)
		return "group";
	if (ioctl(group, VFIO_GROUP_GET_STATUS, &status) < 0 ||
	    !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return "viable";
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) < 0)
		return "set-container";
	if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0)
		return "set-iommu";
	if (ioctl(group, VFIO_GROUP_GET_DEVICE_FD, address) < 0)
		return "device";
	return NULL;
}

/* A record in the kernel's log, which puts the time to it. */
static void note(const char *text)
{
	char record[64];
	int log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

	/* Not dprintf(): it wants to know the position, and the log has none. */
	snprintf(record, sizeof(record), "<7>%s\n", text);
	if (write(log, record, strlen(record)) < 0)
		fail("/dev/kmsg");
	close(log);
}

/* All of it, or the records that tell the time. */
static void send_kernel_log(int only_phases)
{
	int size = klogctl(10, NULL, 0); /* SYSLOG_ACTION_SIZE_BUFFER */
	char *log = malloc(size + 1);
	int length = klogctl(3, log, size); /* SYSLOG_ACTION_READ_ALL */

	log[length < 0 ? 0 : length] = '\0';
	for (char *line = strtok(log, "\n"); line; line = strtok(NULL, "\n"))
		if (!only_phases || strstr(line, "phase over: ") || strstr(line, "measure: "))
			fprintf(port, "%s\n", line);
}

/* What a run took. */
struct run {
	/* Nanoseconds to the end, and until the devices were claimed: to the end, too, of who has no
	 * such moment. */
	long long end;
	long long claimed;
	/* The most that one process had, in KiB. */
	long memory;
	int status;
};

/* Runs the commands of the contender, one after the other; after each is a NULL, after the last two. */
static struct run run(char **arguments, char **environment)
{
	int output = open(OUTPUT, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct run run = { .claimed = -1 };
	struct rusage usage;
	long long moment;
	int tells = 0;
	int ends[2];

	for (int i = 0; environment[i]; i++)
		tells |= !strncmp(environment[i], "MOMENT=", 7);
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		fail("no pipe");
	note("measure: begin");
	long long begin = now();
	while (*arguments) {
		pid_t child = vfork();
		if (child == 0) {
			dup2(nothing, 0);
			dup2(output, 1);
			dup2(output, 2);
			if (tells)
				dup2(ends[1], MOMENT);
			execve(arguments[0], arguments, environment);
			_exit(127);
		}
		if (child < 0 || wait4(child, &run.status, 0, &usage) != child)
			fail("cannot run the contender");
		if (usage.ru_maxrss > run.memory)
			run.memory = usage.ru_maxrss;
		run.end = now() - begin;
		while (*arguments++)
			;
		if (run.claimed < 0)
			run.claimed = run.end;
	}
	note("measure: end");
	if (tells && read(ends[0], &moment, sizeof(moment)) == sizeof(moment))
		run.claimed = moment - begin;
	close(output);
	close(nothing);
	close(ends[0]);
	close(ends[1]);
	return run;
}

static void store(const char *address, const char *attribute, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", address, attribute);
	int file = open(path, O_WRONLY | O_CLOEXEC);
	if (file < 0 || write(file, value, strlen(value)) < 0)
		fail(path);
	close(file);
}

/* Removes the modules of VFIO that nothing uses; how many are left. */
static int remove_modules(void)
{
	char name[64];
	int left = 0;
	FILE *list = fopen("/proc/modules", "r");

	while (list && fscanf(list, "%63s%*[^\n]", name) == 1)
		if (!strncmp(name, "vfio", 4) || !strcmp(name, "irqbypass"))
			left += syscall(SYS_delete_module, name, O_NONBLOCK) < 0;
	if (list)
		fclose(list);
	return left;
}

/* Makes all as it was before the first run. */
static void undo(char **devices, int device_count)
{
	for (int i = 0; i < device_count; i++) {
		store(devices[i], "driver/unbind", devices[i]);
		store(devices[i], "driver_override", "\n");
	}
	int left = -1;
	for (int before = -2; left != 0 && left != before;) {
		before = left;
		left = remove_modules();
	}
	if (left)
		fail("modules that cannot be removed");
	unlink("/run/vfio-early/report.json");
	unlink("/run/vfio-early/lock");
	rmdir("/run/vfio-early");
}

/* A machine without serial ports for it has ports of virtio's, by modules that /harness/ports names. */
static void open_port(void)
{
	FILE *modules = fopen("/harness/ports", "r");
	char path[256];
	struct termios raw;

	while (modules && fscanf(modules, "%255s", path) == 1) {
		int packed = strcmp(strrchr(path, '.'), ".ko") != 0;

		syscall(SYS_finit_module, open(path, O_RDONLY | O_CLOEXEC), "", packed ? COMPRESSED : 0);
	}
	/* A port's file is there before it can be opened, and none may be made in its place. */
	for (int i = 0; modules && !port && i < 1000; i++) {
		port = access("/dev/vport0p1", F_OK) < 0 ? NULL : fopen("/dev/vport0p1", "w");
		if (!port)
			usleep(10000);
	}
	if (!modules)
		port = fopen("/dev/ttyS1", "w");
	if (!port)
		reboot(RB_POWER_OFF);
	if (modules || tcgetattr(fileno(port), &raw) < 0)
		return;
	cfmakeraw(&raw);
	tcsetattr(fileno(port), TCSANOW, &raw);
}

int main(int argc, char **argv)
{
	long long boot = now();
	int word_count, device_count;

	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("tmpfs", "/run", "tmpfs", 0, NULL);
	open_port();
	/* Before them stand words of the command line that the kernel takes for init's. */
	if (argc < 3)
		fail("it takes a contender and a count");
	char **words = lines("contenders", argv[argc - 2], &word_count);
	char **devices = lines("devices", argv[argc - 1], &device_count);
	char **arguments = calloc(2 * (word_count + device_count + 1), sizeof(*arguments));
	char **environment = calloc(word_count + 1, sizeof(*environment));
	int argument_count = 0, variable_count = 0;
	for (int i = 0; i < word_count; i++) {
		if (argument_count == 0 && strchr(words[i], '='))
			environment[variable_count++] = words[i];
		else if (strcmp(words[i], "THEN") == 0)
			arguments[argument_count++] = NULL;
		else if (strcmp(words[i], "ADDRESSES") != 0)
			arguments[argument_count++] = words[i];
		else
			for (int j = 0; j < device_count; j++)
				arguments[argument_count++] = devices[j];
	}

	/* What the kernel still does after boot, on its own time. It takes none where instructions
	 * are counted: the idle machine's clock jumps. */
	sleep(2);

	struct run first = run(arguments, environment);
	struct run again = { .end = -1 };
	int status = first.status;
	if (getenv("AGAIN")) {
		undo(devices, device_count);
		sleep(1);
		again = run(arguments, environment);
		status = again.status;
	}
	fprintf(port, "\n@@ exit 1\n%d\n",
		WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	fprintf(port, "\n@@ stdout 1\n");
	send(OUTPUT);
	int bound = 0;
	for (int i = 0; i < device_count; i++)
		bound += strcmp(target(devices[i], "driver"), "vfio-pci") == 0;
	const char *stopped = device_count ? start(devices[device_count - 1]) : NULL;
	fprintf(port, "\n@@ shell 1\nboot %lld\nclaimed %lld\nns %lld\nagain %lld\nmemory %ld\nbound %d\ntype1 %d\nstopped %s\n",
		boot, first.claimed, first.end, again.end, first.memory, bound,
		access("/sys/module/vfio_iommu_type1", F_OK) == 0, stopped ? stopped : "-");
	fprintf(port, "\n@@ shell 2\n");
	send(CALLS);
	send(CALLS "-then");
	fprintf(port, "\n@@ shell 3\n");
	send_kernel_log(1);
	fprintf(port, "\n@@ kernel log\n");
	send_kernel_log(0);
	fprintf(port, "\n@@ end\n");
	fclose(port); /* it is sent before this returns */
	reboot(RB_POWER_OFF);
	return 1;
}
