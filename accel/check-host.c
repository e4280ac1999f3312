/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The report of vmm --check-host; see check-host.h. Asks the kernel, changes nothing.
 */
#include "accel/check-host.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/io_uring.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "accel/kvm/caps.h"
#include "accel/kvm/kvm.h"

enum answer { YES, NO };

/* One line: what, whether, and what is to be said about it. */
static void __attribute__((format(printf, 4, 5)))
tell(FILE *out, const char *what, enum answer answer, const char *fmt, ...)
{
	va_list ap;

	fprintf(out, "%-28s %-4s", what, answer == YES ? "yes" : "NO");
	va_start(ap, fmt);
	vfprintf(out, fmt, ap);
	va_end(ap);
	fputc('\n', out);
}

/* A file's first line, without its end; false if there is none. */
static bool read_line(const char *path, char *buf, size_t len)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(buf, len, f);

	if (f)
		fclose(f);
	if (ok)
		buf[strcspn(buf, "\n")] = '\0';
	return ok;
}

/* Whether the first CPU's flags in /proc/cpuinfo have this word. */
static bool cpu_flag(const char *flag)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	char line[8192];
	bool found = false;

	if (!f)
		return false;
	while (fgets(line, sizeof(line), f)) {
		char *save = NULL;

		if (strncmp(line, "flags", 5))
			continue;
		for (char *w = strtok_r(line, " \t\n", &save); w && !found;
		     w = strtok_r(NULL, " \t\n", &save))
			found = !strcmp(w, flag);
		break;
	}
	fclose(f);
	return found;
}

static bool check_hardware(FILE *out)
{
	if (!access("/sys/module/kvm_pvm", F_OK)) {
		tell(out, "hardware virtualization", NO,
		     "page-table KVM (kvm_pvm): stock kernels do not run here; use a host with "
		     "VT-x or AMD-V");
		return false;
	}
	if (cpu_flag("vmx")) {
		tell(out, "hardware virtualization", YES, "Intel VT-x%s",
		     cpu_flag("ept") ? " with nested paging (EPT)" : "");
		return true;
	}
	if (cpu_flag("svm")) {
		tell(out, "hardware virtualization", YES, "AMD-V%s",
		     cpu_flag("npt") ? " with nested paging (NPT)" : "");
		return true;
	}
	tell(out, "hardware virtualization", NO,
	     "neither vmx nor svm in /proc/cpuinfo: enable VT-x or AMD-V in the firmware%s",
	     cpu_flag("hypervisor") ? ", or nested virtualization in the hypervisor below" : "");
	return false;
}

/* Needed ones one by one only if they are missing. */
static bool check_caps(FILE *out, int vm)
{
	unsigned missing = 0;

	for (const struct kvm_cap *c = kvm_caps; c->name; c++) {
		bool have = kvm_ioctl_value(vm, KVM_CHECK_EXTENSION, c->number) > 0;

		if (have || c->need == KVM_CAP_NICE)
			continue;
		if (c->need == KVM_CAP_NEEDED)
			missing++;
		tell(out, c->name, NO, "%s: a newer kernel is needed", c->use);
	}
	if (!missing)
		tell(out, "needed capabilities", YES, "all");
	for (const struct kvm_cap *c = kvm_caps; c->name; c++) {
		if (c->need != KVM_CAP_NICE)
			continue;
		if (kvm_ioctl_value(vm, KVM_CHECK_EXTENSION, c->number) > 0)
			tell(out, c->name, YES, "%s", c->use);
		else
			tell(out, c->name, NO,
			     "goes without: %s; a newer kernel or other hardware has it", c->use);
	}
	return !missing;
}

static void check_vcpus(FILE *out, int vm)
{
	int best = kvm_ioctl_value(vm, KVM_CHECK_EXTENSION, KVM_CAP_NR_VCPUS);
	int max = kvm_ioctl_value(vm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);

	tell(out, "CPUs of a guest", YES, "at most %d, advisable %d (this host has %ld)",
	     max > 0 ? max : best, best, sysconf(_SC_NPROCESSORS_ONLN));
}

static bool check_kvm(FILE *out)
{
	struct error *err = NULL;
	int vm, fd = kvm_open_device(&err);
	bool ok;

	if (fd < 0) {
		tell(out, "/dev/kvm", NO, "%s", error_message(err));
		error_free(err);
		return false;
	}
	tell(out, "/dev/kvm", YES, "version %d", KVM_API_VERSION);
	vm = kvm_create_vm(fd, &err);
	if (vm < 0) {
		tell(out, "virtual machines", NO, "%s", error_message(err));
		error_free(err);
		close(fd);
		return false;
	}
	tell(out, "virtual machines", YES, "can be created");
	ok = check_caps(out, vm);
	check_vcpus(out, vm);
	close(vm);
	close(fd);
	return ok;
}

static uint64_t read_number(const char *format, const char *name)
{
	char path[512], line[64];

	snprintf(path, sizeof(path), format, name);
	return read_line(path, line, sizeof(line)) ? strtoull(line, NULL, 10) : 0;
}

static void check_huge_pages(FILE *out)
{
	static const char dir[] = "/sys/kernel/mm/hugepages";
	char line[256];
	struct dirent *e;
	DIR *d = opendir(dir);
	bool any = false;

	while (d && (e = readdir(d))) {
		uint64_t total, unused;
		unsigned kib;

		if (sscanf(e->d_name, "hugepages-%ukB", &kib) != 1)
			continue;
		total = read_number("/sys/kernel/mm/hugepages/%s/nr_hugepages", e->d_name);
		unused = read_number("/sys/kernel/mm/hugepages/%s/free_hugepages", e->d_name);
		if (!total)
			continue;
		any = true;
		tell(out, "huge pages", YES, "%" PRIu64 " of %u MiB, %" PRIu64 " free", total,
		     kib / 1024, unused);
	}
	if (d)
		closedir(d);
	if (!any)
		tell(out, "huge pages", NO, "%s",
		     d ? "none reserved: sysctl vm.nr_hugepages=N reserves N of 2 MiB" :
			 "this kernel has none: CONFIG_HUGETLBFS is needed");
	if (!read_line("/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof(line)))
		tell(out, "transparent huge pages", NO,
		     "this kernel has none: CONFIG_TRANSPARENT_HUGEPAGE is needed");
	else
		tell(out, "transparent huge pages", strstr(line, "[never]") ? NO : YES, "%s%s",
		     line,
		     strstr(line, "[never]") ? ": echo madvise > "
					       "/sys/kernel/mm/transparent_hugepage/enabled" :
					       "");
}

/* A device file that modprobe brings and a right opens. */
static void check_device(FILE *out, const char *path, const char *use, const char *module)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		close(fd);
		tell(out, path, YES, "%s", use);
	} else if (errno == EACCES || errno == EPERM) {
		tell(out, path, NO, "%s: no right to it; run as root or change its group and mode",
		     use);
	} else if (errno == ENOENT || errno == ENODEV || errno == ENXIO) {
		tell(out, path, NO, "%s: load the module (modprobe %s)", use, module);
	} else {
		tell(out, path, NO, "%s: %s", use, strerror(errno));
	}
}

/* Entries whose names are numbers. */
static int count_numbers(const char *path)
{
	struct dirent *e;
	DIR *d = opendir(path);
	int n = 0;

	if (!d)
		return -1;
	while ((e = readdir(d)))
		n += e->d_name[0] >= '0' && e->d_name[0] <= '9';
	closedir(d);
	return n;
}

static void check_vfio(FILE *out)
{
	static const char what[] = "VFIO passthrough";
	int iommu = count_numbers("/sys/kernel/iommu_groups"), groups = count_numbers("/dev/vfio");

	if (iommu <= 0)
		tell(out, what, NO,
		     "no IOMMU groups: enable VT-d or AMD-Vi in the firmware and boot with "
		     "intel_iommu=on or amd_iommu=on");
	else if (access("/dev/vfio/vfio", F_OK))
		tell(out, what, NO, "%d IOMMU groups, but no /dev/vfio/vfio: modprobe vfio-pci",
		     iommu);
	else if (groups <= 0)
		tell(out, what, NO,
		     "%d IOMMU groups, none with VFIO: bind a device to vfio-pci "
		     "(driverctl set-override 0000:BB:DD.F vfio-pci)",
		     iommu);
	else if (access("/dev/vfio/vfio", R_OK | W_OK))
		tell(out, what, NO, "no right to /dev/vfio/vfio: run as root or change its mode");
	else
		tell(out, what, YES, "%d of %d IOMMU groups are with VFIO", groups, iommu);
}

static void check_io_uring(FILE *out)
{
	struct io_uring_params params = { 0 };
	int fd = syscall(SYS_io_uring_setup, 4, &params);
	char line[64];

	if (fd >= 0) {
		close(fd);
		tell(out, "io_uring", YES, "disks");
		return;
	}
	if (errno == ENOSYS)
		tell(out, "io_uring", NO,
		     "disks use threads: this kernel, or a sandbox around this process, has none");
	else if (errno == EPERM &&
		 read_line("/proc/sys/kernel/io_uring_disabled", line, sizeof(line)) &&
		 strcmp(line, "0"))
		tell(out, "io_uring", NO,
		     "disks use threads: kernel.io_uring_disabled is %s; sysctl "
		     "kernel.io_uring_disabled=0",
		     line);
	else if (errno == EPERM)
		tell(out, "io_uring", NO,
		     "disks use threads: a sandbox (seccomp) around this process forbids it");
	else
		tell(out, "io_uring", NO, "disks use threads: %s%s", strerror(errno),
		     errno == ENOMEM ? "; raise ulimit -l" : "");
}

static void check_memlock(FILE *out)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit))
		return;
	if (limit.rlim_cur == RLIM_INFINITY || !geteuid())
		tell(out, "locked memory", YES, "no limit");
	else
		tell(out, "locked memory", NO,
		     "limit %" PRIu64 " KiB: VFIO and -overcommit mem-lock=on need the guest's "
		     "size; raise ulimit -l (limits.conf: memlock)",
		     (uint64_t)limit.rlim_cur / 1024);
}

bool check_host(FILE *out)
{
	bool hardware = check_hardware(out);
	bool kvm = check_kvm(out);

	check_huge_pages(out);
	check_device(out, "/dev/vhost-net", "tap networks at full speed", "vhost_net");
	check_device(out, "/dev/net/tun", "tap networks", "tun");
	check_vfio(out);
	check_io_uring(out);
	check_memlock(out);
	fprintf(out, "A stock guest %s on this host.\n",
		hardware && kvm ? "can run" : "cannot run");
	return hardware && kvm;
}
