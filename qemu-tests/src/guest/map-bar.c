/*
 * What a virtual machine monitor does with a device that it was given: opens its group, sets a
 * container up for DMA, and maps BAR 0. Says whether that works; the kernel's documentation of it
 * is Documentation/driver-api/vfio.rst.
 *
 * usage: map-bar ADDRESS
 */
#include <err.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/vfio.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int opened(const char *path)
{
	int file = open(path, O_RDWR);

	if (file < 0)
		err(1, "%s", path);
	return file;
}

/* Memory decoding, without which the BAR does not answer. */
static void enable(int device)
{
	struct vfio_region_info config = {
		.argsz = sizeof(config), .index = VFIO_PCI_CONFIG_REGION_INDEX
	};
	uint16_t command;

	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config))
		err(1, "VFIO_DEVICE_GET_REGION_INFO of the configuration space");
	if (pread(device, &command, sizeof(command), config.offset + 4) != sizeof(command))
		err(1, "reading the command register");
	command |= 2;
	if (pwrite(device, &command, sizeof(command), config.offset + 4) != sizeof(command))
		err(1, "writing the command register");
}

int main(int argc, char **argv)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	struct vfio_region_info bar = { .argsz = sizeof(bar), .index = VFIO_PCI_BAR0_REGION_INDEX };
	char link[PATH_MAX], target[PATH_MAX], path[PATH_MAX];
	int container, group, device;
	volatile uint32_t *words;
	uint32_t was;

	if (argc != 2)
		errx(2, "usage: map-bar ADDRESS");
	snprintf(link, sizeof(link), "/sys/bus/pci/devices/%s/iommu_group", argv[1]);
	if (!realpath(link, target))
		err(1, "%s", link);
	snprintf(path, sizeof(path), "/dev/vfio/%s", basename(target));

	container = opened("/dev/vfio/vfio");
	group = opened(path);
	if (ioctl(group, VFIO_GROUP_GET_STATUS, &status))
		err(1, "VFIO_GROUP_GET_STATUS");
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		errx(1, "the group is not viable");
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container))
		err(1, "VFIO_GROUP_SET_CONTAINER");
	if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		err(1, "VFIO_SET_IOMMU");
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, argv[1]);
	if (device < 0)
		err(1, "VFIO_GROUP_GET_DEVICE_FD");
	enable(device);
	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &bar))
		err(1, "VFIO_DEVICE_GET_REGION_INFO of BAR 0");
	words = mmap(NULL, bar.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, bar.offset);
	if (words == MAP_FAILED)
		err(1, "mapping BAR 0");
	/* It is a card's memory: what is written there stays. */
	was = words[0];
	words[0] = 0x5a5aa5a5;
	if (words[0] != 0x5a5aa5a5)
		errx(1, "BAR 0 does not keep what is written");
	words[0] = was;
	printf("BAR 0 is mapped\n");
	return 0;
}
