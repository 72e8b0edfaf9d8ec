// One thread waits for a flag that another sets; how it waits says the argument: not at all by default.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int flag, started;

static __attribute__((noinline)) void spin(volatile int *flag) {
  while (!*flag);
}

static void *waiter(void *how) {
  prctl(PR_SET_NAME, "waiter");
  started = 1;
  if (!how) {
    printf("loop at %p\n", spin);
    fflush(stdout);
    spin(&flag);
  } else if (!strcmp(how, "yield")) {
    while (!flag) sched_yield();
  } else if (!strcmp(how, "sleep")) {
    while (!flag) usleep(1000);
  }
  return 0;
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "process")) {
    volatile int *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child = fork();
    if (!child) {
      spin(shared);
      _exit(0);
    }
    usleep(1000);
    *shared = 1;
    waitpid(child, 0, 0);
    puts("both");
    return 0;
  }
  if (argc > 1 && !strcmp(argv[1], "compute")) {
    volatile unsigned long waste = 0;
    pthread_t thread;
    pthread_create(&thread, 0, waiter, "sleep");
    for (unsigned long i = 0; i < 4000000000UL; i++) waste += i;
    flag = 1;
    pthread_join(thread, 0);
    puts("computed");
    return 0;
  }
  pthread_t thread;
  pthread_create(&thread, 0, waiter, argv[1]);
  usleep(1000);
  flag = 1;
  pthread_join(thread, 0);
  return 0;
}
