/* Types into its terminal, in the way that is named; succeeds if it may not (EPERM). */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static char x[] = "x";

/* By other numbers of this machine's system calls, if it has such. */
static long other(const char *abi, long request)
{
#ifdef __x86_64__
	long result;
	if (!strcmp(abi, "i386")) {
		__asm__ volatile("int $0x80" : "=a"(result) : "a"(54L), "b"(0L), "c"(request), "d"(x)
				 : "memory", "r8", "r9", "r10", "r11");
		errno = -result;
		return result < 0 ? -1 : result;
	}
	return syscall(0x40000000 | 514, 0, request, x);
#else
	return ioctl(0, request, x);
#endif
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "", *last = strrchr(how, ' ');
	long request = strstr(how, "paste") ? TIOCLINUX : TIOCSTI, result;
	last = last ? last + 1 : how;
	if (!strcmp(last, "high"))
		result = syscall(SYS_ioctl, 0, request | ~0UL << 32, x);
	else if (!strcmp(last, "i386") || !strcmp(last, "x32"))
		result = other(last, request);
	else
		result = ioctl(0, request, x);
	printf("%s: %s\n", how, result < 0 ? strerror(errno) : "typed");
	return result < 0 && errno == EPERM ? 0 : 1;
}
