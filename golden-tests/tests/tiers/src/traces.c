// Wants to trace as a debugger does.
#include <errno.h>
#include <stdio.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static void tell(const char *what, long result) {
  printf("%s %ld %s\n", what, result, strerror(result < 0 ? errno : 0));
  fflush(stdout);
}

int main(void) {
  pid_t child = fork();
  if (!child) {
    tell("traceme", ptrace(PTRACE_TRACEME, 0, 0, 0));
    _exit(0);
  }
  waitpid(child, 0, 0);
  child = fork();
  if (!child) for (;;) pause();
  errno = 0;
  tell("seize", ptrace(PTRACE_SEIZE, child, 0, 0));
  errno = 0;
  tell("attach", ptrace(PTRACE_ATTACH, child, 0, 0));
  kill(child, 9);
  waitpid(child, 0, 0);
  return 0;
}
