/* Takes a device as a virtual machine does that goes by iommufd, and lets it go again:
 * by-iommufd vfio0 prints "taken", or the errno of the step that failed. */

#define _GNU_SOURCE /* strerrorname_np() */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

/* struct vfio_device_bind_iommufd of linux/vfio.h, which the headers have since 6.6. */
struct bind {
	uint32_t argsz;
	uint32_t flags;
	int32_t iommufd;
	uint32_t out_devid;
};
#define BIND_IOMMUFD _IO(';', 100 + 18)

static int failed(const char *step)
{
	printf("%s: %s\n", step, strerrorname_np(errno));
	return 1;
}

int main(int argc, char **argv)
{
	char path[64];
	struct bind bind = { .argsz = sizeof(bind) };
	int device;

	if (argc != 2)
		return 2;
	snprintf(path, sizeof(path), "/dev/vfio/devices/%s", argv[1]);
	device = open(path, O_RDWR);
	if (device < 0)
		return failed(path);
	bind.iommufd = open("/dev/iommu", O_RDWR);
	if (bind.iommufd < 0)
		return failed("/dev/iommu");
	if (ioctl(device, BIND_IOMMUFD, &bind))
		return failed("bind");
	puts("taken");
	return 0;
}
