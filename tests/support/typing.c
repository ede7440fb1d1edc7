/* Types into its terminal, in the way that is named; succeeds if that is refused as nothing of its own may do (EPERM). */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static char x[] = "x";

static long i386(long request)
{
#ifdef __x86_64__
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(54L), "b"(0L), "c"(request), "d"(x) : "memory", "r8", "r9", "r10", "r11");
	errno = -result;
	return result < 0 ? -1 : result;
#else
	return ioctl(0, request, x);
#endif
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";
	long request = strstr(how, "paste") ? TIOCLINUX : TIOCSTI, result;
	if (strstr(how, "high"))
		result = syscall(SYS_ioctl, 0, request | ~0UL << 32, x);
	else if (strstr(how, "i386"))
		result = i386(request);
	else if (strstr(how, "x32"))
		result = syscall(0x40000000 | 514, 0, request, x);
	else
		result = ioctl(0, request, x);
	printf("%s: %s\n", how, result < 0 ? strerror(errno) : "typed");
	return result < 0 && errno == EPERM ? 0 : 1;
}
