#include "ask-kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fb.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* The seventh line of "resource" is the option ROM's; 2 is IORESOURCE_ROM_SHADOW. */
const char *rom_shadow(const char *address)
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

const char *map_consoles(unsigned framebuffer)
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
const char *console(void)
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

const char *bind_console(void)
{
	const char *bind = fbcon();

	return *bind ? name_of(write_text(bind, "1")) : "no console driver";
}
