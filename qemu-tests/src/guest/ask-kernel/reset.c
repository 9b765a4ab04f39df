#define _GNU_SOURCE
#include "ask-kernel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

char *loaded[MOST];
int loaded_count;
pid_t hanging[MOST];
int hanging_count;
pid_t holder;
int unplugged, read_only;

static struct device {
	char address[32], driver[64];
} initial[MOST];
static int initial_count;

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

void note_initial_devices(void)
{
	note_devices(initial, &initial_count);
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

void reset(void)
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
