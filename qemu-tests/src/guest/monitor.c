/*
 * What a virtual machine monitor does with the devices that it was given, up to the first interrupt: the
 * group, a container with it, memory mapped for DMA, the device, its configuration space, an interrupt
 * that is sent as the device would. The kernel's documentation of it is
 * Documentation/driver-api/vfio.rst.
 *
 * usage: monitor ADDRESS...
 *
 * A line each: "ADDRESS: has it, by MSI-X" (or "without interrupts"), or the step that fails and why.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/vfio.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Of DMA; and where it may be, a multiple of that. */
#define SIZE (2UL << 20)

static int failed;

/* Open for the device in question, or -1. */
static int group, container, device;

static void complain(const char *address, const char *step)
{
	printf("%s: %s: %s\n", address, step, errno ? strerror(errno) : "no");
	failed = 1;
}

static int open_group(const char *address)
{
	char link[PATH_MAX], target[PATH_MAX], path[PATH_MAX];
	ssize_t length;

	snprintf(link, sizeof(link), "/sys/bus/pci/devices/%s/iommu_group", address);
	length = readlink(link, target, sizeof(target) - 1);
	if (length < 0)
		return -1;
	target[length] = '\0';
	snprintf(path, sizeof(path), "/dev/vfio/%s", basename(target));
	return open(path, O_RDWR);
}

/* The first place that the IOMMU can map; not 0. */
static uint64_t mappable(int container)
{
	char buffer[4096] = { 0 };
	struct vfio_iommu_type1_info *info = (void *)buffer;

	info->argsz = sizeof(buffer);
	if (ioctl(container, VFIO_IOMMU_GET_INFO, info) < 0)
		return SIZE;
	for (uint32_t at = info->flags & VFIO_IOMMU_INFO_CAPS ? info->cap_offset : 0; at;) {
		struct vfio_info_cap_header *header = (void *)(buffer + at);
		struct vfio_iommu_type1_info_cap_iova_range *ranges = (void *)header;

		at = header->next;
		if (header->id != VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)
			continue;
		for (uint32_t i = 0; i < ranges->nr_iovas; i++) {
			uint64_t start = (ranges->iova_ranges[i].start + SIZE) & ~(SIZE - 1);

			if (start + SIZE - 1 <= ranges->iova_ranges[i].end)
				return start;
		}
	}
	return SIZE;
}

/* Sets one up, and has the kernel send it. */
static int interrupts(int device, unsigned int index)
{
	char buffer[sizeof(struct vfio_irq_set) + sizeof(int)];
	struct vfio_irq_set *set = (void *)buffer;
	int event = eventfd(0, EFD_NONBLOCK);
	uint64_t count = 0;

	set->argsz = sizeof(buffer);
	set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	set->index = index;
	set->start = 0;
	set->count = 1;
	memcpy(set->data, &event, sizeof(event));
	if (ioctl(device, VFIO_DEVICE_SET_IRQS, set) < 0)
		return -1;
	set->argsz = sizeof(*set);
	set->flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
	if (ioctl(device, VFIO_DEVICE_SET_IRQS, set) < 0)
		return -1;
	errno = 0;
	return read(event, &count, sizeof(count)) == sizeof(count) && count == 1 ? 0 : -1;
}

static void use(const char *address, void *memory)
{
	static const struct {
		unsigned int index;
		const char *name;
	} kinds[] = {
		{ VFIO_PCI_MSIX_IRQ_INDEX, "MSI-X" },
		{ VFIO_PCI_MSI_IRQ_INDEX, "MSI" },
		{ VFIO_PCI_INTX_IRQ_INDEX, "INTx" },
	};
	struct vfio_group_status status = { .argsz = sizeof(status) };
	struct vfio_iommu_type1_dma_map map = { .argsz = sizeof(map) };
	struct vfio_region_info config = { .argsz = sizeof(config) };
	uint32_t id = 0;

	group = open_group(address);
	if (group < 0)
		return complain(address, "group");
	if (ioctl(group, VFIO_GROUP_GET_STATUS, &status) < 0 ||
	    !(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return complain(address, "viable");
	container = open("/dev/vfio/vfio", O_RDWR);
	if (container < 0 || ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) < 0)
		return complain(address, "container");
	if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0)
		return complain(address, "IOMMU");

	map.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
	map.vaddr = (uintptr_t)memory;
	map.iova = mappable(container);
	map.size = SIZE;
	if (ioctl(container, VFIO_IOMMU_MAP_DMA, &map) < 0)
		return complain(address, "DMA");

	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, address);
	if (device < 0)
		return complain(address, "device");
	config.index = VFIO_PCI_CONFIG_REGION_INDEX;
	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config) < 0 ||
	    pread(device, &id, sizeof(id), config.offset) != sizeof(id) || id == 0 || id == ~0U)
		return complain(address, "configuration space");
	for (unsigned int kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++) {
		struct vfio_irq_info info = { .argsz = sizeof(info), .index = kinds[kind].index };

		if (ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, &info) < 0 || info.count == 0)
			continue;
		if (interrupts(device, kinds[kind].index) < 0)
			return complain(address, kinds[kind].name);
		printf("%s: has it, by %s\n", address, kinds[kind].name);
		return;
	}
	printf("%s: has it, without interrupts\n", address);
}

int main(int argc, char **argv)
{
	void *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return 2;
	for (int i = 1; i < argc; i++) {
		group = container = device = -1;
		errno = 0;
		use(argv[i], memory);
		close(device);
		close(group);
		close(container);
	}
	return failed;
}
