/* A FUSE file system that shows the directory BACKING, and does as the file CONTROL says:
 *
 *     (empty, or no such file)   answers
 *     hang                       answers no request until CONTROL says something else
 *     fail ERRNO                 answers each request with this number of an error
 *
 * Nothing is cached, so each look asks. Everything in it belongs to UID.
 *
 * Usage: fuse BACKING CONTROL UID MOUNTPOINT TYPE all|owner USER
 *
 * It is mounted as fusermount3(1) does it for the user USER. "owner": nobody else, not even root, can look into it.
 */
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *backing, *control;
static uid_t owner;

/* What CONTROL asks for: 0, or a negative errno. Returns when there is something to answer. */
static int wish(void)
{
	for (;;) {
		char text[32] = "";
		int fd = open(control, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			ssize_t length = read(fd, text, sizeof(text) - 1);
			close(fd);
			text[length > 0 ? length : 0] = 0;
		}
		int number;
		if (sscanf(text, "fail %d", &number) == 1)
			return -number;
		if (strncmp(text, "hang", 4) != 0)
			return 0;
		usleep(20000);
	}
}

#define BEGIN(path) \
	char real[PATH_MAX]; \
	int wished = wish(); \
	if (wished) \
		return wished; \
	if (snprintf(real, sizeof(real), "%s%s", backing, path) >= (int)sizeof(real)) \
		return -ENAMETOOLONG
#define RESULT(call) return (call) < 0 ? -errno : 0

static int do_getattr(const char *path, struct stat *stat, struct fuse_file_info *info)
{
	(void)info;
	BEGIN(path);
	if (lstat(real, stat) < 0)
		return -errno;
	stat->st_uid = stat->st_gid = owner;
	return 0;
}

static int do_readlink(const char *path, char *text, size_t size)
{
	BEGIN(path);
	ssize_t length = readlink(real, text, size - 1);
	if (length < 0)
		return -errno;
	text[length] = 0;
	return 0;
}

static int do_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
		      struct fuse_file_info *info, enum fuse_readdir_flags flags)
{
	(void)offset, (void)info, (void)flags;
	BEGIN(path);
	DIR *directory = opendir(real);
	if (!directory)
		return -errno;
	struct dirent *entry;
	while ((entry = readdir(directory)))
		fill(buffer, entry->d_name, NULL, 0, 0);
	closedir(directory);
	return 0;
}

static int do_mkdir(const char *path, mode_t mode) { BEGIN(path); RESULT(mkdir(real, mode)); }
static int do_unlink(const char *path) { BEGIN(path); RESULT(unlink(real)); }
static int do_rmdir(const char *path) { BEGIN(path); RESULT(rmdir(real)); }
static int do_symlink(const char *text, const char *path) { BEGIN(path); RESULT(symlink(text, real)); }

static int do_rename(const char *from, const char *to, unsigned int flags)
{
	char target[PATH_MAX];
	BEGIN(from);
	if (snprintf(target, sizeof(target), "%s%s", backing, to) >= (int)sizeof(target))
		return -ENAMETOOLONG;
	RESULT(renameat2(AT_FDCWD, real, AT_FDCWD, target, flags));
}

static int do_chmod(const char *path, mode_t mode, struct fuse_file_info *info)
{
	(void)info;
	BEGIN(path);
	RESULT(chmod(real, mode));
}

static int do_truncate(const char *path, off_t size, struct fuse_file_info *info)
{
	(void)info;
	BEGIN(path);
	RESULT(truncate(real, size));
}

static int do_open(const char *path, struct fuse_file_info *info)
{
	BEGIN(path);
	int fd = open(real, info->flags);
	if (fd < 0)
		return -errno;
	info->fh = fd;
	return 0;
}

static int do_create(const char *path, mode_t mode, struct fuse_file_info *info)
{
	BEGIN(path);
	int fd = open(real, info->flags | O_CREAT, mode);
	if (fd < 0)
		return -errno;
	info->fh = fd;
	return 0;
}

static int do_read(const char *path, char *bytes, size_t size, off_t offset, struct fuse_file_info *info)
{
	BEGIN(path);
	ssize_t length = pread(info->fh, bytes, size, offset);
	return length < 0 ? -errno : length;
}

static int do_write(const char *path, const char *bytes, size_t size, off_t offset,
		    struct fuse_file_info *info)
{
	BEGIN(path);
	ssize_t length = pwrite(info->fh, bytes, size, offset);
	return length < 0 ? -errno : length;
}

static int do_release(const char *path, struct fuse_file_info *info)
{
	(void)path;
	close(info->fh);
	return 0;
}

static void *do_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
	(void)connection;
	config->entry_timeout = config->attr_timeout = config->negative_timeout = 0;
	return NULL;
}

static const struct fuse_operations operations = {
	.init = do_init,
	.getattr = do_getattr,
	.readlink = do_readlink,
	.readdir = do_readdir,
	.mkdir = do_mkdir,
	.unlink = do_unlink,
	.rmdir = do_rmdir,
	.symlink = do_symlink,
	.rename = do_rename,
	.chmod = do_chmod,
	.truncate = do_truncate,
	.open = do_open,
	.create = do_create,
	.read = do_read,
	.write = do_write,
	.release = do_release,
};

int main(int argc, char **argv)
{
	if (argc != 8)
		return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* the test may be killed */
	umask(0);
	backing = argv[1];
	control = argv[2];
	owner = atoi(argv[3]);
	const char *point = argv[4], *type = argv[5];
	int for_all = strcmp(argv[6], "all") == 0;
	uid_t user = atoi(argv[7]);

	int device = open("/dev/fuse", O_RDWR);
	char options[128], opened[32];
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=%d,group_id=%d%s", device, user, user,
		 for_all ? ",allow_other" : "");
	if (mount("mountjail-test", point, type, MS_NOSUID | MS_NODEV, options) < 0) {
		perror(point);
		return 1;
	}
	if (setgid(user) < 0 || setuid(user) < 0)
		return 1;
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* setuid(2) took it away */
	snprintf(opened, sizeof(opened), "/dev/fd/%d", device); /* libfuse's way to say that it is mounted */
	char *arguments[] = { argv[0], "-f", "-o", "max_threads=64", opened, NULL };
	return fuse_main(5, arguments, &operations, NULL);
}
