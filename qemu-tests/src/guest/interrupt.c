/*
 * interrupt K ACTION PROGRAM ARGUMENTS…: runs PROGRAM and stops it, with all its children, right
 * before its K-th write. Then, ACTION "kill": all are killed, and that write never happens. Any
 * other ACTION is a line of shell, after which the program goes on.
 *
 * A write is a system call by which a program leaves something behind: write, rename, mkdir,
 * finit_module and their like. When there is no K-th one, a last line on standard error says how
 * many there were, and the exit status is the program's.
 */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/ptrace.h>

#define MOST 64

static pid_t alive[MOST];

static void born(pid_t pid)
{
	for (int i = 0; i < MOST; i++)
		if (alive[i] == pid)
			return;
	for (int i = 0; i < MOST; i++)
		if (!alive[i]) {
			alive[i] = pid;
			return;
		}
}

static void died(pid_t pid)
{
	for (int i = 0; i < MOST; i++)
		if (alive[i] == pid)
			alive[i] = 0;
}

static const char *name_of(uint64_t number)
{
	switch (number) {
	case SYS_write: return "write";
	case SYS_writev: return "writev";
	case SYS_pwrite64: return "pwrite64";
	case SYS_rename: return "rename";
	case SYS_renameat: return "renameat";
	case SYS_renameat2: return "renameat2";
	case SYS_mkdir: return "mkdir";
	case SYS_mkdirat: return "mkdirat";
	case SYS_init_module: return "init_module";
	case SYS_finit_module: return "finit_module";
	default: return NULL;
	}
}

/* What the first argument of a write or finit_module is open on. */
static void say(int k, pid_t pid, const char *name, uint64_t number, uint64_t descriptor)
{
	char link[64], target[256] = "";

	if (number != SYS_rename && number != SYS_renameat && number != SYS_renameat2 &&
	    number != SYS_mkdir && number != SYS_mkdirat) {
		snprintf(link, sizeof(link), "/proc/%d/fd/%d", pid, (int)descriptor);
		if (readlink(link, target, sizeof(target) - 1) < 0)
			strcpy(target, "?");
	}
	fprintf(stderr, "interrupt: write %d: %s %s\n", k, name, target);
}

int main(int argc, char **argv)
{
	int wanted, count = 0, status, result = 1;
	pid_t first;

	if (argc < 4) {
		fprintf(stderr, "usage: interrupt K kill|LINE PROGRAM ARGUMENTS...\n");
		return 2;
	}
	wanted = atoi(argv[1]);
	first = fork();
	if (first == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		execv(argv[3], argv + 3);
		perror(argv[3]);
		_exit(127);
	}
	born(first);
	if (first < 0 || waitpid(first, &status, 0) < 0 ||
	    ptrace(PTRACE_SETOPTIONS, first, 0,
		   PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
		   PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL) < 0) {
		perror("interrupt: cannot trace");
		return 2;
	}
	ptrace(PTRACE_SYSCALL, first, 0, 0);

	for (;;) {
		struct ptrace_syscall_info info;
		const char *name;
		int signal = 0;
		pid_t pid = waitpid(-1, &status, __WALL);

		if (pid < 0)
			break;
		if (WIFEXITED(status) || WIFSIGNALED(status)) {
			died(pid);
			if (pid == first)
				result = WIFEXITED(status) ? WEXITSTATUS(status)
							   : 128 + WTERMSIG(status);
			continue;
		}
		born(pid);
		if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
			memset(&info, 0, sizeof(info));
			ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info);
			name = info.op == PTRACE_SYSCALL_INFO_ENTRY ? name_of(info.entry.nr) : NULL;
			if (name && ++count == wanted) {
				say(count, pid, name, info.entry.nr, info.entry.args[0]);
				if (strcmp(argv[2], "kill")) {
					fflush(stderr);
					if (system(argv[2]))
						fprintf(stderr, "interrupt: failed: %s\n", argv[2]);
				} else {
					for (int i = 0; i < MOST; i++)
						if (alive[i])
							kill(alive[i], SIGKILL);
					continue;
				}
			}
		} else if (status >> 16 == 0 && WSTOPSIG(status) != SIGSTOP &&
			   WSTOPSIG(status) != SIGTRAP) {
			signal = WSTOPSIG(status);
		}
		ptrace(PTRACE_SYSCALL, pid, 0, signal);
	}
	if (count < wanted)
		fprintf(stderr, "interrupt: there are only %d writes\n", count);
	return result;
}
