/*
 * floor [--read] MODULE... -- ADDRESS...: the fewest system calls that leave a virtual machine able
 * to start. An override each, the modules in order, a look at each driver. It closes nothing, plans
 * nothing and says nothing. With --read it asks for each device's ids and IOMMU group first, without
 * which nothing can be decided or refused.
 *
 * For who measures, it tells through file 3 when the overrides stood.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DRIVER "vfio-pci"
/* MODULE_INIT_COMPRESSED_FILE in include/uapi/linux/module.h. */
#define COMPRESSED 4

int main(int argc, char **argv)
{
	int module = 1;
	int first;
	int missing = 0;
	char path[64];
	char link[128];
	struct timespec time;
	long long claimed;

	if (argc > 1 && strcmp(argv[1], "--read") == 0)
		module++;
	first = module;
	while (first < argc && strcmp(argv[first], "--") != 0)
		first++;
	if (first + 1 >= argc)
		return 0;
	if (chdir("/sys/bus/pci/devices") < 0)
		return 2;
	for (int i = first + 1; module > 1 && i < argc; i++) {
		strcpy(stpcpy(path, argv[i]), "/modalias");
		int file = open(path, O_RDONLY);

		if (read(file, link, sizeof(link)) < 0)
			return 5;
		/* There may be no more than 1024 of them. */
		close(file);
		strcpy(stpcpy(path, argv[i]), "/iommu_group");
		if (readlink(path, link, sizeof(link)) < 0)
			return 6;
	}
	for (int i = first + 1; i < argc; i++) {
		strcpy(stpcpy(path, argv[i]), "/driver_override");
		if (write(open(path, O_WRONLY), DRIVER, strlen(DRIVER)) < 0)
			return 3;
	}
	clock_gettime(CLOCK_MONOTONIC, &time);
	claimed = time.tv_sec * 1000000000LL + time.tv_nsec;
	for (int i = module; i < first; i++) {
		const char *end = strrchr(argv[i], '.');
		int flags = strcmp(end, ".ko") == 0 ? 0 : COMPRESSED;

		if (syscall(SYS_finit_module, open(argv[i], O_RDONLY), "", flags) < 0)
			return 4;
	}
	for (int i = first + 1; i < argc; i++) {
		strcpy(stpcpy(path, argv[i]), "/driver");
		ssize_t length = readlink(path, link, sizeof(link));

		if (length < (ssize_t)strlen(DRIVER) ||
		    memcmp(link + length - strlen(DRIVER), DRIVER, strlen(DRIVER)) != 0)
			missing = 1;
	}
	return write(3, &claimed, sizeof(claimed)) < 0 || missing;
}
