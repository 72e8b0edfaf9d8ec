// Starts programs in every way there is.
#define _GNU_SOURCE
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void tell(const char *how, pid_t child) {
  int status = 0;
  if (waitpid(child, &status, 0) != child) perror(how);
  printf("%s %d\n", how, WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
  fflush(stdout);
}

static int leave(void *code) {
  char text[32];
  snprintf(text, sizeof text, "exit %ld", (long)code);
  execl("/bin/sh", "sh", "-c", text, (char *)0);
  _exit(99);
}

static void *become(void *leader) {
  char id[16];
  snprintf(id, sizeof id, "%d", (int)(long)leader);
  execl("/proc/self/exe", "starts", "became", id, (char *)0);
  _exit(99);
}

static void *busy(void *nothing) {
  for (;;);
}

static void *asleep(void *nothing) {
  for (;;) pause();
}

int main(int argc, char **argv) {
  if (argc > 2) {
    printf("in thread: exec'd with %s\n", getpid() == atoi(argv[2]) && syscall(SYS_gettid) == getpid() ? "the id of the leader" : "another id");
    return 8;
  }
  pid_t child = vfork();
  if (!child) execl("/bin/sh", "sh", "-c", "exit 3", (char *)0), _exit(99);
  tell("vfork", child);

  char *words[] = {"sh", "-c", "exit 4", 0};
  posix_spawn(&child, "/bin/sh", 0, 0, words, environ);
  tell("posix_spawn", child);

  char *stack = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  child = clone(leave, stack + (1 << 16), CLONE_VM | CLONE_VFORK | SIGCHLD, (void *)5L);
  tell("clone", child);

  struct clone_args arguments = {.exit_signal = SIGCHLD};
  child = syscall(SYS_clone3, &arguments, sizeof arguments);
  if (!child) leave((void *)6L);
  tell("clone3", child);

  printf("system %d\n", WEXITSTATUS(system("exit 7")));
  fflush(stdout);

  child = fork();
  if (!child) {
    // One that waits, one that does not, and one that executes: all but the last go.
    pthread_t thread;
    pthread_create(&thread, 0, asleep, 0);
    pthread_create(&thread, 0, become, (void *)(long)getpid());
    pthread_join(thread, 0);
    for (;;) pause();
  }
  tell("thread-exec", child);

  child = fork();
  if (!child) {
    pthread_t thread;
    for (int i = 0; i < 8; i++) pthread_create(&thread, 0, asleep, 0);
    for (;;) pause();
  }
  usleep(10000);
  kill(child, SIGKILL);
  tell("killed", child);

  // A child whose parent is gone has another, and that one collects it.
  int ends[2];
  if (pipe(ends)) return 1;
  child = fork();
  if (!child) {
    pid_t parent = getpid();
    if (!fork()) {
      while (getppid() == parent) usleep(1000);
      int now = getppid() == 1;
      write(ends[1], &now, sizeof now);
    }
    _exit(0);
  }
  waitpid(child, 0, 0);
  int now = 0;
  read(ends[0], &now, sizeof now);
  printf("orphan %d\n", now);

  prctl(PR_SET_CHILD_SUBREAPER, 1);
  child = fork();
  if (!child) {
    if (!fork()) {
      usleep(20000);
      _exit(11);
    }
    _exit(0);
  }
  waitpid(child, 0, 0);
  int status;
  if (wait(&status) > 0 && WEXITSTATUS(status) == 11) puts("daemon is collected");
  return 0;
}
