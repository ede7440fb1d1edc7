#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static volatile sig_atomic_t got;
static void handler(int signal) { got += signal == SIGRTMIN + 3; }
static void *in_thread(void *path) { open(path, O_RDONLY); return 0; }
static void *forever(void *unused) { for (;;) pause(); return unused; }
int main(int argc, char **argv) {
    pthread_t thread, other;
    if (argc > 1) return 5;
    signal(SIGRTMIN + 3, handler);
    pthread_create(&other, 0, forever, 0);
    pthread_create(&thread, 0, in_thread, "/etc/hosts");
    pthread_join(thread, 0);
    raise(SIGRTMIN + 3);
    if (setgid(33) || setuid(33)) return 1;             /* glibc tells the other threads by real-time signals */
    pid_t child = fork();
    if (!child) { chdir("/etc"); int fd = open("/etc", O_RDONLY); openat(fd, "../etc/./services", O_RDONLY);
                  open("protocols", O_RDONLY); raise(SIGSTOP); _exit(3); }
    int status;
    if (waitpid(child, &status, WUNTRACED) != child || !WIFSTOPPED(status)) return 2;
    kill(child, SIGCONT);
    if (waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 3) return 3;
    if (!vfork()) { execl("/usr/bin/perl", "perl", (char *)0); _exit(0); }
    if (getuid() != 33 || got != 1) return 4;
    execl("/proc/self/exe", "again", (char *)0);
    execl("/threads", "again", "x", (char *)0);          /* with threads that are gone by it */
    return 9;
}
